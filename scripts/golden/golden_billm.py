"""BiLLM in PyTorch, float32, as a reference for quant/billm.cuh (Huang et al. 2024, arXiv 2402.04291).

The problem is golden_gptq.py's: W [O, I], X [T, I] with a dead column, H = (2/N) X^T X, damping 0.01, blocks of 128 columns,
U the upper Cholesky factor of H^-1, columns in their own order. In a block, S [O, 128] is the saliency, R(A, mask, order) A's
binarization over the mask's entries, row by row. A mask is bool [O, 128]: small, large (both outside the salient columns) or
salient.

Usage: part of make_golden.py. Packages: numpy, torch.
"""
if __name__ == "__main__":
    raise SystemExit(print(__doc__))

import torch

from golden_gptq import BLOCK, DAMP, DEAD, SEED, SEQUENCES, hessian, output_error, problem, rtn

METRICS = ("hessian", "magnitude")
MOST_SALIENT = 49
ROWS = 16  # of W^ that are stored


def R(A, mask, order):
    total, count = torch.zeros_like(A), mask.sum(1, keepdim=True).clamp(min=1)
    for _ in range(order):
        left = torch.where(mask, A - total, 0)
        mean = left.sum(1, keepdim=True) / count
        centred = torch.where(mask, left - mean, 0)
        alpha = centred.abs().sum(1, keepdim=True) / count
        total = total + torch.where(mask, alpha * torch.sign(centred) + mean, 0)
    return total


def mean_square(A, B):
    return float(((A - B).double() ** 2).mean())


def choose(S):
    """The masks salient, large [O, 128], the number of salient columns, the threshold, and by how much (relative) each of the two
    choices is better than the next best."""
    ranking = torch.sort(S.double().abs().sum(0), descending=True, stable=True).indices
    losses = []
    for n in range(1, MOST_SALIENT + 1):
        salient = torch.zeros_like(S, dtype=torch.bool)
        salient[:, ranking[:n]] = True
        losses.append(mean_square(S, R(S, salient, 2) + R(S, ~salient, 2)))
    n = 1 + losses.index(min(losses))
    margins = [sorted(losses)[1] / min(losses) - 1]
    salient = torch.zeros_like(S, dtype=torch.bool)
    salient[:, ranking[:n]] = True

    magnitude = torch.where(salient, 0, S.abs()).double().flatten()
    shares = torch.arange(10, 91, dtype=torch.float64) / 100
    thresholds = torch.quantile(magnitude, shares, interpolation="linear").to(S.dtype)
    losses = []
    for t in thresholds:
        large = (S.abs() >= t) & ~salient
        small = (S.abs() < t) & ~salient
        losses.append(mean_square(S, R(S, small, 1) + R(S, large, 1) + R(S, salient, 2)))
    t = thresholds[losses.index(min(losses))]
    margins.append(sorted(losses)[1] / min(losses) - 1)
    return salient, (S.abs() >= t) & ~salient, n, float(t), margins


def billm(W, H, metric):
    """Returns a dict: W_hat [O, I]; masks [O, I], 0 small, 1 large, 2 salient; n_salient and threshold [blocks]; margin, the
    least of choose()'s."""
    W, H = W.clone(), H.clone()
    columns = W.shape[1]
    dead = H.diagonal() == 0
    H.diagonal()[dead] = 1
    W[:, dead] = 0
    H.diagonal().add_(DAMP * H.diagonal().mean())
    U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)

    W_hat, masks = torch.empty_like(W), torch.empty(W.shape, dtype=torch.uint8)
    n_salient, thresholds, margin = [], [], 1.0
    for begin in range(0, columns, BLOCK):
        end = min(begin + BLOCK, columns)
        W1, diagonal = W[:, begin:end], U.diagonal()[begin:end]
        S = W1**2 / diagonal**2 if metric == "hessian" else W1
        salient, large, n, t, margins = choose(S)
        B = R(W1, ~salient & ~large, 1) + R(W1, large, 1) + R(W1, salient, 2)
        W[:, end:] -= (W1 - B) / diagonal @ U[begin:end, end:]
        W_hat[:, begin:end], masks[:, begin:end] = B, large + 2 * salient
        n_salient.append(n), thresholds.append(t)
        margin = min(margin, *margins)
    return dict(W_hat=W_hat, masks=masks, margin=margin, n_salient=torch.tensor(n_salient, dtype=torch.int32),
                threshold=torch.tensor(thresholds, dtype=torch.float64))


def pack(masks):
    """Masks [O, I] of two bits -> bytes [O, I/4], the first column in the lowest bits."""
    return masks[:, 0::4] | masks[:, 1::4] << 2 | masks[:, 2::4] << 4 | masks[:, 3::4] << 6


def references():
    """Tensors of test/golden/billm.safetensors; raises if the problem is not fit to be a reference.

    seed, sequences I32 [1]; check.W_sum, check.X_sum F64 [1]: to verify that C++ generated the same problem. For each NAME of METRICS:
        NAME.masks U8 [O, I/4], pack()ed      NAME.n_salient I32 [blocks], NAME.threshold F64 [blocks]
        NAME.W_hat F32 [ROWS, I]              NAME.error, NAME.error_float64, rtn.error F64 [1], output_error()s
    """
    W, X = problem()

    def scalar(x):
        return torch.tensor([x], dtype=torch.float64)

    rtn_error = output_error(W, rtn(W, 1, -1), X)
    out = {"seed": torch.tensor([SEED], dtype=torch.int32),
           "sequences": torch.tensor([SEQUENCES], dtype=torch.int32), "rtn.error": scalar(rtn_error),
           "check.W_sum": scalar(float(W.double().sum())), "check.X_sum": scalar(float(X.double().sum()))}
    for name in METRICS:
        result, double = billm(W, hessian(X), name), billm(W.double(), hessian(X.double()), name)
        error, exact_error = output_error(W, result["W_hat"], X), output_error(W, double["W_hat"], X)
        differ = float((result["masks"] != double["masks"]).double().mean())
        print(f"billm: {name:10} error {error:.6f} (float64: {exact_error:.6f})  rtn {rtn_error:.6f}  salient "
              f"{result['n_salient'].tolist()}  {differ:.3%} of masks differ from float64's  margin {result['margin']:.1e}")
        assert result["W_hat"][:, DEAD].abs().max() < W.abs().max() and error < rtn_error
        assert abs(error / exact_error - 1) < 1e-4 and differ < 1e-4
        assert result["margin"] > 1e-6, "two candidates are so alike that rounding could decide: choose another seed"
        out |= {f"{name}.masks": pack(result["masks"]), f"{name}.n_salient": result["n_salient"],
                f"{name}.threshold": result["threshold"], f"{name}.W_hat": result["W_hat"][:ROWS].clone(),
                f"{name}.error": scalar(error), f"{name}.error_float64": scalar(exact_error)}
    return {k: x.contiguous() for k, x in out.items()}
