"""Values that Python and C++ generate alike, so that no random weight has to be stored in test/golden/.

    fnv1a64(name)     h = 0xcbf29ce484222325; for each byte: h ^= byte; h *= 0x100000001b3            (mod 2^64)
    mix(x)            x += 0x9e3779b97f4a7c15; x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
                      x = (x ^ (x >> 27)) * 0x94d049bb133111eb; x ^= x >> 31                          (mod 2^64)
    bits(name, seed, i) = mix(fnv1a64(name) + seed * 0x2545f4914f6cdd1d + i)                          (mod 2^64)
    u(name, seed, i)  = float32(bits >> 40) * 2^-23 - 1       in [-1, 1), 24 bits, exact in float32
    v(name, seed, i)  = float32(bits >> 52) * 2^-11 - 1       in [-1, 1), 12 bits: leaves room for exact products
    token(seed, i, V) = bits("tokens", seed, i) % V

A weight's name is its Hugging Face name, i its flat row-major index; arithmetic is float32, rounded once an operation:
    *norm.weight                                   1 + 0.25 u
    model.embed_tokens.weight, lm_head.weight      0.034641016 u
    *.bias                                         0.1 u
    every other weight [O, I]                      sqrt(3 / I) u

Usage: part of make_golden.py. Packages: numpy.
"""
if __name__ == "__main__":
    raise SystemExit(print(__doc__))

import numpy as np

U64 = np.uint64


def fnv1a64(name):
    h = 0xcbf29ce484222325
    for byte in name.encode():
        h = (h ^ byte) * 0x100000001b3 % 2**64
    return h


def mix(x):
    """x: uint64 array; numpy wraps around."""
    x = x + U64(0x9e3779b97f4a7c15)
    x = (x ^ (x >> U64(30))) * U64(0xbf58476d1ce4e5b9)
    x = (x ^ (x >> U64(27))) * U64(0x94d049bb133111eb)
    return x ^ (x >> U64(31))


def bits(name, seed, count):
    start = (fnv1a64(name) + seed * 0x2545f4914f6cdd1d) % 2**64
    return mix(U64(start) + np.arange(count, dtype=U64))


def u(name, seed, shape):
    x = bits(name, seed, int(np.prod(shape))) >> U64(40)
    return (x.astype(np.float32) * np.float32(2**-23) - np.float32(1)).reshape(shape)


def v(name, seed, shape):
    x = bits(name, seed, int(np.prod(shape))) >> U64(52)
    return (x.astype(np.float32) * np.float32(2**-11) - np.float32(1)).reshape(shape)


def tokens(seed, count, vocab):
    return (bits("tokens", seed, count) % U64(vocab)).astype(np.int32)


def weight(name, seed, shape):
    x = u(name, seed, shape)
    if name.endswith("norm.weight"):
        return np.float32(1) + np.float32(0.25) * x
    if name in ("model.embed_tokens.weight", "lm_head.weight"):
        return np.float32(0.034641016) * x
    if name.endswith(".bias"):
        return np.float32(0.1) * x
    return np.sqrt(np.float32(3) / np.float32(shape[1])) * x


def round_to_bf16(x):
    """float32 -> the nearest bf16 (ties to even), as float32. No NaN, no overflow here."""
    word = np.ascontiguousarray(x, dtype=np.float32).view(np.uint32)
    word = word + np.uint32(0x7fff) + ((word >> np.uint32(16)) & np.uint32(1))
    return (word & np.uint32(0xffff0000)).view(np.float32)
