"""nibble models, and the names that every command takes."""

import json
import os
import shutil

from cli import FOLDER, GGUF, MODELS, SILENT, Case, golden, listed, main

UNSET = {name: "" for name in ("HF_HOME", "HF_HUB_CACHE")}


class Models(Case):
    def setUp(self):
        super().setUp()
        self.home = self.folder / "home"
        self.home.mkdir()
        self.environment = UNSET | {"HOME": str(self.home)}

    def models(self, **environment):
        listed_models = self.report("models", **self.environment | environment)["models"]
        names = [m["name"] for m in listed_models]
        self.assertEqual(len(names), len(set(names)))
        return {m["name"]: m for m in listed_models}

    def hub_model(self, hub, organisation, name, source, revision="abc", main_ref=True):
        repository = hub / f"models--{organisation}--{name}"
        shutil.copytree(source, repository / "snapshots" / revision)
        if main_ref:
            (repository / "refs").mkdir(exist_ok=True)
            (repository / "refs" / "main").write_text(revision)
        return repository / "snapshots" / revision

    def test_folders_of_the_environment(self):
        models = self.models(NIBBLE_MODELS=f"{self.folder / 'none'}:{MODELS}")
        self.assertEqual(set(models), {f.name + ("" if (f / "config.json").exists() else "/model")
                                       for f in MODELS.iterdir()})
        entry = models["llama-modelopt-nvfp4"]
        self.assertEqual(list(entry), ["name", "path", "architecture", "format", "bytes", "status", "why"])
        self.assertEqual((entry["architecture"], entry["status"], entry["why"]), ("llama", "ready", None))
        self.assertIn("ModelOpt NVFP4", entry["format"])
        self.assertEqual(entry["bytes"], (MODELS / "llama-modelopt-nvfp4" / "model.safetensors").stat().st_size)
        self.assertEqual(entry["path"], str(MODELS / "llama-modelopt-nvfp4"))
        self.assertIn("Q4_0", models["llama-gguf-q4_0/model"]["format"])
        self.assertEqual(models["llama-gguf-split/model"]["status"], "ready")
        self.assertEqual(models["llama-gguf-split/model"]["bytes"],
                         sum(f.stat().st_size for f in (MODELS / "llama-gguf-split").glob("*.gguf")))
        shards = models["llama-floats-sharded"]
        self.assertEqual(shards["bytes"], sum(f.stat().st_size
                                              for f in (MODELS / "llama-floats-sharded").glob("*.safetensors")))
        table = self.succeed("models", **self.environment, NIBBLE_MODELS=str(MODELS)).stdout.decode()
        self.assertIn(str(MODELS / "llama-modelopt-nvfp4"), table)

    def test_the_hub_cache_and_the_home_folder(self):
        hub = self.home / ".cache" / "huggingface" / "hub"
        snapshot = self.hub_model(hub, "some-org", "Tiny--Llama", FOLDER)
        self.hub_model(hub, "some-org", "Tiny--Llama", SILENT, revision="newer", main_ref=False)
        self.hub_model(hub, "other", "No-Refs", SILENT, main_ref=False)
        (hub / "models--empty--repo").mkdir()
        (hub / "datasets--some--data").mkdir()
        own = self.home / ".cache" / "nibble" / "models"
        own.mkdir(parents=True)
        shutil.copy(GGUF, own / "tiny.gguf")
        models = self.models()
        self.assertEqual(set(models), {"some-org/Tiny--Llama", "other/No-Refs", "tiny"})
        self.assertEqual(models["some-org/Tiny--Llama"]["path"], str(snapshot))
        elsewhere = self.folder / "hf"
        self.hub_model(elsewhere / "hub", "o", "m", FOLDER)
        self.assertIn("o/m", self.models(HF_HOME=str(elsewhere)))
        self.assertIn("o/m", self.models(HF_HUB_CACHE=str(elsewhere / "hub")))

    def test_no_models(self):
        result = self.succeed("models", **self.environment)
        self.assertEqual(result.stdout, b"")
        self.assertIn(b"no models in", result.stderr)
        self.assertEqual(self.models(), {})

    def test_what_cannot_be_run_says_why(self):
        root = self.folder / "root"
        for name in "whole", "gemma", "short", "missing", "bad_json", "deep":
            shutil.copytree(FOLDER, root / name)
        config = json.loads((FOLDER / "config.json").read_text())
        (root / "gemma" / "config.json").write_text(json.dumps(config | {"model_type": "gemma"}))
        data = (FOLDER / "model.safetensors").read_bytes()
        (root / "short" / "model.safetensors").write_bytes(data[:len(data) // 2])
        (root / "missing" / "model.safetensors").unlink()
        (root / "bad_json" / "config.json").write_bytes(b"\xff{")
        (root / "deep" / "config.json").write_text('{"a":' * 5000)
        (root / "empty.gguf").write_bytes(b"")
        shutil.copy(MODELS / "llama-gguf-split" / "model-00001-of-00003.gguf", root / "part-00001-of-00003.gguf")
        (root / "part-00002-of-00003.gguf").write_bytes(b"not the first part")
        (root / "loop").symlink_to(root)
        (root / "nowhere.gguf").symlink_to(root / "nothing")
        models = self.models(NIBBLE_MODELS=str(root))
        status = {name: m["status"] for name, m in models.items() if not name.startswith("loop/")}
        self.assertEqual(status, {"whole": "ready", "gemma": "unsupported", "short": "damaged", "missing": "damaged",
                                  "bad_json": "damaged", "deep": "damaged", "empty": "damaged", "part": "damaged",
                                  "nowhere": "damaged"})
        self.assertIn("gemma", models["gemma"]["why"])
        self.assertEqual(models["gemma"]["format"], "BF16")
        self.assertEqual(models["short"]["bytes"], len(data) // 2)
        text = self.succeed("models", **self.environment, NIBBLE_MODELS=str(root)).stdout.decode()
        self.assertIn("cannot be run: ", text)
        self.assertIn("damaged: ", text)

    def test_names_work_where_paths_do(self):
        environment = self.environment | {"NIBBLE_MODELS": str(MODELS)}
        expected = golden(SILENT)
        arguments = ["--tokens", listed(expected["prompt_tokens"]), "--max-new-tokens", 4, "--backend", "reference"]
        answer = self.report("run", SILENT.name, *arguments, **environment)
        self.assertEqual(answer["tokens"], expected["greedy_tokens"][:4])
        self.assertEqual(self.report("eval", SILENT.name, "--tokens", "1,2,3", "--against", "llama-mlx-mxfp4",
                                     "--backend", "reference", **environment)["tokens"], 3)
        self.assertEqual(self.succeed("tokenize", FOLDER.name, stdin=b"x", **environment).stdout,
                         self.succeed("tokenize", FOLDER, stdin=b"x").stdout)
        hub = self.home / ".cache" / "huggingface" / "hub"
        self.hub_model(hub, "org", "Name", FOLDER)
        self.assertEqual(self.report("plan", "org/Name", "--backend", "reference", **environment)["architecture"],
                         "llama")
        self.succeed("plan", "Name", "--backend", "reference", **environment)
        self.hub_model(hub, "two", "Name", FOLDER)
        self.refuse("plan", "Name", says=["Name: 2 models", str(hub)], **environment)

    def test_unknown_names_list_near_ones(self):
        environment = self.environment | {"NIBBLE_MODELS": str(MODELS)}
        message = self.refuse("run", "lama-bf16", "--tokens", "1", says=["lama-bf16", "llama-bf16"], **environment)
        self.assertNotIn("qwen3-modelopt", message)
        self.refuse("run", "QWEN3", "--tokens", "1", says=["qwen3-bf16", "qwen3-ct-mixed"], **environment)
        message = self.refuse("run", "nothing like it at all", "--tokens", "1", says=["`nibble models`"], **environment)
        self.assertNotIn("near", message)
        self.refuse("run", "x" * 100000, "--tokens", "1", says=["no such file"], **environment)

    def test_a_path_goes_before_a_name(self):
        work = self.folder / "work"
        work.mkdir()
        shutil.copytree(FOLDER, work / SILENT.name)
        before = os.getcwd()
        self.addCleanup(os.chdir, before)
        os.chdir(work)
        environment = self.environment | {"NIBBLE_MODELS": str(MODELS)}
        plan = self.report("plan", SILENT.name, "--backend", "reference", **environment)
        self.assertEqual(plan["tensors"][0]["shape"], [341, 90])
        shutil.copytree(FOLDER, work / ".cache" / "models" / "here")
        self.assertIn("here", self.models())


if __name__ == "__main__":
    main()
