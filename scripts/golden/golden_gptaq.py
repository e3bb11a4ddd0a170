#!/usr/bin/env python3
"""Writes test/golden/gptaq.safetensors: GPTAQ and FOEM on one problem, as their authors' code quantizes it.

    python scripts/golden/golden_gptaq.py problem_a.npz        (numpy, safetensors; make_golden.py leaves this file alone)

The .npz was made by running the originals on the CPU in float32: Intelligent-Computing-Lab-Yale/GPTAQ at 883afc6 (gptaq), and
ModelCloud/GPTQModel at f4c327a1 (foem, and foem with GPTAQ's term), on correlated inputs of one sequence. The originals are not needed
here, and none of their code is. What is written, for O = 64, I = 256, T = 768, 3 bits, groups of 128, act-order, damping 0.01:
    W U16 [O, I], X, X_full U16 [T, I]      bits of bf16 numbers: weights, inputs of the quantized path and of the full-precision model
    NAME.codes U8 [O, I]                    in the original column order
    NAME.scale, NAME.zero F32 [O, 2]        groups in the order in which columns are treated
    NAME.error F64 [1]                      ||W X~ - W^ X|| / ||W X~||
    order I32 [I]                           the columns in that order
with NAME gptq, gptaq (alpha 0.25), foem (beta 0.1), foem_gptaq (alpha 0.25, beta 0.2).
"""
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

NAMES = ("gptq", "gptaq", "foem", "foem_gptaq")


def main(path):
    f = np.load(path)
    assert (int(f["bits"]), int(f["group"]), bool(f["act_order"]), float(f["damp"])) == (3, 128, True, 0.01)
    out = {"W": f["W_bf16"], "X": f["X_bf16"], "X_full": f["Xf_bf16"], "order": f["order"].astype(np.int32)}
    W, X, X_full = ((out[k].astype(np.uint32) << 16).view(np.float32).astype(np.float64) for k in ("W", "X", "X_full"))
    group = np.argsort(f["order"]) // 128  # of each original column
    for name in NAMES:
        codes, scale, zero = f[name + "_codes"], f[name + "_scale"].astype(np.float64), f[name + "_zero"].astype(np.float64)
        W_hat = scale[:, group] * (codes - zero[:, group])
        error = np.linalg.norm(X_full @ W.T - X @ W_hat.T) / np.linalg.norm(X_full @ W.T)
        assert abs(error / float(f[name + "_error"]) - 1) < 1e-5, f"{name}: codes, grids and error do not belong together"
        print(f"gptaq: {name:10} error {error:.6f}")
        out |= {f"{name}.codes": codes, f"{name}.scale": scale.astype(np.float32), f"{name}.zero": zero.astype(np.float32),
                f"{name}.error": np.array([error])}
    golden = Path(__file__).resolve().parent.parent.parent / "test" / "golden" / "gptaq.safetensors"
    save_file({k: np.ascontiguousarray(v) for k, v in out.items()}, golden)


if __name__ == "__main__":
    main(*sys.argv[1:])
