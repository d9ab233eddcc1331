"""The gated Hebbian rule, token by token: the definition every faster form is tested against."""

import torch
from torch import Tensor


def reference_gated_hebbian(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor | None, Tensor]:
    """Run ``S_t = a_t S_{t-1} + b_t k_t v_t^T`` and ``o_t = scale * S_t^T q_t`` (paper, Eq. 3).

    Shapes: q, k ``[B, T, H, K]``; v ``[B, T, H, V]``; g (``log a_t <= 0``) and beta ``[B, T, H]``;
    state ``[B, H, K, V]``. Arithmetic is float64 when any input is float64, else float32; ``o`` has
    the dtype of v. With ``q=None`` nothing is read and ``o`` is None.
    """
    dtype = torch.float64 if k.dtype == torch.float64 else torch.float32
    B, T, H, K = k.shape
    state = k.new_zeros(B, H, K, v.shape[-1], dtype=dtype) if initial_state is None else initial_state.to(dtype)
    outputs = []
    for t in range(T):
        write_BHV = beta[:, t].to(dtype)[..., None] * v[:, t].to(dtype)
        state = g[:, t].to(dtype).exp()[..., None, None] * state
        state = state + k[:, t].to(dtype)[..., :, None] * write_BHV[..., None, :]
        if q is not None:
            outputs.append(scale * torch.einsum("bhkv,bhk->bhv", state, q[:, t].to(dtype)))
    if q is None:
        return None, state
    return torch.stack(outputs, dim=1).to(v.dtype), state
