#!/usr/bin/env python3
"""Writes the C++ that runs MLX's FP4 matrix-vector kernels on the executor: mlx_qmv.py CLANG KERNELS OUT.cc

KERNELS: mlx/include/mlx/backend/metal/kernels of PyPI's wheel mlx-metal (macOS). Nothing of it is part of this project:
its text is read when an optional test is built (docs/metal.md). The kernels are taken as they are, and not put to our own
check of Metal's rules: they are newer than the Metal that we write.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "src/simt/metal"))
import translate  # noqa: E402
from msl_tokens import Tokens  # noqa: E402

# What the kernels want of MLX's utils.h; only batches need these two functions, and none is made here.
BEFORE = """
typedef half float16_t;
struct bfloat16_t {  // clang does not convert halves to its own, and nobody here does
  ushort bits;
  bfloat16_t(float16_t) thread : bits(0) {}
};
template <typename S, typename T> ulong elem_to_loc(uint, const S, const T, int) { return 0; }
template <typename S, typename T> ulong2 elem_to_loc_broadcast(uint, const S, const T, const T, int) {
  return ulong2(0);
}
"""
AFTER = """
#define instantiate(name, kernel, group_size) \\
  template [[host_name(name)]] [[kernel]] decltype(kernel<float, group_size, 4, false>) \\
      kernel<float, group_size, 4, false>;
instantiate("mlx_qmv_fast_mxfp4", fp_qmv_fast, 32)
instantiate("mlx_qmv_mxfp4", fp_qmv, 32)
instantiate("mlx_qmv_fast_nvfp4", fp_qmv_fast, 16)
instantiate("mlx_qmv_nvfp4", fp_qmv, 16)
"""


def without(text, name):
    """The text without the template named so."""
    start = text.rindex("template <", 0, text.index(name))
    depth, end = 0, text.index("{", text.index(name))
    for end in range(end, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if depth == 0:
            break
    return text[:start] + text[end + 1:].removeprefix(";")


def kernels(folder):
    text = (folder / "fp_quantized.h").read_text()
    marks = {name: text.rindex("template <", 0, text.index(f"void {name}"))
             for name in ("fp_qmv_quad_impl", "fp_qmv_fast_impl", "fp_qmv_wide_impl", "adjust_matrix_offsets(",
                          "fp_qmv_fast(", "fp_qmv_wide(")}
    first = text.index("template <bool has_global_scale", marks["adjust_matrix_offsets("])
    head = without(text[:marks["fp_qmv_quad_impl"]], "struct QuantizedBlockLoader")
    parts = [head, text[marks["fp_qmv_fast_impl"]:marks["fp_qmv_wide_impl"]],
             text[marks["adjust_matrix_offsets("]:first], text[marks["fp_qmv_fast("]:marks["fp_qmv_wide("]]]
    return "#include <metal_stdlib>\nusing namespace metal;\n" + BEFORE + "\n".join(parts) + AFTER


def main():
    clang, folder, target = sys.argv[1:]
    folder = pathlib.Path(folder)
    with tempfile.TemporaryDirectory() as work:
        source = pathlib.Path(work) / "mlx_qmv.metal"
        source.write_text(kernels(folder))
        root = str(folder).removesuffix("mlx/backend/metal/kernels")
        text = translate.preprocess(clang, str(source), target + ".d", target, [f"-I{root}", "-DMETAL_FUNC=inline"])
    pathlib.Path(target).write_text(translate.translate(Tokens(text)))


main()
