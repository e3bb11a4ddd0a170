"""GPTQ in PyTorch, float32, as a reference for quant/gptq.cuh (Frantar et al. 2022, arXiv 2210.17323).

W [O, I] weight, X [T, I] its inputs in N sequences, H [I, I] their Hessian, U upper Cholesky factor of H^-1, G group size (-1: per
channel), b bits, maxq = 2^b - 1. `seed` and v() are those of golden_common.py.

The problem (O = 256, I = 512, T = 2048, seed = SEED). Every operation below is exact in float32 up to the last
rounding, so neither the order of operations nor fused multiply-adds change a bit:
    W[i, j] = bf16( v("gptq.W", seed, i * I + j) * f_j ),     f_j = 0.25 where j % 64 == 7, else 0.0625
    X[t, j] = bf16( c_j * (x[t, j] + 0.75 x[t, j-1] + 0.5 x[t, j-2] + 0.5 z[t]) )
      x[t, j] = v("gptq.X", seed, t * I + j), and 0 where j < 0;      z[t] = v("gptq.z", seed, t)
      c_j = 20 where j % 128 == 5,  0 where j == 100 (a dead channel),  else ((37 * j) % 64 + 16) / 64
    bf16() rounds to nearest, ties to even.

H = (2/N) X^T X, N counting sequences: the factor places the dead column's H_jj = 1 among the others. Where G does not divide I,
the last group of a row is narrower.

Usage: part of make_golden.py. Packages: numpy, torch.
"""
if __name__ == "__main__":
    raise SystemExit(print(__doc__))

import numpy as np
import torch

from golden_common import round_to_bf16, v

O, I, T, SEED, BLOCK, DAMP = 256, 512, 2048, 0, 128, 0.01
SEQUENCES = 1024  # N: of two tokens, so that the dead column's 1 has some weight
DEAD = 100

# name: bits, group size, options
SETTINGS = {
    "w4_g128_act": dict(bits=4, group=128, act_order=True),
    "w3_g128_act": dict(bits=3, group=128, act_order=True),
    "w3_channel": dict(bits=3, group=-1),
    "w2_g64": dict(bits=2, group=64),
    "w4_g128_static_act": dict(bits=4, group=128, act_order=True, static_groups=True),
    "w4_channel_sym": dict(bits=4, group=-1, sym=True),
    "w3_g128_mse": dict(bits=3, group=128, mse=True),
    "w3_g200_act": dict(bits=3, group=200, act_order=True),
}


def problem(seed=SEED):
    """W [O, I], X [T, I] as float32 tensors whose values are bf16 numbers."""
    j = np.arange(I)
    f = np.where(j % 64 == 7, 0.25, 0.0625).astype(np.float32)
    c = ((37 * j % 64 + 16) / 64).astype(np.float32)
    c[j % 128 == 5] = 20
    c[DEAD] = 0
    W = round_to_bf16(v("gptq.W", seed, (O, I)) * f)
    x = np.pad(v("gptq.X", seed, (T, I)), ((0, 0), (2, 0)))
    z = v("gptq.z", seed, (T, 1))
    half, three_quarters = np.float32(0.5), np.float32(0.75)
    X = round_to_bf16(c * (x[:, 2:] + three_quarters * x[:, 1:-1] + half * x[:, :-2] + half * z))
    return torch.from_numpy(W), torch.from_numpy(X)


def quantize(w, scale, zero, maxq):
    """Codes of w [O, n] on the grids scale, zero [O, 1]."""
    return torch.clamp(torch.round(w / scale) + zero, 0, maxq)


