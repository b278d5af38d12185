"""Jinja as the transformers library sets it up for chat templates: the judge of Nibble's interpreter.

Needs PyPI's jinja2 3.1.
"""

import copy
import datetime
import functools
import json
import re

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

# Text that differs from run to run, or that says what a Python object is rather than what it holds.
UNSTABLE = re.compile(r" object at 0x|generator object|<built-in|<bound method|<class|<function|<method|<Loop|range\(|reversed", re.I)


class Generation(jinja2.ext.Extension):
    """{% generation %} blocks: a body in a function of its own, printed where it stands."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("body_of"), [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def body_of(self, context, caller):
        return caller()


class Dict:
    """The global `dict`, which can be called but shows nothing of Python's class."""

    def __call__(self, *arguments, **named):
        return dict(*arguments, **named)

    def fromkeys(self, *arguments):
        return dict.fromkeys(*arguments)


class Namespace(jinja2.utils.Namespace):
    """The global `namespace`, which refuses names that begin with an underscore."""

    def __init__(*arguments, **named):
        self, entries = arguments[0], dict(*arguments[1:], **named)
        for name in entries:
            Namespace.check(name)
        jinja2.utils.Namespace.__init__(self, entries)

    def __setitem__(self, name, value):
        Namespace.check(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def check(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"underscore-prefixed name {name!r} in a namespace")


def environment():
    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, jinja2.ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: datetime.datetime.now().strftime(format)
    env.globals["dict"] = Dict()
    env.globals["namespace"] = Namespace
    return env


@functools.lru_cache(maxsize=4)
def compiled(env, template):
    return env.from_string(template)


def judge(env, template, variables):
    """{"rendered": text} or {"error": reason}; None if what Jinja prints is not worth comparing."""
    try:
        # Some filters of Jinja change a list that they are given.
        result = {"rendered": compiled(env, template).render(**copy.deepcopy(variables))}
    except Exception as error:  # whatever it is, the other side must fail, too
        result = {"error": f"{type(error).__name__}: {error}"}
    if UNSTABLE.search(str(result)):
        return None
    try:
        str(result).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which UTF-8 cannot hold
        return None
    return result


def with_reasoning(messages):
    """The messages with their reasoning under the two names that templates read, as transformers passes them."""
    named = []
    for message in messages:
        found = next((message[key] for key in ("reasoning_content", "thinking", "reasoning")
                      if message.get(key) is not None), None)
        named.append(message if found is None else {"thinking": found, **message, "reasoning_content": found})
    return named
