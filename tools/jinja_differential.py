"""Renders random templates with PyPI's jinja2 and with Nibble's interpreter: the text must be equal, or both must fail.

    python tools/jinja_differential.py PROGRAM [--count 2000] [--seed N] [--show 20] [--templates FOLDER]

PROGRAM is jinja_cases of the tests: it reads cases as lines of JSON and answers in lines of JSON. A new seed is taken
each time unless one is given; it is printed. With --templates the templates are the files *.jinja of a folder instead, each
with the conversations of jinja_conversations.py.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import time

try:
    import jinja2
    from jinja_reference import environment, judge, with_reasoning
except ImportError as error:
    sys.exit(f"jinja_differential: {error}; run scripts/setup, which installs jinja2 into .venv")

from jinja_conversations import cases as conversations
from jinja_templates import VARIABLES, random_template

# Jinja's integers have no end; ours stop at 64 bits with an error that says so.
OWN_LIMITS = ("64 bits", "64-bit", "too many steps", "not supported", "grows beyond")


def answers(program, cases):
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    run = subprocess.run([program], input=lines, capture_output=True, text=True, encoding="utf-8")
    if run.returncode != 0:
        sys.exit(f"{program}: exit code {run.returncode}\n{run.stderr[-3000:]}")
    return [json.loads(line) for line in run.stdout.split("\n")[:-1]]


def random_cases(env, seed, count):
    """Pairs of a case and what Jinja makes of it."""
    rng, pairs = random.Random(seed), []
    while len(pairs) < count:
        template = random_template(rng)
        result = judge(env, template, VARIABLES)
        if result is not None:
            pairs.append(({"template": template, "variables": VARIABLES}, result))
    return pairs


def file_cases(env, folder):
    pairs = []
    for path in sorted(pathlib.Path(folder).glob("*.jinja")):
        template = path.read_text()
        for case in conversations():
            seen = {"documents": None, **case["variables"], "messages": with_reasoning(case["messages"]), "tools": case["tools"],
                    "add_generation_prompt": case["add_generation_prompt"]}
            result = judge(env, template, seen)
            if result is not None:
                pairs.append(({"name": path.name, "template": template, **case}, result))
    return pairs


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000_007)
    parser.add_argument("--templates", help="a folder of *.jinja")
    parser.add_argument("--show", type=int, default=20, help="differences to print")
    a = parser.parse_args()

    env = environment()
    pairs = file_cases(env, a.templates) if a.templates else random_cases(env, a.seed, a.count)
    cases, expected = [case for case, _ in pairs], [result for _, result in pairs]
    given = answers(a.program, cases)
    if len(given) != len(cases):
        sys.exit(f"{len(given)} answers to {len(cases)} cases")

    own_limits, differences = 0, []
    for case, want, got in zip(cases, expected, given):
        if want.get("rendered") == got.get("rendered") and ("error" in want) == ("error" in got):
            continue
        if any(limit in got.get("error", "") for limit in OWN_LIMITS):
            own_limits += 1
        else:
            differences.append((case.get("name", case["template"]), want, got))
    for template, want, got in sorted(differences, key=lambda d: len(d[0]))[:a.show]:
        print(f"template {template!r}\n  jinja2 {want}\n  nibble {got}")
    rendered = sum("rendered" in want for want in expected)
    what = a.templates or f"seed {a.seed}"
    print(f"{what}, jinja2 {jinja2.__version__}: {len(cases)} cases, of which {rendered} render; "
          f"{own_limits} stopped at a limit of ours; {len(differences)} differences")
    sys.exit(1 if differences or own_limits * 20 > len(cases) else 0)


main()
