"""The command nibble as its users meet it: exit codes, messages, stdout and stderr, JSON, files.

    python3 tests/apps/cli_test.py build/release/apps/nibble tests/data
"""

import json
import math
import pathlib
import random
import shutil
import struct
import subprocess

from cli import (DATA, FOLDER, GGUF, MODELS, NIBBLE, SILENT, TEMPLATE_TEXT, Case, golden, listed, main, nibble,
                 read_npy)


class Arguments(Case):
    def test_help_and_version_go_to_stdout(self):
        for arguments in ["--help"], ["run", "--help"], ["--version"]:
            result = self.succeed(*arguments)
            self.assertTrue(result.stdout)
            self.assertEqual(result.stderr, b"")
        commands = self.succeed("--help").stdout.decode()
        for command in "run chat models plan bench logits quantize eval tokenize template machine".split():
            self.assertIn(command, commands)
            self.assertIn(b"Usage", self.succeed(command, "--help").stdout)

    def test_wrong_arguments_are_refused(self):
        self.refuse(says=["A subcommand is required"])
        self.refuse("walk", says=["walk"])
        self.refuse("run", says=["MODEL"])
        self.refuse("run", FOLDER, "--tokens", "1", "--speed=9", says=["--speed"])
        self.refuse("run", FOLDER, "text", "--tokens", "1", says=["--tokens"])
        self.refuse("run", FOLDER, "--tokens", "1", "--threads", "x", says=["--threads"])
        self.refuse("run", FOLDER, "--tokens", "1", "--threads", "-1", says=["--threads"])
        self.refuse("run", FOLDER, "--tokens", "1", "--ctx", "0", says=["--ctx"])
        self.refuse("run", FOLDER, "--tokens", "1", "--kv-cache-type", "q2", says=["--kv-cache-type", "f16", "f32", "q8_0"])
        self.refuse("run", FOLDER, "--tokens", "1", "--activations", "9", says=["--activations", "15", "8"])
        self.refuse("run", FOLDER, "--tokens", "1", "--activations", "8", "--backend", "reference",
                    says=["activations of 8 bits", "reference", "float32"])
        self.refuse("models", "more", says=["more"])
        self.refuse("plan", FOLDER, FOLDER, says=[FOLDER])
        self.refuse("run", FOLDER, "--tokens", "1", "--backend", "tpu", says=["tpu", "cpu, reference"])
        self.refuse("logits", FOLDER, "--tokens", "1", says=["--out"])
        self.refuse("quantize", FOLDER, "--out", self.folder / "x", says=["--format"])
        self.refuse("quantize", FOLDER, "--format", "int4", "--out", self.folder / "x", says=["int4", "nvfp4"])
        self.refuse("run", FOLDER, "Hi", "--seed", "-1", says=["--seed: is -1"])
        self.refuse("bench", FOLDER, "--layers", 1, says=["--layers requires --shape"])

    def test_empty_values_are_refused(self):
        for arguments in (["run", FOLDER, "--tokens", ""], ["run", FOLDER, "Hi", "--stop", ""],
                          ["logits", FOLDER, "--tokens", "1", "--out", ""], ["eval", FOLDER, "--tokens", ""],
                          ["quantize", GGUF, "--format", "nvfp4", "--out", ""], ["bench", FOLDER, "--plot", ""]):
            self.refuse(*arguments, says=[f"{arguments[-2]}: is empty"])

    def test_tokens_are_parsed_strictly(self):
        for text, place in [("1,x", 2), ("1,,2", 2), ("1 2", 0), ("1,2,", 4), ("99999999999", 0), ("1;2", 0)]:
            self.refuse("logits", FOLDER, "--tokens", text, "--out", self.folder / "x.npy",
                        says=[f"'{text}'", f"at character {place}", "1,2,3"])

    def test_options_have_environment_variables(self):
        result = self.succeed("logits", FOLDER, "--tokens", "1", "--out", self.folder / "x.npy",
                              NIBBLE_BACKEND="reference")
        self.assertIn(b"backend reference", result.stderr)
        result = self.succeed("logits", FOLDER, "--tokens", "1", "--out", self.folder / "x.npy", NIBBLE_THREADS="1")
        self.assertIn(b", 1 thread)", result.stderr)
        self.refuse("run", FOLDER, "--tokens", "1", NIBBLE_CTX="-5", says=["-5"])
        self.refuse("run", FOLDER, "--tokens", "1,2,3", NIBBLE_CTX="2", says=["3 tokens", "context of 2"])


