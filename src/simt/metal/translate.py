#!/usr/bin/env python3
"""Writes the C++ that runs a .metal file on the executor: translate.py CLANG IN.metal OUT.cc DEPFILE CHECKED [FLAG...]
CHECKED is what translate.py CLANG --precompile CHECKED DEPFILE [FLAG...] made before, for all files: the headers that the check
below reads, which takes most of its time.

The text goes through `clang -E` first, so that macros, and kernels that macros instantiate, are seen as they end up, and
compiler messages name the lines of the .metal file. Then, token by token:
  threadgroup T x[n];              -> a variable that the threads of a threadgroup share (pointers stay)
  float4(a, b), vec<T, 4>(a), T(a) -> make<float4>(a, b) ...    (T: a template's type parameter or alias)
  1.0, 1.0h                        -> 1.0f, 1.0f16: Metal's literals are no doubles
  constant T c [[function_constant(n)]];   -> a variable that a pipeline sets
  kernel void f(...), template [[host_name("n")]] ... f<args>...   -> an entry in the table of kernels
What Metal forbids is an error: msl_rules.py, then clang with what it makes of the text under -DNIBBLE_MSL_CHECK.
"""
import os
import re
import subprocess
import sys
import tempfile

import msl_rules
from msl_tokens import ShaderError, Tokens, is_name

HEADERS = ["metal_stdlib", "metal_simdgroup", "metal_math", "metal_atomic", "metal_compute", "metal_common",
           "metal_integer", "metal_geometric", "metal_type_traits", "metal_limits", "metal_simdgroup_matrix",
           "metal_relational", "metal_pack"]
INCLUDE = '#include "simt/metal/msl.h"\n'
VECTOR = re.compile(r"(float|half|bfloat|u?int|u?short|u?char|u?long|bool)[234]")
FLOAT = re.compile(r"((?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?|0[xX][\da-fA-F.]+[pP][+-]?\d+)([hHfF]?)")
# Of clang's warnings, those that are errors in Metal. Metal 3 is C++14.
CHECKS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unused-const-variable", "-Wno-unknown-attributes",
          "-Wno-duplicate-decl-specifier", "-Werror=double-promotion", "-Werror=pre-c++17-compat", "-Werror=pre-c++20-compat",
          "-Werror=pre-c++23-compat", "-Werror=return-type", "-Werror=vla"]


def preprocess(clang, path, depfile, target, flags):
    with tempfile.TemporaryDirectory() as headers:
        for name in HEADERS:
            open(os.path.join(headers, name), "w").close()
        result = subprocess.run(
            [clang, "-E", "-x", "c++", "-std=c++14", "-nostdinc", "-nostdinc++", "-D__METAL__=1",
             "-D__METAL_VERSION__=310", "-MMD", "-MF", depfile, "-MT", target, "-isystem", headers, *flags, path],
            stdout=subprocess.PIPE, text=True)
        if result.returncode:
            sys.exit(result.returncode)
        return result.stdout


def bind_parameters(tokens, begin, end):
    """The bindings of a kernel's parameters; their attributes are taken out of the text."""
    bindings, next_buffer = [], 0
    for b, e in tokens.split(begin, end):
        place = next((k for k in range(b, e - 1) if tokens.t[k] == "[" and tokens.t[k + 1] == "["), None)
        attribute = None
        if place is not None:
            last = tokens.close(place)
            attribute = tokens.t[place + 2:last - 1]
            tokens.replace(place, last + 1, "")
        if attribute is None or attribute[0] == "buffer":
            if not {"*", "&"} & set(tokens.t[b:e]):
                raise tokens.error(b, f"the parameter {tokens.text(b, e)} is neither a buffer nor has an attribute")
            n = int(attribute[2]) if attribute else next_buffer
            next_buffer = n + 1
            bindings.append(f"buffer<{n}>")
        elif attribute[0] == "threadgroup":
            bindings.append(f"threadgroup_memory<{attribute[2]}>")
        else:
            if "," in attribute or "(" in attribute:
                raise tokens.error(b, f"the executor does not know [[{' '.join(attribute)}]]")
            bindings.append(attribute[0])
    return bindings


def share_variable(tokens, k):
    """The declaration that starts with `threadgroup` at k, unless it is a pointer or a reference."""
    t, depth, name = tokens.t, 0, None
    j = k + 1
    while t[j] not in (";", "=", "{", "(") and not (depth == 0 and t[j] in ("*", "&", "[", ",")):
        depth += {"<": 1, ">": -1}.get(t[j], 0)
        if is_name(t[j]):
            name = j
        j += 1
    if t[j] in ("*", "&", "("):
        return
    end = t.index(";", k)
    if len(tokens.split(k + 1, end)) > 1 or "=" in t[k:end]:
        raise tokens.error(k, "threadgroup: one variable in a declaration, without a value")
    x = t[name]
    declaration = tokens.text(k + 1, name) + f" nibble_type_of_{x} " + tokens.text(name + 1, end)
    tokens.replace(k, end, f"NIBBLE_SHARED_VARIABLE({x}, {declaration})")


def reach_constants(tokens):
    """By function: the function constants that it names, itself or through the functions that it calls."""
    t = tokens.t
    indices = {t[k - 3]: t[k + 2] for k in range(3, len(t)) if t[k] == "function_constant" and t[k - 1] == "["}
    named = {}
    for name, _, _, body, end in tokens.functions():
        named.setdefault(name, set()).update(x for x in t[body:end] if is_name(x))

    def reach(name):
        seen, todo = set(), [name]
        while todo:
            for x in named.get(todo.pop(), ()):
                if x not in seen:
                    seen.add(x)
                    todo.append(x)
        return sorted({indices[x] for x in seen if x in indices})

    return {name: reach(name) for name in named}


