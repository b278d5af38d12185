#!/usr/bin/env bash
# tools/check_apple_host.sh [--all] [METAL_CPP_FOLDER]: type-checks on Linux what only macOS builds: apple_device.cc against
# metal-cpp's headers, and the file that holds the shaders' text. Without a folder it gets the headers from PyPI's wheel
# mlx-metal (45 MB).
#
# --all: every file of a macOS build, the tests' too, with the headers of macOS's C library and of libc++ that PyPI's wheel
# ziglang (100 MB) carries; those of the other libraries are Debian's. It takes some minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
all=false
if [[ ${1:-} == --all ]]; then
  all=true
  shift
fi
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

# The text that Metal's compiler gets at run time stands in literals.
python3 src/backends/metal/embed_shaders.py src "$work/shader_text.cc" src/backends/metal/*.metal
check=("${CLANG:-clang++-19}" -std=c++20 -fblocks -fsyntax-only -Wall -Wextra
  -isystem "$work/system" -isystem "$metal_cpp" -Isrc)
"${check[@]}" src/backends/metal/apple_device.cc
"${check[@]}" "$work/shader_text.cc"
echo "the host code for Apple's Metal type-checks" >&2
$all || exit 0

python3 -m pip download -q ziglang==0.15.2 --no-deps -d "$work"
python3 -m zipfile -e "$work"/ziglang-*.whl "$work"
# Not all of /usr/include, which has Linux's C library.
mkdir "$work/libraries"
for name in CLI fmt gmock gtest nlohmann hwloc.h pcre2.h utf8proc.h; do ln -s "/usr/include/$name" "$work/libraries/"; done
cp -r /usr/include/hwloc /usr/include/*/hwloc "$work/libraries/"
clang=${CLANG:-clang++-19} zig=$work/ziglang/lib
flags=(-target arm64-apple-macos15 -mcpu=apple-m2 -std=c++20 -fsyntax-only -fblocks -w -nostdinc
  -isystem "$zig/libcxx/include" -isystem "$zig/libcxxabi/include" -isystem "$("$clang" -print-resource-dir)/include"
  -isystem "$zig/libc/include/any-macos-any" -isystem "$work/libraries" -isystem "$metal_cpp" -isystem "$work/system"
  -Isrc -Iinclude -Itests -Iapps -Iapps/nibble
  -DNIBBLE_METAL -DNIBBLE_{VERSION,TEST_DATA,FIXTURES,PROGRAM,FUZZ_CORPUS}='""'
  # What libc++'s own build would have written.
  -D_LIBCPP_ABI_VERSION=1 -D_LIBCPP_ABI_NAMESPACE=__1 -D_LIBCPP_PSTL_BACKEND_SERIAL
  -D_LIBCPP_HARDENING_MODE=_LIBCPP_HARDENING_MODE_NONE -D_LIBCPP_HAS_VENDOR_AVAILABILITY_ANNOTATIONS=0
  -D_LIBCPP_HAS_{THREADS,MONOTONIC_CLOCK,TERMINAL,FILESYSTEM,RANDOM_DEVICE,LOCALIZATION,UNICODE,WIDE_CHARACTERS}=1
  -D_LIBCPP_HAS_MUSL_LIBC=0)
find src apps tests -name '*.cc' -not -path '*/simt/*' -not -path 'tests/package/*' -not -name 'fuzz_main.cc' \
  -not -name 'executor_device.cc' -not -name 'mlx_qmv_test.cc' -not -name '*avx*' -not -name '*amx*' -print0 |
  xargs -0 -P 2 -n 1 "$clang" "${flags[@]}"
echo "all that macOS builds type-checks for it" >&2
