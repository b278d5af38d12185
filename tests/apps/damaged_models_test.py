"""Models that are truncated, garbled, incomplete or wrong: every command refuses them, and says what is wrong."""

import json
import random
import shutil
import struct

from cli import FOLDER, GGUF, MODELS, SILENT, Case, main, nibble


class DamagedModels(Case):
    def attempt(self, model, codes=(2,), says=()):
        out = self.folder / "out.npy"
        result = nibble("logits", model, "--backend", "reference", "--tokens", "1,2", "--out", out)
        self.assertIn(result.returncode, codes, (model, result.stderr))
        if result.returncode == 0:
            out.unlink()
            return
        self.assertRegex(result.stderr.decode(errors="replace"), r"^nibble: .")
        for part in says:
            self.assertIn(str(part), result.stderr.decode())
        self.assertFalse(out.exists())
        self.assertEqual([f.name for f in self.folder.iterdir() if f.name.startswith("out")], [])

    def test_missing_files(self):
        self.attempt(self.folder / "none", says=[self.folder / "none"])
        self.attempt(self.write("empty.gguf", ""), says=["empty.gguf"])
        self.attempt(self.folder, says=[self.folder, "config.json"])
        self.attempt(MODELS / "llama-gguf-q4_0", says=["config.json", "model.gguf"])
        copied = self.copy(MODELS / "llama-floats-sharded")
        (copied / "model-00002-of-00003.safetensors").unlink()
        self.attempt(copied, says=["model-00002-of-00003.safetensors"])

    def test_truncated_files(self):
        for source in FOLDER / "model.safetensors", GGUF:
            data = source.read_bytes()
            for size in [0, 1, 7, 8, 100, 2000, len(data) // 2, len(data) - 64]:
                if source == GGUF:
                    model = self.write("model.gguf", data[:size])
                else:
                    model = self.folder / FOLDER.name
                    shutil.rmtree(model, ignore_errors=True)
                    self.copy(FOLDER)
                    (model / "model.safetensors").write_bytes(data[:size])
                self.attempt(model, says=[model])

    def test_garbled_bytes_are_refused_or_harmless(self):
        draw = random.Random(1)
        for name in "llama-bf16/model.safetensors", "llama-gguf-q8_0/model.gguf", "llama-ct-nvfp4/config.json":
            source = MODELS / name
            data = source.read_bytes()
            model = self.copy(source.parent)
            for _ in range(40):
                garbled = bytearray(data)
                for _ in range(draw.randrange(1, 4)):
                    garbled[draw.randrange(min(len(data), 1500))] = draw.randrange(256)
                (model / source.name).write_bytes(garbled)
                self.attempt(model / source.name if name.endswith("gguf") else model, codes=(0, 2))

    def test_wrong_configurations_name_both_values(self):
        copied = self.copy(SILENT)
        config = json.loads((copied / "config.json").read_text())
        for changes, says in [
                ({"hidden_size": 128}, ["[131, 96]", "[131, 128]"]),
                ({"num_hidden_layers": 3}, ["model.layers.2."]),
                ({"num_hidden_layers": 1}, ["model.layers.1."]),
                ({"num_hidden_layers": 0}, ["num_hidden_layers is 0"]),
                ({"model_type": "gemma"}, ["gemma", "llama, mixtral, qwen3"]),
                ({"num_attention_heads": 5}, ["num_key_value_heads is 2", "5 query heads"]),
                ({"quantization_config": {"quant_method": "gptq"}}, ["gptq", "modelopt"]),
                ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, ["dynamic", "yarn"])]:
            (copied / "config.json").write_text(json.dumps(config | changes))
            self.attempt(copied, says=says)
        (copied / "config.json").write_text("{")
        self.attempt(copied, says=["config.json"])

    def test_every_command_refuses_them(self):
        model = self.write("model.gguf", GGUF.read_bytes()[:5000])
        out = self.folder / "out"
        for arguments in (["run", model, "--tokens", "1"], ["plan", model], ["bench", model],
                          ["eval", model, "--tokens", "1,2"], ["tokenize", model],
                          ["quantize", model, "--format", "nvfp4", "--out", out]):
            self.refuse(*arguments, says=[model])
        self.assertFalse(out.exists())

    def test_a_scale_that_is_no_number(self):
        model, out = self.copy(SILENT), self.folder / "out"
        data = bytearray((model / "model.safetensors").read_bytes())
        length, = struct.unpack("<Q", data[:8])
        name = "model.layers.1.mlp.down_proj.weight_scale"
        data[8 + length + json.loads(data[8:8 + length])[name]["data_offsets"][0]] = 0xFF
        (model / "model.safetensors").write_bytes(data)
        for arguments in (["run", model, "--tokens", "1"], ["quantize", model, "--format", "nvfp4", "--out", out]):
            self.refuse(*arguments, says=[model, name, "scale 0 is 0xff", "NaN", "MXFP4"])
        self.assertFalse(out.exists())

    def test_weights_that_make_every_logit_nan(self):
        model, out = self.copy(FOLDER), self.folder / "logits.npy"
        data = bytearray((model / "model.safetensors").read_bytes())
        length, = struct.unpack("<Q", data[:8])
        begin, end = json.loads(data[8:8 + length])["model.norm.weight"]["data_offsets"]
        data[8 + length + begin:8 + length + end] = b"\x7f" * (end - begin)  # BF16: 3.39e38 each
        (model / "model.safetensors").write_bytes(data)
        for arguments in (["run", model, "--tokens", "1"], ["eval", model, "--tokens", "1,2"],
                          ["logits", model, "--tokens", "1,2", "--out", out]):
            self.refuse(*arguments, says=[model, "are NaN; the weights are damaged"])
        self.assertFalse(out.exists())


if __name__ == "__main__":
    main()
