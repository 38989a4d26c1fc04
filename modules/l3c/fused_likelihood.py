"""Sum of -log p(x) under the logistic mixture and its gradients in one pass, for the CPU.

Written with tensor operations (losses.mixture_log_likelihood) the likelihood of a batch is some forty passes over
tensors of K times the size of the image, more time than a narrow network takes. Here each row of positions is read
once: the loops over positions are written for the compiler's vector units, which is why exp and log are spelt out
(calls into the maths library stay scalar). Same formula, same floor, same clamps; a test compares the two.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from llvmlite import ir
from numba import float32, int32, njit, types
from numba.extending import intrinsic, overload
from torch import Tensor

from modules.components.kernels import kernel
from modules.l3c.nets import MIN_LOG_SCALE, MIN_PROBABILITY

LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
LOWEST_LOG_SCALE = np.float32(MIN_LOG_SCALE)
FLOOR = np.float32(np.log(MIN_PROBABILITY))
ONE = np.float32(1.0)
HALF = np.float32(0.5)


@intrinsic
def _float_of_bits(typing_context, bits):
    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return types.float32(types.int32), generate


@intrinsic
def _bits_of_float(typing_context, value):
    def generate(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return types.int32(types.float32), generate


@njit(float32(float32), inline="always", fastmath=True, error_model="numpy")
def _exp(x):
    """e^x for float32 in [-87, 88] (clamped there), relative error below 2e-7."""
    x = min(max(x, np.float32(-87.0)), np.float32(88.0))
    n = int32(np.floor(x * LOG2_E + HALF))
    f = x - float32(n) * LN2_HIGH
    f = f - float32(n) * LN2_LOW
    series = ONE + f / np.float32(7.0)
    series = ONE + f * series * np.float32(1 / 6)
    series = ONE + f * series * np.float32(1 / 5)
    series = ONE + f * series * np.float32(1 / 4)
    series = ONE + f * series * np.float32(1 / 3)
    series = ONE + f * series * HALF
    series = ONE + f * series
    return series * _float_of_bits(int32((n + int32(127)) << int32(23)))


@njit(float32(float32), inline="always", fastmath=True, error_model="numpy")
def _log(x):
    """ln x for normal positive float32, absolute error below 2e-7; through 2 artanh((m - 1) / (m + 1))."""
    bits = _bits_of_float(x)
    exponent = (bits - int32(0x3F3504F3)) >> int32(23)
    m = _float_of_bits(int32(bits - (exponent << int32(23))))
    s = (m - ONE) / (m + ONE)
    q = s * s
    series = ONE / np.float32(5) + q / np.float32(7)
    series = ONE + q * (ONE / np.float32(3) + q * series)
    return float32(exponent) * np.float32(0.6931471805599453) + np.float32(2) * s * series


def _load(value):
    """A float32 from a float32, or from the bits of a bfloat16. Only compiled code calls it (the overload below)."""
    raise NotImplementedError


@overload(_load, inline="always")
def _load_overload(value):  # type: ignore[no-untyped-def]
    if value == types.uint16:
        return lambda value: _float_of_bits(int32(value) << int32(16))
    return lambda value: value


def _store(value, like):
    """A float32 as an element of the array ``like``: itself, or the bits of the nearest bfloat16. Only compiled."""
    raise NotImplementedError


@overload(_store, inline="always")
def _store_overload(value, like):  # type: ignore[no-untyped-def]
    if like.dtype == types.uint16:

        def nearest(value, like):
            bits = _bits_of_float(value)
            return np.uint16((bits + int32(0x7FFF) + ((bits >> int32(16)) & int32(1))) >> int32(16))

        return nearest
    return lambda value, like: value


@kernel(fastmath=True, error_model="numpy")
def _row(p, x, is_rgb, low, step, high, want, grad_p, grad_x, work):
    """One row of positions: p [P, C, K, w], x [C, w]; returns the sum of -log p, writes the gradients.

    work [6, K, w] holds per mixture: log weight + log bin mass, weight, d/d mean, d/d log scale, (free), (free).
    """
    num_channels, num_mixtures, width = p.shape[1], p.shape[2], p.shape[3]
    joint, weight, by_mean, by_scale = work[0], work[1], work[2], work[3]
    coefficient = work[4]
    top, bottom = work[5, 0], work[5, 1]
    total = 0.0
    for c in range(num_channels):
        for i in range(width):
            top[i] = p[0, c, 0, i]
        for k in range(1, num_mixtures):
            for i in range(width):
                top[i] = max(top[i], p[0, c, k, i])
        for i in range(width):
            bottom[i] = float32(0)
        for k in range(num_mixtures):
            for i in range(width):
                weight[k, i] = _exp(p[0, c, k, i] - top[i])
                bottom[i] += weight[k, i]
        for i in range(width):
            bottom[i] = ONE / bottom[i]
        for k in range(num_mixtures):
            if is_rgb and c > 0:
                for i in range(width):
                    coefficient[0, i] = x[0, i] / (ONE + _exp(-p[3, c - 1, k, i]))
                if c == 2:
                    for i in range(width):
                        coefficient[0, i] += x[1, i] / (ONE + _exp(-p[3, 2, k, i]))
            else:
                for i in range(width):
                    coefficient[0, i] = float32(0)
            for i in range(width):
                weight[k, i] *= bottom[i]
                value = x[c, i]
                log_scale = p[2, c, k, i]
                clamped = max(log_scale, LOWEST_LOG_SCALE)
                inverse = _exp(-clamped)
                centre = (value - p[1, c, k, i] - coefficient[0, i]) * inverse
                t = step * inverse
                u = centre + HALF * t
                v = centre - HALF * t
                e_u = _exp(-abs(u))
                e_v = _exp(-abs(v))
                e_t = _exp(-t)
                mass = ONE - e_t
                small = t * (ONE - t * HALF * (ONE - t * np.float32(1 / 3) * (ONE - t * np.float32(0.25))))
                mass = small if t < np.float32(0.02) else mass
                below = min(u, float32(0)) - _log(ONE + e_u)
                above = -max(v, float32(0)) - _log(ONE + e_v)
                d_below = (e_u if u > float32(0) else ONE) / (ONE + e_u)
                d_above = (ONE if v > float32(0) else e_v) / (ONE + e_v)
                inner = below + above + _log(mass)
                first = value < low + np.float32(0.001)
                last = value > high - np.float32(0.001)
                log_bin = below if first else (above if last else max(inner, FLOOR))
                alive = ONE if (first or last or inner > FLOOR) else float32(0)
                from_upper = float32(0) if last else d_below
                from_lower = float32(0) if first else d_above
                from_width = float32(0) if (first or last) else t * e_t / mass
                joint[k, i] = log_bin + _log(max(weight[k, i], np.float32(1e-30)))
                by_mean[k, i] = alive * inverse * (from_lower - from_upper)
                by_scale[k, i] = alive * (v * from_lower - u * from_upper - from_width)
                by_scale[k, i] = by_scale[k, i] if log_scale >= LOWEST_LOG_SCALE else float32(0)
        for i in range(width):
            top[i] = joint[0, i]
            bottom[i] = float32(0)
        for k in range(1, num_mixtures):
            for i in range(width):
                top[i] = max(top[i], joint[k, i])
        for k in range(num_mixtures):
            for i in range(width):
                joint[k, i] = _exp(joint[k, i] - top[i])
                bottom[i] += joint[k, i]
        row_total = float32(0)
        for i in range(width):
            row_total -= top[i] + _log(bottom[i])
        total += row_total
        if not want:
            continue
        for i in range(width):
            bottom[i] = ONE / bottom[i]
            grad_x[c, i] = float32(0)
        for k in range(num_mixtures):
            for i in range(width):
                posterior = joint[k, i] * bottom[i]
                d_mean = -posterior * by_mean[k, i]
                grad_p[0, c, k, i] = weight[k, i] - posterior
                grad_p[1, c, k, i] = d_mean
                grad_p[2, c, k, i] = -posterior * by_scale[k, i]
                grad_x[c, i] -= d_mean
        if is_rgb and c > 0:
            for k in range(num_mixtures):
                for i in range(width):
                    s = ONE / (ONE + _exp(-p[3, c - 1, k, i]))
                    grad_p[3, c - 1, k, i] = grad_p[1, c, k, i] * s * (ONE - s) * x[0, i]
                if c == 2:
                    for i in range(width):
                        s = ONE / (ONE + _exp(-p[3, 2, k, i]))
                        grad_p[3, 2, k, i] = grad_p[1, c, k, i] * s * (ONE - s) * x[1, i]
    return total


@kernel()
def _rows(p, x, is_rgb, low, step, high, want, grad_p, grad_x, num_mixtures):
    """One sample: p [h, w, P*C*K] float32 or the bits of bfloat16 as uint16, x [C, h, w]; gradients likewise."""
    height, width, num_parameters = p.shape
    num_channels = x.shape[0]
    shape = (num_parameters // (num_channels * num_mixtures), num_channels, num_mixtures, width)
    p_row = np.empty(shape, np.float32)
    grad_row = np.zeros(shape, np.float32)
    p_flat, grad_flat = p_row.reshape(num_parameters, width), grad_row.reshape(num_parameters, width)
    x_row = np.empty((num_channels, width), np.float32)
    grad_x_row = np.empty((num_channels, width), np.float32)
    work = np.empty((6, max(num_mixtures, 2), width), np.float32)
    total = 0.0
    for y in range(height):
        for i in range(width):
            for q in range(num_parameters):
                p_flat[q, i] = _load(p[y, i, q])
        x_row[:] = x[:, y]
        total += _row(p_row, x_row, is_rgb, low, step, high, want, grad_row, grad_x_row, work)
        if want:
            for i in range(width):
                for q in range(num_parameters):
                    grad_p[y, i, q] = _store(grad_flat[q, i], grad_p)
            grad_x[:, y] = grad_x_row
    return total


class FusedNegativeLogLikelihood(torch.autograd.Function):
    """apply(parameters [N, P*C*K, h, w], x [N, C, h, w], is_rgb, low, step, num_symbols, num_mixtures) -> nats."""

    @staticmethod
    def forward(ctx, parameters, x, is_rgb, low, step, num_symbols, num_mixtures):  # type: ignore[no-untyped-def]
        p = parameters.detach().permute(0, 2, 3, 1).contiguous()
        p = p.view(torch.uint16) if p.dtype == torch.bfloat16 else p.float()
        values = x.detach().float().contiguous()
        want = any(ctx.needs_input_grad[:2])
        grad_p, grad_x = (torch.empty_like(p), torch.empty_like(values)) if want else (p, values)
        limits = np.float32(low), np.float32(step), np.float32(low + step * (num_symbols - 1))
        arrays = p.numpy(), values.numpy(), grad_p.numpy(), grad_x.numpy()

        def sample(i: int) -> float:
            p_i, x_i, grad_p_i, grad_x_i = (array[i] for array in arrays)
            return _rows(p_i, x_i, is_rgb, *limits, want, grad_p_i, grad_x_i, num_mixtures)

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            total = sum(pool.map(sample, range(len(values))))
        if want:
            grad_p = grad_p.view(torch.bfloat16) if grad_p.dtype == torch.uint16 else grad_p
            ctx.save_for_backward(grad_p.permute(0, 3, 1, 2), grad_x)
            ctx.dtypes = parameters.dtype, x.dtype
        return torch.tensor(total, dtype=torch.float32)

    @staticmethod
    def backward(ctx, grad_output: Tensor):  # type: ignore[no-untyped-def, override]
        grads = (
            (grad * grad_output.to(grad.dtype)).to(dtype) if need else None
            for grad, need, dtype in zip(ctx.saved_tensors, ctx.needs_input_grad, ctx.dtypes, strict=False)
        )
        return *grads, None, None, None, None, None