class Run(Case):
    # The reference backend measures the roof in a quarter of the CPU backend's memory, which takes most of a run here.
    def answer(self, model, *arguments, **more):
        return self.report("run", model, "--backend", "reference", *arguments, **more)

    def test_the_golden_tokens(self):
        for folder in FOLDER, MODELS / "qwen3-modelopt-nvfp4":
            expected = golden(folder)
            answer = self.report("run", folder, "--tokens", listed(expected["prompt_tokens"]), "--max-new-tokens", 16)
            self.assertEqual(answer["tokens"], expected["greedy_tokens"])
            self.assertEqual(answer["finish_reason"], "length")

    def test_json(self):
        expected = golden(SILENT)
        answer = self.report("run", SILENT, "--tokens", listed(expected["prompt_tokens"]), "--max-new-tokens", 4)
        self.assertEqual(list(answer), ["tokens", "text", "finish_reason", "prefill_tok_s", "decode_tok_s",
                                        "bytes_per_token", "read_gbps", "roof_gbps", "roof_share"])
        self.assertIsNone(answer["text"])
        for key in "prefill_tok_s", "decode_tok_s", "bytes_per_token", "read_gbps", "roof_gbps", "roof_share":
            self.assertGreater(answer[key], 0)
        self.assertAlmostEqual(answer["read_gbps"], answer["bytes_per_token"] * answer["decode_tok_s"] / 1e9,
                               delta=1e-3)
        self.assertAlmostEqual(answer["roof_share"], answer["read_gbps"] / answer["roof_gbps"], delta=1e-6)

    def test_without_a_tokenizer_the_ids_are_the_answer(self):
        expected = golden(SILENT)
        result = self.succeed("run", SILENT, "--tokens", listed(expected["prompt_tokens"]), "--max-new-tokens", 5)
        self.assertEqual(result.stdout.decode(), listed(expected["greedy_tokens"][:5]) + "\n")
        for part in "16 + 5 tokens", "prefill", "tok/s", "GB/s", "measured roof":
            self.assertIn(part, result.stderr.decode())
        self.refuse("run", SILENT, "Hello", says=[SILENT, "has no tokenizer", "--tokens"])
        self.refuse("run", SILENT, "--tokens", "1", "--stop", "x", says=["--stop needs a tokenizer"])

    def test_the_text_streams_to_stdout(self):
        for model in FOLDER, GGUF:
            result = self.succeed("run", model, "Hi", "--max-new-tokens", 12, "--backend", "reference")
            answer = self.answer(model, "Hi", "--max-new-tokens", 12)
            self.assertEqual(result.stdout.decode(), answer["text"] + "\n")
            self.assertEqual(len(answer["tokens"]), 12)

    def test_the_prompt_comes_from_the_template_or_raw_or_stdin(self):
        def answer(*arguments, **more):
            return self.answer(FOLDER, *arguments, "--max-new-tokens", 8, **more)["tokens"]

        chat = json.loads(self.succeed("tokenize", FOLDER, "--special", stdin=TEMPLATE_TEXT.encode()).stdout)
        expected = answer("--tokens", listed(chat))
        self.assertEqual(answer("Hi"), expected)
        self.assertEqual(answer(stdin=b"Hi"), expected)
        self.assertEqual(answer("--raw", TEMPLATE_TEXT), expected)
        plain = json.loads(self.succeed("tokenize", FOLDER, stdin=b"Hi").stdout)
        self.assertEqual(answer("--raw", "Hi"), answer("--tokens", listed(plain)))
        system = "<|start|>system\nBe brief<|end|>\n" + TEMPLATE_TEXT
        self.assertEqual(answer("Hi", "--system", "Be brief"), answer("--raw", system))

    def test_stops(self):
        expected = golden(FOLDER)
        prompt = ["--tokens", listed(expected["prompt_tokens"]), "--max-new-tokens", 16]
        whole = self.answer(FOLDER, *prompt)
        stop = whole["text"][len(whole["text"]) // 2:][:2]
        answer = self.answer(FOLDER, *prompt, "--stop", "never this", "--stop", stop)
        self.assertEqual(answer["finish_reason"], "stop")
        self.assertEqual(answer["text"], whole["text"].split(stop)[0])
        copied = self.copy(FOLDER)
        (copied / "generation_config.json").write_text(json.dumps({"eos_token_id": expected["greedy_tokens"][5]}))
        first = expected["greedy_tokens"].index(expected["greedy_tokens"][5])
        answer = self.answer(copied, *prompt)
        self.assertEqual((answer["finish_reason"], answer["tokens"]), ("stop", expected["greedy_tokens"][:first]))
        self.assertEqual(self.answer(copied, *prompt, "--ignore-eos")["tokens"], expected["greedy_tokens"])

    def test_sampling(self):
        def answer(*arguments):
            return self.answer(FOLDER, "--tokens", "1,2,3", "--max-new-tokens", 10, *arguments)["tokens"]

        hot = ["--temperature", 1.5, "--top-k", 40, "--top-p", 0.95, "--min-p", 0.01, "--seed"]
        first = answer(*hot, 7)
        self.assertEqual(answer(*hot, 7), first)
        self.assertNotEqual(answer(*hot, 8), first)
        self.assertEqual(answer("--temperature", 5, "--top-k", 1), answer())
        for option, value, limits in [("temperature", -1, "0 to 100"), ("top-p", 2, "0 to 1"),
                                      ("min-p", -0.5, "0 to 1"), ("repetition-penalty", 0, "0.01 to 100"),
                                      ("top-k", -2, "from 0")]:
            self.refuse("run", FOLDER, "--tokens", "1", f"--{option}={value}",
                        says=[option.replace("-", "_"), f"is {value}", limits])

    def test_the_checkpoint_says_how_to_sample(self):
        copied = self.copy(FOLDER)

        def answer(config, *arguments):
            (copied / "generation_config.json").write_text(json.dumps(config))
            return self.answer(copied, "--tokens", "1,2,3", "--max-new-tokens", 8, *arguments)["tokens"]

        hot = {"do_sample": True, "temperature": 50.0}
        greedy = answer(hot | {"do_sample": None})
        self.assertNotEqual(answer(hot), greedy)
        self.assertEqual(answer(hot, "--temperature", 0), greedy)

    def test_prompts_that_are_none(self):
        self.refuse("run", FOLDER, says=["no prompt", "stdin is empty"])
        self.refuse("run", FOLDER, "a\udcffb", says=["the prompt: byte 1 is 0xff", "UTF-8"])
        self.refuse("run", FOLDER, stdin=b"ab\xc3", says=["the prompt: byte 2 is 0xc3", "UTF-8"])
        self.refuse("run", FOLDER, "a", "--system", "\udcff", says=["--system", "UTF-8"])
        self.assertEqual(self.succeed("run", FOLDER, "", "--max-new-tokens", 0, "--backend", "reference").stdout, b"\n")

    def test_prompts_that_do_not_fit(self):
        self.refuse("run", FOLDER, "--tokens", "1,341", says=["token 341", "vocabulary has 341 tokens"])
        self.refuse("run", FOLDER, "--tokens", "-1", says=["token -1"])
        self.refuse("run", FOLDER, "--tokens", "1,2,3,4", "--ctx", 3, says=["4 tokens", "context of 3", "256"])
        answer = self.answer(FOLDER, "--tokens", "1,2,3", "--ctx", 6)
        self.assertEqual((len(answer["tokens"]), answer["finish_reason"]), (4, "length"))


class Bench(Case):
    def test_json(self):
        chart = self.folder / "chart.svg"
        bench = self.report("bench", f"{FOLDER}/", "--prompt", "8,20", "--depth", "0,30", "--new-tokens", 4, "--runs", 2,
                            "--plot", chart)
        for key in "decode_tok_s", "prefill_tok_s", "bytes_per_token", "roof_gbps", "roof_share":
            self.assertGreater(bench[key], 0)
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
        for arguments in [], ["--step"], ["--block", 5], ["--threads", 1]:
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
                    says=[below_a_file, "cannot be made"])
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
        self.refuse("eval", FOLDER, "--text", self.write("empty.txt", ""), says=["0 tokens", "at least 2"])


