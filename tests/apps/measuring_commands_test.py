"""The commands whose output is numbers: bench, logits and eval."""

import json
import math

from cli import FOLDER, GGUF, MODELS, SILENT, Case, golden, listed, main, nibble, read_npy


class Bench(Case):
    def test_json(self):
        chart = self.folder / "chart.svg"
        bench = self.report("bench", f"{FOLDER}/", "--prompt", "8,20", "--depth", "0,30", "--new-tokens", 4, "--runs", 2,
                            "--plot", chart)
        for key in "decode_tok_s", "prefill_tok_s", "bytes_per_token", "roof_gbps", "roof_share":
            self.assertGreater(bench[key], 0)
        load = bench["load"]
        stored = sum(t["bytes"] for t in self.report("plan", FOLDER)["file_tensors"])  # vectors in BF16, loaded as F32
        self.assertTrue(stored < load["bytes"] < 1.1 * stored, (stored, load))
        self.assertAlmostEqual(load["gbps"], load["bytes"] / load["seconds"] / 1e9)
        self.assertGreater(min(load["file_gbps"], load["share"]), 0)
        self.assertEqual([r["depth"] for r in bench["decode"]], [0, 30])
        self.assertEqual([r["prompt_tokens"] for r in bench["prefill"]], [8, 20])
        self.assertLess(bench["decode"][0]["bytes_per_token"], bench["decode"][1]["bytes_per_token"])
        phases = {p["name"]: p for p in bench["phases"]}
        self.assertEqual(phases["rms_norm + 3 linears (gemv)"]["count"], 2)
        self.assertTrue(all(p["us"] > 0 for p in bench["phases"]))
        readers = [p for p in bench["phases"] if p["weight_bytes"] + p["cache_bytes"] > 0]
        self.assertEqual(readers, [p for p in bench["phases"] if p["roof_share"] is not None])

        texts, bars = self.chart(chart)
        self.assertEqual(texts[0], "Decoding llama-bf16")
        for text in "depth 0", "depth 30", "measured roof 100 %", "2 × rms_norm + 3 linears (gemv)":
            self.assertIn(text, texts)
        times = bars[4:-len(readers)]  # behind two bars for each depth
        self.assertEqual(len(times), len(bench["phases"]))
        longest = max(p["us"] for p in bench["phases"])
        widest = max(float(bar.get("width")) for bar in times)
        for bar, phase in zip(times, bench["phases"]):
            self.assertAlmostEqual(float(bar.get("width")), max(widest * phase["us"] / longest, 1), delta=0.1)

    def test_a_backend_that_times_no_phases_has_none(self):
        bench = self.report("bench", FOLDER, "--backend", "reference", "--prompt", 8, "--depth", 0, "--new-tokens", 2,
                            "--runs", 1)
        self.assertEqual(bench["phases"], [])

    def test_charts_that_cannot_be_written(self):
        missing = self.folder / "missing"
        self.refuse("bench", FOLDER, "--plot", self.folder / "chart.png", says=["chart.png", ".svg"])
        self.refuse("bench", FOLDER, "--plot", missing / "chart.svg", says=[missing, "cannot be created"])
        self.refuse("bench", FOLDER, "--depth", 1000, "--plot", self.folder / "chart.svg", says=["positions"])
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_metal_runs_ahead(self):
        arguments = ["bench", FOLDER, "--backend", "metal", "--prompt", 8, "--depth", 3, "--new-tokens", 9, "--runs", 1]
        if b"NIBBLE_METAL" in nibble(*arguments).stderr:
            return
        bench = self.report(*arguments)
        # And of the cache 4 … 12 positions, 8 on average.
        weights = sum(p["weight_bytes"] for p in bench["phases"])
        position = self.report("plan", FOLDER, "--backend", "metal")["kv_bytes_per_position"]
        self.assertEqual(bench["bytes_per_step"] - weights, 8 * position)

    def test_several_sequences(self):
        one, three = (self.report("bench", FOLDER, "--prompt", 8, "--depth", 30, "--new-tokens", 4, "--runs", 1,
                                  "--batch", batch) for batch in (1, 3))
        self.assertEqual((one["batch"], three["batch"]), (1, 3))
        self.assertEqual(one["bytes_per_step"], one["bytes_per_token"])
        self.assertEqual(three["bytes_per_step"] // 3, three["bytes_per_token"])
        # The weights once, the caches thrice.
        weights = sum(p["weight_bytes"] for p in one["phases"])
        self.assertEqual(weights, sum(p["weight_bytes"] for p in three["phases"]))
        self.assertEqual(three["bytes_per_step"] - weights, 3 * (one["bytes_per_step"] - weights))
        for bench in one, three:
            self.assertEqual(sum(p["cache_bytes"] for p in bench["phases"]), bench["bytes_per_step"] - weights)

    def test_errors(self):
        self.refuse("bench", FOLDER, "--batch", 0, says=["--batch"])
        self.refuse("bench", FOLDER, "--depth", 250, "--new-tokens", 20, says=[FOLDER, "270 positions", "the model has 256"])
        self.refuse("bench", FOLDER, "--runs", 0, says=["--runs"])
        self.refuse("bench", FOLDER, "--loads", 0, says=["--loads"])
        for option in "--prompt", "--depth":
            for value in "1,", ",1", "1,,2", ",", "1,x", "1,-1":
                self.refuse("bench", FOLDER, f"{option}={value}", says=[f"{option}: '{value}'", "commas"])

    def test_lists(self):
        bench = self.report("bench", "--prompt", "1,2", "--prompt", 3, "--depth", "0,4", FOLDER, "--new-tokens", 1,
                            "--runs", 1, "--loads", 2, "--backend", "reference")
        self.assertEqual([r["prompt_tokens"] for r in bench["prefill"]], [1, 2, 3])
        self.assertEqual([r["depth"] for r in bench["decode"]], [0, 4])


class Logits(Case):
    def test_they_are_the_golden_ones(self):
        for folder in FOLDER, MODELS / "llama-gguf-q4_0":
            model = folder / "model.gguf" if (folder / "model.gguf").exists() else folder
            out = self.folder / "logits.npy"
            result = self.succeed("logits", model, "--backend", "reference", "--tokens",
                                  listed(golden(folder)["prompt_tokens"]), "--out", out)
            self.assertEqual(result.stdout, b"")
            self.assertIn(f"{out}: float32 [16, ".encode(), result.stderr)
            expected, _, _ = read_npy(folder / "golden_logits.npy")
            rows, header, begin = read_npy(out)
            self.assertEqual(header, {"descr": "<f4", "fortran_order": False, "shape": (16, len(expected[0]))})
            self.assertEqual(begin % 64, 0)
            self.assertLess(max(abs(a - b) for x, y in zip(rows, expected) for a, b in zip(x, y)), 1e-3)

    def test_blocks_and_threads_change_nothing(self):
        tokens, files = listed(golden(SILENT)["prompt_tokens"]), []
        for arguments in [], ["--step"], ["--block", 5], ["--block", 1024], ["--threads", 1]:
            files.append(self.folder / f"{len(files)}.npy")
            self.succeed("logits", SILENT, "--tokens", tokens, "--out", files[-1], *arguments)
        self.assertEqual(len({f.read_bytes() for f in files}), 1)

    def test_numa_nodes_change_nothing(self):
        for model in SILENT, MODELS / "glm4_moe_lite-ct-nvfp4":
            tokens, files = listed(golden(model)["prompt_tokens"]), []
            for nodes in 1, 2:
                files.append(self.folder / f"{nodes}.npy")
                result = self.succeed("logits", model, "--tokens", tokens, "--out", files[-1], "--threads", 3,
                                      HWLOC_SYNTHETIC=f"numa:{nodes} core:1 pu:1")
                self.assertEqual(b"3 threads on 2 NUMA nodes" in result.stderr, nodes == 2, result.stderr)
            self.assertEqual(len({f.read_bytes() for f in files}), 1)

    def test_the_kv_cache_may_have_8_bits(self):
        logits = {}
        for name in "f16", "q8_0":
            out = self.folder / f"{name}.npy"
            self.succeed("logits", SILENT, "--tokens", listed(golden(SILENT)["prompt_tokens"]), "--kv-cache-type", name,
                         "--out", out)
            logits[name] = [value for row in read_npy(out)[0] for value in row]
        difference = max(abs(a - b) for a, b in zip(*logits.values()))
        self.assertGreater(difference, 0)
        self.assertLess(difference, 0.1 * max(map(abs, logits["f16"])))

    def test_a_packed_cache_changes_nothing(self):
        cache, outs = self.folder / "cache", [self.folder / f"{i}.npy" for i in range(3)]
        state = lambda: self.report("plan", SILENT, "--packed-cache", cache)["packed_cache"]["state"]
        self.succeed("logits", SILENT, "--tokens", "1,2,3", "--out", outs[0])
        self.assertEqual(state(), "absent")
        self.assertFalse(cache.exists())
        for out, says in (outs[1], b"kept in"), (outs[2], b"packed weights"):
            result = self.succeed("logits", SILENT, "--tokens", "1,2,3", "--out", out, NIBBLE_PACKED_CACHE=str(cache))
            self.assertIn(says, result.stderr)
        self.assertEqual(len({out.read_bytes() for out in outs}), 1)
        self.assertIn(state(), ("ready", "to_be_compared"))
        file, = cache.glob("*.packed")
        file.write_bytes(b"short")
        self.assertEqual(state(), "unusable")
        below_a_file = file / "cache"
        self.refuse("logits", SILENT, "--tokens", "1", "--out", outs[0], "--packed-cache", below_a_file,
                    says=[below_a_file, "cannot be created"])
        self.refuse("logits", SILENT, "--tokens", "1", "--out", outs[0], "--packed-cache", cache, "--backend", "reference",
                    says=["backend reference", "--packed-cache"])

    def test_activations_may_have_8_bits(self):
        logits = {}
        for bits in 15, 8:
            out = self.folder / f"{bits}.npy"
            result = self.succeed("logits", SILENT, "--backend", "cpu", "--tokens", "1,2,3", "--activations", bits,
                                  "--out", out)
            self.assertIn(f"activations in {bits} bits", result.stderr.decode())
            logits[bits] = [value for row in read_npy(out)[0] for value in row]
        largest = max(map(abs, logits[15]))
        error = max(abs(a - b) for a, b in zip(logits[15], logits[8]))
        self.assertGreater(error, 1e-5 * largest)
        self.assertLess(error, 0.1 * largest)

    def test_errors(self):
        out = self.folder / "out.npy"
        self.refuse("logits", FOLDER, "--tokens", "1,400", "--out", out, says=["token 400", "341 tokens"])
        self.refuse("logits", FOLDER, "--tokens", "1", "--out", out, "--step", "--block", 2, says=["--block"])
        self.refuse("logits", FOLDER, "--tokens", "1", "--out", out, "--block", 1025, says=["--block", "1025", "1024"])
        self.refuse("logits", self.folder / "none", "--tokens", "1", "--out", out, says=[self.folder / "none"])
        self.refuse("logits", FOLDER, "--tokens", "1", "--out", self.folder / "no" / "out.npy",
                    says=["no/out.npy", "cannot be created", "No such file or directory"])
        self.refuse("logits", FOLDER, "--tokens", "1", "--out", "/dev/full", says=["/dev/full", "device"])
        self.refuse("logits", FOLDER, "--tokens", "1", "--out", self.folder, says=[self.folder, "is a folder"])
        self.refuse("plan", FOLDER, "--backend", "cpu", "--packed-cache", GGUF, says=[GGUF, "is no folder"])
        self.assertEqual(list(self.folder.iterdir()), [])


class Eval(Case):
    def perplexity(self, model, tokens):
        out = self.folder / "logits.npy"
        self.succeed("logits", model, "--tokens", listed(tokens), "--out", out)
        rows, _, _ = read_npy(out)
        losses = [math.log(sum(math.exp(x - max(row)) for x in row)) + max(row) - row[following]
                  for row, following in zip(rows, tokens[1:])]
        return math.exp(sum(losses) / len(losses))

    def test_perplexity_is_that_of_the_logits(self):
        tokens = golden(SILENT)["prompt_tokens"] + golden(SILENT)["greedy_tokens"]
        result = self.report("eval", SILENT, "--tokens", listed(tokens))
        self.assertEqual(list(result), ["tokens", "perplexity"])
        self.assertEqual(result["tokens"], 32)
        self.assertAlmostEqual(result["perplexity"] / self.perplexity(SILENT, tokens), 1, delta=1e-5)

    def test_windows_start_anew(self):
        tokens = golden(SILENT)["prompt_tokens"]
        parts = [math.log(self.perplexity(SILENT, tokens[at:at + 8])) for at in (0, 8)]
        result = self.report("eval", SILENT, "--tokens", listed(tokens), "--window", 8)
        self.assertAlmostEqual(math.log(result["perplexity"]), sum(parts) / 2, delta=1e-5)
        fewer = self.report("eval", SILENT, "--tokens", listed(tokens), "--max-tokens", 8)
        self.assertEqual(fewer["tokens"], 8)
        self.assertAlmostEqual(math.log(fewer["perplexity"]), parts[0], delta=1e-5)

    def test_against(self):
        tokens = listed(golden(SILENT)["prompt_tokens"])
        same = self.report("eval", SILENT, "--tokens", tokens, "--against", SILENT)
        self.assertEqual(list(same), ["tokens", "perplexity", "against_perplexity", "mean_kl", "p99_kl", "same_best"])
        self.assertEqual((same["mean_kl"], same["p99_kl"], same["same_best"]), (0, 0, 1))
        self.assertEqual(same["perplexity"], same["against_perplexity"])
        other = self.report("eval", SILENT, "--tokens", tokens, "--against", MODELS / "llama-mlx-mxfp4")
        self.assertGreater(other["mean_kl"], 1)
        self.assertGreaterEqual(other["p99_kl"], other["mean_kl"])
        self.assertLess(other["same_best"], 0.5)
        self.refuse("eval", SILENT, "--tokens", tokens, "--against", FOLDER,
                    says=["vocabulary of 131", "one of 341", "cannot be compared"])

    def test_text(self):
        text = self.write("text.txt", "the corn and the flour " * 12)
        result = self.report("eval", FOLDER, "--text", text)
        self.assertEqual(result["tokens"], len(json.loads(self.succeed("tokenize", FOLDER,
                                                                        stdin=text.read_bytes()).stdout)))
        self.assertIn(b"perplexity", self.succeed("eval", FOLDER, "--text", text).stdout)
        self.refuse("eval", FOLDER, says=["--text", "--tokens"])
        self.refuse("eval", SILENT, "--text", text, says=[SILENT, "has no tokenizer"])
        self.refuse("eval", FOLDER, "--text", self.folder / "none.txt", says=["none.txt", "cannot be opened"])
        self.refuse("eval", FOLDER, "--tokens", "1", says=["1 tokens", "at least 2"])
        self.refuse("eval", FOLDER, "--text", text, "--max-tokens", "-1", says=["--max-tokens"])
        self.refuse("eval", FOLDER, "--text", text, "--ctx", 1, says=["context of 1", "at least 2"])
        self.refuse("eval", FOLDER, "--text", self.write("empty.txt", ""), says=["0 tokens", "at least 2"])


if __name__ == "__main__":
    main()