def translate(tokens):
    t = tokens.t
    constants_of = reach_constants(tokens)
    type_names = {t[k + 1] for k in range(len(t) - 1) if t[k] in ("typename", "class", "using") and is_name(t[k + 1])}
    bindings, entries, constants = {}, [], []
    statement = 0
    k = 0
    while k < len(t):
        previous = t[k - 1] if k else ";"
        if previous in (";", "{", "}"):
            statement = k
        number = FLOAT.fullmatch(t[k])
        if number:
            suffix = {"": "f", "h": "f16", "H": "f16"}.get(number.group(2), number.group(2))
            tokens.replace(k, k + 1, number.group(1) + suffix)
        elif t[k] == "threadgroup" and statement == k:
            share_variable(tokens, k)
        elif t[k] == "template" and t[k + 1] == "[":
            # An explicit instantiation with a host_name: the entry in the table instantiates it.
            end = t.index(";", k)
            first = t.index("host_name", k) + 2
            name = tokens.text(first, t.index(")", first))  # literals beside each other are one
            kernel = next((j for j in range(k, end) if t[j] in bindings and t[j - 1] in (")", ">", "void", "]")), None)
            if kernel is None:
                raise tokens.error(k, f"{name}: an instance of no kernel above")
            entries.append((name, tokens.text(kernel, tokens.close(kernel + 1) + 1), bindings[t[kernel]],
                            constants_of[t[kernel]]))
            tokens.replace(k, end + 1, "")
            k = end
        elif t[k] == "kernel" and (previous != "[" or t[k + 1] == "]"):
            opening = t.index("(", k if previous != "[" else k + 3)
            name, closing = t[opening - 1], tokens.close(opening)
            if t[opening - 2] != "void":
                raise tokens.error(k, f"the kernel {name} must return void")
            if t[closing + 1] == "{":
                bindings[name] = bind_parameters(tokens, opening + 1, closing)
                if "template" not in t[statement:k]:
                    entries.append((f'"{name}"', name, bindings[name], constants_of[name]))
        elif t[k] == "function_constant" and previous == "[":
            constants.append((t[k + 2], t[k - 3]))
            tokens.replace(k - 2, k + 6, "")
            first = t.index("constant", statement)
            tokens.replace(first, first + 1, "NIBBLE_FUNCTION_CONSTANT")
            k += 5
        elif VECTOR.fullmatch(t[k]) or t[k] in type_names or t[k] == "vec":
            last = k
            if t[k] == "vec":
                last = tokens.close(k + 1) if t[k + 1] == "<" else None
            is_array = last and t[last + 2] in ("*", "&") and t[last + 4:last + 6] == [")", "["]  # T (&x)[n]
            if last and t[last + 1] == "(" and not is_array and previous != "operator":
                tokens.replace(k, last + 1, f"make<{tokens.text(k, last + 1)}>")
                k = last
        k += 1

    checked, run = [], ["static const char nibble_file = 0;", "namespace nibble::simt::parameters {"]
    for i, (name, kernel, binding, read) in enumerate(entries):
        checked.append(f"static auto* const nibble_kernel_{i} = &({kernel});")
        run.append(f"static constexpr std::array<int, {len(read)}> constants_{i} = {{{', '.join(f'int({x})' for x in read)}}};")
        run.append(f"static const bool kernel_{i} = "
                   f"add<({kernel}), {', '.join(binding)}>({name}, &nibble_file, constants_{i});")
    for i, (index, name) in enumerate(constants):
        run.append(f"static const bool constant_{i} = "
                   f'add_function_constant({{"{name}", &nibble_file, {index}, &{name}, sizeof {name}}});')
    run.append("}  // namespace nibble::simt::parameters")
    return (INCLUDE + "".join(tokens.all) +
            "\n#ifdef NIBBLE_MSL_CHECK\n" + "\n".join(checked) + "\n#else\n" + "\n".join(run) + "\n#endif\n")


def check_command(clang, flags):
    includes = [part for flag in flags if flag.startswith("-I") for part in ("-isystem", flag[2:])]
    return [clang, "-std=c++20", "-DNIBBLE_MSL_CHECK", *CHECKS, *includes]


def precompile(clang, target, depfile, *flags):
    command = [*check_command(clang, flags), "-x", "c++-header", "-MD", "-MF", depfile, "-MT", target, "-o", target, "-"]
    sys.exit(subprocess.run(command, input=INCLUDE, text=True).returncode)


def main():
    if sys.argv[2] == "--precompile":
        precompile(sys.argv[1], *sys.argv[3:])
    clang, source, target, depfile, checked, *flags = sys.argv[1:]
    tokens = Tokens(preprocess(clang, source, depfile, target, flags))
    try:
        msl_rules.check(tokens)
        text = translate(tokens)
    except ShaderError as e:
        sys.exit(str(e))
    unchecked = target + ".unchecked.cc"
    with open(unchecked, "w") as f:
        f.write(text)
    command = [*check_command(clang, flags), "-fsyntax-only", "-include-pch", checked, unchecked]
    if subprocess.run(command).returncode:
        sys.exit(1)
    os.replace(unchecked, target)


if __name__ == "__main__":
    main()