class Quantize(Case):
    def test_json_and_what_is_written(self):
        source = MODELS / "llama-gguf-q8_0" / "model.gguf"
        for number_format, method in [("nvfp4", "modelopt"), ("mxfp4", "compressed-tensors")]:
            out = self.folder / number_format
            report = self.report("quantize", source, "--format", number_format, "--out", out)
            self.assertEqual(report["out"], str(out))
            self.assertEqual(set(report["tensors"][0]), {"name", "from", "to", "bytes", "relative_error"})
            kinds = {t["name"]: t["to"] for t in report["tensors"]}
            self.assertEqual(kinds["model.layers.0.mlp.up_proj"], number_format.upper())
            self.assertEqual(kinds["lm_head"], "F16")
            config = json.loads((out / "config.json").read_text())
            self.assertEqual(config["quantization_config"]["quant_method"], method)
            tokens = listed(golden(source.parent)["prompt_tokens"])
            self.assertLess(self.report("eval", out, "--tokens", tokens, "--against", source)["mean_kl"], 1.5)
            message = self.refuse("quantize", source, "--format", number_format, "--out", out, says=[out, "already"])
            self.assertNotIn("Traceback", message)

    def test_table_and_options(self):
        source = MODELS / "llama-gguf-q4_1" / "model.gguf"
        table = self.succeed("quantize", source, "--format", "nvfp4", "--out", self.folder / "a", "--all", "--plain",
                             "--keep", "down_proj", "--keep", r"layers\.0\..*q_proj").stdout.decode()
        kinds = {line.split()[0]: line.split()[2] for line in table.splitlines()[1:-1]}
        self.assertEqual(kinds["lm_head"], "NVFP4")
        self.assertEqual(kinds["model.layers.1.mlp.down_proj"], "F16")
        self.assertEqual(kinds["model.layers.0.self_attn.q_proj"], "F16")
        self.assertEqual(kinds["model.layers.1.self_attn.q_proj"], "NVFP4")
        self.refuse("quantize", source, "--format", "nvfp4", "--out", self.folder / "b", "--keep", "(", says=["keep", "("])
        self.refuse("quantize", source, "--format", "nvfp4", "--out", self.folder / "b", "--keep", "q_porj",
                    says=["keep 'q_porj'", "no matrix", "model.layers.1."])
        self.assertFalse((self.folder / "b").exists())

    def test_the_folder_talks_as_the_file_did(self):
        out = self.folder / "out"
        self.succeed("quantize", GGUF, "--format", "mxfp4", "--out", out, "--keep", ".")
        for arguments in (["Hi"], ["--raw", "the corn"]):
            answers = [self.report("run", model, *arguments, "--max-new-tokens", 6, "--backend", "reference")
                       for model in (GGUF, out)]
            self.assertEqual(*(a["text"] for a in answers))


