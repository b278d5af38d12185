"""Makes the mixtures of experts of tests/data/models: as make_goldens.py, whose helpers and needs these are.

Small and awkward: one expert, as many experts as a token takes, more experts than the prompt has tokens, a window
shorter than the prompt, groups of experts, latent attention without a latent query.

    python tools/make_moe_goldens.py tests/data/models
"""

import shutil

import gguf
import numpy as np
import safetensors.torch
import torch
import transformers
from gguf import GGMLQuantizationType as Ggml

import make_goldens as base

COMMON = {"hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 3,
          "num_key_value_heads": 1, "head_dim": 22, "vocab_size": 97, "max_position_embeddings": 256,
          "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": None,
          "eos_token_id": 96,
          "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}

SPECS = {
    "mixtral-one-expert": COMMON | {"model_type": "mixtral", "num_local_experts": 1, "num_experts_per_tok": 1,
                                    "sliding_window": 5},
    "mixtral-gguf-mxfp4": COMMON | {"model_type": "mixtral", "hidden_size": 64, "intermediate_size": 64, "head_dim": 32,
                                    "num_hidden_layers": 1, "num_local_experts": 4, "num_experts_per_tok": 4},
    "qwen3_moe-many-experts": COMMON | {"model_type": "qwen3_moe", "num_experts": 40, "num_experts_per_tok": 3,
                                        "moe_intermediate_size": 11, "norm_topk_prob": False, "mlp_only_layers": [0]},
    "glm4_moe-all-experts": COMMON | {
        "model_type": "glm4_moe", "n_routed_experts": 4, "num_experts_per_tok": 4, "moe_intermediate_size": 13,
        "n_shared_experts": 2, "first_k_dense_replace": 0, "routed_scaling_factor": 1.5, "use_qk_norm": False,
        "attention_bias": True, "head_dim": 24,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}},
    "deepseek_v3-groups": COMMON | {
        "model_type": "deepseek_v3", "n_routed_experts": 12, "num_experts_per_tok": 3, "moe_intermediate_size": 9,
        "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "norm_topk_prob": False,
        "routed_scaling_factor": 0.7, "q_lora_rank": None, "kv_lora_rank": 26, "qk_nope_head_dim": 10,
        "qk_rope_head_dim": 6, "head_dim": 6, "v_head_dim": 14, "num_key_value_heads": 3, "rope_interleave": False},
}


def deviation(name, shape):
    if name.endswith("norm.weight"):
        return 0.2
    if name.endswith("e_score_correction_bias"):
        return 0.1
    if len(shape) == 1:
        return 0.3
    if "embed_tokens" in name:
        return 0.5
    return (4.0 if "lm_head" in name else 1.5) / shape[-1] ** 0.5


def draw(model, random):
    """Random weights for every tensor of the model, each a bfloat16."""
    state = {}
    for name, tensor in model.state_dict().items():
        values = torch.randn(tensor.shape, generator=random) * deviation(name, tensor.shape)
        values += 1.0 if name.endswith("norm.weight") else 0.0
        state[name] = values.to(torch.bfloat16).float()
    return state


def unstacked(config, state):
    """The names and shapes of published checkpoints: experts one by one."""
    mixtral = config["model_type"] == "mixtral"
    gate, up, down = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    file = {}
    for name, values in state.items():
        name = name.replace(".mlp.", ".block_sparse_moe.") if mixtral else name
        if name.endswith("experts.gate_up_proj"):
            for e, both in enumerate(values):
                for kind, rows in zip((gate, up), both.chunk(2)):
                    file[f"{name.removesuffix('.gate_up_proj')}.{e}.{kind}.weight"] = rows
        elif name.endswith("experts.down_proj"):
            for e, rows in enumerate(values):
                file[f"{name.removesuffix('.down_proj')}.{e}.{down}.weight"] = rows
        else:
            file[name] = values
    return {name: values.to(torch.bfloat16).contiguous() for name, values in file.items()}


def write_gguf(path, config, state):
    """A Mixtral as llama.cpp's converter lays it out; experts in MXFP4, whose values go back into `state`."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_eos_token_id(config["eos_token_id"])

    def mxfp4(values):
        stored = gguf.quants.quantize(values.numpy(), Ggml.MXFP4)
        return stored, torch.from_numpy(gguf.quants.dequantize(stored, Ggml.MXFP4).astype(np.float32).copy())

    def add(name, values):
        writer.add_tensor(name, np.ascontiguousarray(values))

    for name, values in state.items():
        *_, module, kind = ["", *name.split(".")]
        at = f"blk.{name.split('.')[2]}." if ".layers." in name else ""
        heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}.get(module, 0)
        if kind == "gate_up_proj":
            halves = []
            for part, half in zip(("gate", "up"), values.chunk(2, dim=1)):
                stored, meant = mxfp4(half.contiguous())
                writer.add_tensor(f"{at}ffn_{part}_exps.weight", stored, raw_dtype=Ggml.MXFP4)
                halves.append(meant)
            state[name] = torch.cat(halves, dim=1)
        elif kind == "down_proj":
            stored, state[name] = mxfp4(values)
            writer.add_tensor(at + "ffn_down_exps.weight", stored, raw_dtype=Ggml.MXFP4)
        elif name.endswith("mlp.gate.weight"):
            add(at + "ffn_gate_inp.weight", values.numpy())
        else:
            rows = values.numpy()
            add(base.gguf_name(name), base.permuted(rows, heads) if heads else rows)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(out, name, config):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    random = torch.Generator().manual_seed(sum(ord(c) << (i % 16) for i, c in enumerate(name)))
    parameters = transformers.AutoConfig.for_model(**config)
    parameters._attn_implementation = parameters._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(parameters, dtype=torch.float32).eval()
    state = draw(model, random)
    if "gguf" in name:
        write_gguf(folder / "model.gguf", config, state)
    else:
        base.write_json(folder / "config.json", config)
        safetensors.torch.save_file(unstacked(config, state), folder / "model.safetensors", {"format": "pt"})
    model.load_state_dict(state)
    spec = base.Spec("bf16", vocabulary=config["vocab_size"])
    answer, logits = base.golden(model, spec, random)
    base.write_json(folder / "golden.json", answer)
    np.save(folder / "golden_logits.npy", logits.astype(np.float32))
    print(f"{name:24} {sum(f.stat().st_size for f in folder.iterdir()):7} bytes, logits' deviation {logits.std():.2f}, "
          f"margin {answer['margin']}, {len(set(answer['greedy_tokens']))} different greedy tokens")


if __name__ == "__main__":
    base.run(__doc__, SPECS, make)
