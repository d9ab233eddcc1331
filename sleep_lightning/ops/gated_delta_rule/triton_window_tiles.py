"""Operations of the window kernels on tiles: masked loads and stores, products, decays, the triangular inverse.

Tiles are fp32 whatever the tensors are, and zero outside the tensor: a padded token writes nothing, does not decay.
"""
# Device code has Triton's types, not Python's.
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def dot(a, b, PRECISION: tl.constexpr):
    """``a b`` summed in fp32, its factors rounded as ``PRECISION`` says: ``ieee`` (not at all) or ``tf32``."""
    return tl.dot(a, b, input_precision=PRECISION, out_dtype=tl.float32)


@triton.jit
def load(x, strides, b, h, t, columns, T, D: tl.constexpr):
    """``x[b, t, h, columns]`` in fp32, of a ``[B, T, H, D]`` tensor."""
    b_stride, t_stride, h_stride, d_stride = strides
    x += b * b_stride + h * h_stride
    mask = (t < T)[:, None] & (columns < D)[None, :]
    return tl.load(x + t[:, None] * t_stride + columns[None, :] * d_stride, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def load_gate(x, strides, b, h, t, T):
    """``x[b, t, h]`` in fp32, of a ``[B, T, H]`` tensor."""
    b_stride, t_stride, h_stride = strides
    return tl.load(x + b * b_stride + h * h_stride + t * t_stride, mask=t < T, other=0.0).to(tl.float32)


@triton.jit
def finite_tokens(
    k,
    k_strides,
    v,
    v_strides,
    g,
    g_strides,
    beta,
    beta_strides,
    b,
    h,
    value,
    T,
    K: tl.constexpr,
    V: tl.constexpr,
    C: tl.constexpr,
    BK: tl.constexpr,
    SLABS: tl.constexpr,
):
    """How many tokens of the program's slab of V come before the first with a NaN or an infinity.

    Those from it on are not loaded: a triangular matrix times zero and NaN would carry them back to tokens before.
    """
    count = T
    for first in range(0, T, C):
        t = first + tl.arange(0, C)
        decay_C = tl.exp(load_gate(g, g_strides, b, h, t, T))  # -inf is a log decay like others
        zero_C = (load_gate(beta, beta_strides, b, h, t, T) + decay_C) * 0.0
        zero_C += tl.sum(load(v, v_strides, b, h, t, value, T, V) * 0.0, 1)
        for j in tl.static_range(SLABS):
            zero_C += tl.sum(load(k, k_strides, b, h, t, j * BK + tl.arange(0, BK), T, K) * 0.0, 1)
        count = tl.minimum(count, tl.min(tl.where(zero_C == 0.0, T, t), 0))
    return count


@triton.jit
def store(x, tile, row_stride, rows, columns, R, D: tl.constexpr):
    """``x[rows, columns] = tile``, of a ``[R, D]`` matrix whose rows lie ``row_stride`` apart."""
    mask = (rows < R)[:, None] & (columns < D)[None, :]
    tl.store(x + rows[:, None] * row_stride + columns[None, :], tile, mask=mask)


@triton.jit
def load_state(x, key, value, K: tl.constexpr, V: tl.constexpr):
    """``x[key, value]``, of a contiguous fp32 ``[K, V]`` matrix."""
    return tl.load(x + key[:, None] * V + value[None, :], mask=(key < K)[:, None] & (value < V)[None, :], other=0.0)


@triton.jit
def times_keys(
    x, x_strides, k, k_strides, b, h, t, T, K: tl.constexpr, C: tl.constexpr, BK: tl.constexpr, PRECISION: tl.constexpr
):
    """``X K^T`` of the chunk's rows of x and k."""
    XK_CC = tl.zeros([C, C], tl.float32)
    for first in tl.static_range(0, K, BK):
        key = first + tl.arange(0, BK)
        x_CK = load(x, x_strides, b, h, t, key, T, K)
        XK_CC += dot(x_CK, tl.trans(load(k, k_strides, b, h, t, key, T, K)), PRECISION)
    return XK_CC


@triton.jit
def decays(g_C, row, column):
    """The lower-triangular ``D_ti = exp(g_{i+1} + .. + g_t)``, ``e^G``, ``e^{G_C - G}`` and ``e^{G_C}``.

    Each exponent is summed on its own: a difference of running sums loses the small decays that follow a large one.
    """
    gates_CC = tl.where(row > column, g_C[:, None], 0.0)
    D_CC = tl.where(row >= column, tl.exp(tl.cumsum(gates_CC, 0)), 0.0)
    return D_CC, tl.exp(tl.cumsum(g_C, 0)), tl.exp(tl.sum(gates_CC, 0)), tl.exp(tl.sum(g_C, 0))


@triton.jit
def unit_lower_inverse(A_CC, row, column, C: tl.constexpr):
    """``(I + A)^-1`` of a strictly lower A, by forward substitution: column i of A clears every row below i."""
    X_CC = tl.where(row == column, 1.0, 0.0)
    for i in range(C - 1):
        A_i = tl.sum(tl.where(column == i, A_CC, 0.0), 1)
        X_i = tl.sum(tl.where(row == i, X_CC, 0.0), 0)
        X_CC -= A_i[:, None] * X_i[None, :]
    return X_CC
