"""Fails if an object of one instruction set has a weak function: the linker may take it where another's object has the same."""

import pathlib
import re
import subprocess
import sys


def main():
    nm, *objects = sys.argv[1:]
    objects = [path for path in map(pathlib.Path, objects) if re.search(r"kernels_\w+\.cc\.", path.name)]
    if not objects:
        sys.exit("no object of kernels is among these")
    found = []
    for path in objects:
        symbols = subprocess.run([nm, "--defined-only", "--demangle", path], check=True, capture_output=True, text=True).stdout
        found += [f"{path.name}: {name}" for name in re.findall(r"^\w+ W (.*)$", symbols, re.MULTILINE)]
    print("\n".join(found) or f"{len(objects)} objects, no weak function")
    return 1 if found else 0


sys.exit(main())
