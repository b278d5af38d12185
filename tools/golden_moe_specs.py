"""The mixtures of experts that make_moe_goldens.py makes: their dialects and configurations."""

COMMON = {"hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 2, "num_attention_heads": 3,
          "num_key_value_heads": 1, "head_dim": 22, "vocab_size": 97, "max_position_embeddings": 256,
          "rms_norm_eps": 1e-5, "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": None,
          "eos_token_id": 96,
          "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}
SMALL = COMMON | {"num_hidden_layers": 1, "vocab_size": 61, "eos_token_id": 60}

# Rows of whole groups, but in no direction a power of two of them where there is a choice.
MXFP4 = SMALL | {"hidden_size": 96, "intermediate_size": 96, "head_dim": 32}
NVFP4 = SMALL | {"head_dim": 16, "intermediate_size": 80}
MLX_NVFP4 = NVFP4 | {"hidden_size": 96}  # its routers have groups of 32 and more
GGUF_NVFP4 = SMALL | {"hidden_size": 192, "intermediate_size": 64, "num_attention_heads": 1, "head_dim": 64}


def mixtral(shape, experts, top_k, **more):
    return shape | {"model_type": "mixtral", "num_local_experts": experts, "num_experts_per_tok": top_k} | more


def qwen3_moe(shape, experts, top_k, width, **more):
    return shape | {"model_type": "qwen3_moe", "num_experts": experts, "num_experts_per_tok": top_k,
                    "moe_intermediate_size": width, "norm_topk_prob": True, "mlp_only_layers": []} | more


def sigmoid(model_type, shape, experts, top_k, width, **more):
    return shape | {"model_type": model_type, "n_routed_experts": experts, "num_experts_per_tok": top_k,
                    "moe_intermediate_size": width, "n_shared_experts": 1, "first_k_dense_replace": 0, "n_group": 1,
                    "topk_group": 1, "norm_topk_prob": True, "routed_scaling_factor": 1.5} | more


def glm4_moe(shape, experts, top_k, width, **more):
    rope = {"rope_type": "default", "rope_theta": 1e6, "partial_rotary_factor": 0.5}
    return sigmoid("glm4_moe", shape, experts, top_k, width, attention_bias=True, use_qk_norm=True,
                   rope_parameters=rope) | more


def latent(model_type, shape, experts, top_k, width, **more):
    """Latents and values of whole groups. The unrotated part of a key is a row only where its matrix stands alone."""
    wide = 64 if shape is GGUF_NVFP4 else 96 if shape is MXFP4 else 48
    return sigmoid(model_type, shape, experts, top_k, width, q_lora_rank=wide, kv_lora_rank=wide, qk_nope_head_dim=10,
                   qk_rope_head_dim=6, head_dim=6, v_head_dim=wide // shape["num_attention_heads"],
                   num_key_value_heads=shape["num_attention_heads"],
                   rope_interleave=True) | more


def glm4_moe_lite(shape, experts, top_k, width, **more):
    config = latent("glm4_moe_lite", shape, experts, top_k, width, **more)
    dense, layers = config["first_k_dense_replace"], config["num_hidden_layers"]
    return config | {"mlp_layer_types": ["dense"] * dense + ["sparse"] * (layers - dense)}


def deepseek_v3(shape, experts, top_k, width, **more):
    return latent("deepseek_v3", shape, experts, top_k, width, **more)


def gpt_oss(shape, experts, top_k, **more):
    return shape | {"model_type": "gpt_oss", "num_local_experts": experts, "num_experts_per_tok": top_k,
                    "num_hidden_layers": 2, "sliding_window": 5, "attention_bias": True,
                    "layer_types": ["sliding_attention", "full_attention"],
                    "rope_parameters": yarn(8.0, truncate=False)} | more


def yarn(factor, **more):
    return {"rope_type": "yarn", "rope_theta": 10000.0, "factor": factor, "original_max_position_embeddings": 32,
            "beta_fast": 32.0, "beta_slow": 1.0} | more


# By name: the dialect and the configuration. Where a model predicts more than the next token, the file has a layer for
# it that no one reads.
SPECS = {
    "mixtral-one-expert": ("bf16", mixtral(COMMON, 1, 1, sliding_window=5)),
    "mixtral-modelopt-nvfp4": ("modelopt", mixtral(NVFP4, 5, 2)),
    "mixtral-ct-nvfp4": ("ct-nvfp4", mixtral(NVFP4, 3, 3)),
    "mixtral-ct-mxfp4": ("ct-mxfp4", mixtral(MXFP4, 3, 2, sliding_window=7)),
    "mixtral-mlx-mxfp4": ("mlx-mxfp4", mixtral(MXFP4, 3, 2)),
    "mixtral-mlx-nvfp4": ("mlx-nvfp4", mixtral(MLX_NVFP4, 1, 1)),
    "mixtral-gguf-mxfp4": ("gguf-mxfp4", mixtral(COMMON, 4, 4, hidden_size=64, intermediate_size=64, head_dim=32,
                                                 num_hidden_layers=1)),
    "mixtral-gguf-nvfp4": ("gguf-nvfp4", mixtral(GGUF_NVFP4, 3, 2)),

    "qwen3_moe-many-experts": ("bf16", COMMON | {
        "model_type": "qwen3_moe", "num_experts": 40, "num_experts_per_tok": 3, "moe_intermediate_size": 11,
        "norm_topk_prob": False, "mlp_only_layers": [0]}),
    "qwen3_moe-modelopt-nvfp4": ("modelopt", qwen3_moe(NVFP4, 17, 3, 48)),
    "qwen3_moe-ct-nvfp4": ("ct-nvfp4", qwen3_moe(NVFP4, 1, 1, 48, num_hidden_layers=2, decoder_sparse_step=2)),
    "qwen3_moe-ct-mxfp4": ("ct-mxfp4", qwen3_moe(MXFP4, 3, 3, 96, norm_topk_prob=False)),
    "qwen3_moe-mlx-mxfp4": ("mlx-mxfp4", qwen3_moe(MXFP4, 17, 2, 32)),
    "qwen3_moe-mlx-nvfp4": ("mlx-nvfp4", qwen3_moe(MLX_NVFP4, 6, 6, 48)),
    "qwen3_moe-gguf-mxfp4": ("gguf-mxfp4", qwen3_moe(MXFP4, 17, 2, 32)),
    "qwen3_moe-gguf-nvfp4": ("gguf-nvfp4", qwen3_moe(GGUF_NVFP4, 3, 2, 64)),

    "glm4_moe-all-experts": ("bf16", COMMON | {
        "model_type": "glm4_moe", "n_routed_experts": 4, "num_experts_per_tok": 4, "moe_intermediate_size": 13,
        "n_shared_experts": 2, "first_k_dense_replace": 0, "routed_scaling_factor": 1.5, "use_qk_norm": False,
        "attention_bias": True, "head_dim": 24,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25}}),
    "glm4_moe-modelopt-nvfp4": ("modelopt", glm4_moe(NVFP4, 5, 3, 48, num_hidden_layers=2, first_k_dense_replace=1,
                                                     num_nextn_predict_layers=1)),
    "glm4_moe-ct-nvfp4": ("ct-nvfp4", glm4_moe(NVFP4, 6, 2, 48, n_group=3, topk_group=2, use_qk_norm=False)),
    "glm4_moe-ct-mxfp4": ("ct-mxfp4", glm4_moe(MXFP4, 2, 1, 96)),
    "glm4_moe-mlx-mxfp4": ("mlx-mxfp4", glm4_moe(MXFP4, 3, 3, 96)),
    "glm4_moe-mlx-nvfp4": ("mlx-nvfp4", glm4_moe(MLX_NVFP4, 17, 4, 16)),
    "glm4_moe-gguf-mxfp4": ("gguf-mxfp4", glm4_moe(MXFP4, 17, 3, 32, num_hidden_layers=2, first_k_dense_replace=1,
                                                   num_nextn_predict_layers=1)),
    "glm4_moe-gguf-nvfp4": ("gguf-nvfp4", glm4_moe(GGUF_NVFP4, 3, 2, 64, use_qk_norm=False)),

    "glm4_moe_lite-modelopt-nvfp4": ("modelopt", glm4_moe_lite(NVFP4, 5, 3, 48, num_hidden_layers=2,
                                                               first_k_dense_replace=1, num_nextn_predict_layers=1)),
    "glm4_moe_lite-ct-nvfp4": ("ct-nvfp4", glm4_moe_lite(NVFP4, 17, 4, 16, n_shared_experts=2)),
    "glm4_moe_lite-ct-mxfp4": ("ct-mxfp4", glm4_moe_lite(MXFP4, 3, 3, 32)),
    "glm4_moe_lite-mlx-mxfp4": ("mlx-mxfp4-alone", glm4_moe_lite(MXFP4, 3, 2, 32, qk_nope_head_dim=32)),
    "glm4_moe_lite-mlx-nvfp4": ("mlx-nvfp4", glm4_moe_lite(MLX_NVFP4, 2, 1, 48, num_attention_heads=1,
                                                           num_key_value_heads=1)),
    "glm4_moe_lite-gguf-mxfp4": ("gguf-mxfp4", glm4_moe_lite(MXFP4, 17, 2, 32, num_hidden_layers=2,
                                                             first_k_dense_replace=1, num_nextn_predict_layers=1)),
    "glm4_moe_lite-gguf-nvfp4": ("gguf-nvfp4", glm4_moe_lite(GGUF_NVFP4, 2, 2, 64)),

    "deepseek_v3-groups": ("bf16", COMMON | {
        "model_type": "deepseek_v3", "n_routed_experts": 12, "num_experts_per_tok": 3, "moe_intermediate_size": 9,
        "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2, "norm_topk_prob": False,
        "routed_scaling_factor": 0.7, "q_lora_rank": None, "kv_lora_rank": 26, "qk_nope_head_dim": 10,
        "qk_rope_head_dim": 6, "head_dim": 6, "v_head_dim": 14, "num_key_value_heads": 3, "rope_interleave": False}),
    "deepseek_v3-modelopt-nvfp4": ("modelopt", deepseek_v3(
        NVFP4, 12, 3, 48, n_group=3, topk_group=2, rope_parameters=yarn(4.0, mscale=1.0, mscale_all_dim=0.7))),
    "deepseek_v3-ct-nvfp4": ("ct-nvfp4", deepseek_v3(NVFP4, 3, 3, 48, q_lora_rank=None)),
    "deepseek_v3-ct-mxfp4": ("ct-mxfp4", deepseek_v3(MXFP4, 2, 1, 96, rope_parameters=yarn(3.0))),
    "deepseek_v3-mlx-mxfp4": ("mlx-mxfp4-alone", deepseek_v3(MXFP4, 6, 2, 32, n_group=2)),
    "deepseek_v3-mlx-nvfp4": ("mlx-nvfp4", deepseek_v3(MLX_NVFP4, 5, 2, 48)),
    "deepseek_v3-gguf-mxfp4": ("gguf-mxfp4", deepseek_v3(
        MXFP4, 12, 3, 32, n_group=3, topk_group=2, norm_topk_prob=False,
        rope_parameters=yarn(4.0, mscale=0.7, mscale_all_dim=0.7))),
    "deepseek_v3-gguf-nvfp4": ("gguf-nvfp4", deepseek_v3(GGUF_NVFP4, 2, 1, 64, rope_parameters=yarn(4.0))),
    "deepseek_v3-gguf-unsplit": ("gguf-mxfp4-unsplit", deepseek_v3(MXFP4, 3, 2, 32, q_lora_rank=None)),

    "gpt_oss-mxfp4": ("gpt-oss", gpt_oss(MXFP4 | {"intermediate_size": 32, "head_dim": 22}, 3, 2)),
    "gpt_oss-mlx-mxfp4": ("mlx-mxfp4", gpt_oss(MXFP4 | {"intermediate_size": 32}, 2, 2)),
    "gpt_oss-mlx-nvfp4": ("mlx-nvfp4", gpt_oss(MLX_NVFP4 | {"intermediate_size": 48}, 1, 1)),
    "gpt_oss-gguf-mxfp4": ("gguf-mxfp4", gpt_oss(MXFP4 | {"intermediate_size": 32}, 9, 2)),
    "gpt_oss-gguf-nvfp4": ("gguf-nvfp4", gpt_oss(GGUF_NVFP4, 1, 1)),
}
