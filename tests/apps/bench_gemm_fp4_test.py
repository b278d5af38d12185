"""The program bench_gemm_fp4: its JSON, its chart, and what it refuses.

    python3 tests/apps/bench_gemm_fp4_test.py build/release/apps/bench_gemm_fp4 tests/data
"""

import xml.etree.ElementTree as ElementTree

from cli import Case, main

QUICK = ["--memory", 4, "--seconds", 0.01, "--isa", "generic"]


class BenchGemmFp4(Case):
    def test_linears_over_formats_sizes_and_tokens(self):
        chart = self.folder / "chart.svg"
        report = self.report("--packed", "--format", "MXFP4,Q8_0", "--size", "1,2", "-M", "1,3", "--plot", chart, *QUICK)
        self.assertEqual([(r["format"], r["M"]) for r in report["results"]],
                         [(f, M) for f in ("Q8_0", "MXFP4") for _ in range(2) for M in (1, 3)])
        for result in report["results"]:
            self.assertEqual((result["kernels"], result["activation_bits"], result["K"]), ("generic", 15, 4096))
            self.assertTrue(all(result[key] > 0 for key in ("us", "gbps", "roof_gbps", "roof_share")))
        namespace = "{http://www.w3.org/2000/svg}"
        root = ElementTree.parse(chart).getroot()
        self.assertEqual(len(list(root.iter(namespace + "polyline"))), 4)  # two formats over sizes, and over tokens
        self.assertEqual(len(list(root.iter(namespace + "circle"))), 8)
        texts = [e.text for e in root.iter(namespace + "text")]
        for text in "M = 1", "2 MB", "MXFP4, generic", "Q8_0, generic", "measured roof":
            self.assertIn(text, texts)

    def test_dispatch_names_its_route(self):
        report = self.report("--shape", "64x64", "-M", "1,64", *QUICK)
        self.assertEqual([r["route"] for r in report["results"] if r["chosen"]],
                         ["decode_gemv_fp4_wide", "marlin_gemm_fp4"])

    def test_bad_arguments(self):
        self.refuse("--isa", "avx9", says=["avx9", "generic"])
        self.refuse("--plot", "chart.png", *QUICK, says=["chart.png", ".svg"])
        self.refuse("--format", "FP5", "--packed", says=["FP5"])
        for shape in "64", "99999999999x8", "8x99999999999999999999":
            self.refuse("--shape", shape, says=[shape, "NxK"])
        self.refuse("--shape", "16777216x16777216", says=["MB needed", "MB of memory available"])
        self.refuse("--activations", 9, says=["--activations"])
        for option, value in ("--tokens", "1,"), ("--size", "1,,2"), ("--format", "MXFP4,"), ("--isa", ",generic"):
            self.refuse("--packed", option, value, says=[option, f"'{value}'", "a value is empty"])


if __name__ == "__main__":
    main()
