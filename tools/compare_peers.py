#!/usr/bin/env python3
"""Measures Nibble beside other engines: the same file, in turns, in the same run.

  compare_peers.py make llama-3.2-1b --rest mxfp4 model.gguf       a file of a published shape, with random weights
  compare_peers.py run model.gguf --nibble build/release/apps/nibble --peer NAME=…/llama-bench

`make` needs gguf and numpy from PyPI. `run` needs programs only: nibble, and any number of builds of llama-bench
(llama.cpp, ik_llama.cpp). Every round runs each engine once; the table has the medians, how much of each Nibble is, and
the share of the read bandwidth that Nibble measured around its own runs.
"""

import argparse
import json
import statistics
import subprocess
import sys

SHAPES = {
    "llama-3.2-1b": {
        "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0, "tied": True},
    "qwen3-30b-a3b": {
        "model_type": "qwen3_moe", "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 151936, "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
    "gpt-oss-20b": {
        "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 24,
        "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201088, "rms_norm_eps": 1e-5,
        "rope_theta": 150000.0, "sliding_window": 128, "num_local_experts": 32, "num_experts_per_tok": 4},
    "glm-4.7-flash": {
        "model_type": "glm4_moe_lite", "hidden_size": 2048, "intermediate_size": 10240, "num_hidden_layers": 47,
        "num_attention_heads": 20, "num_key_value_heads": 20, "vocab_size": 154880, "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0, "q_lora_rank": 768, "kv_lora_rank": 512, "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64, "v_head_dim": 256, "n_routed_experts": 64, "num_experts_per_tok": 4,
        "n_shared_experts": 1, "moe_intermediate_size": 1536, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
        "routed_scaling_factor": 1.8, "norm_topk_prob": True},
}


# ---- make ----

def matrices_of(config):
    """(name, experts, N, K) of each matrix; experts is 0 for one that is none's."""
    H, I, L = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    yield "token_embd", 0, config["vocab_size"], H
    if not config.get("tied"):
        yield "output", 0, config["vocab_size"], H
    E = next((config[key] for key in ("num_experts", "num_local_experts", "n_routed_experts") if key in config), 0)
    expert_I = config.get("moe_intermediate_size", I)
    for layer in range(L):
        at = f"blk.{layer}."
        if "kv_lora_rank" in config:
            q_rank, rank, nope, rope, value = (config[key] for key in (
                "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
            yield at + "attn_q_a", 0, q_rank, H
            yield at + "attn_q_b", 0, heads * (nope + rope), q_rank
            yield at + "attn_kv_a_mqa", 0, rank + rope, H
            yield at + "attn_k_b", heads, rank, nope
            yield at + "attn_v_b", heads, value, rank
            yield at + "attn_output", 0, H, heads * value
        else:
            dim = config["head_dim"]
            yield at + "attn_q", 0, heads * dim, H
            yield at + "attn_k", 0, kv_heads * dim, H
            yield at + "attn_v", 0, kv_heads * dim, H
            yield at + "attn_output", 0, H, heads * dim
        if E == 0 or layer < config.get("first_k_dense_replace", 0):
            yield at + "ffn_gate", 0, I, H
            yield at + "ffn_up", 0, I, H
            yield at + "ffn_down", 0, H, I
            continue
        yield at + "ffn_gate_inp", 0, E, H
        yield at + "ffn_gate_exps", E, expert_I, H
        yield at + "ffn_up_exps", E, expert_I, H
        yield at + "ffn_down_exps", E, H, expert_I
        if config.get("n_shared_experts"):
            yield at + "ffn_gate_shexp", 0, expert_I, H
            yield at + "ffn_up_shexp", 0, expert_I, H
            yield at + "ffn_down_shexp", 0, H, expert_I


def vectors_of(config):
    """(name, shape) of what is no matrix."""
    H = config["hidden_size"]
    kind = config["model_type"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    yield "output_norm.weight", (H,)
    for layer in range(config["num_hidden_layers"]):
        at = f"blk.{layer}."
        yield at + "attn_norm.weight", (H,)
        yield at + ("post_attention_norm.weight" if kind == "gpt_oss" else "ffn_norm.weight"), (H,)
        if kind == "qwen3_moe":
            yield at + "attn_q_norm.weight", (config["head_dim"],)
            yield at + "attn_k_norm.weight", (config["head_dim"],)
        if kind == "glm4_moe_lite":
            yield at + "attn_q_a_norm.weight", (config["q_lora_rank"],)
            yield at + "attn_kv_a_norm.weight", (config["kv_lora_rank"],)
            if layer >= config["first_k_dense_replace"]:
                yield at + "exp_probs_b.bias", (config["n_routed_experts"],)
        if kind == "gpt_oss":
            E, I, dim = config["num_local_experts"], config["intermediate_size"], config["head_dim"]
            yield at + "attn_sinks.weight", (heads,)
            for name, size in (("attn_q", heads * dim), ("attn_k", kv_heads * dim), ("attn_v", kv_heads * dim),
                               ("attn_output", H), ("ffn_gate_inp", E)):
                yield f"{at}{name}.bias", (size,)
            for name, size in (("ffn_gate_exps", I), ("ffn_up_exps", I), ("ffn_down_exps", H)):
                yield f"{at}{name}.bias", (E, size)


class RandomBlocks:
    """Blocks with random codes, and scales that give weights a deviation of 1 / sqrt(K)."""

    def __init__(self, np):
        self.np = np
        self.random = np.random.default_rng(1)
        self.pools = {}  # of blocks, read from a new place for every matrix

    def pool(self, kind, columns):
        np, count = self.np, 1 << 20
        deviation = columns ** -0.5
        if kind == "mxfp4":
            blocks = self.random.integers(0, 256, (count, 17), dtype=np.uint8)
            exponent = 127 + int(np.floor(np.log2(deviation / 2.93)))
            blocks[:, 0] = exponent + self.random.integers(0, 2, count)
            return blocks
        blocks = self.random.integers(0, 256, (count, 34), dtype=np.uint8)
        scales = (deviation / 73.9 * self.random.uniform(0.75, 1.25, count)).astype(np.float16)
        blocks[:, :2] = scales.view(np.uint8).reshape(count, 2)
        return blocks

    def take(self, kind, rows, columns):
        key = kind, columns
        if key not in self.pools:
            self.pools[key] = self.pool(kind, columns)
        pool, count = self.pools[key], rows * columns // 32
        start = int(self.random.integers(0, len(pool)))
        whole = self.np.resize(self.np.roll(pool, -start, axis=0), (count, pool.shape[1]))
        return whole.reshape(rows, -1)


def make(options):
    import gguf
    import numpy as np
    from gguf import GGMLQuantizationType as Ggml
    from gguf_metadata import ARCHITECTURES, add_metadata

    config = SHAPES[options.shape] | {"max_position_embeddings": 131072, "eos_token_id": 0}
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    if options.layers:
        config["num_hidden_layers"] = options.layers
    writer = gguf.GGUFWriter(options.file, ARCHITECTURES[config["model_type"]])
    add_metadata(writer, config, is_unsplit=False, num_layers=config["num_hidden_layers"])
    if config["model_type"] == "glm4_moe_lite":
        writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_tokenizer_model("no_vocab")
    kinds = {"mxfp4": Ggml.MXFP4, "q8_0": Ggml.Q8_0}

    blocks, tensors = RandomBlocks(np), []
    for name, experts, rows, columns in matrices_of(config):
        if name.endswith("ffn_gate_inp"):
            tensors.append((name + ".weight", (rows, columns), None))
            continue
        kind = "mxfp4" if name.endswith("_exps") else options.rest
        if columns % 32 != 0 or name.endswith("attn_k_b"):
            kind = "q8_0"  # whose 192 columns most engines have no FP4 kernel for
        tensors.append((name + ".weight", (max(experts, 1) * rows, columns), kind))
        shape = (experts, rows, columns) if experts else (rows, columns)
        row_bytes = columns // 32 * (17 if kind == "mxfp4" else 34)
        writer.add_tensor_info(name + ".weight", shape[:-1] + (row_bytes,), np.dtype(np.uint8),
                               max(experts, 1) * rows * row_bytes, raw_dtype=kinds[kind])
    # Infos and data go in one order, matrices of blocks first.
    floats = [entry for entry in tensors if entry[2] is None] + [(n, s, None) for n, s in vectors_of(config)]
    for name, shape, _ in floats:
        writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * int(np.prod(shape)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, (rows, columns), kind in (entry for entry in tensors if entry[2]):
        writer.write_tensor_data(blocks.take(kind, rows, columns))
    for name, shape, _ in floats:
        values = blocks.random.normal(0, 0.02, shape).astype(np.float32)
        writer.write_tensor_data(values + 1 if name.endswith("norm.weight") else values)
    writer.close()


# ---- run ----

def run_json(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def run_nibble(program, options, bits):
    report = run_json([program, "bench", options.file, "--threads", str(options.threads), "--prompt", str(options.prompt),
                       "--new-tokens", str(options.tokens), "--runs", str(options.runs), "--activations", str(bits),
                       "--json"])
    return {"decode": report["decode_tok_s"], "prefill": report["prefill_tok_s"], "roof": report["roof_gbps"],
            "share": report["roof_share"], "bytes": report["bytes_per_token"]}


def run_peer(program, options):
    tests = run_json([program, "-m", options.file, "-t", str(options.threads), "-p", str(options.prompt), "-n",
                      str(options.tokens), "-r", str(options.runs), "-o", "json", *options.peer_option])
    return {"decode" if test["n_gen"] else "prefill": test["avg_ts"] for test in tests}


def run(options):
    engines = {f"nibble, {bits} bits": lambda bits=bits: run_nibble(options.nibble, options, bits) for bits in options.activations}
    for peer in options.peer:
        name, _, program = peer.partition("=")
        engines[name] = lambda program=program: run_peer(program, options)
    results = {name: [] for name in engines}
    for _ in range(options.rounds):
        for name, engine in engines.items():
            results[name].append(engine())
            print(f"  {name}: {results[name][-1]}", file=sys.stderr, flush=True)

    def median(name, key):
        return statistics.median(result[key] for result in results[name])

    first = next(iter(engines))  # nibble with the first number of bits
    roof = median(first, "roof")
    print(f"{options.file}: {options.rounds} rounds, {options.threads} threads, {median(first, 'bytes') / 1e9:.2f} GB a "
          f"token, roof {roof:.1f} GB/s")
    print(f"{'engine':20} {'decode':>9} {'of roof':>8} {'prefill':>9}   times the engine's: {first} decode, prefill")
    for name in engines:
        decode, prefill = median(name, "decode"), median(name, "prefill")
        print(f"{name:20} {decode:9.2f} {decode * median(first, 'bytes') / 1e9 / roof:8.0%} {prefill:9.1f}   "
              f"{median(first, 'decode') / decode:.2f}, {median(first, 'prefill') / prefill:.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("make", help="write a file of a published shape, with random weights")
    command.add_argument("shape", choices=SHAPES)
    command.add_argument("file")
    command.add_argument("--rest", choices=("mxfp4", "q8_0"), default="q8_0", help="what is no expert's")
    command.add_argument("--layers", type=int, default=0, help="fewer layers; 0: all")
    command.set_defaults(run=make)
    command = commands.add_parser("run", help="measure")
    command.add_argument("file")
    command.add_argument("--nibble", default="build/release/apps/nibble")
    command.add_argument("--peer", action="append", default=[], metavar="NAME=LLAMA-BENCH")
    command.add_argument("--peer-option", action="append", default=[], help="for every llama-bench, for instance -rtr")
    command.add_argument("--activations", type=int, nargs="+", choices=(15, 8), default=[15, 8], help="nibble's bits")
    command.add_argument("--threads", type=int, default=2)
    command.add_argument("--tokens", type=int, default=32, help="decoded in a run")
    command.add_argument("--prompt", type=int, default=512)
    command.add_argument("--runs", type=int, default=1, help="of an engine in a round")
    command.add_argument("--rounds", type=int, default=5)
    command.set_defaults(run=run)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
