"""One block of the hybrid: pre-norm mixer and SwiGLU, each on a residual branch."""

from torch import Tensor, nn
from torch.nn import functional as F

from sleep_lightning.model.attention import Attention
from sleep_lightning.model.gated_delta_net import GatedDeltaNet


class SwiGLU(nn.Module):
    """``W_down (SiLU(W_gate x) * W_up x)``, ``[..., d_model] -> [..., d_model]``."""

    def __init__(self, d_model: int, d_ff: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(d_model, 2 * d_ff, bias=False)
        self.in_splits = (d_ff, d_ff)
        self.out_proj = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.in_proj(x).chunk(2, -1)
        return self.out_proj(F.silu(gate) * up)


class Block(nn.Module):
    """``h + mixer(norm(h))``, then ``h + mlp(norm(h))``. The hybrid hands a GDN mixer its state."""

    def __init__(self, mixer: Attention | GatedDeltaNet, d_model: int, d_ff: int, norm_eps: float) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(d_model, norm_eps)
        self.mixer = mixer
        self.mlp_norm = nn.RMSNorm(d_model, norm_eps)
        self.mlp = SwiGLU(d_model, d_ff)

    def feed_forward(self, h: Tensor) -> Tensor:
        return h + self.mlp(self.mlp_norm(h))
