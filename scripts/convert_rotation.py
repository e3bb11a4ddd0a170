#!/usr/bin/env python3
"""Makes a file for --rotation of SpinQuant's published R.bin.  usage: convert_rotation.py R.bin rotation.safetensors"""
import sys

if {"-h", "--help"} & set(sys.argv):
    sys.exit(print(__doc__))
if len(sys.argv) != 3 or sys.argv[1].startswith("-"):
    sys.exit(__doc__)
try:
    import torch
    from safetensors.torch import save_file
except ImportError as error:
    sys.exit(f"convert_rotation.py: {error}. HINT: pip install torch safetensors")

R = torch.load(sys.argv[1], map_location="cpu", weights_only=True)
layers = sum(name.endswith(".self_attn.R2") for name in R)
R2 = torch.stack([R[f"model.layers.{l}.self_attn.R2"] for l in range(layers)]).float()[:, None]  # one for all heads of a layer
save_file({"R1": R["R1"].float().contiguous(), "R2": R2.contiguous()}, sys.argv[2])
