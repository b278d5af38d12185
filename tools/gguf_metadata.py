"""The metadata of a GGUF file, from what a config.json says of the same model."""

import gguf

ARCHITECTURES = {"llama": "llama", "mixtral": "llama", "qwen3_moe": "qwen3moe", "glm4_moe": "glm4moe",
                 "glm4_moe_lite": "deepseek2", "deepseek_v3": "deepseek2", "gpt_oss": "gpt-oss"}
EXPERT_COUNTS = ("n_routed_experts", "num_experts", "num_local_experts")


def add_metadata(writer, config, is_unsplit, num_layers):
    latent = "kv_lora_rank" in config
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(num_layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(1 if latent and not is_unsplit else config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_eos_token_id(config["eos_token_id"])
    add_rope(writer, config)
    if latent:
        rope, value, rank = config["qk_rope_head_dim"], config["v_head_dim"], config["kv_lora_rank"]
        writer.add_rope_dimension_count(rope)
        writer.add_kv_lora_rank(rank)
        if config["q_lora_rank"]:
            writer.add_q_lora_rank(config["q_lora_rank"])
        key = config["qk_nope_head_dim"] + rope
        writer.add_key_length(key if is_unsplit else rank + rope)
        writer.add_value_length(value if is_unsplit else rank)
        if not is_unsplit:
            writer.add_key_length_mla(key)
            writer.add_value_length_mla(value)
    else:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])
        partial = config["rope_parameters"].get("partial_rotary_factor", 1)
        writer.add_rope_dimension_count(int(config["head_dim"] * partial))
    if "sliding_window" in config:
        writer.add_sliding_window(config["sliding_window"])

    if not any(key in config for key in EXPERT_COUNTS):
        return
    writer.add_expert_count(next(config[key] for key in EXPERT_COUNTS if key in config))
    writer.add_expert_used_count(config["num_experts_per_tok"])
    if config["model_type"] != "mixtral":
        writer.add_expert_feed_forward_length(config.get("moe_intermediate_size", config["intermediate_size"]))
    if "n_routed_experts" in config:
        writer.add_expert_shared_count(config["n_shared_experts"])
        writer.add_leading_dense_block_count(config["first_k_dense_replace"])
        writer.add_expert_group_count(config["n_group"])
        writer.add_expert_group_used_count(config["topk_group"])
        writer.add_expert_weights_scale(config["routed_scaling_factor"])
        if config["norm_topk_prob"]:
            writer.add_expert_weights_norm(True)
        if config["model_type"] != "glm4_moe_lite":  # older files of which have no such key
            writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    if config.get("num_nextn_predict_layers"):
        writer.add_nextn_predict_layers(1)


def add_rope(writer, config):
    rope = config["rope_parameters"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] != "yarn":
        return
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope["factor"])
    writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    writer.add_rope_scaling_yarn_beta_fast(rope["beta_fast"])
    writer.add_rope_scaling_yarn_beta_slow(rope["beta_slow"])
    if "mscale_all_dim" in rope:
        writer.add_rope_scaling_yarn_log_mul(0.1 * rope["mscale_all_dim"])
