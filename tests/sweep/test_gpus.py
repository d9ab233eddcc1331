import pytest

from sleep_lightning.sweep.gpus import check_gpus, choose_gpu, visible_gpu


class Running:
    def __init__(self, gpu: str | None, alive: bool = True) -> None:
        self._gpu, self._alive = gpu, alive

    def gpus(self) -> str | None:
        return self._gpu

    def alive(self) -> bool:
        return self._alive


def chosen(devices: list[int] | None, *running: Running) -> str | None:
    return choose_gpu(devices, running)  # type: ignore[arg-type]


def test_the_gpu_with_the_fewest_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert chosen(None, Running("0")) is None
    assert chosen([2, 0]) == "2"
    assert chosen([2, 0], Running("2")) == "0"
    assert chosen([2, 0], Running("2"), Running("0")) == "2"
    assert chosen([2, 0], Running("2"), Running("0"), Running("2")) == "0"
    assert chosen([2, 0], Running("2", alive=False), Running(None), Running("7")) == "2"


def test_indices_are_among_the_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5f")
    assert [visible_gpu(0), visible_gpu(1)] == ["3", "GPU-5f"]
    assert chosen([0, 1], Running("3")) == "GPU-5f"


def test_gpus_that_are_not_there_are_refused() -> None:
    check_gpus([0, 3], 4)
    check_gpus(None, 0)
    with pytest.raises(ValueError, match=r"devices=\[0, 1\]: torch sees 1 CUDA devices here, from 0"):
        check_gpus([0, 1], 1)
