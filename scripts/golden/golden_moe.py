"""test/golden/moe/reference.safetensors from the arrays that transformers 5.24 gave in float64 for test/golden/moe (a Qwen3-MoE of three
layers, the second dense, 8 experts, 3 a token, random weights):

    tokens            I32 [64]
    logits            F32 [64, 256]      after every token
    router_logits     F32 [2, 64, 8]     of layers 0 and 2
    expert_counts     I32 [2, 8]         tokens of each expert there

Usage: python3 scripts/golden/golden_moe.py reference.npz [DIR=test/golden/moe]. Packages: numpy.
"""
import json
import struct
import sys

import numpy as np


def main():
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    source = np.load(sys.argv[1])
    arrays = {"tokens": source["ids"].astype("<i4"), "logits": source["logits64"].astype("<f4"),
              "router_logits": source["router_logits"].astype("<f4"), "expert_counts": source["expert_counts"].astype("<i4")}
    header, data = {}, b""
    for name, x in arrays.items():
        header[name] = {"dtype": "I32" if x.dtype.kind == "i" else "F32", "shape": list(x.shape),
                        "data_offsets": [len(data), len(data) + x.nbytes]}
        data += x.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = (sys.argv[2] if len(sys.argv) > 2 else "test/golden/moe") + "/reference.safetensors"
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


main()
