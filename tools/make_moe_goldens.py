"""Makes the mixtures of experts of tests/data/models: as make_goldens.py, whose helpers and needs these are.

Small and awkward: one expert, as many experts as a token takes, more experts than the prompt has tokens, a window
shorter than the prompt, groups of experts, latent attention without a latent query.

    python tools/make_moe_goldens.py tests/data/models
"""

import copy
import shutil

import numpy as np
import torch
import transformers

import golden_moe_files
import make_goldens as base
from golden_moe_specs import SPECS


def deviation(name, shape):
    if name.endswith("norm.weight"):
        return 0.2
    if name.endswith("e_score_correction_bias"):
        return 0.1
    if name.endswith("gate_up_proj_bias"):
        return 2.5  # so that some are beyond the limit of the activation
    if len(shape) == 1 or name.endswith("_bias"):
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


def make(out, name, spec):
    dialect, config = spec
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    random = torch.Generator().manual_seed(sum(ord(c) << (i % 16) for i, c in enumerate(name)))
    parameters = transformers.AutoConfig.for_model(**copy.deepcopy(config))  # which writes into what it is given
    parameters._attn_implementation = parameters._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(parameters, dtype=torch.float32).eval()
    state = draw(model, random)
    maker = base.Maker(name, base.Spec(dialect.removesuffix("-alone")))
    if dialect.startswith("gguf"):
        golden_moe_files.write_gguf(folder / "model.gguf", config, state, dialect, maker)
    else:
        golden_moe_files.write_safetensors(folder, config, state, dialect, maker)
    model.load_state_dict(state)
    vocabulary = base.Spec(dialect, vocabulary=config["vocab_size"])
    answer, logits = base.golden(model, vocabulary, random)
    base.write_json(folder / "golden.json", answer)
    np.save(folder / "golden_logits.npy", logits.astype(np.float32))
    print(f"{name:30} {sum(f.stat().st_size for f in folder.iterdir()):7} bytes, logits' deviation {logits.std():.2f}, "
          f"margin {answer['margin']}, {len(set(answer['greedy_tokens']))} different greedy tokens", flush=True)


if __name__ == "__main__":
    base.run(__doc__, SPECS, make)
