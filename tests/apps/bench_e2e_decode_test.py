"""The program bench_e2e_decode: its JSON, its table, its chart, and what it refuses.

    python3 tests/apps/bench_e2e_decode_test.py build/release/apps/bench_e2e_decode tests/data
"""

from cli import Case, main

DENSE = ["--shape", "smollm2-135m", "--layers", 1, "--max-new-tokens", 3]  # a small one
PART = ["tokens", "decode_tok_s", "moe_layer_ms", "read_gbps", "roof_gbps", "roof_share"]


class BenchE2eDecode(Case):
    def test_a_mixture_of_experts(self):
        chart = self.folder / "chart.svg"
        report = self.report("--layers", 2, "--max-new-tokens", 1, "--experts", "mxfp4", "--plot", chart,
                             timeout=300)  # with sanitizers half a minute
        self.assertEqual([report[k] for k in ("shape", "layers", "moe_layers", "experts", "rest")],
                         ["glm-4.7-flash", 2, 1, "mxfp4", "fp4"])
        before, after = report["before"], report["after"]
        for part in before, after:
            self.assertEqual(list(part), PART)
            self.assertEqual(part["tokens"], 1)
            self.assertTrue(all(part[key] > 0 for key in PART))
            self.assertLess(part["moe_layer_ms"], 1000 / part["decode_tok_s"])
            self.assertAlmostEqual(part["read_gbps"] * 1e9 / part["decode_tok_s"] / report["bytes_per_token"], 1, 1)
        self.assertGreater(report["speedup"], 1)
        self.assertAlmostEqual(report["speedup"], after["decode_tok_s"] / before["decode_tok_s"])
        self.assertAlmostEqual(report["roof_gbps"], (before["roof_gbps"] + after["roof_gbps"]) / 2)
        self.assertEqual(report["moe_layer_phases"],
                         ["rms_norm + 3 linears + swiglu (gemv)", "route + moe_gate_up | linear (gemv)", "moe_down"])

        texts, bars = self.chart(chart)
        self.assertEqual(len(bars), 6)
        for text in "glm-4.7-flash", "2 layers", "MXFP4", "tok/s", "One MoE layer", "ms", "GB/s", "measured roof":
            self.assertIn(text, " | ".join(texts))
        self.assertRegex(" | ".join(texts), r", \d{4}-\d\d-\d\d")
        for before_bar, after_bar in zip(bars[::2], bars[1::2]):
            self.assertNotEqual(before_bar.get("width"), after_bar.get("width"))
        self.assertGreater(float(bars[1].get("width")), float(bars[0].get("width")))  # speed
        self.assertLess(float(bars[3].get("width")), float(bars[2].get("width")))  # latency

    def test_a_dense_model_has_no_such_layer(self):
        chart = self.folder / "chart.svg"
        table = self.succeed(*DENSE, "--threads", 1, "--plot", chart).stdout.decode()
        for text in "smollm2-135m, 1 layer, all matrices NVFP4", ", 1 thread;", "before: 64x64", "after: the routes", \
                "the same tokens", "none", "GB/s", "share":
            self.assertIn(text, table)
        self.assertNotIn("MoE layer:", table)
        texts, bars = self.chart(chart)
        self.assertEqual(len(bars), 4)
        self.assertNotIn("MoE", " | ".join(texts))
        report = self.report(*DENSE, "--rest", "q8_0")
        self.assertEqual((report["moe_layers"], report["before"]["moe_layer_ms"], report["after"]["moe_layer_ms"]),
                         (0, None, None))
        self.assertEqual(report["after"]["tokens"], 3)

    def test_bad_arguments(self):
        self.assertIn(b"--max-new-tokens", self.succeed("--help").stdout)
        self.refuse("--max-new-tokens", 0, says=["--max-new-tokens"])
        self.refuse("--max-new-tokens", "many", says=["--max-new-tokens"])
        self.refuse("--layers", -1, says=["--layers"])
        self.refuse("--experts", "q8_0", says=["--experts", "mxfp4"])
        self.refuse("--rest", "int4", says=["--rest", "bf16"])
        self.refuse("--threads", -1, says=["--threads"])
        self.refuse("model.gguf", says=["model.gguf"])
        self.refuse("--shape", "gpt-5", says=["--shape gpt-5", "glm-4.7-flash"])
        self.refuse("--shape", "mixtral-8x7b", "--layers", 1024, says=["mixtral-8x7b", "of memory available"])
        self.refuse("--shape", "smollm2-135m", "--layers", 1, "--max-new-tokens", 8193, says=["8193", "8192 positions"])

    def test_charts_that_cannot_be_written(self):
        self.refuse(*DENSE, "--plot", self.folder / "chart.png", says=["chart.png", ".svg"])
        self.refuse(*DENSE, "--plot", self.folder / "missing" / "chart.svg", says=["missing", "cannot be created"])
        self.refuse("--shape", "gpt-5", "--plot", self.folder / "chart.svg", says=["gpt-5"])
        self.assertEqual(list(self.folder.iterdir()), [])


if __name__ == "__main__":
    main()
