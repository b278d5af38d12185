"""Makes the small templates of tests/data/text and what Jinja, set up as transformers does it, renders.

Run it with PyPI's jinja2 installed; its output is checked in. With a third argument it takes that many random templates
instead of the list below, always the same.

    python tools/make_jinja_goldens.py tests/data/text/jinja_golden.json
    python tools/make_jinja_goldens.py tests/data/text/jinja_random_golden.json 500
"""

import json
import random
import sys

import jinja2

import jinja_templates
from jinja_reference import environment, judge

VARIABLES = {
    "text": "  Hello, World!\n", "word": "naïve", "empty": "", "quotes": "it's \"so\" <b>&\\\t\u200b é 😀",
    "number": 7, "negative": -7, "zero": 0, "real": 2.5, "big": 1e16, "small": 0.00001, "yes": True, "no": False,
    "nothing": None, "numbers": [3, 1, 2], "words": ["beta", "Alpha", "gamma", "alpha"], "none_list": [],
    "people": [{"name": "Ann", "age": 31, "tags": ["x", "y"]}, {"name": "bob", "age": 25, "tags": []},
               {"name": "Cy", "age": 31, "home": {"city": "Zürich"}}],
    "config": {"b": 1, "a": [1, 2.0, None, True, "s"], "items": "shadowed", "nested": {"k": {}}, "empty": []},
    "lines": "one\n  two\n\nthree", "csv": "a,b,,c",
}

