"""SmoothQuant in PyTorch, float32, on golden_gptq's 256 x 512 problem, written from the definition alone (see quant/smoothquant.cuh).

For each setting NAME = w{bits}a{bits}[_no_smooth] the file test/golden/smoothquant.safetensors holds
    NAME.codes  I8  [256, 512]  weight codes, w^ = code * scale[row]
    NAME.scale  F32 [256, 1]
    NAME.y      F32 [32, 256]   the first 32 tokens, smoothed and quantized per token, times the quantized weight
and once for all settings
    smoothing   F32 [512]       s, alpha = 0.5

Usage: part of make_golden.py. Packages: numpy, torch.
"""
if __name__ == "__main__":
    raise SystemExit(print(__doc__))

import torch

from golden_gptq import problem

TOKENS = 32


def symmetric(x, bits):
    """Codes and scales of the rows of x on the symmetric grid."""
    qmax = 2 ** (bits - 1) - 1
    scale = x.abs().amax(dim=1, keepdim=True).clamp(min=1e-5) / qmax
    return torch.round(x / scale), scale


def references():
    W, X = problem()
    a, w = X.abs().amax(dim=0), W.abs().amax(dim=0).clamp(min=1e-5)
    s = (a.pow(0.5) / w.pow(0.5)).clamp(min=1e-5)
    out = {"smoothing": s}
    for wbits, abits, smooth in ((8, 8, True), (4, 8, True), (4, 4, True), (8, 8, False)):
        factors = s if smooth else torch.ones_like(s)
        codes, scale = symmetric(W * factors, wbits)
        x_codes, x_scale = symmetric(X[:TOKENS] / factors, abits)
        name = f"w{wbits}a{abits}" + ("" if smooth else "_no_smooth")
        out[name + ".codes"] = codes.to(torch.int8)
        out[name + ".scale"] = scale
        out[name + ".y"] = (x_codes * x_scale) @ (codes * scale).T
    return out
