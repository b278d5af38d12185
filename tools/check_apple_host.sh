#!/usr/bin/env bash
# tools/check_apple_host.sh [METAL_CPP_FOLDER]: type-checks on Linux what only macOS builds: apple_device.cc against
# metal-cpp's headers, and the file that holds the shaders' text. Without a folder it gets the headers from PyPI's wheel
# mlx-metal (45 MB).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
metal_cpp=${1:-}
if [[ -z $metal_cpp ]]; then
  python3 -m pip download -q mlx-metal --platform macosx_14_0_arm64 --python-version 3.12 --no-deps \
    --only-binary=:all: -d "$work"
  python3 -m zipfile -e "$work"/mlx_metal-*.whl "$work/wheel"
  metal_cpp=$work/wheel/mlx/include/metal_cpp
fi

# What metal-cpp includes from the system, as far as it uses it.
header() {
  mkdir -p "$(dirname "$work/system/$1")"
  { echo '#pragma once'; cat; } >"$work/system/$1"
}
header TargetConditionals.h <<<'#define TARGET_OS_OSX 1'
header objc/runtime.h <<'H'
using Class = struct objc_class*;
using SEL = struct objc_selector*;
using Method = struct objc_method*;
using BOOL = signed char;
struct Protocol;
struct objc_object {
  Class isa;
};
using id = objc_object*;
extern "C" {
SEL sel_registerName(const char*);
id objc_lookUpClass(const char*);
id objc_getProtocol(const char*);
Class object_getClass(id);
Method class_getInstanceMethod(Class, SEL);
}
H
header objc/message.h <<'H'
#include <objc/runtime.h>
extern "C" {
void objc_msgSend();
void objc_msgSend_stret();
void objc_msgSend_fpret();
}
H
header CoreFoundation/CoreFoundation.h <<'H'
#include <cmath>
#include <cstdint>
using CFTimeInterval = double;
H
header dispatch/dispatch.h <<'H'
using dispatch_queue_t = struct dispatch_queue_s*;
using dispatch_data_t = struct dispatch_data_s*;
H
header IOSurface/IOSurfaceRef.h <<<'using IOSurfaceRef = struct __IOSurface*;'
header mach/mach.h <<'H'
using kern_return_t = int;
using task_id_token_t = unsigned;
H
header CoreGraphics/CGGeometry.h <<'H'
struct CGSize {
  double width, height;
};
H
header CoreGraphics/CGColorSpace.h <<<'using CGColorSpaceRef = struct CGColorSpace*;'
header simd/simd.h </dev/null

check=("${CLANG:-clang++-19}" -std=c++20 -fblocks -fsyntax-only -Wall -Wextra
  -isystem "$work/system" -isystem "$metal_cpp" -Isrc)
"${check[@]}" src/backends/metal/apple_device.cc

# The text that Metal's compiler gets at run time stands in literals.
python3 src/backends/metal/embed_shaders.py src "$work/shader_text.cc" src/backends/metal/*.metal
"${check[@]}" "$work/shader_text.cc"
echo "the host code for Apple's Metal type-checks" >&2
