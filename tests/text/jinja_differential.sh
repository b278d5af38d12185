#!/usr/bin/env bash
# jinja_differential.sh SOURCE PROGRAM: 2000 random templates, the same ones each time, rendered by PROGRAM and by jinja2
# from SOURCE/.venv. tools/jinja_differential.py takes other seeds.
set -euo pipefail
python=$1/.venv/bin/python
[[ -x $python ]] || { echo "$python is missing; run scripts/setup, which installs jinja2 into .venv" >&2; exit 1; }
exec "$python" "$1/tools/jinja_differential.py" "$2" --count 2000 --seed 3
