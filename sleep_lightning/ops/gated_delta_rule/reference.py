"""The gated delta rule, token by token: the definition every faster form is tested against."""

import torch
from torch import Tensor


def reference_gated_delta_rule(
    q: Tensor | None,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None,
    scale: float,
) -> tuple[Tensor | None, Tensor]:
    """Run ``S_t = a_t S_{t-1} + b_t k_t (v_t - a_t S_{t-1}^T k_t)^T`` and ``o_t = scale * S_t^T q_t`` (paper, Eq. 3).

    Shapes: q, k ``[B, T, H, K]``; v ``[B, T, H, V]``; g (``log a_t <= 0``) and beta ``[B, T, H]``;
    state ``[B, H, K, V]``. Arithmetic is float64 when any input is float64, else float32; ``o`` has
    the dtype of v. With ``q=None`` nothing is read and ``o`` is None.
    """
    dtype = torch.float64 if k.dtype == torch.float64 else torch.float32
    B, T, H, K = k.shape
    V = v.shape[-1]
    state = k.new_zeros(B, H, K, V, dtype=dtype) if initial_state is None else initial_state.to(dtype)
    outputs = []
    for t in range(T):
        k_BHK, v_BHV = k[:, t].to(dtype), v[:, t].to(dtype)
        decay_BH11 = g[:, t].to(dtype).exp()[..., None, None]
        decayed = decay_BH11 * state
        error_BHV = v_BHV - torch.einsum("bhkv,bhk->bhv", decayed, k_BHK)
        write_BHV = beta[:, t].to(dtype)[..., None] * error_BHV
        state = decayed + k_BHK[..., :, None] * write_BHV[..., None, :]
        if q is not None:
            outputs.append(scale * torch.einsum("bhkv,bhk->bhv", state, q[:, t].to(dtype)))
    if q is None:
        return None, state
    return torch.stack(outputs, dim=1).to(v.dtype), state
