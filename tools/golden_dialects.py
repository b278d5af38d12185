"""More dialects for make_goldens.py: FP8, mixtures of formats, and MLX's affine integers.

Each draws codes and scales directly; what they mean is computed here in float32 by torch alone.
"""

import torch

ALL = ("modelopt-fp8", "fp8-block", "modelopt-mixed", "ct-mixed", "mlx-affine4", "mlx-affine8", "mlx-mixed")
BLOCK = 128


def is_kept(dialect, name):
    """Whether the dialect's tool leaves the matrix in bfloat16."""
    if dialect.startswith("mlx"):
        return dialect == "mlx-mixed" and name.endswith("0.mlp.up_proj")
    return name in ("model.embed_tokens", "lm_head") or dialect.endswith("mixed") and name.endswith("1.mlp.down_proj")


def fp8_codes(maker, rows, columns):
    """E4M3 of all sizes, one in fifty of them subnormal or zero."""
    values = maker.normal((rows, columns), 20.0)
    values[torch.rand(rows, columns, generator=maker.random) < 0.02] *= 2.0 ** -11
    return values.to(torch.float8_e4m3fn)


def fp8(maker, name, rows, columns, deviation, scale_for, scale_name, dtype=torch.float32):
    codes = fp8_codes(maker, rows, columns)
    groups = {"tensor": (1, 1), "row": (rows, 1), "block": (-(-rows // BLOCK), -(-columns // BLOCK))}[scale_for]
    scales = ((torch.rand(groups, generator=maker.random) + 0.6) * deviation / 20).to(dtype)
    maker.stored |= {name + ".weight": codes, scale_name: scales.reshape(()) if scale_for == "tensor" else scales}
    if scale_for == "block":
        spread = scales.float().repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)[:rows, :columns]
    else:
        spread = scales.float()
    maker.meant[name + ".weight"] = codes.float() * spread


def nvfp4(maker, name, rows, columns, deviation, tool):
    """With tensor scales that differ up to twice between modules, as gate's and up's do."""
    packed, scales, product, scale = maker.nvfp4(rows, columns, deviation)
    scale = scale * (torch.rand((), generator=maker.random) * 0.7 + 0.7)
    scales = scales.view(torch.float8_e4m3fn)
    if tool == "modelopt":
        maker.stored |= {name + ".weight": packed, name + ".weight_scale": scales, name + ".weight_scale_2": scale}
        maker.meant[name + ".weight"] = product * scale
    else:
        divisor = (1 / scale).reshape(1)
        maker.stored |= {name + ".weight_packed": packed, name + ".weight_scale": scales,
                         name + ".weight_global_scale": divisor}
        maker.meant[name + ".weight"] = product / divisor


def affine(maker, name, rows, columns, deviation, bits, group, dtype=torch.bfloat16):
    """Whole numbers of any width, with a scale of either sign and a bias for each group."""
    codes = maker.integers(0, 1 << bits, (rows, columns))
    signs = 1 - 2 * maker.integers(0, 2, (rows, columns // group))
    scales = (maker.normal((rows, columns // group), 0.1, 1.0) * signs * deviation * 3.5 / (1 << bits)).to(dtype)
    biases = (-scales.float() * ((1 << bits) - 1) / 2).to(dtype)
    stream = ((codes[..., None] >> torch.arange(bits)) & 1).reshape(rows, -1, 8)  # each code from the low end on
    packed = (stream << torch.arange(8)).sum(-1).to(torch.uint8)
    maker.stored |= {name + ".weight": packed.view(torch.uint32), name + ".scales": scales, name + ".biases": biases}
    maker.meant[name + ".weight"] = (codes.float() * scales.float().repeat_interleave(group, 1) +
                                     biases.float().repeat_interleave(group, 1))


# What mlx-mixed says of single modules; the others have 4 bits in groups of 32.
MLX_MIXED = {"model.embed_tokens": {"bits": 6, "group_size": 32}, "lm_head": {"bits": 8, "group_size": 96},
             "model.layers.0.self_attn.q_proj": {"bits": 8, "group_size": 32},
             "model.layers.0.self_attn.k_proj": {"bits": 5, "group_size": 32},
             "model.layers.0.mlp.gate_proj": {"bits": 4, "group_size": 32, "mode": "mxfp4"},
             "model.layers.1.mlp.gate_proj": {"bits": 4, "group_size": 16, "mode": "nvfp4"},
             "model.layers.0.mlp.up_proj": False}


def add_matrix(maker, name, rows, columns, deviation):
    """One matrix in the dialect's own codes."""
    dialect = maker.spec.dialect
    if is_kept(dialect, name):
        maker.plain(name + ".weight", maker.normal((rows, columns), deviation))
    elif dialect == "modelopt-fp8":
        fp8(maker, name, rows, columns, deviation, "tensor", name + ".weight_scale")
        maker.stored[name + ".input_scale"] = torch.tensor(0.0123)
    elif dialect == "fp8-block":
        fp8(maker, name, rows, columns, deviation, "block", name + ".weight_scale_inv")
    elif dialect == "modelopt-mixed" and "self_attn" in name:
        fp8(maker, name, rows, columns, deviation, "tensor", name + ".weight_scale")
    elif dialect == "ct-mixed" and "self_attn" in name:
        fp8(maker, name, rows, columns, deviation, "row", name + ".weight_scale", torch.bfloat16)
    elif dialect in ("modelopt-mixed", "ct-mixed"):
        nvfp4(maker, name, rows, columns, deviation, dialect.split("-")[0])
    elif dialect == "mlx-affine4":
        affine(maker, name, rows, columns, deviation, 4, 64)
    elif dialect == "mlx-affine8":
        affine(maker, name, rows, columns, deviation, 8, 32, torch.float16)
    else:
        said = {"bits": 4, "group_size": 32} | MLX_MIXED.get(name, {})
        mode = said.get("mode")
        if mode == "mxfp4":
            packed, scales, maker.meant[name + ".weight"] = maker.mxfp4(rows, columns, deviation)
        elif mode == "nvfp4":  # the global scale is the largest magnitude: 6 * 448 tensor scales
            packed, scales, product, scale = maker.nvfp4(rows, columns, deviation)
            maker.stored[name + ".global_scale"] = scale * 2688
            maker.meant[name + ".weight"] = product * (scale * 2688 / 2688)
        else:
            return affine(maker, name, rows, columns, deviation, said["bits"], said["group_size"])
        maker.stored |= {name + ".weight": packed.view(torch.uint32), name + ".scales": scales}


def quantization_config(dialect, names):
    """The entries of config.json, and the contents of hf_quant_config.json or None."""
    kept = [name for name in names if is_kept(dialect, name)]
    if dialect == "modelopt-fp8":
        return {"quantization_config": {"quant_method": "modelopt", "quant_algo": "FP8", "ignore": kept,
                                        "kv_cache_scheme": {"num_bits": 8, "type": "float"}}}, None
    if dialect == "fp8-block":
        return {"quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                                        "weight_block_size": [BLOCK, BLOCK], "modules_to_not_convert": kept}}, None
    if dialect == "modelopt-mixed":
        layers = {name: {"quant_algo": "FP8"} if "self_attn" in name else {"quant_algo": "NVFP4", "group_size": 16}
                  for name in names if name not in kept}
        return {}, {"producer": {"name": "modelopt", "version": "0.39.0"},
                    "quantization": {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": "FP8",
                                     "quantized_layers": layers, "exclude_modules": kept}}
    if dialect == "ct-mixed":
        nvfp4 = {"num_bits": 4, "type": "float", "symmetric": True, "group_size": 16, "strategy": "tensor_group"}
        fp8 = {"num_bits": 8, "type": "float", "symmetric": True, "group_size": None, "strategy": "channel"}
        return {"quantization_config": {
            "quant_method": "compressed-tensors", "format": "mixed-precision", "quantization_status": "compressed",
            "ignore": ["lm_head", "re:.*layers\\.1\\.mlp\\.down_proj$"], "config_groups": {
                "group_0": {"targets": ["Linear"], "weights": nvfp4, "format": "nvfp4-pack-quantized"},
                "group_1": {"targets": ["re:.*self_attn.*"], "weights": fp8, "format": "float-quantized"}}}}, None
    mlx = {"mlx-affine4": {"group_size": 64, "bits": 4, "mode": "affine"},
           "mlx-affine8": {"group_size": 32, "bits": 8},
           "mlx-mixed": {"group_size": 32, "bits": 4, "mode": "affine"} | MLX_MIXED}[dialect]
    return {"quantization": mlx, "quantization_config": mlx}, None
