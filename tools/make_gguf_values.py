"""Makes tests/data/gguf_values.gguf: blocks of the GGUF types that gguf-py does not write, and what they mean.

For each type there are two tensors of the same shape: TYPE.weight with blocks whose codes, scales and minima take all of
their values, and TYPE.values, float32, what gguf-py's dequantizers make of them. A half scale takes 64 of its values, both
signs, zero, the largest and subnormal ones among them.

Needs PyPI's gguf. Its output is checked in, so that the tests need none of it.

    python tools/make_gguf_values.py tests/data/gguf_values.gguf
"""

import argparse

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Ggml

BLOCKS = 64
INDEX = np.arange(BLOCKS)
# 0, -0, the largest, the least subnormal, the largest subnormal; then every exponent, with either sign.
HALVES = np.concatenate([np.array([0x0000, 0x8000, 0x7BFF, 0xFBFF, 0x0001, 0x8001, 0x03FF, 0x3C00]),
                         (INDEX[:56] % 30 + 1 << 10) + INDEX[:56] * 37 % 1024 + (INDEX[:56] % 3 % 2 << 15)]
                        ).astype(np.uint16)


def half_bytes(values):
    return values.astype("<u2").view(np.uint8).reshape(BLOCKS, 2)


def shuffled_bytes(random, count):
    """Every byte equally often, in every column of a block."""
    columns = [random.permutation(np.arange(BLOCKS) * 256 // BLOCKS + j % 4) for j in range(count)]
    return np.stack(columns, axis=1).astype(np.uint8)


def k_scales(shift):
    """12 bytes: in each of the 8 places, scales and minima go through all 64 values, in unlike orders."""
    scales = np.stack([(INDEX + 8 * j) % 64 for j in range(8)], axis=1)
    minima = np.stack([(5 * INDEX + 11 * j + shift) % 64 for j in range(8)], axis=1)
    packed = np.zeros((BLOCKS, 12), np.uint8)
    packed[:, 0:4] = scales[:, :4] | scales[:, 4:] >> 4 << 6
    packed[:, 4:8] = minima[:, :4] | minima[:, 4:] >> 4 << 6
    packed[:, 8:12] = scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4
    return packed


def blocks(kind, random):
    d, other = half_bytes(HALVES), half_bytes(np.roll(HALVES, 23))
    size = gguf.GGML_QUANT_SIZES[kind][1]
    if kind == Ggml.Q6_K:
        # 16 scales of 64 blocks are 4 times all int8, each time beside another quarter of the codes, in its own order.
        b, place, i = INDEX[:, None, None], np.arange(16)[None, :, None], np.arange(16)[None, None, :]
        codes = (i * (2 * place + 1) + place) % 16 + 16 * ((b // 16 + place) % 4)
        codes = codes.reshape(BLOCKS, 2, 4, 32)
        low, high = codes & 15, codes >> 4
        ql = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(BLOCKS, 128)
        qh = (high << np.arange(0, 8, 2)[None, None, :, None]).sum(2).reshape(BLOCKS, 64)
        scales = (INDEX % 16 * 16)[:, None] + np.arange(16)[None, :]
        return np.concatenate([ql, qh, scales, d], axis=1).astype(np.uint8)
    head = {Ggml.Q5_0: [d], Ggml.Q5_1: [d, other], Ggml.IQ4_NL: [d], Ggml.Q4_K: [d, other, k_scales(3)],
            Ggml.Q5_K: [d, other, k_scales(40)]}[kind]
    head = np.concatenate(head, axis=1)
    return np.concatenate([head, shuffled_bytes(random, size - head.shape[1])], axis=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="the file to write")
    arguments = parser.parse_args()
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(arguments.out, "values")
    for kind in (Ggml.Q5_0, Ggml.Q5_1, Ggml.Q4_K, Ggml.Q5_K, Ggml.Q6_K, Ggml.IQ4_NL):
        rows = blocks(kind, random).reshape(BLOCKS // 2, -1)  # two blocks a row
        values = gguf.quants.dequantize(rows, kind).astype(np.float32)
        assert np.isfinite(values).all()
        name = kind.name.lower()
        writer.add_tensor(name + ".weight", rows, raw_dtype=kind)
        writer.add_tensor(name + ".values", values)
        print(f"{kind.name:7} {values.shape}, {len(np.unique(values))} different values up to {np.abs(values).max()}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