class Text(Case):
    def test_tokenize_as_the_golden_library_does(self):
        cases = json.loads((DATA / "text" / "tokenizer_golden.json").read_text())["cases"]
        texts = next(c for c in cases if c["name"] == "gpt2")["texts"]
        for case in texts[::4]:
            ids = json.loads(self.succeed("tokenize", FOLDER, "--special", stdin=case["text"].encode()).stdout)
            self.assertEqual(ids, case["ids"], case["text"])

    def test_there_and_back(self):
        for text in "the corn and the flour", "", "naïve 日本語 😀\r\n\t", "<|start|>x<|end|>":
            for model in FOLDER, FOLDER / "tokenizer.json", GGUF:
                ids = self.succeed("tokenize", model, stdin=text.encode()).stdout
                self.assertEqual(self.succeed("tokenize", model, "--decode", stdin=ids).stdout.decode(), text)

    def test_options(self):
        def ids(*arguments):
            return json.loads(self.succeed("tokenize", FOLDER, *arguments, stdin=b"<|end|>").stdout)

        self.assertEqual(ids("--special"), [330])
        self.assertEqual(ids("--special", "--bos"), [329, 330])
        self.assertGreater(len(ids()), 3)

    def test_errors(self):
        self.refuse("tokenize", SILENT, says=[SILENT, "tokenizer.json"])
        self.refuse("tokenize", self.write("tokenizer.json", "{}"), says=["model"])
        self.refuse("tokenize", FOLDER / "tokenizer.json", "--bos", stdin=b"x", says=["beginning"])
        for stdin, says in [(b"{}", "JSON array"), (b"[1,", "not valid JSON"), (b"[1, 335000]", "335000 is no token id"),
                            (b"[-1]", "-1 is no token id"), (b"[1.5]", "1.5 is no token id"),
                            (b'["a"]', '"a" is no token id')]:
            self.refuse("tokenize", FOLDER, "--decode", stdin=stdin, says=[says])

    def test_templates_as_jinja_renders_them(self):
        goldens = json.loads((DATA / "text" / "jinja_golden.json").read_text())
        messages = self.write("m.json", json.dumps({"messages": [], "variables": goldens["variables"]}))
        cases = [c for c in goldens["cases"] if "rendered" in c][::8]
        self.assertGreater(len(cases), 5)
        for case in cases:
            template = self.write("t.jinja", case["template"])
            result = self.succeed("template", template, "--messages", messages)
            self.assertEqual(result.stdout.decode(), case["rendered"], case["template"])

    def test_a_models_template(self):
        template = self.write("t.jinja", json.loads((FOLDER / "tokenizer_config.json").read_text())["chat_template"])
        conversation = {"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": True, "tools": None}
        rendered = self.succeed("template", template, "--messages", self.write("m.json", json.dumps(conversation)))
        self.assertEqual(rendered.stdout.decode(), TEMPLATE_TEXT)

    def test_template_errors(self):
        good, conversation = self.write("t.jinja", "x"), self.write("m.json", '{"messages": []}')
        self.refuse("template", self.write("bad.jinja", "a\n{% if %}"), "--messages", conversation, says=["line 2"])
        self.refuse("template", self.write("raise.jinja", "{{ raise_exception('no tools') }}"), "--messages",
                    conversation, says=["no tools", "line 1"])
        self.refuse("template", self.folder / "none.jinja", "--messages", conversation, says=["none.jinja", "opened"])
        self.refuse("template", good, "--messages", self.folder / "none.json", says=["none.json", "opened"])
        for contents, says in ("[]", "messages"), ("{", "not valid JSON"), ('{"messages": 3}', "messages"):
            self.refuse("template", good, "--messages", self.write("bad.json", contents), says=["bad.json", says])
        self.refuse("template", good, "--messages",
                    self.write("bad.json", '{"messages": [], "add_generation_prompt": 1}'),
                    says=["add_generation_prompt is 1", "true or false"])


