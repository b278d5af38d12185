#!/usr/bin/env python3
"""Writes shader_text.h's list: embed_shaders.py SOURCE_FOLDER OUT.cc FILE.metal...

A header that a shader includes from SOURCE_FOLDER on stands in its text once, where it is first included.
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'\s*#\s*include\s*"([^"]+)"')


def flattened(path, source, seen):
    lines = []
    for line in path.read_text().splitlines():
        include = INCLUDE.match(line)
        if include and include.group(1) not in seen:
            seen.add(include.group(1))
            lines += flattened(source / include.group(1), source, seen)
        elif not include and line.strip() != "#pragma once":
            lines.append(line)
    return lines


def main():
    source, target, *files = sys.argv[1:]
    out = ['#include "backends/metal/shader_text.h"', "", "namespace nibble {", "",
           "static const ShaderText kTexts[] = {"]
    for file in files:
        text = "\n".join(flattened(pathlib.Path(file), pathlib.Path(source), set()))
        # A compiler need not take literals of more than 65536 characters: several beside each other are one.
        pieces = [text[i:i + 8000] for i in range(0, len(text), 8000)]
        literal = "\n".join(f'R"shader({piece})shader"' for piece in pieces)
        out.append(f'{{"{pathlib.Path(file).name}",\n{literal}}},')
    out += ["};", "const std::span<const ShaderText> kShaderTexts = kTexts;", "", "}  // namespace nibble", ""]
    pathlib.Path(target).write_text("\n".join(out))


main()
