"""A whole forward and backward as one CUDA graph: one launch instead of thousands of kernel launches.

On a GPU the loop over windows and passes is bound by launches, not by arithmetic (the kernels of one pass over one
short window take microseconds). The windows of a batch decide which kernels run, so there is a graph for each plan.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sleep_lightning.model import WindowModel
from sleep_lightning.sleep import IGNORE, SleepConfig, Window, plan_windows
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training.gradients import accumulate_gradients

WARM_UP = 3
"""Eager calls before a capture: kernels are compiled and chosen in them."""


@dataclass(frozen=True)
class _Captured:
    """A graph, the tensors it reads and writes, and the gradients it adds to."""

    graph: torch.cuda.CUDAGraph
    tokens: Tensor
    labels: Tensor
    n_labels: Tensor
    loss: Tensor
    gradients: list[tuple[torch.nn.Parameter, Tensor]]

    def replay(self, batch: TaskBatch, n_labels: Tensor) -> Tensor:
        for p, gradient in self.gradients:
            if p.grad is not gradient:  # it was replaced: the graph adds to its own tensor only
                gradient.zero_() if p.grad is None else gradient.copy_(p.grad)
                p.grad = gradient
        self.tokens.copy_(batch.tokens)
        self.labels.copy_(batch.labels)
        self.n_labels.copy_(n_labels)
        self.graph.replay()
        return self.loss.clone()


class GraphedGradients:
    """``accumulate_gradients`` by CUDA graphs: same arguments (no ``backward``), same result, same ``.grad``.

    Zero gradients with ``set_to_none=False``: a graph adds to the tensors that it was captured with. Each kind of
    batch (shape, plan, N, which parameters learn) is captured when it first occurs, and keeps its activations.
    """

    def __init__(self, model: WindowModel) -> None:
        self.model = model
        self._captured: dict[object, _Captured] = {}
        self._pool: Any = None

    def __call__(
        self, batch: TaskBatch, sleep: SleepConfig, *, n_labels: Tensor | None = None, **options: Any
    ) -> Tensor:
        """The detached mean loss.

        Raises:
            RuntimeError: something in this configuration cannot be captured.
        """
        windows = plan_windows(batch.labels, sleep.window_size, self.model.padding(batch.tokens))
        n_labels = (batch.labels != IGNORE).sum() if n_labels is None else n_labels
        learning = tuple(p.requires_grad for p in self.model.parameters())
        autocast = torch.is_autocast_enabled("cuda")
        key = (batch.tokens.shape, tuple(windows), repr(sleep), tuple(sorted(options.items())), learning, autocast)
        if key not in self._captured:
            self._captured[key] = self._capture(batch, windows, sleep, n_labels, options)
        return self._captured[key].replay(batch, n_labels)

    def _capture(
        self,
        batch: TaskBatch,
        windows: list[Window],
        sleep: SleepConfig,
        n_labels: Tensor,
        options: dict[str, Any],
    ) -> _Captured:
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        for p in parameters:
            p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        gradients = [(p, p.grad) for p in parameters if p.grad is not None]
        before = [gradient.clone() for _, gradient in gradients]
        static, static_n_labels = batch.map(torch.clone), n_labels.clone()

        def call() -> Tensor:
            return accumulate_gradients(
                self.model, static, sleep, windows=windows, n_labels=static_n_labels, static_shapes=True, **options
            )

        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        torch.clear_autocast_cache()  # cached casts made outside the graph would be stale in it
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                loss = call()
        except RuntimeError as error:
            first = str(error).splitlines()[0]
            raise RuntimeError(f"training.cuda_graph=true cannot be used here ({first}); set it to false") from error
        finally:
            torch.clear_autocast_cache()
        self._pool = graph.pool()
        for (_, gradient), value in zip(gradients, before, strict=True):
            gradient.copy_(value)
        return _Captured(graph, static.tokens, static.labels, static_n_labels, loss, gradients)
