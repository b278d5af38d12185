"""The files of make_moe_goldens.py's mixtures: published names, FP4 in each dialect, stacked and split as its tools do.

Every writer draws codes and scales, or has gguf-py quantise what was drawn, and puts the values that they mean into the
state, through views into it.
"""

import gguf
import numpy as np
import safetensors.torch
import torch
from gguf import GGMLQuantizationType as Ggml

import golden_dialects
from gguf_metadata import ARCHITECTURES, add_metadata
import make_goldens as base

MIXTRAL = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}


def views(config, state):
    """The name of each tensor in a published file, its experts one by one, and a view of it."""
    gpt_oss = config["model_type"] == "gpt_oss"
    for name, values in state.items():
        at, _, kind = name.rpartition(".")
        if not at.endswith(".experts"):
            yield name, values
            continue
        for e, one in enumerate(values):
            is_bias = kind.endswith("_bias")
            one = one.T if gpt_oss and not is_bias else one  # which holds [in, out]
            if kind.startswith("down_proj"):
                parts = {"down_proj": one}
            elif gpt_oss:
                parts = {"gate_proj": one[0::2], "up_proj": one[1::2]}
            else:
                parts = dict(zip(("gate_proj", "up_proj"), one.chunk(2)))
            for part, view in parts.items():
                yield f"{at}.{e}.{part}.{'bias' if is_bias else 'weight'}", view


def published(config, name):
    if config["model_type"] != "mixtral":
        return name
    *module, last, ending = name.replace(".mlp.", ".block_sparse_moe.").split(".")
    return ".".join([*module, MIXTRAL.get(last, last) if ".experts." in name else last, ending])


def is_router(name):
    return name.endswith(("mlp.gate.weight", "mlp.router.weight", "block_sparse_moe.gate.weight"))


def is_kept(name, values):
    """Whether every tool but MLX's leaves the tensor as it is."""
    return values.dim() == 1 or is_router(name) or name in ("model.embed_tokens.weight", "lm_head.weight")


def prediction_layer(config):
    """Some of the tensors of a layer that predicts more than the next token."""
    if not config.get("num_nextn_predict_layers"):
        return {}
    size, at = config["hidden_size"], f"model.layers.{config['num_hidden_layers']}."
    return {at + "eh_proj.weight": torch.ones(1, 2 * size), at + "enorm.weight": torch.ones(size),
            at + "hnorm.weight": torch.ones(size), at + "shared_head.norm.weight": torch.ones(size)}


# ---- safetensors ----

def write_safetensors(folder, config, state, dialect, maker):
    kept, routers = [], {}
    for name, view in views(config, state):
        name = published(config, name)
        module = name.removesuffix(".weight")
        mlx = dialect.startswith("mlx")
        if dialect == "bf16":
            quantised = False
        elif dialect == "gpt-oss":
            quantised = ".experts." in name and view.dim() == 2
        else:
            quantised = view.dim() == 2 and (mlx or not is_kept(name, view))
        if not quantised:
            maker.stored[name] = view.to(torch.bfloat16).contiguous()
            kept += [module] if view.dim() == 2 else []
            continue
        rows, columns = view.shape
        deviation = base.target_deviation(module, columns)
        if mlx and is_router(name):
            base.mlx_affine(maker, module, rows, columns, deviation, 8, columns)
            routers[module] = {"group_size": columns, "bits": 8, "mode": "affine"}
        elif dialect.endswith("-alone") and module.endswith("kv_b_proj"):
            add_heads_alone(maker, config, module, view)
            continue
        elif dialect in ("modelopt", "ct-nvfp4"):
            golden_dialects.nvfp4(maker, module, rows, columns, deviation, dialect.split("-")[0])
        elif dialect == "gpt-oss":
            codes, scales, maker.meant[name] = maker.mxfp4(rows, columns, deviation)
            maker.stored |= {module + ".blocks": codes.reshape(rows, -1, 16), module + ".scales": scales}
        else:
            base.quantized(maker, module, rows, columns, deviation)
        view.copy_(maker.meant[name])
    if dialect.startswith("mlx"):
        maker.stored = stacked_for_mlx(config, maker.stored)
    if config["model_type"] == "gpt_oss" and not dialect.startswith("mlx"):
        maker.stored = stacked_for_gpt_oss(config, maker.stored)
    extra = {name: values.to(torch.bfloat16) for name, values in prediction_layer(config).items()}
    safetensors.torch.save_file(maker.stored | extra, folder / "model.safetensors", {"format": "pt"})
    base.write_json(folder / "config.json", config | quantization_config(dialect, kept, routers))


