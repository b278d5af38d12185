"""nibble chat, from a pipe and in a pseudo-terminal, and what run says of thinking."""

import json
import os
import pty
import resource
import select
import signal
import subprocess
import time

from cli import FOLDER, GGUF, NIBBLE, SILENT, Case, main, nibble

CLEAN = {k: v for k, v in os.environ.items() if not k.startswith("NIBBLE_") and k != "NO_COLOR"}


class Piped(Case):
    def answers(self, lines, *arguments, model=FOLDER):
        result = self.succeed("chat", model, "--backend", "reference", "--json", *arguments,
                              stdin="".join(line + "\n" for line in lines).encode())
        return [json.loads(line) for line in result.stdout.splitlines()]

    def test_one_message_a_line(self):
        answers = self.answers(["Hi", "and the flour"], "--max-new-tokens", 8)
        self.assertEqual(list(answers[0]), ["tokens", "text", "finish_reason", "prefill_tok_s", "decode_tok_s",
                                            "bytes_per_token", "read_gbps", "prompt_tokens", "reused_tokens",
                                            "context_tokens"])
        first = self.report("run", FOLDER, "Hi", "--max-new-tokens", 8, "--backend", "reference")
        self.assertEqual((answers[0]["tokens"], answers[0]["text"]), (first["tokens"], first["text"]))
        self.assertEqual(answers[0]["reused_tokens"], 0)
        # The second prompt begins with the first, which is in the cache.
        self.assertGreaterEqual(answers[1]["reused_tokens"], answers[0]["prompt_tokens"])
        self.assertLess(answers[1]["reused_tokens"], answers[1]["prompt_tokens"])
        rendered = (f"<|start|>user\nHi<|end|>\n<|start|>assistant\n{first['text']}<|end|>\n"
                    "<|start|>user\nand the flour<|end|>\n<|start|>assistant\n")
        again = self.report("run", FOLDER, "--raw", rendered, "--max-new-tokens", 8, "--backend", "reference")
        self.assertEqual(answers[1]["tokens"], again["tokens"])

    def test_text_goes_to_stdout_and_the_rest_to_stderr(self):
        result = self.succeed("chat", GGUF, "--max-new-tokens", 5, "--backend", "reference", stdin=b"Hi\n")
        run = self.report("run", GGUF, "Hi", "--max-new-tokens", 5, "--backend", "reference")
        self.assertEqual(result.stdout.decode(), run["text"] + "\n")
        for part in "+ 5 tokens", "tok/s", "0 reused", "of 256 positions":
            self.assertIn(part, result.stderr.decode())
        for mark in b"\x1b", b"\r", b"> ":
            self.assertNotIn(mark, result.stdout + result.stderr)

    def test_messages_of_many_lines(self):
        def prompt_tokens(*lines):
            return [a["prompt_tokens"] for a in self.answers(lines, "--max-new-tokens", 1)]

        def saved(*lines):
            file = self.folder / f"{len(list(self.folder.iterdir()))}.json"
            self.answers([*lines, f"/save {file}"], "--max-new-tokens", 1)
            return [m["content"] for m in json.loads(file.read_text())["messages"] if m["role"] == "user"]

        self.assertEqual(saved("one\\", "two\\", "three"), ["one\ntwo\nthree"])
        self.assertEqual(saved('"""', "one", "", 'two"""', "next"), ["\none\n\ntwo", "next"])
        self.assertEqual(saved('"""one line"""', "", "   ", "//slash"), ["one line", "/slash"])
        self.assertEqual(saved("carriage return\r"), ["carriage return"])
        self.assertEqual(len(prompt_tokens("no end of line\\")), 1)

    def test_commands(self):
        file = self.folder / "saved.json"
        answers = self.answers(["Hi", "/reset", "Hi", f"/save {file}", "/system Be brief", "Hi", "/system", "/reset",
                                "Hi", "/exit", "never"], "--max-new-tokens", 3, "--system", "")
        prompts = [a["prompt_tokens"] for a in answers]
        self.assertEqual(len(prompts), 4)
        self.assertEqual(prompts[0], prompts[1])
        self.assertEqual(answers[0]["tokens"], answers[1]["tokens"])
        self.assertEqual(answers[1]["reused_tokens"], prompts[1] - 1)
        self.assertGreater(prompts[2], prompts[1])
        self.assertEqual(prompts[3], prompts[0])
        conversation = json.loads(file.read_text())
        self.assertEqual([m["role"] for m in conversation["messages"]], ["user", "assistant"])
        self.assertEqual(conversation["messages"][1]["content"], answers[1]["text"])
        for option in ["--system", "Be brief"], []:
            loaded = self.answers([f"/load {file}", "Hi"], "--max-new-tokens", 3, *option)
            self.assertGreater(loaded[0]["prompt_tokens"], prompts[0])
        help_text = self.succeed("chat", FOLDER, "--backend", "reference", stdin=b"/help\n")
        self.assertEqual(help_text.stdout, b"")
        for command in b"/reset", b"/drop", b"/system", b"/save", b"/load", b"/exit":
            self.assertIn(command, help_text.stderr)

    def test_what_is_saved_suits_the_template_command(self):
        file = self.folder / "saved.json"
        self.answers(["Hi", f"/save {file}"], "--max-new-tokens", 3)
        config = json.loads((FOLDER / "tokenizer_config.json").read_text())
        template = self.write("t.jinja", config["chat_template"])
        rendered = self.succeed("template", template, "--messages", file).stdout.decode()
        self.assertTrue(rendered.startswith("<|start|>user\nHi<|end|>\n<|start|>assistant\n"))

    def test_errors_end_a_script(self):
        def refuse(line, *says, arguments=()):
            result = nibble("chat", FOLDER, "--backend", "reference", *arguments, stdin=line.encode() + b"\nnever\n")
            self.assertEqual((result.returncode, result.stdout), (2, b""), result.stderr)
            for part in says:
                self.assertIn(part, result.stderr.decode())

        there = self.write("there.json", "{}")
        refuse("/walk", "/walk", "/help")
        refuse("/reset now", "'now'")
        refuse("/drop", "nothing to forget")
        refuse("/save", "name of a file")
        refuse(f"/save {there}", str(there), "there already", "another name")
        refuse("/save " + "x" * 300, "xxx", "File name too long")
        refuse(f"/load {there}", str(there), "messages")
        refuse(f"/load {self.folder / 'none'}", "none")
        refuse("x" * 300, "context", "256", "/drop", "/reset", "--ctx")
        refuse("Hi", "top_p", arguments=["--top-p", 3])
        self.assertEqual(there.read_text(), "{}")
        self.refuse("chat", SILENT, says=[SILENT, "no tokenizer"])
        copied = self.copy(FOLDER)
        (copied / "tokenizer_config.json").unlink()
        self.refuse("chat", copied, says=[copied, "no chat template"])
        self.refuse("chat", FOLDER, "PROMPT", says=["PROMPT"])

    def test_a_context_that_fills_is_said(self):
        result = self.succeed("chat", FOLDER, "--backend", "reference", "--ctx", 24, stdin=b"Hi\n")
        for part in "context of 24 positions is full", "/drop", "/reset", "--ctx", "24 of 24":
            self.assertIn(part, result.stderr.decode())


