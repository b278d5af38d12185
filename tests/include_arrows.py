"""Fails if a file under src/ includes a folder that does not lie to its left (docs/architecture.md)."""

import pathlib
import re
import sys

MAY_INCLUDE = {
    "base": [],
    "formats": ["base"],
    "checkpoint": ["base", "formats"],
    "weights": ["base", "formats", "checkpoint"],
    "ops": ["base", "formats", "checkpoint", "weights"],
    "backends/reference": ["base", "formats", "checkpoint", "weights", "ops"],
    "backends/cpu": ["base", "formats", "checkpoint", "weights", "ops"],
    "simt": ["base"],
    "backends/metal": ["base", "formats", "checkpoint", "weights", "ops", "simt"],
    "models": ["base", "formats", "checkpoint", "weights", "ops"],
    "text": ["base"],
    "engine": ["base", "formats", "checkpoint", "weights", "ops", "backends/reference", "backends/cpu", "backends/metal",
               "models", "text"],
}
INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)


def folder_of(path, folders):
    return next((f for f in folders if path.startswith(f + "/")), None)


def faults(root):
    source = root / "src"
    for file in sorted(source.rglob("*")):
        if file.suffix not in {".h", ".cc"}:
            continue
        name = file.relative_to(source).as_posix()
        own = folder_of(name, MAY_INCLUDE)
        if own is None:
            yield f"src/{name}: its folder is not in the list of tests/include_arrows.py"
            continue
        for included in INCLUDE.findall(file.read_text()):
            if included.startswith("nibble/") and (root / "include" / included).exists():
                continue  # the public interface
            target = folder_of(included, MAY_INCLUDE)
            if target is None:
                yield f'src/{name}: #include "{included}" is not written from src/ on'
            elif target != own and target not in MAY_INCLUDE[own]:
                yield f'src/{name}: #include "{included}", but {own} may include only: {", ".join(MAY_INCLUDE[own]) or "nothing"}'


def main():
    found = list(faults(pathlib.Path(sys.argv[1])))
    print("\n".join(found) or "every include follows the arrows")
    return 1 if found else 0


sys.exit(main())
