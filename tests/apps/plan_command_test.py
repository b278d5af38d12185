"""nibble plan: every tensor of the file once, bytes that add up, and what is said of models that cannot be run."""

import json
import struct

from cli import DATA, FOLDER, GGUF, MODELS, Case, main, nibble

FIXTURES = DATA.parent.parent.parent / "shared" / "fixtures"


def model_of(folder):
    return folder if (folder / "config.json").exists() else sorted(folder.glob("*.gguf"))[0]


def tensors_of(model):
    """(name, file) of each tensor, read without nibble."""
    if model.suffix == ".gguf":
        parts = sorted(model.parent.glob("*-of-*.gguf")) if "-of-" in model.name else [model]
        return sorted(tensor for part in parts for tensor in gguf_tensors(part))
    found = []
    for file in sorted(model.glob("*.safetensors")):
        with open(file, "rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        found += [(name, file.name) for name in header if name != "__metadata__"]
    return sorted(found)


def gguf_tensors(path):
    data, at = path.read_bytes(), 0

    def take(layout):
        nonlocal at
        value, = struct.unpack_from("<" + layout, data, at)
        at += struct.calcsize("<" + layout)
        return value

    def text():
        nonlocal at
        size = take("Q")
        at += size
        return data[at - size:at].decode(errors="replace")

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            inner = take("I")
            return [value(inner) for _ in range(take("Q"))]
        return take("BbHhIif?"[kind] if kind < 8 else {10: "Q", 11: "q", 12: "d"}[kind])

    at = 8
    num_tensors, num_values = take("Q"), take("Q")
    for _ in range(num_values):
        text()
        value(take("I"))
    names = []
    for _ in range(num_tensors):
        names.append((text(), path.name))
        num_dimensions = take("I")
        at += 8 * num_dimensions + 12
    return names


class Plan(Case):
    def test_json(self):
        plan = self.report("plan", MODELS / "llama-modelopt-nvfp4", "--ctx", 100)
        self.assertEqual(
            list(plan), ["architecture", "backend", "backend_description", "tensors", "unused_tensors",
                         "unused_settings", "file_tensors", "phases", "routes", "weights_bytes", "kv_cache_bytes", "kv_cache_type", "ctx",
                         "scratch_bytes", "available_bytes", "packed_cache", "bytes_per_token", "kv_bytes_per_position",
                         "roof_gbps", "roof_tok_s"])
        self.assertIsNone(plan["packed_cache"])
        self.assertEqual(plan["architecture"], "llama")
        self.assertEqual((plan["ctx"], plan["kv_cache_type"]), (100, "f16"))
        self.assertEqual(plan["kv_cache_bytes"], 100 * 2 * (48 + 48) * 2)
        tensors = {t["name"]: t for t in plan["tensors"]}
        down = tensors["model.layers.1.mlp.down_proj"]
        self.assertEqual((down["shape"], down["format"], down["device"]), ([96, 112], "NVFP4", "cpu"))
        self.assertIn("ModelOpt NVFP4", down["source"])
        self.assertEqual(down["stored_in"], [f"model.layers.1.mlp.down_proj.{ending}"
                                             for ending in ("weight", "weight_scale", "weight_scale_2")])
        self.assertIsNone(down["converted_from"])
        self.assertTrue(all(t["kernel"] and t["bytes"] > 0 for t in plan["tensors"]))
        self.assertEqual(sum(t["bytes"] for t in plan["tensors"]), plan["weights_bytes"])
        unused = {t["name"]: t for t in plan["unused_tensors"]}["model.layers.0.mlp.gate_proj.input_scale"]
        self.assertEqual(unused, {"name": "model.layers.0.mlp.gate_proj.input_scale", "bytes": 4,
                                  "why": "activation scale; activations are not 4 bits wide here",
                                  "file": "model.safetensors"})
        stored = {t["name"]: t for t in plan["file_tensors"]}["model.layers.1.mlp.down_proj.weight_scale"]
        self.assertEqual(stored, {"name": "model.layers.1.mlp.down_proj.weight_scale", "dtype": "F8_E4M3",
                                  "shape": [96, 7], "bytes": 96 * 7, "file": "model.safetensors",
                                  "used_by": ["model.layers.1.mlp.down_proj"], "unused_because": None})
        reads = plan["weights_bytes"] - tensors["model.embed_tokens"]["bytes"] - sum(
            t["bytes"] for t in plan["tensors"] if t["source"] == "vector")
        self.assertEqual(plan["bytes_per_token"], reads)

    def test_types_of_the_kv_cache(self):
        model, config = MODELS / "llama-bf16", json.loads((MODELS / "llama-bf16" / "config.json").read_text())
        heads, width = config["num_key_value_heads"], config["head_dim"]
        groups = (width + 31) // 32  # of 32 codes and a half
        for name, row in ("f16", 2 * width), ("f32", 4 * width), ("q8_0", 34 * groups), ("q8", 34 * groups):
            plan = self.report("plan", model, "--ctx", 100, NIBBLE_KV_CACHE_TYPE=name)
            self.assertEqual(plan["kv_cache_type"], "q8_0" if name == "q8" else name)
            self.assertEqual(plan["kv_bytes_per_position"], config["num_hidden_layers"] * 2 * heads * row)
            positions = (100, 128) if name.startswith("q8") else (100,)  # where they are interleaved, whole runs of 64
            self.assertIn(plan["kv_cache_bytes"], [count * plan["kv_bytes_per_position"] for count in positions])
        if "metal" in nibble("run", "--help").stdout.decode():
            for command in ["plan"], ["run", "--tokens", "1"], ["bench"]:
                self.refuse(command[0], model, *command[1:], "--backend", "metal", "--kv-cache-type", "q8_0",
                            says=["metal", "q8_0", "f16 or f32"])

    def check_model(self, model):
        """Whether it can be run. Either way each tensor of the file is named exactly once."""
        result = nibble("plan", model, "--backend", "reference", "--json")
        self.assertIn(result.returncode, (0, 2), result.stderr)
        plan = json.loads(result.stdout)
        expected = tensors_of(model)
        self.assertEqual(sorted((t["name"], t["file"]) for t in plan["file_tensors"]), expected, model)
        if result.returncode == 2:
            self.assertIn(plan["error"], result.stderr.decode())
            return False
        used = {name for t in plan["tensors"] for name in t["stored_in"]}
        unused = [t["name"] for t in plan["unused_tensors"]]
        self.assertEqual(sorted([*used, *unused]), [name for name, _ in expected], model)
        self.assertTrue(all(t["why"] for t in plan["unused_tensors"]), model)
        self.assertTrue(all(bool(t["used_by"]) != bool(t["unused_because"]) for t in plan["file_tensors"]), model)
        self.assertEqual(sum(t["bytes"] for t in plan["tensors"]), plan["weights_bytes"], model)
        return True

    def test_every_tensor_of_the_file_is_named_once(self):
        for folder in sorted(MODELS.iterdir()):
            self.assertTrue(self.check_model(model_of(folder)), folder)

    def test_every_tensor_of_foreign_files_is_named_once(self):
        folders = [f for kind in ("checkpoints", "gguf") if (FIXTURES / kind).exists()
                   for f in sorted((FIXTURES / kind).iterdir())]
        run = [folder.name for folder in folders if self.check_model(model_of(folder))]
        if folders:
            self.assertLessEqual({"llama-bf16", "llama-mlx-mxfp4", "qwen3-ct-mxfp4", "llama-gguf-mxfp4"}, set(run))

    def test_table(self):
        grouped = self.succeed("plan", GGUF, "--backend", "reference").stdout.decode()
        self.assertIn("model.layers.*.mlp.up_proj", grouped)
        self.assertNotIn("model.layers.0.", grouped)
        every = self.succeed("plan", GGUF, "--all", "--backend", "reference").stdout.decode()
        self.assertIn("model.layers.0.mlp.up_proj", every)
        self.assertIn("tok/s", every)

    def test_what_has_no_kernel_says_what_it_becomes(self):
        model = model_of(MODELS / "llama-gguf-q4_k")
        plan = self.report("plan", model, "--backend", "cpu", "--threads", 1)
        kinds = {(t["source"], t["converted_from"], t["format"]) for t in plan["tensors"] if t["converted_from"]}
        self.assertTrue(kinds)
        for source, converted_from, packed in kinds:
            self.assertEqual(source, converted_from)
            self.assertNotEqual(packed, converted_from)
        self.assertEqual(sum(t["bytes"] for t in plan["tensors"]), plan["weights_bytes"])
        _, source, packed = min(kinds)
        self.assertIn(f"{packed} (from {source})",
                      self.succeed("plan", model, "--backend", "cpu", "--threads", 1).stdout.decode())

    def test_metal_tells_the_dispatches_of_a_step(self):
        model = MODELS / "llama-modelopt-nvfp4"
        result = nibble("plan", model, "--backend", "metal", "--json")
        if result.returncode == 2:
            self.assertIn("configure it with -DNIBBLE_METAL=ON", result.stderr.decode())
            return
        plan = json.loads(result.stdout)
        names = [phase["name"] for phase in plan["phases"]]
        self.assertEqual(names[:7], ["embed", "rms_norm + 3 linears", "rope + kv_append", "attention", "linear",
                                     "rms_norm + 2 linears + swiglu", "linear"])
        self.assertEqual(sum(phase["weight_bytes"] for phase in plan["phases"]), plan["bytes_per_token"])
        kernels = {t["name"]: t["kernel"] for t in plan["tensors"]}
        self.assertEqual(kernels["model.layers.1.mlp.down_proj"], "linear_nvfp4")
        self.assertEqual(kernels["model.layers.1.mlp.up_proj"], "gate_up_nvfp4")
        text = self.succeed("plan", model, "--backend", "metal").stdout.decode()
        self.assertIn(f"a decode step, {len(names)} dispatches", text)
        routes = [(route["tokens"], route["kernels"]) for route in plan["routes"]]
        self.assertEqual(routes[:3], [("1", "linear, gate_up"), ("2 to 32", "linear_block, gate_up_block"),
                                      ("from 33 on", "linear_tiles")])
        self.assertEqual(routes[-3:], [("1", "decode_gemv_fp4_wide"), ("2 to 8", "batched_gemv_fp4"),
                                       ("from 9 on", "marlin_gemm_fp4")])
        self.assertTrue(all(route["reason"] in text for route in plan["routes"]))

    def test_what_is_not_used_is_grouped_by_its_reason(self):
        model = MODELS / "llama-modelopt-nvfp4"
        count = sum(name.endswith(".input_scale") for name, _ in tensors_of(model))
        text = self.succeed("plan", model, "--backend", "reference").stdout.decode()
        self.assertIn(f"{count:>5}  activation scale", text)
        self.assertIn("model.layers.*.mlp.down_proj.input_scale", text)
        every = self.succeed("plan", model, "--backend", "reference", "--all").stdout.decode()
        self.assertEqual(every.count(".input_scale"), count)

    def test_an_unknown_architecture(self):
        copied = self.copy(FOLDER)
        config = json.loads((copied / "config.json").read_text())
        (copied / "config.json").write_text(json.dumps(config | {"model_type": "gemma"}))
        says = ["gemma", "implemented are", "llama", "qwen3"]
        result = nibble("plan", copied, "--all")
        self.assertEqual(result.returncode, 2)
        text, message = result.stdout.decode(), result.stderr.decode()
        for part in says:
            self.assertIn(part, message)
        for part in "gemma", "cannot be run", "model.layers.0.mlp.up_proj.weight", "BF16", "[75, 90]":
            self.assertIn(part, text)
        grouped = nibble("plan", copied).stdout.decode()
        self.assertIn("model.layers.*.mlp.up_proj.weight", grouped)
        self.assertFalse(self.check_model(copied))
        del config["model_type"]
        (copied / "config.json").write_text(json.dumps(config))
        self.assertFalse(self.check_model(copied))
        self.assertIn("no architecture is named", nibble("plan", copied).stdout.decode())
        # The architecture is what is said first, whatever else is not read.
        (copied / "config.json").write_text(json.dumps(config | {
            "model_type": "gemma", "quantization_config": {"quant_method": "gptq"}}))
        self.assertIn("implemented are", nibble("plan", copied).stderr.decode())

    def test_no_weight_is_read(self):
        copied = self.copy(FOLDER)
        data = bytearray((copied / "model.safetensors").read_bytes())
        begin = 8 + struct.unpack("<Q", data[:8])[0]
        data[begin:] = b"\xff" * (len(data) - begin)
        (copied / "model.safetensors").write_bytes(data)
        self.succeed("plan", copied, "--backend", "reference")


if __name__ == "__main__":
    main()