def fit_grid(w, bits, sym=False, mse=False):
    """One grid for each row of w [O, n]: scale, zero [O, 1]."""
    maxq = 2**bits - 1
    lo = w.amin(1, keepdim=True).clamp(max=0)
    hi = w.amax(1, keepdim=True).clamp(min=0)
    if sym:
        hi = torch.maximum(lo.abs(), hi)
        lo = torch.where(lo < 0, -hi, lo)
    empty = (lo == 0) & (hi == 0)
    lo, hi = torch.where(empty, -1.0, lo), torch.where(empty, 1.0, hi)

    def grid(lo, hi):
        scale = (hi - lo) / maxq
        zero = torch.full_like(scale, (maxq + 1) / 2) if sym else torch.round(-lo / scale)
        return scale, zero

    scale, zero = grid(lo, hi)
    if mse:
        best = torch.full_like(scale, torch.inf)
        for step in range(80):
            p = 1 - step / 100
            s, z = grid(p * lo, p * hi)
            error = ((s * (quantize(w, s, z, maxq) - z) - w).abs() ** 2.4).sum(1, keepdim=True)
            better = error < best
            best = torch.where(better, error, best)
            scale, zero = torch.where(better, s, scale), torch.where(better, z, zero)
    return scale, zero


def rtn(W, bits, group, sym=False, mse=False):
    """Round to nearest: W^ [O, I]."""
    result = torch.empty_like(W)
    group = W.shape[1] if group == -1 else group
    for g in range(0, W.shape[1], group):
        w = W[:, g:g + group]
        scale, zero = fit_grid(w, bits, sym, mse)
        result[:, g:g + group] = scale * (quantize(w, scale, zero, 2**bits - 1) - zero)
    return result


def hessian(X):
    return X.T @ X * (2 / SEQUENCES)


