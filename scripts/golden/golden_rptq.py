#!/usr/bin/env python3
"""Writes test/golden/rptq.safetensors: RPTQ by its authors' code (hahnyuan/RPTQ4LLM) on two problems, a reference for quant/rptq.cuh.

    python scripts/golden/golden_rptq.py RPTQ4LLM      (a checkout; numpy, scikit-learn, safetensors, torch, tqdm; on the CPU)

make_golden.py leaves this file alone. Of the checkout are used quantize/*.py and models/int_opt_layer.py, which are imported, and of
main.py the arguments' defaults and what it makes of them. Two things are changed: torch.cuda.synchronize, which ends GPTQ, does nothing,
and torch.argsort is stable (the original leaves the order of a cluster's channels to chance, and with it GPTQ's). The code below only
feeds the original's layers: its hooks take the extremes, its R2 .. R5_reorder move the channels, its quant_layer calibrates.

Inputs (v() and bf16() of golden_common.py, seed 0). Operations are exact, or a product rounded to float32, so C++ makes the same:
1  places: what the norm writes, down's input, and o's, 8 heads of 24 channels. O = 24, I = 192, 6 windows w of 96 tokens.
     W[i, j] = bf16( v("rptq.W", i I + j) * (0.25 where j % 64 == 7, else 0.0625) )
     X[t, j] = bf16( f_w * c * y ),     y = clamp(x[t, j] + 0.75 x[t, j-1] + 0.5 x[t, j-2] + 0.5 z[t], -1, 1)
       x[t, j] = v("rptq.X", t I + j), and 0 where j < 0;     z[t] = v("rptq.z", t);     f = 1, 0.5, 0.75, 1.25, 0.625, 1.125
       channel j is of kind g = 4 (j / 24) + (5 (j % 24) + j / 24) % 4, of which there are 32, and 4 in a head
       c = (1 + (37 j) % 64 / 4096) * ((1 + g % 8) / 2 where y > 0, else 0.5 + g / 8),  and 0 where g = 0: dead channels
2  attention: H = 4 heads of D = 16 channels, 4 windows of 32 tokens. With i = h D + d:
     q, k, v [t, i] = bf16( f_w * c * v("softmax.q", t H D + i) ),     with "softmax.k" and "softmax.v" for the others
       c = (1, 1, 3, 3)[d % 4] for q, (4, 2, 4, 2)[d % 4] for k, and for v  (0.5, 1, 1.5, 2)[d / 4], twice that where v() > 0

Tensors. Clusters' numbers n count on from head to head; labels, like codes' columns, are of channels in their own order:
    labels, o.labels I32 [I], attention.qk_labels, attention.vo_labels I32 [H D]
    RUN.PLACE.*, RUN of RUNS, and of the places those of STORED:
        a_scale, a_zero F32 [n], a_codes I8 [ROWS, I]       of the last window's first ROWS tokens;     x^ = scale (code - zero)
        w_scale, w_zero F32 [O, n], w_codes I8 [O, I]       GPTQ's weights likewise;     loss F64 [1]
    MODE.out F32 [32, H D], MODE of MODES                   what attention gives o for the last window
    MODE.P_scale, MODE.P_zero F32 [n], P of q, k, v, o      where P is quantized. The original's grid is of q / sqrt(D); this one is of q
    bits I32 [n, 8]                                         --abits, --only_quant_kv; bits of norms, inputs of o and down, q, k, v, p
    check.W_sum, check.X_sum, check.qkv_sum F64 [1]         to verify that C++ generated the same
"""
import argparse
import ast
import contextlib
import functools
import io
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from golden_common import round_to_bf16, v

O, I, HEADS, LENGTH, ROWS = 24, 192, 8, 96, 16
WINDOWS = np.array([1, 0.5, 0.75, 1.25, 0.625, 1.125], np.float32)
H, D, TOKENS = 4, 16, 32
ATTENTION_WINDOWS = 4
ONE = ["--R3_clusters", "1", "--R4_clusters", "1", "--R5_clusters", "1"]
RUNS = {"w4a4": [], "w3a8": [], "w4a4_one": ONE, "w3a8_one": ONE}
MODES = {"a8": ["--abits", "8"], "a4": ["--abits", "4"], "kv4": ["--abits", "4", "--only_quant_kv"]}
STORED = {"w4a4": ("norm", "down", "o"), "w3a8": ("down", "o"), "w4a4_one": ("down",), "w3a8_one": ("down",)}