class Machine(Case):
    def test_json(self):
        machine = self.report("machine", "--threads", 1)
        self.assertLessEqual({"cpu", "cores", "caches", "numa_nodes", "gpus", "backend_description", "memory_bytes",
                              "roof_gbps"}, set(machine))
        self.assertGreater(machine["roof_gbps"], 0)
        self.assertIn("1 thread", machine["backend_description"])


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


class Output(Case):
    def test_a_full_disk_is_an_error(self):
        if not pathlib.Path("/dev/full").exists():
            return
        with open("/dev/full", "wb") as full:  # run flushes as it goes: the last flush has nothing left to fail at
            result = subprocess.run([NIBBLE, "run", SILENT, "--tokens", "1", "--max-new-tokens", "2", "--backend",
                                     "reference"], stdout=full, stderr=subprocess.PIPE, timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"cannot be written", result.stderr)

    def test_closed_streams_are_not_taken_for_files(self):
        def closed(stream, *arguments):
            return subprocess.run(["sh", "-c", f'exec "$0" "$@" {stream}&-', NIBBLE, *map(str, arguments)],
                                  capture_output=True, timeout=60)

        result = closed("<", "run", FOLDER)
        self.assertEqual((result.returncode, result.stdout), (2, b""))
        self.assertIn(b"stdin is empty", result.stderr)
        result = closed(">", "plan", GGUF, "--backend", "reference")
        self.assertEqual((result.returncode, result.stdout), (1, b""))
        self.assertIn(b"cannot be written", result.stderr)

    def test_no_progress_bar_and_no_colours_beside_a_terminal(self):
        result = self.succeed("run", SILENT, "--tokens", "1", "--max-new-tokens", "2", "--backend", "reference")
        for mark in b"\r", b"\x1b":
            self.assertNotIn(mark, result.stdout + result.stderr)


if __name__ == "__main__":
    main()
