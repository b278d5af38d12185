"""The command nibble as its users meet it: exit codes, messages, stdout and stderr, JSON, files.

    python3 tests/apps/cli_test.py build/release/apps/nibble tests/data
"""

import json
import os
import pathlib
import shutil
import subprocess

from cli import DATA, FOLDER, GGUF, MODELS, NIBBLE, SILENT, TEMPLATE_TEXT, Case, golden, listed, main


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
        self.refuse("run", FOLDER, "--tokens", "1", "--activations", "8.0", says=["8.0 not in {15,8}"])
        self.refuse("run", FOLDER, "--tokens", "1", "--activations", "8", "--backend", "reference",
                    says=["activations of 8 bits", "reference", "float32"])
        self.refuse("models", "more", says=["more"])
        self.refuse("plan", FOLDER, FOLDER, says=[FOLDER])
        self.refuse("run", FOLDER, "--tokens", "1", "--backend", "tpu", says=["tpu", "cpu, reference"])
        self.refuse("logits", FOLDER, "--tokens", "1", says=["--out"])
        self.refuse("quantize", FOLDER, "--out", self.folder / "x", says=["--format"])
        self.refuse("quantize", FOLDER, "--format", "int4", "--out", self.folder / "x", says=["int4", "nvfp4"])
        for seed in "-1", " -1", "18446744073709551616":
            self.refuse("run", FOLDER, "Hi", "--seed", seed, says=[f"--seed: is {seed}", "from 0 to 18446744073709551615"])
        self.refuse("bench", FOLDER, "--layers", 1, says=["--layers requires --shape"])
        self.refuse("bench", "--shape", "llama-3.2-1b", "--loads", 2, says=["--shape excludes --loads"])

    def test_empty_values_are_refused(self):
        for arguments in (["run", FOLDER, "--tokens", ""], ["run", FOLDER, "Hi", "--stop", ""],
                          ["logits", FOLDER, "--tokens", "1", "--out", ""], ["eval", FOLDER, "--tokens", ""],
                          ["quantize", GGUF, "--format", "nvfp4", "--out", ""], ["bench", FOLDER, "--plot", ""],
                          ["run", FOLDER, "Hi", "--packed-cache", ""], ["run", FOLDER, "Hi", "--backend", ""],
                          ["quantize", GGUF, "--format", "nvfp4", "--out", self.folder / "x", "--keep", ""]):
            self.refuse(*arguments, says=[f"{arguments[-2]}: is empty"])

    def test_tokens_are_parsed_strictly(self):
        for text, place in [("1,x", 2), ("1,,2", 2), ("1 2", 0), ("1,2,", 4), ("99999999999", 0), ("1;2", 0)]:
            self.refuse("logits", FOLDER, "--tokens", text, "--out", self.folder / "x.npy",
                        says=[f"'{text}'", f"at character {place}", "1,2,3"])

    def test_no_model_is_loaded_for_arguments_that_do_not_fit(self):
        out, no_template, bad_template = self.folder / "x.npy", self.copy(FOLDER), self.folder / "bad"
        config = json.loads((FOLDER / "tokenizer_config.json").read_text())
        del config["chat_template"]
        (no_template / "tokenizer_config.json").write_text(json.dumps(config))
        shutil.copytree(no_template, bad_template)
        (bad_template / "chat_template.jinja").write_text("{% if %}")
        for says, *arguments in [("token 341", "run", FOLDER, "--tokens", "1,341"),
                                 ("context of 2", "run", FOLDER, "--tokens", "1,2,3", "--ctx", 2),
                                 ("no tokens", "run", FOLDER, "--raw", ""),
                                 ("token -1", "logits", FOLDER, "--tokens", "-1", "--out", out),
                                 ("context of 2", "logits", FOLDER, "--tokens", "1,2,3", "--ctx", 2, "--out", out),
                                 ("token 341", "eval", FOLDER, "--tokens", "1,341"),
                                 ("cannot be compared", "eval", SILENT, "--tokens", "1,2", "--against", FOLDER),
                                 ("no such file", "eval", SILENT, "--tokens", "1,2", "--against", out),
                                 ("no tokenizer", "chat", SILENT), ("no chat template", "chat", no_template),
                                 ("line 1", "chat", bad_template),
                                 ("temperature is -1", "chat", FOLDER, "--temperature", -1)]:
            self.assertNotIn(": backend ", self.refuse(*arguments, says=[says]), arguments)

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
        answer("--temperature", 100, "--repetition-penalty", 0.01, "--top-p", 0, "--min-p", 1)  # the limits belong to them
        answer("--seed", 2**64 - 1)
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
        for option in "--bos", "--eos", "--special":
            self.refuse("tokenize", FOLDER, "--decode", option, stdin=b"[1]", says=[option, "--decode"])
        for stdin, says in [(b"{}", "JSON array"), (b"[1,", "not valid JSON"), (b"[1, 335000]", "335000 is no token id"),
                            (b"[-1]", "-1 is no token id"), (b"[1.5]", "1.5 is no token id"),
                            (b'["a"]', '"a" is no token id')]:
            message = self.refuse("tokenize", FOLDER, "--decode", stdin=stdin, says=["stdin: ", says])
            self.assertNotIn("fetch it again", message)

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
        for contents, says in [("[]", "messages"), ("{", "not valid JSON"), ('{"messages": 3}', "messages"),
                               ('{"messages": [3]}', "messages: number"),
                               ('{"messages": [], "variables": 3}', "variables: number")]:
            message = self.refuse("template", good, "--messages", self.write("bad.json", contents), says=["bad.json", says])
            self.assertNotIn("fetch it again", message)
        self.refuse("template", good, "--messages",
                    self.write("bad.json", '{"messages": [], "add_generation_prompt": 1}'),
                    says=["add_generation_prompt is 1", "true or false"])


