"""The models that make_goldens.py makes: their names, dialects and shapes."""

from dataclasses import dataclass, field

LEAST_MARGIN = 0.1  # between the best and the second logit of a greedy step
CONVERTED_MARGIN = 0.3  # the same for weights that some backends convert


@dataclass
class Spec:
    dialect: str
    architecture: str = "llama"
    hidden: int = 96
    intermediate: int = 160
    layers: int = 2
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 24
    vocabulary: int = 131
    tied: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    rope: dict = field(default_factory=dict)  # without rope_theta
    theta: float = 10000.0
    old_style: bool = False  # rope_theta and rope_scaling instead of rope_parameters
    shards: int = 1
    margin: float = LEAST_MARGIN  # more for what some backends convert
    text: bool = False  # with the tokenizer of tests/data/text, whose 335 ids the vocabulary exceeds, and a template


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "factor": 2.5}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}

SPECS = {
    "llama-bf16": Spec("bf16", hidden=90, intermediate=75, head_dim=22, vocabulary=341, tied=True, attention_bias=True,
                       mlp_bias=True, text=True),
    "llama-floats-sharded": Spec("floats", hidden=70, intermediate=101, heads=1, kv_heads=1, head_dim=50,
                                 vocabulary=97, rope=LINEAR, old_style=True, shards=3),
    "llama-modelopt-nvfp4": Spec("modelopt", intermediate=112, rope=LLAMA3, theta=500000.0, old_style=True),
    "llama-ct-nvfp4": Spec("ct-nvfp4", hidden=144, intermediate=112, heads=3, kv_heads=3, head_dim=32, rope=YARN,
                           attention_bias=True, tied=True),
    "llama-ct-mxfp4": Spec("ct-mxfp4", head_dim=16, old_style=True, mlp_bias=True, theta=1000.0, rope={
        "type": "yarn", "factor": 3.0, "original_max_position_embeddings": 24, "beta_fast": 8.0, "beta_slow": 2.0,
        "attention_factor": 1.25, "truncate": False}),
    "llama-mlx-mxfp4": Spec("mlx-mxfp4", head_dim=32, rope=LLAMA3, tied=True),
    "llama-mlx-nvfp4": Spec("mlx-nvfp4", intermediate=112, head_dim=40, old_style=True),
    "llama-gguf-mxfp4": Spec("gguf-mxfp4", head_dim=32, rope=LLAMA3, theta=500000.0, attention_bias=True, tied=True),
    "llama-gguf-q8_0": Spec("gguf-q8_0", intermediate=96, heads=3, kv_heads=1, head_dim=32, rope=LINEAR),
    "llama-gguf-q4_0": Spec("gguf-q4_0", intermediate=96, heads=1, kv_heads=1, head_dim=96, rope=YARN,
                            mlp_bias=True),
    "llama-gguf-q4_1": Spec("gguf-q4_1", intermediate=96, heads=3, kv_heads=3, head_dim=32, tied=True),
    "llama-gguf-floats": Spec("gguf-floats", hidden=54, intermediate=77, heads=3, kv_heads=1, head_dim=22,
                              vocabulary=341, text=True),
    # Files of llama.cpp mix types: K-quants where rows are multiples of 256, others where they are not.
    "llama-gguf-q4_k": Spec("gguf-q4_k", hidden=256, intermediate=256, heads=2, kv_heads=1, head_dim=32,
                            margin=CONVERTED_MARGIN),
    "llama-gguf-q5_k": Spec("gguf-q5_k", hidden=256, intermediate=256, layers=1, heads=4, kv_heads=2, head_dim=24,
                            margin=CONVERTED_MARGIN, rope=LINEAR, attention_bias=True),
    "llama-gguf-iq4_nl": Spec("gguf-iq4_nl", head_dim=32, margin=CONVERTED_MARGIN, rope=LLAMA3, tied=True),
    "llama-gguf-split": Spec("gguf-q5_0", head_dim=32, layers=1, margin=CONVERTED_MARGIN, shards=3),
    "qwen3-bf16": Spec("bf16", "qwen3", hidden=90, intermediate=75, head_dim=26, rope=YARN, theta=1e6,
                       attention_bias=True),
    "qwen3-modelopt-nvfp4": Spec("modelopt", "qwen3", hidden=80, intermediate=112, heads=3, kv_heads=1, head_dim=48,
                                 tied=True, rope=LINEAR, theta=1e6, old_style=True),
    "qwen3-gguf-mxfp4": Spec("gguf-mxfp4", "qwen3", head_dim=32, rope=YARN, theta=1e6),
    "llama-modelopt-fp8": Spec("modelopt-fp8", hidden=90, intermediate=75, head_dim=22, margin=CONVERTED_MARGIN,
                               attention_bias=True),
    "qwen3-fp8-block": Spec("fp8-block", "qwen3", hidden=144, intermediate=272, heads=5, kv_heads=1, head_dim=32,
                            margin=CONVERTED_MARGIN, tied=True, theta=1e6),
    "llama-modelopt-mixed": Spec("modelopt-mixed", intermediate=112, margin=CONVERTED_MARGIN, rope=LINEAR),
    "qwen3-ct-mixed": Spec("ct-mixed", "qwen3", hidden=80, intermediate=112, heads=3, kv_heads=1, head_dim=48,
                           margin=CONVERTED_MARGIN, theta=1e6),
    "llama-mlx-affine4": Spec("mlx-affine4", hidden=128, intermediate=192, heads=4, head_dim=32,
                              margin=CONVERTED_MARGIN, tied=True),
    "qwen3-mlx-affine8": Spec("mlx-affine8", "qwen3", head_dim=32, margin=CONVERTED_MARGIN, theta=1e6),
    "llama-mlx-mixed": Spec("mlx-mixed", head_dim=32, margin=CONVERTED_MARGIN, mlp_bias=True),
    # Each dialect with the other dense architecture, too.
    "llama-fp8-block": Spec("fp8-block", hidden=136, intermediate=130, layers=1, heads=2, kv_heads=1, head_dim=34,
                            margin=CONVERTED_MARGIN),
    "llama-ct-mixed": Spec("ct-mixed", hidden=48, intermediate=80, heads=3, kv_heads=1, head_dim=16,
                           margin=CONVERTED_MARGIN, tied=True),
    "llama-mlx-affine8": Spec("mlx-affine8", layers=1, head_dim=32, margin=CONVERTED_MARGIN),
    "qwen3-ct-nvfp4": Spec("ct-nvfp4", "qwen3", hidden=80, intermediate=48, layers=1, heads=5, kv_heads=5, head_dim=16),
    "qwen3-ct-mxfp4": Spec("ct-mxfp4", "qwen3", intermediate=96, heads=3, kv_heads=1, head_dim=32, theta=1e6),
    "qwen3-mlx-mxfp4": Spec("mlx-mxfp4", "qwen3", intermediate=96, layers=1, heads=2, kv_heads=1, head_dim=48),
    "qwen3-mlx-nvfp4": Spec("mlx-nvfp4", "qwen3", intermediate=112, layers=1, heads=3, kv_heads=1, head_dim=32,
                            rope=LINEAR),
    "qwen3-modelopt-fp8": Spec("modelopt-fp8", "qwen3", hidden=70, intermediate=45, layers=1, heads=1, kv_heads=1,
                               head_dim=50, margin=CONVERTED_MARGIN),
    "qwen3-modelopt-mixed": Spec("modelopt-mixed", "qwen3", hidden=48, intermediate=80, heads=4, head_dim=16,
                                 margin=CONVERTED_MARGIN),
    "qwen3-mlx-affine4": Spec("mlx-affine4", "qwen3", hidden=64, intermediate=128, layers=1, heads=2, kv_heads=1,
                              head_dim=32, margin=CONVERTED_MARGIN, tied=True),
    "qwen3-mlx-mixed": Spec("mlx-mixed", "qwen3", heads=3, kv_heads=1, head_dim=32, margin=CONVERTED_MARGIN),
    "qwen3-gguf-q8_0": Spec("gguf-q8_0", "qwen3", hidden=64, intermediate=96, layers=1, heads=2, kv_heads=1,
                            head_dim=32),
    "qwen3-gguf-q4_0": Spec("gguf-q4_0", "qwen3", hidden=64, intermediate=96, layers=1, heads=1, kv_heads=1,
                            head_dim=32),
    "qwen3-gguf-q4_1": Spec("gguf-q4_1", "qwen3", hidden=64, intermediate=96, layers=1, heads=2,
                            head_dim=32, tied=True),
    "qwen3-gguf-q5_0": Spec("gguf-q5_0", "qwen3", hidden=64, intermediate=96, layers=1, heads=2, head_dim=32,
                            margin=CONVERTED_MARGIN),
    "qwen3-gguf-q4_k": Spec("gguf-q4_k", "qwen3", hidden=256, intermediate=256, layers=1, heads=2, kv_heads=1,
                            head_dim=32, margin=CONVERTED_MARGIN),
    "qwen3-gguf-q5_k": Spec("gguf-q5_k", "qwen3", hidden=256, intermediate=256, layers=1, heads=2, kv_heads=1,
                            head_dim=48, margin=CONVERTED_MARGIN),
    "qwen3-gguf-iq4_nl": Spec("gguf-iq4_nl", "qwen3", hidden=64, intermediate=96, layers=1, heads=2, kv_heads=1,
                              head_dim=32, margin=CONVERTED_MARGIN),
    "qwen3-gguf-floats": Spec("gguf-floats", "qwen3", hidden=54, intermediate=77, layers=1, heads=3, kv_heads=1,
                              head_dim=22),
}