class Thinking(Case):
    """The template writes <think>, so the tiny model, which never ends it, thinks all the time."""

    def setUp(self):
        super().setUp()
        self.model = self.copy(FOLDER)
        (self.model / "chat_template.jinja").write_text(
            "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
            "{% if enable_thinking is not false %}<think>\n{% endif %}"
            "{% if reasoning_effort %}{{ reasoning_effort }}{% endif %}")
        self.options = ["--max-new-tokens", 6, "--backend", "reference"]

    def test_thinking_is_hidden_unless_it_is_asked_for(self):
        answer = self.report("run", self.model, "Hi", *self.options)
        self.assertEqual(answer["text"], "")
        self.assertTrue(answer["thinking"].strip())
        result = self.succeed("run", self.model, "Hi", *self.options)
        self.assertEqual(result.stdout, b"\n")
        self.assertIn(b"--show-thinking", result.stderr)
        shown = self.succeed("run", self.model, "Hi", *self.options, "--show-thinking")
        self.assertEqual(shown.stdout.decode(), answer["thinking"] + "\n")
        chat = self.succeed("chat", self.model, *self.options, "--show-thinking", stdin=b"Hi\n")
        self.assertEqual(chat.stdout.decode(), answer["thinking"] + "\n")
        self.assertEqual(self.succeed("chat", self.model, *self.options, stdin=b"Hi\n").stdout, b"\n")

    def test_raw_prompts_have_no_thinking(self):
        answer = self.report("run", self.model, "--raw", "Hi<|end|><think>\n", *self.options)
        self.assertNotIn("thinking", answer)
        self.assertTrue(answer["text"])

    def test_options_that_need_a_template_are_refused_without_one(self):
        for option in ["--system", "x"], ["--thinking", "off"], ["--reasoning-effort", "low"], ["--show-thinking"]:
            self.refuse("run", FOLDER, "--raw", "Hi", *option, says=[option[0], "--raw"])
            self.refuse("run", FOLDER, "--tokens", "1", *option, says=[option[0], "--tokens"])
        (self.model / "chat_template.jinja").unlink()
        (self.model / "tokenizer_config.json").unlink()
        self.refuse("run", self.model, "Hi", "--system", "x", says=["--system", "has none"])

    def test_the_template_hears_of_it(self):
        off = self.report("run", self.model, "Hi", *self.options, "--thinking", "off")
        self.assertEqual(off["text"].strip(),
                         self.report("run", self.model, "--raw", "Hi<|end|>", *self.options)["text"].strip())
        effort = self.report("run", self.model, "Hi", *self.options, "--thinking", "off", "--reasoning-effort", "high")
        self.assertEqual(effort["text"].strip(),
                         self.report("run", self.model, "--raw", "Hi<|end|>high", *self.options)["text"].strip())
        self.refuse("run", self.model, "Hi", "--reasoning-effort", "extreme", says=["extreme", "medium"])
        self.refuse("run", self.model, "Hi", "--thinking", "maybe", says=["maybe", "off"])