def gptq(W, H, bits, group, act_order=False, static_groups=False, sym=False, mse=False):
    """Returns a dict: codes [O, I] and dequantized W^ [O, I] in the original column order; scale, zero [O, groups];
    group [I], the grid that each original column uses; perm [I], the columns in the order they were quantized in; loss,
    the sum of (w - q)^2 / U_ii^2 / 2."""
    W, H = W.clone(), H.clone()
    rows, columns = W.shape
    maxq = 2**bits - 1
    dead = H.diagonal() == 0
    H.diagonal()[dead] = 1
    W[:, dead] = 0
    original = W.clone()

    perm = torch.arange(columns)
    if act_order:
        perm = torch.sort(H.diagonal(), descending=True, stable=True).indices
        W, H = W[:, perm], H[perm][:, perm]

    H.diagonal().add_(DAMP * H.diagonal().mean())
    U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)

    groups = 1 if group == -1 else -(-columns // group)
    grids = [None] * groups
    if group == -1:
        grids[0] = fit_grid(original, bits, sym, mse)
    elif static_groups:
        grids = [fit_grid(original[:, g * group:(g + 1) * group], bits, sym, mse) for g in range(groups)]

    def grid_index(i):
        """The grid of the i-th column in the order of quantization."""
        if group == -1:
            return 0
        return (int(perm[i]) if static_groups else i) // group

    codes, W_hat, loss = torch.empty_like(W), torch.empty_like(W), 0.0
    for begin in range(0, columns, BLOCK):
        end = min(begin + BLOCK, columns)
        W1, U1, E = W[:, begin:end].clone(), U[begin:end, begin:end], torch.empty(rows, end - begin, dtype=W.dtype)
        for i in range(end - begin):
            column = begin + i
            if group != -1 and not static_groups and column % group == 0:
                # W, not W1: columns of this block are taken as they stood when the block began.
                grids[column // group] = fit_grid(W[:, column:column + group], bits, sym, mse)
            scale, zero = grids[grid_index(column)]
            q = quantize(W1[:, i:i + 1], scale, zero, maxq)
            w_hat = scale * (q - zero)
            E[:, i:i + 1] = (W1[:, i:i + 1] - w_hat) / U1[i, i]
            loss += float((E[:, i].double() ** 2).sum() / 2)
            W1[:, i:] -= E[:, i:i + 1] * U1[i:i + 1, i:]
            codes[:, column:column + 1], W_hat[:, column:column + 1] = q, w_hat
        W[:, end:] -= E @ U[begin:end, end:]

    inverse = torch.argsort(perm)
    return dict(codes=codes[:, inverse].to(torch.uint8), W_hat=W_hat[:, inverse], loss=loss, perm=perm,
                scale=torch.cat([s for s, _ in grids], 1), zero=torch.cat([z for _, z in grids], 1),
                group=torch.tensor([grid_index(int(i)) for i in inverse]))


def output_error(W, W_hat, X):
    """||(W - W^) X^T|| / ||W X^T||, Frobenius, in float64."""
    W, W_hat, X = W.double(), W_hat.double(), X.double()
    return float(torch.linalg.norm((W - W_hat) @ X.T) / torch.linalg.norm(W @ X.T))


def pack(codes):
    """Codes [O, I] of at most 4 bits -> bytes [O, I/2]: even columns in the low half, odd ones in the high half."""
    return codes[:, 0::2] | codes[:, 1::2] << 4


def references():
    """Tensors of test/golden/gptq.safetensors; raises if the problem is not fit to be a reference.

    seed, sequences I32 [1]; check.W_sum, check.X_sum F64 [1], check.W_first, check.X_first F32 [16] of row 0, check.H_diagonal
    F32 [I]: to verify that C++ generated the same problem. For each NAME of SETTINGS:
        NAME.codes U8 [O, I/2], pack()ed      NAME.scale, NAME.zero F32 [O, groups]      NAME.group, NAME.perm I32 [I]
        NAME.loss, NAME.error F64 [1]         GPTQ's loss and output_error()
        NAME.error_float64, NAME.rtn_error    the error of GPTQ in float64, and of rounding to nearest on the same grids
    """
    W, X = problem()
    H = hessian(X)
    diagonal = torch.where(H.diagonal() == 0, 1.0, H.diagonal()).sort().values.double()
    gap = float((diagonal.diff() / diagonal[1:]).min())
    print(f"gptq: the closest two diagonal entries of H differ by {gap:.1e} of their size")
    assert gap > 3e-6, "two columns are so alike that rounding could decide act-order: choose another seed"
    without_dead = W.clone()
    without_dead[:, DEAD] = 0
    for bits, sym in ((3, False), (4, True)):
        same = all(torch.equal(a, b) for a, b in zip(fit_grid(W, bits, sym), fit_grid(without_dead, bits, sym)))
        assert same, "the dead column bounds a per-channel grid: then published orders of steps 2 and 5 disagree"

    def scalar(x):
        return torch.tensor([x], dtype=torch.float64)

    out = {"seed": torch.tensor([SEED], dtype=torch.int32), "sequences": torch.tensor([SEQUENCES], dtype=torch.int32),
           "check.W_sum": scalar(float(W.double().sum())), "check.X_sum": scalar(float(X.double().sum())),
           "check.W_first": W[0, :16].clone(), "check.X_first": X[0, :16].clone(),
           "check.H_diagonal": H.diagonal().clone()}
    for name, options in SETTINGS.items():
        result = gptq(W, H, **options)
        double = gptq(W.double(), hessian(X.double()), **options)
        error, exact_error = output_error(W, result["W_hat"], X), output_error(W, double["W_hat"], X)
        rtn_options = {k: x for k, x in options.items() if k not in ("act_order", "static_groups")}
        rtn_error = output_error(W, rtn(W, **rtn_options), X)
        differ = float((result["codes"] != double["codes"]).double().mean())
        print(f"gptq: {name:18} error {error:.6f} (float64: {exact_error:.6f})  rtn {rtn_error:.6f}  "
              f"loss {result['loss']:.6f} (float64: {double['loss']:.6f})  {differ:.2%} of codes differ from float64's")
        assert error < rtn_error, f"{name}: GPTQ is worse than rounding to nearest"
        assert abs(error / exact_error - 1) < 2e-3 and abs(result["loss"] / double["loss"] - 1) < 2e-3
        out |= {f"{name}.codes": pack(result["codes"]),
                f"{name}.scale": result["scale"], f"{name}.zero": result["zero"],
                f"{name}.group": result["group"].int(), f"{name}.perm": result["perm"].int(),
                f"{name}.loss": scalar(result["loss"]), f"{name}.error": scalar(error),
                f"{name}.rtn_error": scalar(rtn_error), f"{name}.error_float64": scalar(exact_error)}
    return {k: x.contiguous() for k, x in out.items()}
