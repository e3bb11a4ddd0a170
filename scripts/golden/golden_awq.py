"""AWQ in PyTorch, float32, as a reference for quant/awq.cuh (Lin et al. 2023, arXiv 2306.00978).

One Qwen3-like layer: hidden C = 256, heads 4/2 x 64, ffn F = 512, on T = 2048 tokens in 4 sequences of 512. W [O, I] are
weights, X [T, I] inputs, G is the group size (-1: per channel), b bits, maxq = 2^b - 1. v() is that of golden_common.py.

The problem. Every operation below is exact in float32 up to the last rounding, so neither the order of operations nor fused
multiply-adds change a bit; i is the flat index, bf16() rounds to nearest, ties to even:
    x[t, j] = bf16( c_j * (y[t, j] + 0.75 y[t, j-1] + 0.5 y[t, j-2] + 0.5 z[t]) )      the layer's input
      y[t, j] = v("awq.x", 0, t * C + j), and 0 where j < 0;    z[t] = v("awq.z", 0, t);    c_j = ((37 * j) % 64 + 16) / 64
    gain of a norm = bf16( a_j * (1 + 0.5 v(NAME, 0, j)) ),     a_j = 8 where j % 64 is 5 (input_layernorm) or
      9 (post_attention_layernorm), else 1
    W[i, j] = bf16( f_i * w |w| ), and 0.75 of that before bf16() where w < 0: w = v(NAME, 0, i * I + j), f_i = 0.5 for rows i of
      up_proj with i % 64 == 3, else 0.125. (Where a group's range is symmetric, its zero lies halfway between two codes, and
      rounding noise would decide.)
NAME is "awq." and the tensor's name within the layer, as in "awq.self_attn.q_proj.weight".

Usage: python3 scripts/golden/golden_awq.py    its own assertions; make_golden.py stores its results. Packages: numpy, torch.
"""
import sys

if __name__ == "__main__" and {"-h", "--help"} & set(sys.argv):  # before it needs its packages
    sys.exit(print(__doc__))

import numpy as np
import torch
import torch.nn.functional as F

from golden_common import round_to_bf16, v

C, H, KV, D, FFN, T, WINDOW, EPS, THETA = 256, 4, 2, 64, 512, 2048, 512, 1e-6, 1e6
RATIOS, CLIPS, CLIP_TOKENS = 20, 10, 512

SHAPES = {"q": (H * D, C), "k": (KV * D, C), "v": (KV * D, C), "o": (C, H * D), "gate": (FFN, C), "up": (FFN, C), "down": (C, FFN)}
CLIPPED = ("v", "o", "gate", "up", "down")
SETTINGS = {"w4_g128": dict(bits=4, group=128), "w3_g64": dict(bits=3, group=64), "w3_channel": dict(bits=3, group=-1),
            "w2_g128": dict(bits=2, group=128)}


def problem():
    """x [T, C], {name: gain}, {name: W}: float32 tensors whose values are bf16 numbers."""
    j = np.arange(C)
    y = np.pad(v("awq.x", 0, (T, C)), ((0, 0), (2, 0)))
    half, three_quarters = np.float32(0.5), np.float32(0.75)
    mixed = y[:, 2:] + three_quarters * y[:, 1:-1] + half * y[:, :-2] + half * v("awq.z", 0, (T, 1))
    x = round_to_bf16(((37 * j % 64 + 16) / 64).astype(np.float32) * mixed)
    gains, weights = {}, {}
    for name, size, large in (("input_layernorm", C, 5), ("post_attention_layernorm", C, 9), ("self_attn.q_norm", D, None),
                              ("self_attn.k_norm", D, None)):
        a = np.where(np.arange(size) % 64 == large, 8, 1).astype(np.float32)
        gains[name.split(".")[-1]] = round_to_bf16(a * (np.float32(1) + half * v(f"awq.{name}.weight", 0, (size,))))
    for name, shape in SHAPES.items():
        module = "mlp" if name in ("gate", "up", "down") else "self_attn"
        w = v(f"awq.{module}.{name}_proj.weight", 0, shape)
        f = np.where((np.arange(shape[0]) % 64 == 3) & (name == "up"), 0.5, 0.125).astype(np.float32)
        weights[name] = round_to_bf16(f[:, None] * (w * np.abs(w) * np.where(w < 0, three_quarters, np.float32(1))))
    return torch.from_numpy(x), {k: torch.from_numpy(g) for k, g in gains.items()}, {k: torch.from_numpy(w) for k, w in weights.items()}


def rmsnorm(x, gain):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + EPS) * gain