BODIES = """
plain text only
{{ text }}|{{ word }}|{{ missing }}|{{ nothing }}|{{ yes }}|{{ real }}|{{ big }}|{{ small }}|{{ numbers }}|{{ config }}
{{ people }}
{{ quotes }}{{ [quotes] }}{{ {"k": quotes} }}{{ ["it's"] }}{{ ['"'] }}{{ (1,) }}{{ (1, 2) }}{{ () }}
{{ config | tojson }}{{ quotes | tojson }}{{ quotes | tojson(ensure_ascii=true) }}{{ people | tojson(indent=2) }}
{{ config | tojson(sort_keys=true, separators=(",", ":")) }}{{ [] | tojson(indent=4) }}{{ {"a": []} | tojson(indent=4) }}{{ {1: 2, none: 3, true: 4} | tojson }}
{{ 1 + 2 * 3 - 4 / 2 }}{{ 7 // 2 }}{{ -7 // 2 }}{{ -7 % 3 }}{{ 7 % -3 }}{{ 2 ** 10 }}{{ 2 ** -1 }}{{ 7.5 // 2 }}{{ -7.5 % 2 }}{{ 10 / 4 }}{{ 1e3 }}{{ 1_000 }}
{{ "a" ~ 1 ~ none ~ true ~ 2.0 }}{{ "ab" * 3 }}{{ 2 * [1, 2] }}{{ [1] + [2] }}{{ "a" + "b" }}
{{ 1 < 2 < 3 }}{{ 1 < 2 > 5 }}{{ 1 == 1.0 }}{{ true == 1 }}{{ "a" < "b" }}{{ [1, 2] < [1, 3] }}{{ "a" in "cat" }}{{ 3 not in numbers }}{{ "b" in config }}{{ none in [none] }}
{{ not yes or no and yes }}{{ yes and "x" }}{{ no or "y" }}{{ nothing or empty or "z" }}{{ not missing }}
{{ "big" if number > 5 else "small" }}{{ "x" if no }}{{ "a" if no else "b" if no else "c" }}
{{ word[0] }}{{ word[2] }}{{ word[-1] }}{{ word[1:3] }}{{ word[::-1] }}{{ numbers[::2] }}{{ numbers[-2:] }}{{ numbers[5:] }}{{ numbers[10] }}{{ word[:-1] }}{{ numbers[::-1] }}{{ numbers[2:0:-1] }}
{{ config.b }}{{ config["a"][4] }}{{ config.nested.k.zzz }}{{ config.missing }}{{ people[0].name }}{{ people.0.name }}{{ config["items"] }}
{{ config.keys() | list }}{{ config.values() | list }}{% for k, v in config.items() %}{{ k }}={{ v }};{% endfor %}{{ config.get("b") }}{{ config.get("zz") }}{{ config.get("zz", 5) }}
{{ text.strip() }}|{{ text.lstrip() }}|{{ text.rstrip("\\n!") }}|{{ "xxaxx".strip("x") }}|{{ csv.split(",") }}|{{ csv.split(",", 1) }}|{{ csv.rsplit(",", 1) }}|{{ " a  b ".split() }}|{{ "a b c".split(none, 1) }}
{{ "abc".startswith("a") }}{{ "abc".endswith(("x", "c")) }}{{ "abc".find("c") }}{{ "aXbX".replace("X", "-") }}{{ "aXbX".replace("X", "-", 1) }}{{ "abcabc".count("bc") }}{{ "éa".find("a") }}{{ "ab".replace("", ".") }}
{{ "hello world".title() }}{{ "hELLO".capitalize() }}{{ "ß".upper() }}{{ "ÀÉ".lower() }}{{ "abc".isalpha() }}{{ "12".isdigit() }}{{ "".isdigit() }}{{ "Ab".isupper() }}{{ " ".isspace() }}{{ "a1".isalnum() }}
{{ "-".join(["a", "b"]) }}{{ lines.splitlines() }}{{ "7".zfill(3) }}{{ "-7".zfill(4) }}{{ "ab".center(7, "*") }}|{{ "ab".ljust(4) }}|{{ "ab".rjust(4) }}|{{ "a=b=c".partition("=") }}{{ "a=b=c".rpartition("=") }}
{{ "{} and {}".format(1, "x") }}{{ "{0}{1}{0}".format("a", "b") }}{{ "{name}!{{}}".format(name="n") }}{{ "prefix-x".removeprefix("prefix-") }}{{ "x.py".removesuffix(".py") }}
{{ "%s is %d and %.2f, %5s|%-5s|%r %%" % ("a", 3, 2.5, "b", "c", "d") }}{{ "%s" % 3 }}{{ "%s-%s" | format("a", 1) }}{{ "%05d|%x" % (42, 255) }}
{{ text | trim }}|{{ word | upper }}|{{ word | length }}|{{ numbers | length }}|{{ config | length }}|{{ missing | length }}|{{ words | first }}|{{ words | last }}|{{ none_list | first }}
{{ words | join(", ") }}{{ words | join }}{{ people | join("/", attribute="name") }}{{ [1, none, true] | join("-") }}
{{ words | sort }}{{ words | sort(case_sensitive=true) }}{{ numbers | sort(reverse=true) }}{{ people | sort(attribute="age") | map(attribute="name") | list }}{{ people | sort(attribute="age,name") | map(attribute="name") | join }}
{{ words | unique | list }}{{ numbers | min }}{{ numbers | max }}{{ numbers | sum }}{{ people | sum(attribute="age") }}{{ words | max }}{{ people | max(attribute="age") }}
{{ numbers | map("string") | list }}{{ words | map("upper") | join(",") }}{{ people | map(attribute="home.city", default="?") | list }}{{ ["a ", " b"] | map("trim") | list }}
{{ numbers | select("odd") | list }}{{ numbers | reject("odd") | list }}{{ numbers | select("gt", 1) | list }}{{ [0, 1, ""] | select | list }}{{ [0, 1, ""] | reject | list }}
{{ people | selectattr("age", "equalto", 31) | map(attribute="name") | list }}{{ people | rejectattr("home") | map(attribute="name") | list }}{{ people | selectattr("home", "defined") | list | length }}
{% for age, group in people | groupby("age") %}{{ age }}:{{ group | map(attribute="name") | join(",") }};{% endfor %}
{{ numbers | batch(2) | list }}{{ numbers | batch(2, "x") | list }}{{ numbers | slice(2) | list }}{{ numbers | reverse | list }}{{ word | reverse }}{{ config | dictsort }}{{ config | items | list }}
{{ "7" | int }}{{ "x" | int }}{{ "x" | int(5) }}{{ "2.9" | int }}{{ "ff" | int(0, 16) }}{{ 2.9 | int }}{{ "1.5" | float }}{{ "x" | float }}{{ -3 | abs }}{{ 2.567 | round(2) }}{{ 2.5 | round }}{{ 2.1 | round(0, "ceil") }}{{ 42 | round }}
{{ missing | default("d") }}{{ empty | default("d") }}{{ empty | default("d", true) }}{{ missing | d }}{{ nothing | default("d") }}
{{ "<a href='x'>&\\"" | escape }}{{ "<b>" | e }}{{ "<b>" | safe }}{{ "a b/é?" | urlencode }}{{ lines | indent }}|{{ lines | indent(2, true) }}|{{ lines | indent(2, blank=true) }}
{{ "one two three four" | truncate(10) }}|{{ "one two three four" | truncate(10, true) }}|{{ "short" | truncate(10) }}|{{ "one two three" | wordcount }}|{{ "ab" | center(6) }}|{{ "hello world" | title }}|{{ "hELLO" | capitalize }}|{{ "aXb" | replace("X", "-") }}
{{ number is odd }}{{ number is even }}{{ number is divisibleby 7 }}{{ number is divisibleby(2) }}{{ missing is defined }}{{ missing is undefined }}{{ nothing is none }}{{ yes is true }}{{ no is false }}{{ 1 is true }}
{{ number is number }}{{ yes is number }}{{ yes is integer }}{{ number is integer }}{{ real is float }}{{ word is string }}{{ config is mapping }}{{ numbers is sequence }}{{ numbers is iterable }}{{ word is iterable }}{{ 5 is iterable }}{{ yes is boolean }}
{{ word is not none }}{{ number is eq 7 }}{{ number is lt(8) }}{{ 3 is in numbers }}{{ "x" is upper }}{{ "X" is upper }}{{ word is sameas word }}{{ config.items is callable }}{{ "upper" is filter }}{{ "odd" is test }}
{% if number > 10 %}a{% elif number > 5 %}b{% else %}c{% endif %}{% if missing %}x{% endif %}{% if not missing is defined %}y{% endif %}
{% for n in numbers %}{{ loop.index }}/{{ loop.length }}:{{ n }}{{ "," if not loop.last }}{{ loop.first }}{{ loop.revindex0 }}{% else %}none{% endfor %}{% for n in none_list %}x{% else %}none{% endfor %}
{% for n in numbers if n > 1 %}{{ loop.index0 }}{{ n }}{{ loop.previtem }}{{ loop.nextitem }}{% endfor %}{% for c in "añb" %}[{{ c }}]{% endfor %}{% for k in config %}{{ k }}{% endfor %}
{% for n in numbers %}{% if n == 1 %}{% continue %}{% endif %}{% if n == 2 %}{% break %}{% endif %}{{ n }}{% endfor %}{% for i in range(3) %}{{ i }}{% endfor %}{% for i in range(10, 0, -3) %}{{ i }}{% endfor %}
{% for n in numbers %}{{ loop.cycle("odd", "even") }}{{ loop.changed(n > 1) }}{% for m in numbers %}{{ loop.depth }}{% endfor %}{% endfor %}
{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}{% set x, y = 1, 2 %}{{ x }}{{ y }}{% set t = 1, 2 %}{{ t }}
{% for node in [{"v": 1, "c": [{"v": 2, "c": []}, {"v": 3, "c": [{"v": 4, "c": []}]}]}] recursive %}{{ node.v }}{{ loop.depth }}({{ loop(node.c) }}){% endfor %}
{% set x = 1 %}{% for n in numbers %}{% set x = n %}{{ x }}{% endfor %}{{ x }}{% if true %}{% set x = 9 %}{% endif %}{{ x }}
{% set ns = namespace(total=0, seen=[]) %}{% for n in numbers %}{% set ns.total = ns.total + n %}{% set ns.seen = ns.seen + [n] %}{% endfor %}{{ ns.total }}{{ ns.seen }}{{ ns.missing is defined }}
{% set block %}a {{ number }} b{% endset %}[{{ block }}]{% set upper | upper | trim %}  shout  {% endset %}[{{ upper }}]{% filter upper %}quiet {{ word }}{% endfilter %}
{% macro m(a, b=2, c=a) %}<{{ a }},{{ b }},{{ c }}>{% endmacro %}{{ m(1) }}{{ m(1, 3) }}{{ m(a=5, c=6) }}{{ m() }}{{ m("x") | upper }}{{ m.name }}
{% macro rec(n) %}{{ n }}{% if n > 0 %}{{ rec(n - 1) }}{% endif %}{% endmacro %}{{ rec(5) }}{% macro v() %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ v(1, 2, z=3) }}
{% macro wrap(t) %}[{{ t }}:{{ caller() }}]{% endmacro %}{% call wrap("x") %}in{{ number }}{% endcall %}{% macro each(l) %}{% for i in l %}{{ caller(i) }}{% endfor %}{% endmacro %}{% call(i) each(numbers) %}<{{ i }}>{% endcall %}
{% set late = "early" %}{% macro m() %}{{ late }}{% endmacro %}{% set late = "late" %}{{ m() }}{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}{{ a is defined }}
{% generation %}inside {{ number }}{% endgeneration %}{% raw %}{{ not rendered }} {% if %}{% endraw %}{# comment #}x
{{- "tight" -}}  y  {%- if true -%}  z  {%- endif -%}  w
a\\n  {% if true %}\\n  b\\n  {% endif %}\\n  c\\n
a\\n  {%+ if true %}\\n  b\\n  {% endif +%}\\n  c\\n
  {# note #}\\n x {# note #} y\\n{#- n -#}\\n z
{% for n in numbers %}\\n  - {{ n }}\\n{% endfor %}\\n{% for n in numbers -%}\\n  - {{ n }}\\n{%- endfor %}\\nend\\n\\n
x {%- raw -%}  r  {%- endraw -%} y\\n{% raw %}\\n q \\n{% endraw %}\\nz
{{ '\\\\n\\\\t\\\\x41\\\\u00e9\\\\\\\\ \\\\q' }}{{ "a" "b" 'c' }}{{ "it's" }}{{ {"a": {"b": 1}}.a.b }}{{ {"a": 1}["a"] }}
{{ dict(a=1, b=2) }}{{ dict([("k", 1)]) }}{{ [1, 2, 3,] }}{{ {"a": 1,} }}{{ range(3) | list }}{% set j = joiner("|") %}{% for n in numbers %}{{ j() }}{{ n }}{% endfor %}{% set c = cycler("a", "b") %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}
{{ -number | abs }}{{ -2 ** 2 }}{{ 2 + 3 | string | length }}{{ (1, 2)[0] }}{{ "a" if yes else "b" ~ "c" }}{{ 1 if 0 == 0 and not false else 2 }}
{{ missing.x }}
{{ missing + 1 }}
{{ missing() }}
{{ 1 + "a" }}
{{ "a" + 1 }}
{{ none.x.y }}
{{ 1 / 0 }}
{{ numbers.append(4) }}
{{ config.update({}) }}
{{ raise_exception("stop: " ~ number) }}
{{ missing | tojson }}
{{ [missing] }}{{ missing ~ "x" }}{{ missing == missing }}{{ missing in [1] }}{{ 1 in missing }}{% for x in missing %}{% endfor %}
{{ "x" | nofilter }}
{{ "x" is notest }}
{% if %}{% endif %}
{% for %}{% endfor %}
{% endif %}
{% if yes %}
{{ (1 }}
{{ 'open }}
{% unknown %}
{{ 1 2 }}
{# open
{% set config.b = 5 %}
{{ word.nothing() }}{{ 5 | length }}
{{ 10 | float }}{{ 1e100 }}{{ 123456789012345.0 }}{{ 0.1 + 0.2 }}{{ 1e22 }}{{ 1.0e-5 }}{{ 3 | float / 2 }}{{ -0.0 }}
{% set s = namespace(x=1) %}{{ s.x }}{% set s.y = "q" %}{{ s.y }}{{ s["x"] }}
{{ words | map("length") | list }}{{ words | map("replace", "a", "_") | list }}{{ words | map("default", "x") | list }}{{ numbers | map("tojson") | join }}
{{ ("a", "b") | tojson }}{{ "é" | tojson }}{{ 2.0 | tojson }}{{ true | tojson }}{{ none | tojson }}{{ {"a": [1, {"b": none}]} | tojson(indent=1) }}{{ [1, [2]] | tojson(indent="--") }}
{% if words is defined and words is iterable and words is not mapping and words is not string %}ok{% endif %}{{ words is string or words is mapping }}
{% set messages = people[1:] %}{% for p in messages %}{{ p.name }}{% endfor %}{{ people[0]["tags"][0] }}{{ (people | first).age }}{{ people[-1].home.city }}{{ (people[0].home.city is defined) if people[0].home else "no home" }}
""".strip("\n").split("\n")



def main():
    env = environment()
    templates = [body.encode().decode("unicode-escape").encode("latin-1").decode() if "\\" in body else body
                 for body in BODIES]
    variables = VARIABLES
    if len(sys.argv) > 2:
        rng, variables = random.Random(4), jinja_templates.VARIABLES
        templates = [jinja_templates.random_template(rng) for _ in range(int(sys.argv[2]))]
    results = [(template, judge(env, template, variables)) for template in templates]
    cases = [{"template": template, **result} for template, result in results if result is not None]
    with open(sys.argv[1], "w") as file:
        json.dump({"judge": f"jinja2 {jinja2.__version__}", "variables": variables, "cases": cases}, file,
                  ensure_ascii=False, indent=0)
        file.write("\n")


main()