def add_heads_alone(maker, config, module, view):
    """kv_b_proj as MLX holds it: for each head, one matrix from its part of a query to latents, one back."""
    heads, nope, value, latent = (config[key] for key in ("num_attention_heads", "qk_nope_head_dim", "v_head_dim",
                                                          "kv_lora_rank"))
    per_head = view.reshape(heads, nope + value, latent)
    for kind, rows, columns in (("embed_q", latent, nope), ("unembed_out", value, latent)):
        name = module.replace("kv_b_proj", kind)
        if columns % 32 == 0:
            base.quantized(maker, name, heads * rows, columns, base.target_deviation(name, columns))
        else:
            maker.plain(name + ".weight", maker.normal((heads * rows, columns), 1.5 / columns ** 0.5))
        meant = maker.meant[name + ".weight"].reshape(heads, rows, columns)
        for ending in (".weight", ".scales"):
            if name + ending in maker.stored:
                maker.stored[name + ending] = maker.stored[name + ending].reshape(heads, rows, -1)
        if kind == "embed_q":
            per_head[:, :nope] = meant.transpose(1, 2)
        else:
            per_head[:, nope:] = meant


def experts_apart(stored):
    """Everything but experts, and the experts' tensors by "…experts.gate_proj.weight"."""
    others, experts = {}, {}
    for name, values in stored.items():
        at, found, rest = name.partition(".experts.")
        if not found:
            others[name] = values
            continue
        e, _, rest = rest.partition(".")
        experts.setdefault(f"{at}.experts.{rest}", []).append(values)  # in the experts' order
    return others, {name: torch.stack(values) for name, values in experts.items()}


def stacked_for_mlx(config, stored):
    others, experts = experts_apart(stored)
    for name, values in experts.items():
        if config["model_type"] != "gpt_oss":
            name = name.replace(".experts.", ".switch_mlp.")
            for ours, theirs in MIXTRAL.items():
                name = name.replace(f".{theirs}.", f".{ours}.")
        others[name] = values
    return others


def stacked_for_gpt_oss(config, stored):
    """gate_up_proj holds gate in its even rows and up in its odd ones."""
    others, experts = experts_apart(stored)
    for kind, ending in (("blocks", "_blocks"), ("scales", "_scales"), ("bias", "_bias")):
        for name, gate in experts.items():
            if name.endswith(f"gate_proj.{kind}"):
                up = experts[name.replace("gate_proj", "up_proj")]
                others[name.replace(f"gate_proj.{kind}", "gate_up_proj" + ending)] = torch.stack(
                    [gate, up], dim=2).flatten(1, 2)
            elif name.endswith(f"down_proj.{kind}"):
                others[name.replace(f".{kind}", ending)] = gate
    return {name: values.contiguous() for name, values in others.items()}