def rotary(x):
    """x [sequences, heads, WINDOW, D]; the angles are float32 whatever x is, as in transformers."""
    frequency = 1 / THETA ** (torch.arange(0, D, 2).float() / D)
    angle = torch.arange(WINDOW).float()[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :D // 2], x[..., D // 2:]
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def attended(X, w, gains):
    """The inputs of o for normed inputs X [T, C]."""
    def heads(y, n):
        return y.view(T // WINDOW, WINDOW, n, D).transpose(1, 2)
    q = rotary(rmsnorm(heads(X @ w["q"].T, H), gains["q_norm"]))
    k = rotary(rmsnorm(heads(X @ w["k"].T, KV), gains["k_norm"])).repeat_interleave(H // KV, 1)
    v_ = heads(X @ w["v"].T, KV).repeat_interleave(H // KV, 1)
    scores = q @ k.transpose(-1, -2) / D**0.5
    scores = scores.masked_fill(torch.ones(WINDOW, WINDOW, dtype=torch.bool).triu(1), -torch.inf)
    return (scores.softmax(-1) @ v_).transpose(1, 2).reshape(T, H * D)


def gated(X, w):
    """The inputs of down for normed inputs X [T, C]."""
    return F.silu(X @ w["gate"].T) * (X @ w["up"].T)


def layer_inputs(x, gains, w):
    """The inputs of the four linear groups, and the layer's output."""
    X = {"qkv": rmsnorm(x, gains["input_layernorm"])}
    X["o"] = attended(X["qkv"], w, gains)
    x = x + X["o"] @ w["o"].T
    X["gate_up"] = rmsnorm(x, gains["post_attention_layernorm"])
    X["down"] = gated(X["gate_up"], w)
    return X, x + X["down"] @ w["down"].T


def grid(w, bits, group):
    """w [O, I] on AWQ's grid."""
    maxq = 2**bits - 1
    groups = w.reshape(-1, w.shape[1] if group == -1 else group)
    lo, hi = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    scale = (hi - lo).clamp(min=1e-5) / maxq
    zero = (-torch.round(lo / scale)).clamp(0, maxq)
    return ((torch.clamp(torch.round(groups / scale) + zero, 0, maxq) - zero) * scale).reshape(w.shape)


def search(names, X, judge, w, bits, group):
    """The best k of r = k / 20, its scales and all losses; judge(w) is the output that a candidate is judged by."""
    full = judge(w)
    s_x = X.abs().mean(0)
    losses, scales = [], []
    for k in range(RATIOS):
        s = s_x.pow(k / RATIOS).clamp(min=1e-4)
        s = s / (s.max() * s.min()).sqrt()
        candidate = w | {name: grid(w[name] * s, bits, group) / s for name in names}
        losses.append(float((judge(candidate) - full).double().pow(2).mean()))
        scales.append(s)
    best = int(np.argmin(losses))  # the first of equals
    return best, scales[best], losses


def clip(w, X, bits, group):
    """The best i for each row and group of w [O, I], and by how much of itself the second best error is above the best."""
    G = w.shape[1] if group == -1 else group
    X = X[::max(1, X.shape[0] // CLIP_TOKENS)].reshape(-1, w.shape[1] // G, G)
    groups = w.reshape(w.shape[0], -1, G)
    largest = groups.abs().amax(-1, keepdim=True)
    errors = []
    for i in range(CLIPS):
        limit = largest * (1 - i / 20)
        clamped = torch.clamp(groups, -limit, limit)
        difference = groups - grid(clamped.reshape(w.shape), bits, group).reshape(groups.shape)
        errors.append(torch.einsum("ogi,tgi->tog", difference, X).pow(2).mean(0))
    errors = torch.stack(errors, -1)  # [O, groups, CLIPS]
    two = errors.sort(-1).values[..., :2]
    best = errors.argmin(-1)
    limit = largest * (1 - best[..., None] / 20)
    return best, (two[..., 1] - two[..., 0]) / two[..., 0], torch.clamp(groups, -limit, limit).reshape(w.shape)


def awq(x, gains, original, bits, group):
    """A dict of losses [3, 20], ratio [3] (k of r = k / 20), clip and margin of the CLIPPED linears, errors [7] of the linears'
    outputs, error of the layer's output."""
    X, out = layer_inputs(x, gains, original)
    w, gains = dict(original), dict(gains)
    by_attention = lambda w: attended(X["qkv"], w, gains) @ w["o"].T
    by_mlp = lambda w: gated(X["gate_up"], w) @ w["down"].T
    by_down = lambda w: X["down"] @ w["down"].T
    searches = {}
    searches["qkv"] = search(("q", "k", "v"), X["qkv"], by_attention, w, bits, group)
    s = searches["qkv"][1]
    gains["input_layernorm"] = gains["input_layernorm"] / s
    w |= {name: w[name] * s for name in ("q", "k", "v")}
    searches["gate_up"] = search(("gate", "up"), X["gate_up"], by_mlp, w, bits, group)
    s = searches["gate_up"][1]
    gains["post_attention_layernorm"] = gains["post_attention_layernorm"] / s
    w |= {name: w[name] * s for name in ("gate", "up")}
    searches["down"] = search(("down",), X["down"], by_down, w, bits, group)
    s = searches["down"][1]
    w |= {"up": w["up"] / s[:, None], "down": w["down"] * s}
    scaled = {g: X[g] / searches[g][1] if g in searches else X[g] for g in X}

    group_of = {"q": "qkv", "k": "qkv", "v": "qkv", "o": "o", "gate": "gate_up", "up": "gate_up", "down": "down"}
    clips, margins, errors = [], [], []
    for name in SHAPES:
        clamped = w[name]
        if name in CLIPPED:
            best, margin, clamped = clip(w[name], scaled[group_of[name]], bits, group)
            clips.append(best.flatten()), margins.append(margin.flatten())
        rounded = grid(clamped, bits, group)
        outputs = [(y @ u.T).double() * (searches["down"][1].double() if name == "up" else 1)
                   for y, u in ((scaled[group_of[name]], w[name] - rounded), (scaled[group_of[name]], w[name]))]
        errors.append(float(outputs[0].norm() / outputs[1].norm()))
        w[name] = rounded
    quantized = layer_inputs(x, gains, w)[1]
    return dict(losses=torch.tensor([searches[g][2] for g in searches], dtype=torch.float64),
                ratio=torch.tensor([searches[g][0] for g in searches], dtype=torch.int32),
                clip=torch.cat(clips).to(torch.uint8), margin=torch.cat(margins).float(),
                errors=torch.tensor(errors, dtype=torch.float64),
                error=torch.tensor([float((quantized - out).double().norm() / (out - x).double().norm())], dtype=torch.float64))


def references():
    """Tensors of test/golden/awq.safetensors; raises if the problem is not fit to be a reference.

    check.x_sum, check.W_sum, check.gain_sum F64 [1]: to verify that C++ generated the same problem. For each NAME of SETTINGS:
        NAME.losses F64 [3, 20], NAME.ratio I32 [3]     of the searches qkv, gate_up, down
        NAME.clip U8, NAME.margin F32                   v, o, gate, up, down one after another, each [O, groups]
        NAME.errors F64 [7]                             relative output error of q, k, v, o, gate, up, down
        NAME.error F64 [1]                              of the layer: ||y^ - y|| / ||y - x||
    """
    x, gains, weights = problem()
    double = [x.double(), {k: g.double() for k, g in gains.items()}, {k: w.double() for k, w in weights.items()}]

    def scalar(tensors):
        return torch.tensor([sum(float(t.double().sum()) for t in tensors)], dtype=torch.float64)

    out = {"check.x_sum": scalar([x]), "check.W_sum": scalar(weights.values()), "check.gain_sum": scalar(gains.values())}
    for name, options in SETTINGS.items():
        result, exact = awq(x, gains, weights, **options), awq(*double, **options)
        loss, exact_loss = result["losses"], exact["losses"]
        gain = [f"{k} {float(r[0] / r[k]):.2f}x" for r, k in zip(loss, result["ratio"].tolist())]
        clipped = float((result["clip"] > 0).double().mean())
        differ = float((result["clip"] != exact["clip"]).double().mean())
        print(f"awq: {name:11} best k {', '.join(gain)}; {clipped:.0%} clipped; error {float(result['error'][0]):.5f} "
              f"(float64: {float(exact['error'][0]):.5f}); {differ:.2%} of clips differ from float64's")
        assert torch.equal(result["ratio"], exact["ratio"]), f"{name}: rounding decides a search"
        assert float((loss / exact_loss - 1).abs().max()) < 2e-3, f"{name}: a loss depends on the precision"
        assert all(float(r[k]) < 0.99 * float(r[0]) for r, k in zip(loss, result["ratio"].tolist())), f"{name}: scaling gains nothing"
        assert 0.05 < clipped < 0.99, f"{name}: clipping does all or nothing"
        out |= {f"{name}.{key}": value.contiguous() for key, value in result.items()}
    return out


if __name__ == "__main__":
    references()
