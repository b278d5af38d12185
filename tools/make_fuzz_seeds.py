"""Makes the seeds under tests/fuzz/corpus: the smallest checkpoints in each container and dialect, and texts cut from
tests/data. Needs only Python; its output is checked in. Other files there are inputs that once did harm, and stay.

    python tools/make_fuzz_seeds.py tests/data tests/fuzz/corpus
"""

import json
import pathlib
import random
import struct
import sys

HIDDEN, INTER, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 32, 64, 2, 1, 16, 33
LINEARS = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (16, 32), "self_attn.v_proj": (16, 32),
           "self_attn.o_proj": (32, 32), "mlp.gate_proj": (64, 32), "mlp.up_proj": (64, 32), "mlp.down_proj": (32, 64)}
GGUF_NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
              "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
              "mlp.down_proj": "ffn_down"}
CONFIG = {"model_type": "llama", "hidden_size": HIDDEN, "intermediate_size": INTER, "num_hidden_layers": 1,
          "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "vocab_size": VOCAB,
          "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
          "eos_token_id": [1, 2]}
rng = random.Random(7)


def join(files):
    return b"\n".join(b"@@ " + name.encode() + b"\n" + (text if isinstance(text, bytes) else text.encode())
                      for name, text in sorted(files.items()))


def floats(count, kind="F32"):
    values = [rng.uniform(-0.2, 0.2) for _ in range(count)]
    if kind == "F16":
        return struct.pack(f"<{count}e", *values)
    packed = struct.pack(f"<{count}f", *values)
    return packed if kind == "F32" else b"".join(packed[i + 2:i + 4] for i in range(0, len(packed), 4))


def some(count, low=0, high=255):
    return bytes(rng.randint(low, high) for _ in range(count))


# Safetensors: tensors by name as (dtype, shape, bytes).

def safetensors(tensors):
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def plain(module, n, k, kind="BF16"):
    return {f"{module}.weight": (kind, [n, k], floats(n * k, kind))}


