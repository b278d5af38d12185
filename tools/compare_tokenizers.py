"""Times `nibble tokenize` beside PyPI's tokenizers on 1 MB of mixed-language text, one thread each, interleaved.

    RAYON_NUM_THREADS=1 python tools/compare_tokenizers.py NIBBLE TOKENIZER_JSON... [--rounds 5]

Nibble's time is that of the whole process less that of one with an empty text, so it includes writing the ids as JSON;
the library's is that of the call alone, for the whole text and, since it slows down on long ones, line by line. The ids of
the whole text must be equal. Needs the package tokenizers.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("RAYON_NUM_THREADS", "1")

from tokenizers import Tokenizer  # noqa: E402: reads the environment

DATA = pathlib.Path(__file__).resolve().parent.parent
# First and last letters of alphabets, abjads, syllabaries and ideographs in wide use.
SCRIPTS = ["аяА", "αωΑ", "את", "اي", "अह", "กฮ", "ぁん", "ァヶ", "一龥", "가힣", "აჰ", "ԱՖ"]


def mixed_text(size):
    """English, C++, Python and words of a dozen scripts, cut into lines; the same bytes each time."""
    pick = random.Random(1)
    sources = [(DATA / "tests/data/eval_text.txt").read_text(),
               (DATA / "src/text/tokenizer.cc").read_text(), (DATA / "tools/make_goldens.py").read_text()]
    lines = [line for source in sources for line in source.splitlines() if line.strip()]
    text, length = [], 0
    while length < size:
        if pick.random() < 0.5:
            line = pick.choice(lines)
        else:
            first, last = pick.choice(SCRIPTS)[:2]
            letters = range(ord(first), ord(last) + 1)
            words = ["".join(chr(pick.choice(letters)) for _ in range(pick.randint(1, 9)))
                     for _ in range(pick.randint(3, 14))]
            line = " ".join(words) + pick.choice([".", "!", "…", " 2026", " 🙂", ""])
        text.append(line)
        length += len(line.encode()) + 1
    return "\n".join(text)


def seconds(work):
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("nibble")
    parser.add_argument("tokenizers", nargs="+")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    text = mixed_text(1_000_000)
    print(f"{len(text.encode())} bytes, {len(text)} characters; medians of {arguments.rounds} rounds, in seconds")
    print(f"{'tokenizer':<40} {'nibble':>8} {'whole':>8} {'by line':>8} {'ratio':>7} {'by line':>8}")
    for path in arguments.tokenizers:
        library = Tokenizer.from_file(path)
        lines = text.split("\n")

        def nibble(data):
            return subprocess.run([arguments.nibble, "tokenize", path, "--special"], input=data, capture_output=True,
                                  check=True).stdout

        def by_line():
            for line in lines:
                library.encode(line, add_special_tokens=False)

        ours, whole, lined = [], [], []
        for _ in range(arguments.rounds):
            empty, _ = seconds(lambda: nibble(b""))
            full, ids = seconds(lambda: nibble(text.encode()))
            ours.append(full - empty)
            took, encoding = seconds(lambda: library.encode(text, add_special_tokens=False))
            whole.append(took)
            lined.append(seconds(by_line)[0])
            if json.loads(ids) != encoding.ids:
                raise SystemExit(f"{path}: the ids differ")
        ours, whole, lined = map(statistics.median, (ours, whole, lined))
        print(f"{pathlib.Path(path).parent.name + '/' + pathlib.Path(path).name:<40} {ours:8.3f} {whole:8.3f} "
              f"{lined:8.3f} {whole / ours:7.1f} {lined / ours:8.1f}")


if __name__ == "__main__":
    main()