class Machine(Case):
    def test_json(self):
        machine = self.report("machine", "--threads", 1)
        self.assertLessEqual({"cpu", "cores", "caches", "numa_nodes", "gpus", "backend_description", "memory_bytes",
                              "roof_gbps"}, set(machine))
        self.assertGreater(machine["roof_gbps"], 0)
        self.assertEqual(self.report("machine", HWLOC_SYNTHETIC="numa:1 core:1 pu:1")["caches"], [])
        for value in "", "0", "65537", "8 MB", "-8":
            self.refuse("machine", NIBBLE_ROOF_MB=value, says=[f"NIBBLE_ROOF_MB is '{value}'", "from 1 to 65536"])
        self.assertIn("1 thread", machine["backend_description"])


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
        self.assertIn(b"stdin cannot be read: Bad file descriptor", result.stderr)
        result = closed(">", "plan", GGUF, "--backend", "reference")
        self.assertEqual((result.returncode, result.stdout), (1, b""))
        self.assertIn(b"cannot be written", result.stderr)
        result = closed("<", "chat", FOLDER, "--backend", "reference")
        self.assertEqual((result.returncode, result.stdout), (2, b""))
        self.assertIn(b"stdin cannot be read: Bad file descriptor", result.stderr)
        result = closed("2>", "tokenize", FOLDER)
        self.assertEqual((result.returncode, result.stdout), (0, b"[]\n"))
        result = closed("2>", "run", SILENT, "--tokens", "1", "--max-new-tokens", "2", "--backend", "reference")
        self.assertEqual((result.returncode, len(result.stdout.split(b","))), (0, 2))
        self.assertEqual(closed("2>", "plan", self.folder).returncode, 2)

    def test_messages_that_cannot_be_written_do_not_abort(self):
        if not pathlib.Path("/dev/full").exists():
            return
        with open("/dev/full", "wb") as full:
            for code, *arguments in [(2, "plan", self.folder), (1, "run", SILENT, "--tokens", "1")]:
                result = subprocess.run([NIBBLE, *map(str, arguments)], stdout=subprocess.PIPE, stderr=full, timeout=60)
                self.assertEqual((result.returncode, result.stdout), (code, b""))

    def test_stdin_that_is_a_folder(self):
        folder = os.open(self.folder, os.O_RDONLY)
        result = subprocess.run([NIBBLE, "tokenize", FOLDER], stdin=folder, capture_output=True, timeout=60)
        os.close(folder)
        self.assertEqual((result.returncode, result.stdout), (2, b""))
        self.assertIn(b"stdin cannot be read: Is a directory", result.stderr)

    def test_no_progress_bar_and_no_colours_beside_a_terminal(self):
        result = self.succeed("run", SILENT, "--tokens", "1", "--max-new-tokens", "2", "--backend", "reference")
        for mark in b"\r", b"\x1b":
            self.assertNotIn(mark, result.stdout + result.stderr)


if __name__ == "__main__":
    main()