class Terminal(Case):
    """A person at a pseudo-terminal, which is stdin, stdout and stderr at once."""

    def start(self, *arguments, model=FOLDER, files_can_be_written=True, **environment):
        def prepare():
            self.take_terminal()
            if not files_can_be_written:  # as on a full disk; the signal that tells of it stays ignored, as in Python
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

        self.master, slave = pty.openpty()
        self.process = subprocess.Popen([NIBBLE, "chat", model, "--backend", "reference", *map(str, arguments)],
                                        stdin=slave, stdout=slave, stderr=slave, close_fds=True,
                                        env=CLEAN | environment, preexec_fn=prepare,
                                        restore_signals=files_can_be_written)
        os.close(slave)
        self.addCleanup(os.close, self.master)
        self.addCleanup(self.process.wait)
        self.addCleanup(self.process.kill)
        self.seen = b""

    @staticmethod
    def take_terminal():  # so that a typed Ctrl-C becomes a signal
        import fcntl
        import termios
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def wait_for(self, text, seconds=30):
        """What came, up to and with `text`."""
        wanted, deadline = text.encode(), time.monotonic() + seconds
        while wanted not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            self.assertTrue(ready, f"{text!r} did not come: {self.seen!r}")
            try:
                self.seen += os.read(self.master, 65536)
            except OSError:
                self.fail(f"{text!r} did not come before the end: {self.seen!r}")
        end = self.seen.index(wanted) + len(wanted)
        came, self.seen = self.seen[:end], self.seen[end:]
        return came.decode(errors="replace")

    def read_some(self):
        if not self.seen:
            select.select([self.master], [], [], 30)
            self.seen += os.read(self.master, 65536)

    def type(self, text):
        os.write(self.master, text.encode())

    def leave(self):
        self.assertEqual(self.process.wait(30), 0)

    def test_a_conversation(self):
        self.start("--max-new-tokens", 5)
        self.wait_for("> ")
        self.type("Hi\n")
        report = self.wait_for("positions")
        self.assertIn("+ 5 tokens", report)
        self.assertIn("\x1b[2m", report)
        self.wait_for("> ")
        self.type("one\\\n")
        self.wait_for("… ")
        self.type("two\n")
        self.wait_for("reused")
        self.wait_for("> ")
        self.type("/walk\n")  # an error is said, and the conversation goes on
        self.wait_for("/walk is no command")
        self.wait_for("> ")
        self.type("\x04")
        self.leave()

    def test_a_file_that_cannot_be_written_does_not_end_the_conversation(self):
        self.start("--max-new-tokens", 1, files_can_be_written=False)
        self.wait_for("> ")
        self.type("/save " + str(self.folder / "s.json") + "\n")
        self.wait_for("File too large")
        self.wait_for("> ")
        self.type("\x04")
        self.leave()

    def test_control_c_stops_the_answer_and_then_the_program(self):
        model = self.copy(FOLDER)  # with a context that takes minutes to fill
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1 << 20}))
        self.start("--ignore-eos", "--ctx", 1 << 20, "--max-new-tokens", 1 << 20, model=model)
        self.wait_for("> ")
        for message in "Hi", "again":
            self.type(message + "\n")
            self.wait_for(message + "\r\n")
            self.read_some()  # the answer has begun
            self.type("\x03")
            self.wait_for("stopped")
            self.wait_for("positions")
            self.wait_for("> ")
        self.type("/save " + str(self.folder / "s.json") + "\n")
        self.wait_for("4 messages")
        self.wait_for("> ")
        self.type("\x03")
        self.wait_for("Ctrl-C again")
        self.wait_for("> ")
        self.type("\x03")
        self.leave()
        answer = json.loads((self.folder / "s.json").read_text())["messages"][1]["content"]
        self.assertTrue(answer)

    def test_a_second_control_c_after_an_answer_leaves(self):
        model = self.copy(FOLDER)
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1 << 20}))
        self.start("--ignore-eos", "--ctx", 1 << 20, "--max-new-tokens", 1 << 20, model=model)
        self.wait_for("> ")
        self.type("Hi\n")
        self.wait_for("Hi\r\n")
        self.read_some()
        self.type("\x03")
        self.wait_for("positions")
        self.wait_for("> ")
        self.type("\x03")
        self.leave()

    def test_a_line_that_was_begun_is_gone_after_control_c(self):
        self.start("--max-new-tokens", 2)
        self.wait_for("> ")
        self.type("half a li")
        self.type("\x03")
        self.wait_for("Ctrl-C again")
        self.wait_for("> ")
        self.type("/save " + str(self.folder / "s.json") + "\n")
        self.wait_for("0 messages")
        self.wait_for("> ")
        self.type("/exit\n")
        self.leave()

    def test_a_line_that_the_terminal_cuts_is_refused(self):
        self.start("--max-new-tokens", 2)
        self.wait_for("> ")
        self.type("x" * 5000 + "\n")
        self.wait_for("the terminal cuts")
        self.wait_for("> ")
        self.type("Hi\n")
        self.wait_for("+ 2 tokens")
        self.wait_for("> ")
        self.type("/exit\n")
        self.leave()

    def test_no_colours_if_they_are_not_wanted(self):
        self.start("--max-new-tokens", 3, NO_COLOR="1")
        self.wait_for("> ")
        self.type("Hi\n")
        self.assertNotIn("\x1b[2m", self.wait_for("positions"))
        self.process.send_signal(signal.SIGTERM)
        self.assertEqual(self.process.wait(30), -signal.SIGTERM)

    def test_bytes_of_a_file_that_are_gone_are_named_as_the_reason(self):
        self.start()
        self.wait_for("> ")
        self.process.send_signal(signal.SIGBUS)  # as the system does when a mapped file has become shorter
        self.wait_for("it has become shorter")
        self.assertEqual(self.process.wait(30), 1)


if __name__ == "__main__":
    main()
