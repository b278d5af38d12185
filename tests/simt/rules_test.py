"""What Metal forbids is refused, with the line, by translate.py; and what it allows is not. rules_test.py CLANG SOURCE_ROOT"""
import os
import subprocess
import sys
import tempfile

CLANG, ROOT = sys.argv[1:3]
sys.path.insert(0, os.path.join(ROOT, "src", "simt", "metal"))

import msl_rules  # noqa: E402
import translate  # noqa: E402
from msl_tokens import ShaderError, Tokens  # noqa: E402

# (text, what the message must contain): found from the tokens.
REFUSED = [
    ("static float f(double x) { return x; }", "Metal has no double"),
    ("struct S { virtual void f(); };", "Metal has no virtual functions"),
    ("static void f() { thread int* p = new int; }", "Metal has no new"),
    ("static void f() { throw 1; }", "Metal has no exceptions"),
    ("static void f() { goto end; end: return; }", "Metal has no goto"),
    ("static int f() { return std::max(1, 2); }", "Metal has no standard library"),
    ("static long long f() { return 1; }", "Metal has no long long"),
    ("static int f() { auto g = [](int x) { return x; }; return g(1); }", "Metal has no lambda expressions"),
    ("struct A { int a; }; struct B : A { int b; };", "Metal has no derived classes"),
    ("static int f(int (*g)(int)) { return g(1); }", "Metal has no function pointers"),
    ("static int f(int n) { return n < 2 ? 1 : n * f(n - 1); }", "Metal has no recursion: f calls itself"),
    ("int g(int n);\nstatic int f(int n) { return g(n); }\nint g(int n) { return f(n); }", "Metal has no recursion"),
    ("static void f(float* p) { *p = 1; }", "the pointer or reference float * p names no address space"),
    ("static void f(const float& x) { }", "names no address space"),
    ("static void f(device float* p) { float* q = p; *q = 1; }", "the pointer or reference q names no address space"),
    ("float scale = 2;", "a variable outside of functions must be constant"),
    ("constant int n [[function_constant(0)]];\nconstant int m = n * 2;", "computed from a function constant"),
    ("kernel int f(device int* p) { return 1; }", "the kernel f must return void"),
    ("kernel void f(device int* p, uint i) { p[i] = 1; }", "is neither a buffer nor has an attribute"),
    ("kernel void f(device int* p) { threadgroup int a[4], b[4]; p[0] = a[0] + b[0]; }", "one variable in a declaration"),
]

# Found by clang, in the pass that only checks.
REFUSED_BY_CLANG = [
    ("kernel void f(device float* a, threadgroup float* b [[threadgroup(0)]]) { device float* p = b; *p = a[0]; }",
     "with an lvalue of type 'threadgroup float *'"),
    ("static void g(threadgroup float* p) { *p = 1; }\nkernel void f(device float* a) { g(a); }", "no matching function"),
    ("kernel void f(constant float* a, device float* b) { a[0] = b[0]; }", "read-only"),
    ("kernel void f(device float* a) { thread float* p = a; *p = 1; }",
     "with an lvalue of type 'device float *'"),
    ("kernel void f(device float* a) { auto x = a[0]; if (int y = 3; x > y) a[0] = 1; }", "C++17"),
    ("template <int n> static int g() { if constexpr (n > 1) return 1; return 2; }\n"
     "kernel void f(device int* a) { a[0] = g<2>(); }", "C++17"),
    ("constant int n [[function_constant(0)]];\nkernel void f(device int* a) { n = a[0]; }", "const"),
    ("kernel void f(device float* a) { a[0] = as_type<float>(half2(1) * 2) + undefined_name; }", "undefined_name"),
]

ALLOWED = """#include <metal_stdlib>
using namespace metal;
struct Arguments { uint n; float scale; };
constant float table[4] = {1.0, 2.0, 4.0, 8.0};
constant bool is_scaled [[function_constant(0)]];
template <typename T> static T twice(T x) { return x * T(2); }
static inline void load(threadgroup half (&to)[4][9], device const half* from, thread uint& count) {
  for (uint i = 0; i < 4; ++i) { to[i][i] = from[i] * 0.5h; ++count; }
}
kernel void scale(device half* x [[buffer(0)]], constant Arguments& args [[buffer(3)]], device const float4* v [[buffer(1)]],
                  threadgroup float* shared [[threadgroup(2)]], uint i [[thread_position_in_grid]]) {
  threadgroup half tile[4][9];
  uint count = 0;
  load(tile, x, count);
  half copy[2] = {tile[0][0], 1.0h};
  thread half* p = copy;
  const float y = args.n * table[i & 3] + dot(v[i], float4(1.0, 2.0, 3.0, 4.0)) / 3.0;
  shared[i] = is_scaled ? twice(y) * args.scale : y;
  x[i] = half(shared[i]) + *p;
}
"""


def message_of(text, folder, run_clang):
    """What translating the text says; empty if all is well."""
    source = os.path.join(folder, "shader.metal")
    with open(source, "w") as f:
        f.write(text)
    if not run_clang:
        tokens = Tokens(f'# 1 "shader.metal"\n{text}\n')
        try:
            msl_rules.check(tokens)
            translate.translate(tokens)
            return ""
        except ShaderError as e:
            return str(e)
    result = run_translate(source, os.path.join(folder, "out.cc"), os.path.join(folder, "out.d"),
                           os.path.join(folder, "checked.pch"))
    return result.stderr if result.returncode else ""


def run_translate(*arguments):
    return subprocess.run([sys.executable, "-B", translate.__file__, CLANG, *arguments, f"-I{ROOT}/src"],
                          stderr=subprocess.PIPE, text=True)


def main():
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        run_translate("--precompile", os.path.join(folder, "checked.pch"), os.path.join(folder, "checked.d"))
        for run_clang, cases in ((False, REFUSED), (True, REFUSED_BY_CLANG)):
            for text, wanted in cases:
                message = message_of(text, folder, run_clang)
                if wanted not in message or "shader.metal:" not in message or "error" not in message:
                    failures.append(f"{text}\n  expected: {wanted}\n  got: {message or 'nothing'}")
        message = message_of(ALLOWED, folder, True)
        if message:
            failures.append(f"what Metal allows is refused: {message}")
    print("\n".join(failures) or f"{len(REFUSED) + len(REFUSED_BY_CLANG)} faults of shaders refused")
    return 1 if failures else 0


sys.exit(main())
