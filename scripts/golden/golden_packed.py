#!/usr/bin/env python3
"""Small linears in every packed format, put together from Python's big integers: test/golden/packed/ for test/test_packed.cu.

    python3 scripts/golden/golden_packed.py [FOLDER]        (needs numpy)

formats.json        {case: quantization_config}
packed.safetensors  the tensors that a checkpoint of this format holds, of a linear that is named as the case
plain.safetensors   the same linear: CASE.codes U8 [O, I], CASE.zeros U8 [O, n], CASE.scales F32 [O, n], CASE.group I32 [I];
                    of fp8 the weights F32 [O, I] instead

A string of codes is the integer  sum over i of code[i] 2^(b i),  in little-endian bytes up to a whole number of 32-bit words.
Codes, and the zero points of asymmetric cases, take every value from 0 to 2^b - 1; a row of one sign has the zero point 0 or 2^b - 1.
"""
import json
import pathlib
import struct
import sys

import numpy as np

from golden_common import bits

AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]  # output 8 j + AWQ_ORDER[k] is nibble k of word j


def string(codes, b):
    """Bytes of the codes' bit string."""
    number = sum(int(code) << (b * i) for i, code in enumerate(codes))
    return number.to_bytes(-(-len(codes) * b // 32) * 4, "little")


def rows(codes, b):
    """[R, n] -> I32 [R, words(n)]"""
    return np.stack([np.frombuffer(string(row, b), "<i4") for row in codes])


def columns(codes, b):
    """[n, C] -> I32 [words(n), C]"""
    return np.ascontiguousarray(rows(codes.T, b).T)


def codes_of(case, what, shape, b):
    x = (bits(case + what, 0, int(np.prod(shape))) >> np.uint64(20)).astype(np.int64) % 2**b
    x[:2 ** b] = np.arange(min(2 ** b, x.size))
    return x.reshape(shape)


def scales_of(case, shape, mantissa_bits):
    """Numbers with that many bits after the leading one, from 2^-9 to 2^-5."""
    x = bits(case + "scales", 0, int(np.prod(shape)))
    mantissa = (x >> np.uint64(40)).astype(np.int64) % 2**mantissa_bits
    exponent = (x >> np.uint64(20)).astype(np.int64) % 4 - 9
    return np.ldexp(1 + mantissa / 2.0**mantissa_bits, exponent).astype(np.float32).reshape(shape)


def bf16(x):
    return (x.view(np.uint32) >> 16).astype("<u2")


def e4m3(byte):
    exponent, mantissa = byte >> 3 & 15, byte & 7
    magnitude = mantissa / 8 * 2.0**-6 if exponent == 0 else (1 + mantissa / 8) * 2.0**(exponent - 7)
    return -magnitude if byte & 128 else magnitude


class Cases:
    def __init__(self):
        self.formats, self.packed, self.plain = {}, {}, {}

    def linear(self, case, b, O, I, G, symmetric, mantissa_bits, shuffled=False, least_zero=0):
        n = -(-I // G)
        codes = codes_of(case, "codes", (O, I), b)
        zeros = np.full((O, n), 2 ** (b - 1)) if symmetric else np.maximum(codes_of(case, "zeros", (O, n), b), least_zero)
        scales = scales_of(case, (O, n), mantissa_bits)
        group = np.arange(I) // G
        if shuffled:
            group = group[np.argsort(bits(case + "order", 0, I))]
        self.plain.update({case + ".codes": ("U8", codes.astype("u1")), case + ".zeros": ("U8", zeros.astype("u1")),
                           case + ".scales": ("F32", scales), case + ".group": ("I32", group.astype("<i4"))})
        return codes, zeros, scales, group

    def compressed_tensors(self, case, layout, b, O, I, G, symmetric, abits=16):
        codes, zeros, scales, _ = self.linear(case, b, O, I, G or I, symmetric, 7)
        weights = {"num_bits": b, "type": "int", "symmetric": symmetric, "strategy": "group" if G else "channel", "group_size": G,
                   "dynamic": False}
        inputs = None if abits == 16 else {"num_bits": abits, "type": "int", "symmetric": True, "dynamic": True, "strategy": "token"}
        self.formats[case] = {
            "quant_method": "compressed-tensors", "format": layout, "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "format": layout, "weights": weights, "input_activations": inputs,
                                          "output_activations": None}}}
        self.packed[case + ".weight_scale"] = ("BF16", bf16(scales))
        if layout == "pack-quantized":
            self.packed[case + ".weight_packed"] = ("I32", rows(codes, b))
            self.packed[case + ".weight_shape"] = ("I64", np.array([O, I], "<i8"))
            if not symmetric:
                self.packed[case + ".weight_zero_point"] = ("I32", columns(zeros, b))
        else:
            self.packed[case + ".weight"] = ("I8", (codes - 2 ** (b - 1)).astype("i1"))
            if not symmetric:
                self.packed[case + ".weight_zero_point"] = ("I8", (zeros - 2 ** (b - 1)).astype("i1"))

    def gptq(self, case, b, O, I, G, symmetric, version, act_order):
        codes, zeros, scales, group = self.linear(case, b, O, I, G or I, symmetric, 10, act_order, least_zero=int(version == 1))
        self.formats[case] = {"quant_method": "gptq", "bits": b, "group_size": G or -1, "desc_act": act_order, "sym": symmetric,
                              "lm_head": False, "checkpoint_format": "gptq" if version == 1 else "gptq_v2", "pack_dtype": "int32"}
        stored = zeros.T - 1 if version == 1 else zeros.T
        self.packed.update({case + ".qweight": ("I32", columns(codes.T, b)), case + ".qzeros": ("I32", rows(stored, b)),
                            case + ".scales": ("F16", np.ascontiguousarray(scales.T).astype("<f2")),
                            case + ".g_idx": ("I32", group.astype("<i4"))})

    def awq(self, case, O, I, G):
        codes, zeros, scales, _ = self.linear(case, 4, O, I, G, False, 10)
        order = [8 * (o // 8) + AWQ_ORDER[o % 8] for o in range(O)]
        self.formats[case] = {"quant_method": "awq", "bits": 4, "group_size": G, "zero_point": True, "version": "gemm",
                              "modules_to_not_convert": None}
        self.packed.update({case + ".qweight": ("I32", rows(codes.T[:, order], 4)), case + ".qzeros": ("I32", rows(zeros.T[:, order], 4)),
                            case + ".scales": ("F16", np.ascontiguousarray(scales.T).astype("<f2"))})

    def fp8(self, case, O, I):
        codes = codes_of(case, "codes", (O, I), 8)
        codes[(codes & 127) == 127] = 0
        scales = scales_of(case, (-(-O // 128), -(-I // 128)), 7)
        values = np.array([e4m3(byte) for byte in range(256)], np.float32)[codes]
        weights = values * np.repeat(np.repeat(scales, 128, 0), 128, 1)[:O, :I]
        self.formats[case] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
        self.packed.update({case + ".weight": ("F8_E4M3", codes.astype("u1")), case + ".weight_scale_inv": ("BF16", bf16(scales))})
        self.plain[case + ".weights"] = ("F32", weights)


def write(path, tensors):
    header, data = {"__metadata__": {"about": "scripts/golden/golden_packed.py"}}, b""
    for name, (dtype, values) in tensors.items():
        raw = values.tobytes()
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    folder = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent.parent.parent / "test/golden/packed")
    cases = Cases()
    for b in range(1, 9):
        cases.compressed_tensors(f"pack{b}", "pack-quantized", b, 37, 48, 16, False)
        cases.compressed_tensors(f"pack{b}_sym", "pack-quantized", b, 11, 77, None, True)
    cases.compressed_tensors("pack4_a8", "pack-quantized", 4, 8, 32, 16, True, 8)
    cases.compressed_tensors("int8_a8", "int-quantized", 8, 9, 40, None, True, 8)
    cases.compressed_tensors("int4", "int-quantized", 4, 9, 48, 16, False)
    for b in (2, 3, 4, 8):
        cases.gptq(f"gptq{b}_sym", b, 32, 64, 32, True, 1, False)
        cases.gptq(f"gptq{b}_act_order", b, 32, 96, 32, False, 2, True)
    cases.gptq("gptq4_row", 4, 32, 64, None, False, 2, False)
    cases.gptq("gptq4_ragged", 4, 32, 96, 64, True, 1, False)
    cases.gptq("gptq4_asym_v1", 4, 32, 64, 32, False, 1, False)
    cases.gptq("gptq8_asym_v1", 8, 32, 64, 32, False, 1, False)
    cases.awq("awq", 72, 160, 32)
    cases.fp8("fp8", 130, 200)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "formats.json").write_text(json.dumps(cases.formats, indent=1) + "\n")
    write(folder / "packed.safetensors", cases.packed)
    write(folder / "plain.safetensors", cases.plain)


if __name__ == "__main__":
    main()