def quantization_config(dialect, kept, routers):
    if dialect == "bf16":
        return {}
    if dialect == "gpt-oss":
        return {"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": [
            "model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}}
    if dialect.startswith("mlx"):
        is_nvfp4 = "nvfp4" in dialect
        mlx = {"group_size": 16 if is_nvfp4 else 32, "bits": 4, "mode": "nvfp4" if is_nvfp4 else "mxfp4"} | routers
        return {"quantization": mlx, "quantization_config": mlx}
    entries, _ = base.quantization_config(base.Spec(dialect))
    entries["quantization_config"]["ignore"] = kept
    return entries


# ---- GGUF ----

def write_gguf(path, config, state, dialect, maker):
    """As llama.cpp's converter and quantiser lay it out. MXFP4 is for experts alone, NVFP4 for all that fits."""
    is_unsplit = dialect.endswith("-unsplit")
    architecture = ARCHITECTURES[config["model_type"]]
    writer = gguf.GGUFWriter(path, architecture)
    extra = prediction_layer(config)
    add_metadata(writer, config, is_unsplit, num_layers=config["num_hidden_layers"] + (1 if extra else 0))
    kinds = {value: key for key, value in gguf.MODEL_ARCH_NAMES.items()}
    name_map = gguf.get_tensor_name_map(kinds[architecture], config["num_hidden_layers"] + 1)

    def gguf_name(name):
        name = name.replace("e_score_correction_bias", "e_score_correction.bias")
        found = name_map.get_name(name, try_suffixes=(".weight", ".bias"))
        return found + ".weight" if name.endswith("sinks") else found

    def add_matrix(name, views, heads=0):
        """views: [N, K] each; several are experts or heads. What is stored goes back into them."""
        found = gguf_name(name)
        kind = matrix_type(dialect, name, views[0])
        stored, scales = [], []
        for view in views:
            values = view.contiguous().numpy()
            if kind == Ggml.NVFP4:
                blocks = nvfp4_blocks(maker, *values.shape)
                meant = gguf.quants.dequantize(blocks, kind)
                scales.append(np.float32(base.target_deviation(name, values.shape[1]) / meant.std() *
                                         float(torch.rand((), generator=maker.random) * 0.7 + 0.7)))
                meant = meant * scales[-1]
            else:
                blocks = values if kind == Ggml.F32 else gguf.quants.quantize(values, kind)
                meant = values if kind == Ggml.F32 else gguf.quants.dequantize(blocks, kind)
            view.copy_(torch.from_numpy(meant.astype(np.float32).copy()))
            stored.append(base.permuted(blocks, heads) if heads else blocks)
        several = len(stored) > 1 or ".experts." in name or name.endswith((".k_b_proj.weight", ".v_b_proj.weight"))
        writer.add_tensor(found, np.ascontiguousarray(np.stack(stored) if several else stored[0]), raw_dtype=kind)
        if scales:
            writer.add_tensor(found.replace(".weight", ".scale"), np.array(scales, np.float32))

    experts = {}
    for name, view in views(config, state):
        at, found, rest = name.partition(".experts.")
        if found:
            experts.setdefault(f"{at}.experts.{rest.partition('.')[2]}", []).append(view)
        elif name.endswith("kv_b_proj.weight") and not is_unsplit:
            nope, value = config["qk_nope_head_dim"], config["v_head_dim"]
            per_head = view.reshape(config["num_attention_heads"], nope + value, -1)
            add_matrix(name.replace("kv_b_proj", "k_b_proj"), [head[:nope].T for head in per_head])
            add_matrix(name.replace("kv_b_proj", "v_b_proj"), [head[nope:] for head in per_head])
        elif view.dim() == 2:
            heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
            add_matrix(name, [view], config[heads] if heads and architecture == "llama" else 0)
        else:
            writer.add_tensor(gguf_name(name), view.numpy())
    for name, of_all in experts.items():
        if of_all[0].dim() == 2:
            add_matrix(name, of_all)
        else:
            writer.add_tensor(gguf_name(name), np.stack([view.numpy() for view in of_all]))
    for name, values in extra.items():
        writer.add_tensor(gguf_name(name) or f"blk.{config['num_hidden_layers']}.nextn.{name.split('.', 3)[3]}",
                          values.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def matrix_type(dialect, name, view):
    columns = view.shape[1]
    if is_router(name):
        return Ggml.F32
    if "nvfp4" in dialect and columns % 64 == 0 and not is_kept(name, view):
        return Ggml.NVFP4
    if "mxfp4" in dialect and ".experts." in name:
        return Ggml.MXFP4
    return Ggml.Q8_0 if columns % 32 == 0 else Ggml.BF16


def nvfp4_blocks(maker, rows, columns):
    """Random codes, in blocks of 64 with 4 scales: gguf-py reads this type, and does not write it."""
    scales, _ = maker.e4m3(rows * columns // 64, 4)
    codes = maker.integers(0, 256, (rows * columns // 64, 32)).to(torch.uint8)
    return torch.cat([scales, codes], dim=1).reshape(rows, -1).numpy()