def modelopt(module, n, k):
    return {f"{module}.weight": ("U8", [n, k // 2], some(n * k // 2)),
            f"{module}.weight_scale": ("F8_E4M3", [n, k // 16], some(n * k // 16, 0x20, 0x40)),
            f"{module}.weight_scale_2": ("F32", [], struct.pack("<f", 0.5))}


def compressed_nvfp4(module, n, k):
    return {f"{module}.weight_packed": ("U8", [n, k // 2], some(n * k // 2)),
            f"{module}.weight_scale": ("F8_E4M3", [n, k // 16], some(n * k // 16, 0x20, 0x40)),
            f"{module}.weight_global_scale": ("F32", [1], struct.pack("<f", 2))}


def compressed_mxfp4(module, n, k):
    return {f"{module}.weight_packed": ("U8", [n, k // 2], some(n * k // 2)),
            f"{module}.weight_scale": ("U8", [n, k // 32], some(n * k // 32, 118, 128))}


def mlx(module, n, k):
    return {f"{module}.weight": ("U32", [n, k // 8], some(n * k // 2)),
            f"{module}.scales": ("U8", [n, k // 32], some(n * k // 32, 118, 128))}


def mlx_affine(module, n, k):
    return {f"{module}.weight": ("U32", [n, k // 8], some(n * k // 2)),
            f"{module}.scales": ("F16", [n, k // 32], floats(n * k // 32, "F16")),
            f"{module}.biases": ("F16", [n, k // 32], floats(n * k // 32, "F16"))}


DIALECTS = {
    "bf16": (plain, {}),
    "modelopt": (modelopt, {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4",
                                                    "ignore": ["lm_head", "model.layers.1*"]}}),
    "ct_nvfp4": (compressed_nvfp4, {"quantization_config": {
        "quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized", "ignore": ["re:.*lm_head"],
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 16}}}}}),
    "ct_mxfp4": (compressed_mxfp4, {"quantization_config": {"quant_method": "compressed-tensors",
                                                            "format": "mxfp4-pack-quantized", "ignore": []}}),
    "mlx_mxfp4": (mlx, {"quantization": {"mode": "mxfp4", "bits": 4, "group_size": 32, "model.layers.7": False}}),
    "mlx_affine": (mlx_affine, {"quantization": {"bits": 4, "group_size": 32}}),
}
ROPES = [{"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16},
         {"type": "yarn", "factor": 3.0, "original_max_position_embeddings": 16, "truncate": False},
         {"rope_type": "linear", "factor": 2.0}]


def model_tensors(linear):
    tensors = plain("model.embed_tokens", VOCAB, HIDDEN)
    for name, (n, k) in LINEARS.items():
        tensors |= linear(f"model.layers.0.{name}", n, k)
    for name in ("model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm"):
        tensors[f"{name}.weight"] = ("F32", [HIDDEN], floats(HIDDEN))
    return tensors


# GGUF: metadata values by key as (type number, value); tensors by name as (type number, shape innermost first, bytes).

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9
BLOCKS = {1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 30: (1, 2), 39: (32, 17), 40: (64, 36)}


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def gguf_value(kind, value):
    if kind == ARRAY:
        inner, items = value
        return struct.pack("<IQ", inner, len(items)) + b"".join(gguf_value(inner, item) for item in items)
    return text(value) if kind == STRING else struct.pack({U32: "<I", F32: "<f", BOOL: "<B", 5: "<i"}[kind], value)


def gguf(metadata, tensors):
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, (kind, value) in metadata.items():
        out += text(key) + struct.pack("<I", kind) + gguf_value(kind, value)
    data = b""
    for name, (kind, shape, values) in tensors.items():
        out += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        out += struct.pack("<IQ", kind, len(data))
        data += values + bytes(-len(values) % 32)
    return out + bytes(-len(out) % 32) + data


def gguf_blocks(kind, n, k):
    elements, size = BLOCKS[kind]
    count = n * k // elements
    if kind in (1, 30):
        return floats(count, "F16" if kind == 1 else "BF16")
    half = struct.pack("<e", 0.03)
    scale = {2: half, 3: half + half, 8: half, 39: bytes([120]), 40: bytes([0x30] * 4)}[kind]
    return b"".join(scale + some(size - len(scale)) for _ in range(count))


def gguf_metadata(architecture, tokens, merges):
    a = architecture
    return {"general.architecture": (STRING, a), f"{a}.embedding_length": (U32, HIDDEN),
            f"{a}.feed_forward_length": (U32, INTER), f"{a}.block_count": (U32, 1),
            f"{a}.attention.head_count": (U32, HEADS), f"{a}.attention.head_count_kv": (U32, KV_HEADS),
            f"{a}.attention.key_length": (U32, HEAD_DIM), f"{a}.context_length": (U32, 32),
            f"{a}.vocab_size": (U32, VOCAB), f"{a}.attention.layer_norm_rms_epsilon": (F32, 1e-5),
            f"{a}.rope.freq_base": (F32, 10000.0), f"{a}.rope.scaling.type": (STRING, "linear"),
            f"{a}.rope.scaling.factor": (F32, 2.0), "tokenizer.ggml.model": (STRING, "gpt2"),
            "tokenizer.ggml.pre": (STRING, "default"), "tokenizer.ggml.tokens": (ARRAY, (STRING, tokens)),
            "tokenizer.ggml.token_type": (ARRAY, (5, [1] * (len(tokens) - 1) + [3])),
            "tokenizer.ggml.merges": (ARRAY, (STRING, merges)), "tokenizer.ggml.eos_token_id": (U32, len(tokens) - 1),
            "tokenizer.ggml.add_bos_token": (BOOL, 0),
            "tokenizer.chat_template": (STRING, "{% for m in messages %}{{ m.content }}{% endfor %}")}


def gguf_model(architecture, kind, with_heads):
    tokens = [chr(97 + i) for i in range(26)] + ["Ġ", "ab", "Ġa", "Ġab", "H", "Ċ", "<eos>"]
    tensors = {"token_embd.weight": (kind, [HIDDEN, VOCAB], gguf_blocks(kind, VOCAB, HIDDEN))}
    for name, (n, k) in LINEARS.items():
        tensors[f"blk.0.{GGUF_NAMES[name]}.weight"] = (kind, [k, n], gguf_blocks(kind, n, k))
    for name, size in [("blk.0.attn_norm", HIDDEN), ("blk.0.ffn_norm", HIDDEN), ("output_norm", HIDDEN)]:
        tensors[f"{name}.weight"] = (0, [size], floats(size))
    if with_heads:
        for name in ("blk.0.attn_q_norm", "blk.0.attn_k_norm"):
            tensors[f"{name}.weight"] = (0, [HEAD_DIM], floats(HEAD_DIM))
    return gguf(gguf_metadata(architecture, tokens, ["a b", "Ġ a", "Ġ ab"]), tensors)


def main(data, out):
    def write(target, name, contents):
        folder = out / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(contents if isinstance(contents, bytes) else contents.encode())

    tokenizer = (data / "models/llama-bf16/tokenizer.json").read_text()
    tokenizer_config = (data / "models/llama-bf16/tokenizer_config.json").read_text()
    generation = json.dumps({"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.9, "eos_token_id": 2})
    for i, (dialect, (linear, quantization)) in enumerate(DIALECTS.items()):
        tensors = model_tensors(linear)
        config = CONFIG | quantization | ({"rope_scaling": ROPES[i % 3]} if i < 5 else {"rope_parameters": ROPES[0]})
        files = {"config.json": json.dumps(config)}
        write("config", dialect, join(files | {"generation_config.json": generation}))
        if dialect == "bf16":
            names = list(tensors)
            halves = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
            for file, part in halves.items():
                files[file] = safetensors({name: tensors[name] for name in part})
            index = {name: file for file, part in halves.items() for name in part}
            files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": index})
            files |= {"tokenizer.json": tokenizer, "tokenizer_config.json": tokenizer_config,
                      "generation_config.json": generation}
        else:
            files["model.safetensors"] = safetensors(tensors)
        write("load", dialect, join(files))
        layer = {name: tensor for name, tensor in tensors.items() if "k_proj" in name or "layernorm" in name}
        write("safetensors", dialect, safetensors(layer))
    for kind, name in {39: "mxfp4", 2: "q4_0", 3: "q4_1", 8: "q8_0", 1: "f16"}.items():
        model = gguf_model("qwen3" if kind == 39 else "llama", kind, kind == 39)
        write("load", "gguf_" + name, join({"model.gguf": model}))
    metadata = gguf_metadata("llama", ["a", "b", "ab", "<eos>"], ["a b"])
    tensors = {f"blk.0.{kind}.weight": (kind, [64, 2], gguf_blocks(kind, 2, 64)) for kind in BLOCKS}
    tensors |= {"blk.0.40.scale": (0, [1], struct.pack("<f", 2)), "rope_freqs.weight": (0, [8], floats(8)),
                "blk.0.39_exps.weight": (39, [32, 2, 2], gguf_blocks(39, 4, 32))}
    write("gguf", "all_types", gguf(metadata, tensors))
    write("gguf", "metadata", gguf(metadata, {}))
    for target, extra in [("config", {}), ("tokenizer", {"text": "ab abc <eos>"})]:
        flat = {key: value[1] if kind == ARRAY else value for key, (kind, value) in metadata.items()}
        write(target, "gguf", join(extra | {"metadata.json": json.dumps(flat)}))

    write("tokenizer", "byte_level", join({"tokenizer.json": tokenizer, "tokenizer_config.json": tokenizer_config,
                                           "text": "the quick <|start|> fox, 123!"}))
    split = {"type": "Split", "pattern": {"Regex": r"\p{N}{1,3}| ?\p{L}+|\s+(?!\S)|\s+"}, "behavior": "Isolated"}
    small = {"normalizer": {"type": "NFC"}, "added_tokens": [
                 {"id": 4, "content": "<s>", "special": True, "lstrip": True, "rstrip": True, "single_word": False}],
             "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                 split, {"type": "Digits", "individual_digits": True},
                 {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithNext", "invert": True},
                 {"type": "ByteLevel", "add_prefix_space": True, "use_regex": False}]},
             "decoder": {"type": "ByteLevel"},
             "model": {"type": "BPE", "unk_token": "a", "fuse_unk": True, "ignore_merges": True,
                       "vocab": {"a": 0, "b": 1, "ab": 2, "Ġ": 3}, "merges": [["a", "b"]]}}
    write("tokenizer", "sequence", join({"tokenizer.json": json.dumps(small), "text": "ab <s> a1 b22"}))

    cases = [case["template"] for case in json.loads((data / "text/jinja_golden.json").read_text())["cases"]
             if "rendered" in case]
    for i in range(0, len(cases), 6):
        write("template", f"golden_{i:03}", "\n".join(cases[i:i + 6]))
    chat = json.loads(tokenizer_config)["chat_template"]
    write("template", "chat", join({"template": chat, "messages.json": json.dumps(
        {"messages": [{"role": "user", "content": "Hi"}], "variables": {"bos_token": "<s>"}})}))


main(*map(pathlib.Path, sys.argv[1:3]))