def places_problem():
    """W [O, I], X [windows, LENGTH, I]: bf16 numbers."""
    j, T = np.arange(I), len(WINDOWS) * LENGTH
    W = round_to_bf16(v("rptq.W", 0, (O, I)) * np.where(j % 64 == 7, 0.25, 0.0625).astype(np.float32))
    x = np.pad(v("rptq.X", 0, (T, I)), ((0, 0), (2, 0)))
    half, three_quarters = np.float32(0.5), np.float32(0.75)
    y = np.clip(x[:, 2:] + three_quarters * x[:, 1:-1] + half * x[:, :-2] + half * v("rptq.z", 0, (T, 1)), -1, 1)
    g = 4 * (j // 24) + (5 * (j % 24) + j // 24) % 4
    jitter = np.where(g == 0, 0, 1 + 37 * j % 64 / 4096)
    up, down = ((jitter * size).astype(np.float32) for size in ((1 + g % 8) / 2, 0.5 + g // 8))
    f = np.repeat(WINDOWS, LENGTH)[:, None]
    X = round_to_bf16(f * np.where(y > 0, up, down) * y)
    return torch.from_numpy(W), torch.from_numpy(X.reshape(len(WINDOWS), LENGTH, I))


def attention_problem():
    """q, k and v next to each other [windows, TOKENS, 3 H D]: bf16 numbers."""
    T, d = ATTENTION_WINDOWS * TOKENS, np.arange(H * D) % D
    f = np.repeat(WINDOWS[:ATTENTION_WINDOWS], TOKENS)[:, None]
    parts = []
    for name, size in ("q", np.array([1, 1, 3, 3])[d % 4]), ("k", np.array([4, 2, 4, 2])[d % 4]), ("v", 0.5 + d // 4 * 0.5):
        x = v(f"softmax.{name}", 0, (T, H * D))
        size = np.where((name == "v") & (x > 0), 2 * size, size).astype(np.float32)
        parts.append(round_to_bf16(f * size * x))
    return torch.from_numpy(np.concatenate(parts, 1).reshape(ATTENTION_WINDOWS, TOKENS, 3 * H * D))


def arguments(checkout, *argv):
    """What the original's main() makes of a command line: args with its *_quant_params, and the numbers of clusters."""
    tree = ast.parse((checkout / "main.py").read_text())
    main = next(s for s in tree.body if isinstance(s, ast.FunctionDef) and s.name == "main")
    wanted = ("import argparse", "parser", "args = parser.parse_args", "n_clusters")
    keep = [s for s in tree.body + main.body if ast.unparse(s).startswith(("net_choices",) + wanted)
            or ast.unparse(s).startswith("args.") and "_quant_params =" in ast.unparse(s)]
    names, before = {}, sys.argv
    sys.argv = ["main.py", "opt-125m", *argv]
    exec(compile(ast.Module(keep, []), "main.py", "exec"), names)
    sys.argv = before
    return names["args"], names["n_clusters"]


def linear(weight, bias=False):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
    layer.weight.data = weight.clone()
    if bias:
        layer.bias.data.zero_()
    return layer


def labels_of(index, counts):
    """The original's order and sizes of clusters -> [I] labels in the channels' own order."""
    labels = torch.empty(len(index), dtype=torch.int32)
    labels[index] = torch.repeat_interleave(torch.arange(len(counts), dtype=torch.int32), torch.as_tensor(counts))
    assert torch.equal(index, torch.argsort(labels))
    return labels


def codes_of(x_hat, scale, zero, bits):
    """x_hat = scale (code - zero) -> codes, which must give x_hat again to the last bit."""
    codes = (x_hat.double() / scale.double()).round() + zero.double()
    assert torch.equal(((codes - zero).float() * scale), x_hat)
    assert codes.min() >= -2**(bits - 1) and codes.max() < 2**(bits - 1)
    return codes.to(torch.int8)


def check_ties(x, margin):
    """Raises where a value is so close to a tie between two integers that last bits could decide."""
    x = x.double()
    found = float(((x - x.floor() - 0.5).abs() / x.abs().clamp(min=0.5)).min())
    assert found > margin, f"a value is as good as a tie ({found:.1e}): choose other names"


def run_quiet(f, *args):
    with contextlib.redirect_stdout(io.StringIO()):
        return f(*args)


def main(folder):
    checkout = Path(folder).resolve()
    sys.path.insert(0, str(checkout))
    torch.cuda.synchronize, torch.argsort = lambda: None, functools.partial(torch.argsort, stable=True)
    from models.int_opt_layer import QuantOPTAttention, QuantOPTDecoderLayer
    from quantize import opt_reorder_quantize as reorder, reorder_utils as extremes
    from quantize.gptq import GPTQ
    from quantize.int_linear import QuantLinear
    from quantize.int_matmul import QuantMatMul
    from quantize.quant_transformer_layer import quant_layer
    from quantize.reorder_layer_norm import ReorderLayerNorm

    class Places(nn.Module):
        """Three of the original's places side by side, each given X: norm and fc1, fc2 (down), out_proj (o)."""

        set_quant_state = QuantOPTDecoderLayer.set_quant_state

        def __init__(self, W, args):
            super().__init__()
            quant = (args.weight_quant_params, args.act_quant_params)
            self.norm = ReorderLayerNorm(nn.Identity(), args.layer_norm_out_quant_params)
            self.fc1 = QuantLinear(linear(W), *quant, disable_input_quant=True)
            self.fc2, self.out_proj = QuantLinear(linear(W), *quant), QuantLinear(linear(W), *quant)
            for layer in self.fc1, self.fc2, self.out_proj:  # quant_layer leaves halves, and the rest is float here
                layer.fwd_func = lambda x, w, b: nn.functional.linear(x, w.float(), b)
            self.fc2_order = self.out_order = torch.arange(I)

        def forward(self, x, attention_mask=None):
            rows = x.reshape(-1, I)
            outs = self.fc1(self.norm(rows)), self.fc2(rows[:, self.fc2_order]), self.out_proj(x[:, :, self.out_order])[0]
            return (torch.cat(outs, 1)[None],)

        def reorder(self, X, args, clusters):
            """The original's way from extremes to moved channels; returns labels of the norm and fc2, and of out_proj."""
            self.set_quant_state(False, False)
            watched = ((self.norm, "final_layer_norm", extremes.layer_omax_hook), (self.fc2, "fc2", extremes.layer_i0max_hook),
                       (self.out_proj, "self_attn.out_proj", extremes.layer_i0max_hook))
            handlers = []
            for module, module.name, hook in watched:
                handlers.append(module.register_forward_hook(hook))
            for x in X:
                self(x[None])
            for handler in handlers:
                handler.remove()
            calc, produced = extremes.tensor_calc_reorder_index, QuantLinear(nn.Linear(1, I), args.weight_quant_params)
            index, counts = calc(*extremes.oc_maxmin_dict["final_layer_norm"], clusters["R4"])
            reorder.R4_reorder(self.norm, self.fc1, index, counts)
            self.fc2_order, fc2_counts = calc(*extremes.ic_maxmin_dict["fc2"], clusters["R5"])
            reorder.R5_reorder(produced, self.fc2, self.fc2_order, fc2_counts)
            assert torch.equal(index, self.fc2_order)
            self.out_order, out_counts = calc(*extremes.ic_maxmin_dict["self_attn.out_proj"], clusters["R3"], HEADS)
            values = QuantMatMul(args.p_quant_params, args.v_quant_params)
            reorder.R3_reorder(produced, values, self.out_proj, self.out_order, out_counts)
            extremes.ic_maxmin_dict.clear(), extremes.oc_maxmin_dict.clear()
            return labels_of(index, counts), labels_of(self.out_order, out_counts)

    def first_of(values, labels, order):
        """[..., I] in the moved order -> [..., n], one for each cluster."""
        sorted_labels = labels[order]
        starts = torch.searchsorted(sorted_labels, torch.arange(int(labels.max()) + 1, dtype=torch.int32))
        assert torch.equal(values[..., starts][..., sorted_labels.long()], values), "a cluster has more than one grid"
        return values[..., starts].float()

    solved, fasterquant = {}, GPTQ.fasterquant

    def remembered(self, **options):  # what quant_layer goes on to round to halves
        solved[self.layer] = *fasterquant(self, **options), self.quantizer
        return solved[self.layer][:2]

    GPTQ.fasterquant = remembered

    W, X = places_problem()
    out = {"check.W_sum": torch.tensor([float(W.double().sum())], dtype=torch.float64),
           "check.X_sum": torch.tensor([float(X.double().sum())], dtype=torch.float64)}
    for run, options in RUNS.items():
        bits, abits = int(run[1]), int(run[3])
        args, clusters = arguments(checkout, "--wbits", str(bits), "--abits", str(abits), "--nsamples", str(len(X)), *options)
        places = Places(W, args)
        labels, o_labels = places.reorder(X, args, clusters)
        if not options:
            for name, of in ("labels", labels), ("o.labels", o_labels):
                assert name not in out or torch.equal(out[name], of)
                out[name] = of
        run_quiet(quant_layer, places, args, torch.empty(len(X), LENGTH, 3 * O), X, torch.zeros(1), "cpu")
        x = X[-1][:ROWS]
        fc1 = solved[places.fc1][0]
        assert torch.equal(fc1, solved[places.fc2][0]), "fc1 and fc2 are given the same, and quantized alike"
        for place in STORED[run]:
            module = {"norm": places.norm, "down": places.fc2, "o": places.out_proj}[place]
            order, of = (places.out_order, o_labels) if place == "o" else (places.fc2_order, labels)
            inverse = torch.argsort(order)
            quantizer = module.out_quantizer if place == "norm" else module.act_quantizer
            scale, zero = quantizer.scale.reshape(-1), quantizer.round_zero_point.reshape(-1)
            check_ties(x[:, order] / scale, 1e-6)
            x_hat = quantizer(x[:, order] if place != "o" else x[None, :, order]).reshape(ROWS, I)
            name = f"{run}.{place}."
            out |= {name + "a_scale": first_of(scale, of, order), name + "a_zero": first_of(zero, of, order),
                    name + "a_codes": codes_of(x_hat, scale, zero, quantizer.n_bits)[:, inverse]}
            note = f"{quantizer.n_bits} bits of activations, {len(out[name + 'a_scale'])} clusters"
            if place != "norm":
                W_hat, loss, weights = solved[module]
                codes = codes_of(W_hat, weights.scale, weights.round_zero_point, bits)[:, inverse]
                out |= {name + "w_scale": first_of(weights.scale, of, order), name + "w_codes": codes,
                        name + "w_zero": first_of(weights.round_zero_point, of, order),
                        name + "loss": torch.tensor([loss], dtype=torch.float64)}
                note += f", {bits} of weights, loss {loss:.6f}"
            print(f"rptq: {name[:-1]:14} {note}")

    qkv = attention_problem()
    E = H * D
    out["check.qkv_sum"] = torch.tensor([float(qkv.double().sum())], dtype=torch.float64)
    mask = torch.full((TOKENS, TOKENS), torch.finfo(torch.float32).min).triu(1)[None, None]
    for mode, options in MODES.items():
        args, clusters = arguments(checkout, *options, "--disable_w_quant", "--nsamples", str(len(qkv)))
        pick = torch.eye(3 * E)  # projections that only take their part of the input
        org = nn.Module()
        org.q_proj, org.k_proj, org.v_proj = (linear(pick[n * E:(n + 1) * E], bias=True) for n in range(3))
        org.out_proj = linear(torch.eye(E))
        attention = QuantOPTAttention(org, E, H, args=args)
        attention.set_quant_state(False, False)
        handlers = []
        watched = {"q_proj": extremes.layer_omax_hook, "k_proj": extremes.layer_omax_hook, "out_proj": extremes.layer_i0max_hook}
        for name, hook in watched.items():
            module = getattr(attention, name)
            module.name = name
            handlers.append(module.register_forward_hook(hook))
        for x in qkv:
            attention(x[None], attention_mask=mask)
        for handler in handlers:
            handler.remove()
        (q_max, q_min), (k_max, k_min) = (extremes.oc_maxmin_dict[name] for name in ("q_proj", "k_proj"))
        qk_order, counts = extremes.tensor_calc_reorder_index([q_max, k_max], [q_min, k_min], clusters["R2"], H)
        reorder.R2_reorder(attention.q_proj, attention.k_proj, attention.qkt_matmul, qk_order, counts)
        qk_labels = labels_of(qk_order, counts)
        vo_order, counts = extremes.tensor_calc_reorder_index(*extremes.ic_maxmin_dict["out_proj"], clusters["R3"], H)
        reorder.R3_reorder(attention.v_proj, attention.pv_matmul, attention.out_proj, vo_order, counts)
        vo_labels = labels_of(vo_order, counts)
        extremes.ic_maxmin_dict.clear(), extremes.oc_maxmin_dict.clear()
        for name, of in ("attention.qk_labels", qk_labels), ("attention.vo_labels", vo_labels):
            assert name not in out or torch.equal(out[name], of)
            out[name] = of
        given, scaled = [], []
        attention.pv_matmul.x1_quantizer.register_forward_pre_hook(lambda _, i: scaled.append(255 * i[0]))
        quant_layer(attention, args, torch.empty(len(qkv), TOKENS, E), qkv, mask, "cpu")
        handler = attention.out_proj.register_forward_pre_hook(lambda _, i: given.append(i[0].clone()))
        attention(qkv[-1:], attention_mask=mask)
        handler.remove()
        if attention.pv_matmul.x1_quantizer.n_bits < 16:
            check_ties(torch.cat(scaled), 5e-6)
        out[f"{mode}.out"] = given[0][0][:, torch.argsort(vo_order)]
        quantizers = {"q": (attention.qkt_matmul.x1_quantizer, qk_labels, qk_order),
                      "k": (attention.qkt_matmul.x2_quantizer, qk_labels, qk_order),
                      "v": (attention.pv_matmul.x2_quantizer, vo_labels, vo_order),
                      "o": (attention.out_proj.act_quantizer, vo_labels, vo_order)}
        for name, (quantizer, of, order) in quantizers.items():
            if quantizer.n_bits < 16:
                scale = quantizer.scale.reshape(-1) / (attention.scaling if name == "q" else 1)
                out |= {f"{mode}.{name}_scale": first_of(scale, of, order),
                        f"{mode}.{name}_zero": first_of(quantizer.round_zero_point.reshape(-1), of, order)}
                if name != "o":
                    check_ties(qkv[-1].reshape(TOKENS, 3, E)[:, "qkv".index(name)][:, order] / scale, 1e-6)
        print(f"rptq: {mode:14} bits {[q.n_bits for q, *_ in quantizers.values()]}, p {attention.pv_matmul.x1_quantizer.n_bits}")

    table = []
    for abits in range(2, 17):
        for kv in (0, 1):
            args, _ = arguments(checkout, "--abits", str(abits), *["--only_quant_kv"] * kv)
            table.append([abits, kv] + [getattr(args, name + "_quant_params")["n_bits"]
                                        for name in ("layer_norm_out", "act", "q", "k", "v", "p")])
    out["bits"] = torch.tensor(table, dtype=torch.int32)

    golden = Path(__file__).resolve().parents[2] / "test" / "golden" / "rptq.safetensors"
    save_file({k: x.contiguous() for k, x in out.items()}, golden)
    print(f"{golden}: {golden.stat().st_size} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", help="folder of hahnyuan/RPTQ4LLM")
    torch.set_grad_enabled(False), torch.set_num_threads(1)  # sums in one order
    main(parser.parse_args().checkout)
