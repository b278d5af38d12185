"""Makes tests/data/models: small checkpoints with random weights, and the logits that transformers computes from them.

Each folder holds one model, as config.json and safetensors or as model.gguf, in one of the dialects that Nibble reads,
with golden.json (prompt_tokens, greedy_tokens, the smallest margin between the best and the second logit on the way)
and golden_logits.npy, float32 [prompt, vocabulary]. The judge runs in float32, eager, on the values that the stored
codes and scales mean; safetensors codes and scales are drawn directly, GGUF blocks come from gguf-py's quantizers, or are
drawn where it has none, and mean what its dequantizers make of them.

Needs PyPI's torch, transformers (5), safetensors and gguf. Their output is checked in, so that the tests need none of
it; the same versions write the same bytes again.

    python tools/make_goldens.py tests/data/models
    python tools/make_goldens.py tests/data/models --only llama-bf16
"""

import argparse
import json
import pathlib
import shutil

import gguf
import numpy as np
import safetensors.torch
import torch
import transformers
from gguf import GGMLQuantizationType as Ggml

import golden_dialects
from golden_specs import SPECS, Spec

PROMPT, GREEDY, LEAST_DIFFERENT = 16, 16, 6
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def hugging_face_config(s):
    config = {
        "architectures": [{"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[s.architecture]],
        "model_type": s.architecture, "hidden_size": s.hidden, "intermediate_size": s.intermediate,
        "num_hidden_layers": s.layers, "num_attention_heads": s.heads, "num_key_value_heads": s.kv_heads,
        "head_dim": s.head_dim, "vocab_size": s.vocabulary, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "attention_bias": s.attention_bias, "tie_word_embeddings": s.tied,
        "bos_token_id": None, "eos_token_id": s.vocabulary - 1,
    }
    if s.architecture == "llama":
        config["mlp_bias"] = s.mlp_bias
    if s.old_style:
        config |= {"rope_theta": s.theta, "rope_scaling": dict(s.rope) or None}  # transformers writes into it
    else:
        config["rope_parameters"] = {"rope_type": "default", "rope_theta": s.theta} | s.rope
    return config


def module_names(s):
    """Name, rows, columns, whether it has a bias, of every matrix."""
    yield "model.embed_tokens", s.vocabulary, s.hidden, False
    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    for layer in range(s.layers):
        at = f"model.layers.{layer}."
        yield at + "self_attn.q_proj", q, s.hidden, s.attention_bias
        yield at + "self_attn.k_proj", kv, s.hidden, s.attention_bias
        yield at + "self_attn.v_proj", kv, s.hidden, s.attention_bias
        yield at + "self_attn.o_proj", s.hidden, q, s.attention_bias
        yield at + "mlp.gate_proj", s.intermediate, s.hidden, s.mlp_bias
        yield at + "mlp.up_proj", s.intermediate, s.hidden, s.mlp_bias
        yield at + "mlp.down_proj", s.hidden, s.intermediate, s.mlp_bias
    if not s.tied:
        yield "lm_head", s.vocabulary, s.hidden, False


def vector_names(s):
    yield "model.norm.weight", s.hidden
    for layer in range(s.layers):
        at = f"model.layers.{layer}."
        yield at + "input_layernorm.weight", s.hidden
        yield at + "post_attention_layernorm.weight", s.hidden
        if s.architecture == "qwen3":
            yield at + "self_attn.q_norm.weight", s.head_dim
            yield at + "self_attn.k_norm.weight", s.head_dim


def target_deviation(name, columns):
    """Of a matrix's values: activations of size 1 inside, logits of size 4."""
    if name == "model.embed_tokens":
        return 0.5
    return {"lm_head": 4.0}.get(name, 1.5) / columns ** 0.5


class Maker:
    """Draws weights; `stored` is what the file holds, `meant` the float32 values of the same."""

    def __init__(self, name, spec):
        self.random = torch.Generator().manual_seed(sum(ord(c) << (i % 16) for i, c in enumerate(name)))
        self.spec, self.stored, self.meant = spec, {}, {}

    def normal(self, shape, deviation, mean=0.0):
        return torch.randn(shape, generator=self.random) * deviation + mean

    def integers(self, low, high, shape):  # high is excluded
        return torch.randint(low, high, shape, generator=self.random)

    def plain(self, name, values, dtype=torch.bfloat16):
        self.stored[name] = values.to(dtype)
        self.meant[name] = self.stored[name].float()

    def codes(self, rows, columns):
        codes = self.integers(0, 16, (rows, columns))
        packed = (codes[:, 0::2] | codes[:, 1::2] << 4).to(torch.uint8)  # the even k in the low nibble
        return packed, E2M1[codes]

    def e8m0(self, rows, groups, deviation):
        """Scale bytes and their values, for codes of deviation 2.9."""
        middle = 127 + int(np.floor(np.log2(deviation / 2.9)))
        bytes_ = self.integers(middle - 1, middle + 2, (rows, groups))
        return bytes_.to(torch.uint8), torch.ldexp(torch.ones(rows, groups), bytes_ - 127)

    def e4m3(self, rows, groups, low=0x01, high=0x40):
        """Scale bytes from subnormals up to 2, and their values; one in fifty is zero."""
        bytes_ = self.integers(low, high, (rows, groups))
        bytes_[torch.rand(rows, groups, generator=self.random) < 0.02] = 0
        bytes_ = bytes_.to(torch.uint8)
        return bytes_, bytes_.view(torch.float8_e4m3fn).float()

    def mxfp4(self, rows, columns, deviation):
        packed, elements = self.codes(rows, columns)
        scales, values = self.e8m0(rows, columns // 32, deviation)
        return packed, scales, elements * values.repeat_interleave(32, 1)

    def nvfp4(self, rows, columns, deviation):
        """Codes, scales, and a tensor scale (float32) that gives the deviation."""
        packed, elements = self.codes(rows, columns)
        scales, values = self.e4m3(rows, columns // 16)
        product = elements * values.repeat_interleave(16, 1)
        return packed, scales, product, (deviation / product.std()).float()


def quantized(maker, name, rows, columns, deviation):
    """One matrix in the dialect's own codes."""
    dialect = maker.spec.dialect
    weight = name + ".weight"
    if dialect == "modelopt":
        packed, scales, product, scale = maker.nvfp4(rows, columns, deviation)
        maker.stored |= {weight: packed, weight + "_scale": scales.view(torch.float8_e4m3fn),
                         weight + "_scale_2": scale, name + ".input_scale": torch.tensor(0.0123)}
        maker.meant[weight] = product * scale
    elif dialect == "ct-nvfp4":
        packed, scales, product, scale = maker.nvfp4(rows, columns, deviation)
        divisor = (1 / scale).reshape(1)
        maker.stored |= {weight + "_packed": packed, weight + "_scale": scales.view(torch.float8_e4m3fn),
                         weight + "_global_scale": divisor, name + ".input_global_scale": torch.tensor([77.0])}
        maker.meant[weight] = product / divisor
    elif dialect == "ct-mxfp4":
        packed, scales, maker.meant[weight] = maker.mxfp4(rows, columns, deviation)
        maker.stored |= {weight + "_packed": packed, weight + "_scale": scales}
    elif dialect == "mlx-mxfp4":
        packed, scales, maker.meant[weight] = maker.mxfp4(rows, columns, deviation)
        maker.stored |= {weight: packed.view(torch.uint32), name + ".scales": scales}
    elif dialect == "mlx-nvfp4":  # no tensor scale: the scales alone have the right size
        packed, elements = maker.codes(rows, columns)
        middle = 8 * (7 + int(np.floor(np.log2(deviation / 2.9))))
        scales, values = maker.e4m3(rows, columns // 16, max(middle - 8, 1), middle + 12)
        maker.stored |= {weight: packed.view(torch.uint32), name + ".scales": scales}
        maker.meant[weight] = elements * values.repeat_interleave(16, 1)
    else:
        raise ValueError(dialect)


def mlx_affine(maker, name, rows, columns, deviation, bits, group):
    """Whole numbers with a bfloat16 scale and bias for each group, as MLX keeps embeddings and routers."""
    codes = maker.integers(0, 1 << bits, (rows, columns))
    scales = (maker.normal((rows, columns // group), 0.1, 1.0) * deviation * 3.5 / (1 << bits)).to(torch.bfloat16)
    biases = (-scales.float() * (1 << bits) / 2).to(torch.bfloat16)
    packed = codes if bits == 8 else codes[:, 0::2] | codes[:, 1::2] << 4
    maker.stored |= {name + ".weight": packed.to(torch.uint8).view(torch.uint32), name + ".scales": scales,
                     name + ".biases": biases}
    maker.meant[name + ".weight"] = (codes.float() * scales.float().repeat_interleave(group, 1) +
                                     biases.float().repeat_interleave(group, 1))


def is_kept(dialect, name):
    """Whether the dialect's tool leaves the matrix in bfloat16."""
    if dialect == "mlx-mxfp4":
        return False
    return name in ("model.embed_tokens", "lm_head")


def add_safetensors_weights(maker):
    s = maker.spec
    floats = [torch.bfloat16, torch.float16, torch.float32]
    for i, (name, rows, columns, has_bias) in enumerate(module_names(s)):
        deviation = target_deviation(name, columns)
        if s.dialect in golden_dialects.ALL:
            golden_dialects.add_matrix(maker, name, rows, columns, deviation)
        elif s.dialect in ("bf16", "floats"):
            dtype = floats[i % 3] if s.dialect == "floats" else torch.bfloat16
            maker.plain(name + ".weight", maker.normal((rows, columns), deviation), dtype)
        elif s.dialect == "mlx-nvfp4" and name in ("model.embed_tokens", "lm_head"):
            mlx_affine(maker, name, rows, columns, deviation, *((4, 32) if name == "lm_head" else (8, 96)))
        elif is_kept(s.dialect, name):
            maker.plain(name + ".weight", maker.normal((rows, columns), deviation))
        else:
            quantized(maker, name, rows, columns, deviation)
        if has_bias:
            maker.plain(name + ".bias", maker.normal((rows,), 0.3))
    for name, size in vector_names(s):
        maker.plain(name, maker.normal((size,), 0.2, 1.0), torch.float32 if s.dialect == "floats" else torch.bfloat16)


def quantization_config(s):
    """The entries of config.json, and the contents of hf_quant_config.json or None."""
    if s.dialect in golden_dialects.ALL:
        return golden_dialects.quantization_config(s.dialect, [name for name, *_ in module_names(s)])
    kept = [name for name, *_ in module_names(s) if is_kept(s.dialect, name)]
    if s.dialect == "modelopt" and s.architecture == "qwen3":  # older files of the tool have it beside config.json
        return {}, {"producer": {"name": "modelopt", "version": "0.29.0"},
                    "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": None, "group_size": 16,
                                     "exclude_modules": kept}}
    weights = {"num_bits": 4, "type": "float", "dynamic": False}
    if s.dialect == "modelopt":
        return {"quantization_config": {
            "quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": kept,
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights | {"group_size": 16}}}}}, None
    if s.dialect.startswith("ct-"):
        tool_format = s.dialect[3:] + "-pack-quantized"
        weights |= {"group_size": 16 if "nvfp4" in s.dialect else 32,
                    "strategy": "tensor_group" if "nvfp4" in s.dialect else "group"}
        return {"quantization_config": {
            "quant_method": "compressed-tensors", "quantization_status": "compressed", "format": tool_format,
            "ignore": ["re:.*lm_head"], "config_groups": {
                "group_0": {"targets": ["Linear"], "weights": weights, "format": tool_format}}}}, None
    if s.dialect == "mlx-mxfp4":
        mlx = {"group_size": 32, "bits": 4, "mode": "mxfp4"}
    elif s.dialect == "mlx-nvfp4":
        mlx = {"group_size": 16, "bits": 4, "mode": "nvfp4",
               "model.embed_tokens": {"group_size": 96, "bits": 8, "mode": "affine"},
               "lm_head": {"group_size": 32, "bits": 4, "mode": "affine"}}
    else:
        return {}, None
    return {"quantization": mlx, "quantization_config": mlx}, None


# ---- text ----

TEXT = pathlib.Path(__file__).parent.parent / "tests" / "data" / "text" / "tokenizer.json"
CHAT_TEMPLATE = ("{% for message in messages %}<|start|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
                 "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}")
BOS, EOS = 329, 330  # <|start|> and <|end|>


def stop_tokens(s):
    return [EOS, s.vocabulary - 1] if s.text else [s.vocabulary - 1]


def write_text_files(folder, s):
    shutil.copyfile(TEXT, folder / "tokenizer.json")
    write_json(folder / "tokenizer_config.json", {"bos_token": "<|start|>", "eos_token": "<|end|>",
                                                  "chat_template": CHAT_TEMPLATE})
    write_json(folder / "generation_config.json", {"eos_token_id": stop_tokens(s)})


def add_gguf_text(writer, s):
    tokenizer = json.loads(TEXT.read_text())
    added = tokenizer["added_tokens"]
    tokens = [t for t, _ in sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])]
    types = [gguf.TokenType.NORMAL] * len(tokens)
    tokens += [t["content"] for t in added]
    types += [gguf.TokenType.CONTROL if t["special"] else gguf.TokenType.USER_DEFINED for t in added]
    while len(tokens) < s.vocabulary:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(gguf.TokenType.UNUSED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)


def write_safetensors(folder, maker):
    s = maker.spec
    entries, beside = quantization_config(s)
    write_json(folder / "config.json", hugging_face_config(s) | entries)
    if beside:
        write_json(folder / "hf_quant_config.json", beside)
    if s.text:
        write_text_files(folder, s)
    if s.shards == 1:
        safetensors.torch.save_file(maker.stored, folder / "model.safetensors", {"format": "pt"})
        return
    names = sorted(maker.stored)
    files = [f"model-{i + 1:05}-of-{s.shards:05}.safetensors" for i in range(s.shards)]
    for i, file in enumerate(files):
        safetensors.torch.save_file({n: maker.stored[n] for n in names[i::s.shards]}, folder / file, {"format": "pt"})
    size = sum(t.numel() * t.element_size() for t in maker.stored.values())
    write_json(folder / "model.safetensors.index.json", {
        "metadata": {"total_size": size}, "weight_map": {n: files[i % s.shards] for i, n in enumerate(names)}})


# ---- GGUF ----

GGUF_MODULES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
                "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
                "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
                "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
GGUF_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name):
    module, ending = name.rsplit(".", 1)
    if module in GGUF_OUTER:
        return f"{GGUF_OUTER[module]}.{ending}"
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{GGUF_MODULES[rest]}.{ending}"


def permuted(values, heads):
    """The order of rows in llama's GGUF files: rotation pairs side by side."""
    return values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(
        values.shape)


K_MIXES = {"q4_k": {"o_proj": Ggml.Q5_0, "v_proj": Ggml.Q6_K, "down_proj": Ggml.Q6_K, "lm_head": Ggml.Q6_K},
           "q5_k": {"o_proj": Ggml.Q5_1, "down_proj": Ggml.Q6_K}}


def drawn_blocks(maker, kind, rows, columns, deviation):
    """Blocks of a type that gguf-py does not write, with all codes and scales of unlike sizes."""
    elements, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = maker.integers(0, 256, (rows, columns // elements, size)).numpy().astype(np.uint8)
    number = blocks.shape[:2]

    def put_halves(at, values):
        blocks[..., at:at + 2] = values.numpy().astype("<f2")[..., None].view(np.uint8)

    step = (maker.normal(number, 0.2, 1.0) * deviation)
    if kind == Ggml.IQ4_NL:  # its values' deviation is 71
        put_halves(0, step / 71 * (1 - 2 * maker.integers(0, 2, number)))
    elif kind == Ggml.Q6_K:  # codes deviate by 18.5 and scales are about 70, of either sign
        scales = maker.integers(40, 100, (*number, 16)) * (1 - 2 * maker.integers(0, 2, (*number, 16)))
        blocks[..., 192:208] = scales.numpy().astype(np.int8).view(np.uint8)
        put_halves(208, step / 18.5 / 70)
    else:  # scales of about 40, minima that take the middle code to about 0
        largest = {Ggml.Q4_K: 15, Ggml.Q5_K: 31}[kind]
        scales = maker.integers(20, 60, (*number, 8)).numpy()
        minima = scales + maker.integers(-3, 4, (*number, 8)).numpy()
        blocks[..., 4:8] = scales[..., :4] | scales[..., 4:] >> 4 << 6
        blocks[..., 8:12] = minima[..., :4] | minima[..., 4:] >> 4 << 6
        blocks[..., 12:16] = scales[..., 4:] & 15 | (minima[..., 4:] & 15) << 4
        put_halves(0, step / (largest * 0.29) / 40)
        put_halves(2, step / (largest * 0.29) / 40 * largest / 2)
    return blocks.reshape(rows, -1)


def gguf_type(s, index, name):
    wanted = s.dialect.removeprefix("gguf-")
    if wanted == "floats":
        return [Ggml.BF16, Ggml.F16, Ggml.F32][index % 3]
    if wanted in K_MIXES:
        matrix = name.rsplit(".", 1)[-1]
        return K_MIXES[wanted].get(matrix, Ggml[wanted.upper()])
    if wanted == "mxfp4" and name in ("model.embed_tokens", "lm_head"):
        return Ggml.Q8_0
    return Ggml[wanted.upper()]


def write_gguf(folder, maker):
    s = maker.spec
    tensors = sum(1 for _ in module_names(s)) + sum(1 for _ in vector_names(s))
    writer = gguf.GGUFWriter(folder / "model.gguf", s.architecture,
                             split_max_tensors=0 if s.shards == 1 else -(-tensors // s.shards))
    writer.add_context_length(256)
    writer.add_embedding_length(s.hidden)
    writer.add_block_count(s.layers)
    writer.add_feed_forward_length(s.intermediate)
    writer.add_head_count(s.heads)
    writer.add_head_count_kv(s.kv_heads)
    writer.add_key_length(s.head_dim)
    writer.add_value_length(s.head_dim)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(s.theta)
    if s.architecture == "llama":
        writer.add_rope_dimension_count(s.head_dim)
    writer.add_vocab_size(s.vocabulary)
    if s.text:
        add_gguf_text(writer, s)
    else:
        writer.add_eos_token_id(s.vocabulary - 1)
    kind = s.rope.get("rope_type")
    if kind in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR if kind == "linear" else gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(s.rope["factor"])
        if kind == "yarn":
            writer.add_rope_scaling_orig_ctx_len(s.rope["original_max_position_embeddings"])
    if kind == "llama3":  # the file holds what each frequency is divided by
        rope = transformers.modeling_rope_utils.ROPE_INIT_FUNCTIONS["llama3"]
        plain = 1.0 / s.theta ** (torch.arange(0, s.head_dim, 2).float() / s.head_dim)
        scaled, _ = rope(transformers_config(s), "cpu")
        writer.add_tensor("rope_freqs.weight", (plain / scaled).numpy())

    def add(name, values, heads):
        stored = permuted(values, heads) if s.architecture == "llama" and heads else values
        writer.add_tensor(gguf_name(name), stored)

    for i, (name, rows, columns, has_bias) in enumerate(module_names(s)):
        heads = {"q_proj": s.heads, "k_proj": s.kv_heads}.get(name.rsplit(".", 1)[-1], 0)
        kind = gguf_type(s, i, name)
        deviation = target_deviation(name, columns)
        if kind in (Ggml.Q4_K, Ggml.Q5_K, Ggml.Q6_K, Ggml.IQ4_NL):
            values = None
            stored = drawn_blocks(maker, kind, rows, columns, deviation)
        else:
            values = maker.normal((rows, columns), deviation).numpy()
            stored = values if kind == Ggml.F32 else gguf.quants.quantize(values, kind)
        meant = values if kind == Ggml.F32 else gguf.quants.dequantize(stored, kind)
        maker.meant[name + ".weight"] = torch.from_numpy(meant.astype(np.float32).copy())
        if s.architecture == "llama" and heads:
            stored = permuted(stored, heads)  # a row's blocks do not depend on other rows
        writer.add_tensor(gguf_name(name + ".weight"), stored, raw_dtype=kind)
        if has_bias:
            bias = maker.normal((rows,), 0.3)
            maker.meant[name + ".bias"] = bias
            add(name + ".bias", bias.numpy(), heads)
    for name, size in vector_names(s):
        maker.meant[name] = maker.normal((size,), 0.2, 1.0)
        writer.add_tensor(gguf_name(name), maker.meant[name].numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# ---- the judge ----

def transformers_config(s):
    return transformers.AutoConfig.for_model(**{k: v for k, v in hugging_face_config(s).items()
                                                if k != "architectures"})


def judge(s, meant):
    config = transformers_config(s)
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    state = dict(meant)
    if s.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return model.eval()


@torch.no_grad()
def golden(model, s, random):
    """The first prompt whose greedy continuation is nowhere near a tie, no mere repetition, and does not stop."""
    for _ in range(1000):
        prompt = torch.randint(0, s.vocabulary, (PROMPT,), generator=random).tolist()
        tokens, margin = list(prompt), np.inf
        while len(tokens) < PROMPT + GREEDY and margin > s.margin:
            best = torch.topk(model(torch.tensor([tokens])).logits[0, -1], 2)
            margin = min(margin, float(best.values[0] - best.values[1]))
            tokens.append(int(best.indices[0]))
        greedy = set(tokens[PROMPT:])
        if margin > s.margin and len(greedy) >= LEAST_DIFFERENT and not greedy & set(stop_tokens(s)):
            logits = model(torch.tensor([prompt])).logits[0].numpy()
            return {"prompt_tokens": prompt, "greedy_tokens": tokens[PROMPT:], "margin": round(margin, 4)}, logits
    raise RuntimeError("every prompt runs into a near tie, repeats itself or stops")


def write_json(path, value):
    path.write_text(json.dumps(value, indent=1) + "\n")


def make(out, name, s):
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    maker = Maker(name, s)
    if s.dialect.startswith("gguf-"):
        write_gguf(folder, maker)
    else:
        add_safetensors_weights(maker)
        write_safetensors(folder, maker)
    answer, logits = golden(judge(s, maker.meant), s, maker.random)
    write_json(folder / "golden.json", answer)
    np.save(folder / "golden_logits.npy", logits.astype(np.float32))
    size = sum(f.stat().st_size for f in folder.iterdir())
    print(f"{name:24} {size:7} bytes, logits' deviation {logits.std():.2f}, margin {answer['margin']}, "
          f"{len(set(answer['greedy_tokens']))} different greedy tokens")


def run(description, specs, make_one):
    """The command line of a script that makes models: make_one(folder, name, spec) for each of `specs`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path, help="the folder to write models into")
    parser.add_argument("--only", metavar="NAME", help="make only this model")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    for name, spec in specs.items():
        if arguments.only in (None, name):
            make_one(arguments.out, name, spec)


if __name__ == "__main__":
    run(__doc__, SPECS, make)
