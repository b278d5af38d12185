"""Makes tests/data/checkpoint_sums.json: what every tensor of the golden checkpoints means, as one number each.

Decodes all safetensors folders below a folder with numpy alone, sharing nothing with the project's decoders. A matrix
is listed under the name that a model asks for (a * stands for the expert's number), as [E, N, K, sum], a vector as
[E, size, sum]; E is 0 if it has no experts. The sum is over value[i] * (i % 1009 + 1) in double, over all experts, and
no two orders of the values share it.

Needs PyPI's numpy.

    python tools/make_fixture_sums.py CHECKPOINTS tests/data/checkpoint_sums.json
"""

import argparse
import json
import pathlib
import re
import struct

import numpy as np

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
E4M3 = np.array([(1 - 2 * (b >> 7)) * ((b & 7) * 2.0 ** -9 if not b & 0x78 else
                                       (8 + (b & 7)) * 2.0 ** ((b >> 3 & 15) - 10)) for b in range(256)], np.float32)
TYPES = {"U8": np.uint8, "F8_E4M3": np.uint8, "U32": np.uint32, "F32": np.float32, "F16": np.float16, "BF16": np.uint16}


def read_tensors(folder):
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:8 + length]).items():
            if name == "__metadata__":
                continue
            begin, end = (8 + length + offset for offset in entry["data_offsets"])
            array = np.frombuffer(data[begin:end], TYPES[entry["dtype"]]).reshape(entry["shape"])
            tensors[name] = ((array.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else array,
                             entry["dtype"])
    return tensors


def nibbles(packed):
    packed = np.ascontiguousarray(packed).view(np.uint8)
    return np.stack([packed & 15, packed >> 4], -1).reshape(*packed.shape[:-1], -1)


def fp4(packed, scales, type_):
    values = E4M3[scales] if type_ == "E4M3" else np.ldexp(np.float32(1), scales.astype(np.int32) - 127)
    codes = E2M1[nibbles(packed)]
    return codes * np.repeat(values, codes.shape[-1] // values.shape[-1], -1)


def decode_module(tensors, module, config):
    """The float32 values of module.weight, in whatever dialect."""
    get = lambda ending: tensors[module + ending][0]
    if module + ".weight_packed" in tensors:
        if module + ".weight_global_scale" in tensors:
            return fp4(get(".weight_packed"), get(".weight_scale"), "E4M3") * (1 / get(".weight_global_scale"))
        return fp4(get(".weight_packed"), get(".weight_scale"), "E8M0")
    if module + ".weight_scale_2" in tensors:
        return fp4(get(".weight"), get(".weight_scale"), "E4M3") * get(".weight_scale_2")
    if module + ".biases" in tensors:
        said = config["quantization"][module]
        codes = get(".weight").view(np.uint8) if said["bits"] == 8 else nibbles(get(".weight"))
        group = said["group_size"]
        return codes * np.repeat(get(".scales"), group, -1) + np.repeat(get(".biases"), group, -1)
    if module + ".scales" in tensors:
        mode = config["quantization"]["mode"]
        return fp4(get(".weight"), get(".scales"), {"mxfp4": "E8M0", "nvfp4": "E4M3"}[mode])
    return get(".weight").astype(np.float32)


def decode_all(tensors, config):
    """Name that a model asks for → float32 values, [E, …] if its name has a *."""
    values = {}
    for name, (tensor, _) in tensors.items():
        if match := re.fullmatch(r"(.*\.experts)\.(gate_up|down)_proj_(blocks|bias)", name):
            parent, which, what = match.groups()
            ending = "" if what == "blocks" else ".bias"
            if what == "blocks":
                scales = tensors[name.replace("_blocks", "_scales")][0]
                tensor = fp4(tensor.reshape(*tensor.shape[:2], -1), scales, "E8M0")
            if which == "down":
                values[f"{parent}.*.down_proj{ending}"] = tensor
            else:
                values[f"{parent}.*.gate_proj{ending}"] = tensor[:, 0::2]
                values[f"{parent}.*.up_proj{ending}"] = tensor[:, 1::2]
        elif match := re.fullmatch(r"(.*)\.weight(_packed)?", name):
            module = match[1]
            asked = module.replace(".switch_mlp.", ".experts.*.")
            if numbered := re.fullmatch(r"(.*\.experts)\.(\d+)\.(.*)", module):
                if numbered[2] == "0":
                    of = lambda e: f"{numbered[1]}.{e}.{numbered[3]}"
                    experts = [of(e) for e in range(len(tensors)) if of(e) + name[len(module):] in tensors]
                    values[f"{numbered[1]}.*.{numbered[3]}"] = np.stack(
                        [decode_module(tensors, expert, config) for expert in experts])
            elif tensor.ndim == 1:
                values[name] = tensor
            else:
                values[asked] = decode_module(tensors, module, config)
        elif name.endswith("bias") or name.endswith(".sinks"):
            values[name] = tensor.astype(np.float32)
    return values


def summary(name, values):
    flat = values.astype(np.float32).reshape(-1).astype(np.float64)
    has_experts = "*" in name
    shape = list(values.shape) if has_experts else [0, *values.shape]
    return [*shape, float(np.sum(flat * (np.arange(flat.size) % 1009 + 1)))]


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("checkpoints", type=pathlib.Path)
parser.add_argument("output", type=pathlib.Path)
arguments = parser.parse_args()
result = {}
for folder in sorted(path.parent for path in arguments.checkpoints.glob("*/config.json")):
    config = json.loads((folder / "config.json").read_text())
    layers = config["num_hidden_layers"]
    values = {name: tensor for name, tensor in decode_all(read_tensors(folder), config).items()
              if not (match := re.match(r"model\.layers\.(\d+)\.", name)) or int(match[1]) < layers}
    result[folder.name] = {name: summary(name, tensor) for name, tensor in sorted(values.items())}
lines = [f' "{folder}": {{\n' + ",\n".join(f'  "{name}": {json.dumps(entry)}' for name, entry in names.items()) + "\n }"
         for folder, names in result.items()]
arguments.output.write_text("{\n" + ",\n".join(lines) + "\n}\n")
