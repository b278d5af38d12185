"""Random templates over the whole of what the interpreter knows. Expressions are made to a wanted type most of the time,
so that most templates render rather than fail."""

VARIABLES = {
    "text": "  Hello, World!\n", "word": "naïve", "empty": "", "quotes": "it's \"so\" <b>&\\\t\u200b é 😀",
    "mixed": "Straße ǆ İ ﬁ ΑΣ", "lines": "one\n  two\n\nthree\r\nfour", "csv": "a,b,,c", "upper": "ABC", "digits": "42",
    "number": 7, "negative": -7, "zero": 0, "real": 2.5, "big": 1e16, "small": 0.00001, "yes": True, "no": False,
    "nothing": None, "numbers": [3, 1, 2], "reals": [1.5, -0.25, 3.0], "words": ["beta", "Alpha", "gamma", "alpha"],
    "none_list": [], "nested": [[1, 2], [3], []],
    "people": [{"name": "Ann", "age": 31, "tags": ["x", "y"]}, {"name": "bob", "age": 25, "tags": []},
               {"name": "Cy", "age": 31, "home": {"city": "Zürich"}}],
    "config": {"b": 1, "a": [1, 2.0, None, True, "s"], "items": "shadowed", "nested": {"k": {}}, "empty": []},
    "scores": {"z": 3, "Y": 1, "x": 2},
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What's 2+2?\n"},
                 {"role": "assistant", "content": None, "reasoning_content": "Add.", "tool_calls": [
                     {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": [2, None]}}}]},
                 {"role": "tool", "content": "4", "name": "add"},
                 {"role": "user", "content": [{"type": "text", "text": "Ünï <ok>"}, {"type": "image"}]}],
    "tools": [{"type": "function", "function": {"name": "add", "description": "Adds \"numbers\".", "parameters": {
        "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": ["array", "null"], "default": 1.0}},
        "required": ["a"]}}}],
}

STRINGS = ["text", "word", "empty", "quotes", "mixed", "lines", "csv", "upper", "digits", "messages[0].content",
           "people[0].name", "config['items']", "'a,b'", "\"it's\"", "'x'", "''", "'\\n\\t\\\\'", "'%s'", "' a  b '", "'3.5'",
           "'é'", "'<b>'", "'aAa'", "messages[1]['role']", "tools[0].function.description", "'a' 'b'", "'\\x41\\u00e9'"]
INTEGERS = ["number", "negative", "zero", "1", "2", "3", "-1", "0", "10", "people[0].age", "scores.z", "0x1f",
            "1_000"]
FLOATS = ["real", "big", "small", "2.0", "0.1", "1e3", "reals[1]", "1.5e-7"]
BOOLEANS = ["yes", "no", "true", "False"]
LISTS = ["numbers", "words", "none_list", "nested", "people", "reals", "config.a", "[1, 'x']", "[]", "(1, 2)", "('a',)", "()",
         "messages", "tools", "people[0].tags", "[none, true, 1.5]", "range(4)", "range(5, 0, -2)", "config.keys()",
         "scores.values()", "scores.items()", "messages[2].tool_calls", "[['k', 1], ['l', 2]]"]
DICTS = ["config", "scores", "people[0]", "people[2]", "{'k': 2}", "{}", "{1: 'a', none: 'b'}", "messages[2]", "tools[0].function",
         "config.nested", "dict(a=1, b='c')", "messages[2].tool_calls[0].function.arguments"]
OTHERS = ["missing", "nothing", "missing", "none", "config.zz", "people[0].home"]

SMALL = ["0", "1", "2", "3", "-1", "-2", "5", "none"]


class Generator:
    def __init__(self, rng):
        self.rng = rng
        self.names = []

    def pick(self, *choices):
        choice = self.rng.choice(choices)
        return choice() if callable(choice) else choice

    def chance(self, share):
        return self.rng.random() < share

    def any(self, depth):
        return self.rng.choice([self.string, self.string, self.integer, self.real, self.boolean, self.list, self.list,
                                self.dict, self.other, self.conditional])(depth)

    def other(self, depth):
        return self.rng.choice(OTHERS + self.names)

    def conditional(self, depth):
        if depth <= 0:
            return self.other(depth)
        kind = self.rng.choice([self.string, self.integer, self.list, self.any])
        otherwise = f" else {kind(depth - 1)}" if self.chance(0.8) else ""
        return f"({kind(depth - 1)} if {self.boolean(depth - 1)}{otherwise})"

    def wrong(self, depth):
        """Now and then a value of another type than the wanted one."""
        return depth > 0 and self.chance(0.04)

    def string(self, depth):
        if depth <= 0:
            return self.rng.choice(STRINGS)
        if self.wrong(depth):
            return self.any(depth - 1)
        s, i = lambda: self.string(depth - 1), lambda: self.integer(depth - 1)
        l, a = lambda: self.list(depth - 1), lambda: self.any(depth - 1)
        small = lambda: self.rng.choice(SMALL)
        return self.pick(
            lambda: s(), lambda: f"{s()} ~ {a()}", lambda: f"({s()} + {s()})", lambda: f"({s()} * {small()})",
            lambda: f"({a()} ~ {a()} ~ {s()})", lambda: f"({s()})[{small()}]",
            lambda: f"({s()})[{self.slice()}]",
            lambda: f"({s()}).{self.pick('upper()', 'lower()', 'strip()', 'lstrip()', 'rstrip()', 'title()', 'capitalize()', 'swapcase()', 'casefold()', 'strip(' + s() + ')', 'lstrip(' + s() + ')', 'rstrip(' + s() + ')', 'expandtabs(4)')}",
            lambda: f"({s()}).replace({s()}, {s()}{self.pick('', ', 1', ', -1', ', 2')})",
            lambda: f"({s()}).{self.pick('removeprefix', 'removesuffix')}({s()})",
            lambda: f"({s()}).{self.pick('center', 'ljust', 'rjust')}({self.pick('5', '8', '-1', '11')}{self.pick('', ', ' + chr(39) + '*' + chr(39), ', ' + chr(39) + 'é' + chr(39))})",
            lambda: f"({s()}).zfill({self.pick('5', '3', '8')})",
            lambda: f"({s()}).join({l()} | map('string'))", lambda: f"({s()}).join({s()})",
            lambda: f"'{self.format_percent()}' % ({a()}, {i()})", lambda: f"'%s|%r' % ({a()}, {a()})",
            lambda: f"'{self.percent()}' % {self.pick(i, lambda: self.real(depth - 1))}",
            lambda: f"'{self.format_places()}'.format({a()}, {i()}, k={s()})",
            lambda: f"'{{:{self.format_spec()}}}'.format({self.pick(i, lambda: self.real(depth - 1), s)})",
            lambda: f"{s()} | {self.pick('upper', 'lower', 'trim', 'title', 'capitalize', 'string', 'reverse', 'escape', 'e', 'safe', 'urlencode', 'striptags', 'forceescape', 'first', 'last', 'trim(' + s() + ')')}",
            lambda: f"{s()} | {self.pick('center(9)', 'center', 'indent', 'indent(2)', 'indent(2, true)', 'indent(width=1, blank=true)', 'indent(' + s() + ')', 'truncate(5)', 'truncate(5, true)', 'truncate(4, false, ' + chr(39) + chr(39) + ')', 'truncate(6, leeway=0)')}",
            lambda: f"{s()} | replace({s()}, {s()}{self.pick('', ', 1')})",
            lambda: f"{s()} | format({a()})", lambda: f"{self.loop_list(depth - 1)} | join{self.pick('', '(' + s() + ')', '(d=' + s() + ')')}",
            lambda: f"people | join('/', attribute='{self.attribute()}')", lambda: f"{a()} | string",
            lambda: f"{a()} | tojson{self.pick('', '(indent=2)', '(indent=1, sort_keys=true)', '(separators=(' + chr(39) + ',' + chr(39) + ', ' + chr(39) + ':' + chr(39) + '))', '(ensure_ascii=true)', '(indent=' + chr(39) + '-' + chr(39) + ')')}",
            lambda: f"{self.other(0)} | default({s()}{self.pick('', ', true')})", lambda: f"{i()} | filesizeformat{self.pick('', '(true)')}",
            lambda: f"{self.dict(0)} | xmlattr", lambda: f"{self.dict(0)} | urlencode",
        )

    def slice(self):
        part = lambda: self.pick("", "", "1", "2", "-1", "-2", "0", "5", "none")
        return f"{part()}:{part()}{self.pick('', '', ':' + self.pick('-1', '2', '-2', '', '1'))}"

    def percent(self):
        return "%" + self.pick("", "-", "0", "+", " ", "#", "-+", "0+") + self.pick("", "5", "2", "10") + \
            self.pick("", "", ".2", ".0", ".5") + self.pick("d", "i", "s", "r", "x", "X", "o", "f", "e", "g", "G", "E", "c", "u", "a")

    def format_percent(self):
        return self.pick("%s-%s", "%s is %d", "%r/%5d", "%-6s|%05d", "%.2s|%x", "%%%s %s", "%s %i", "%10s%+d")

    def format_places(self):
        return self.pick("{}|{}", "{0}{1}{0}", "{k}-{}", "{:>8}|{}", "{!r}|{!s}", "{{}}{}", "{0!r:>6}", "{1:03d}", "{k[0]}", "{:{}}",
                         "{k.zz}", "{1:,}", "{0} {}", "}", "{3}", "{k:^9}")

    def format_spec(self):
        return self.pick("", "*", "0") + self.pick("", "<", ">", "^", "=") + self.pick("", "+", " ", "-") + self.pick("", "#") + \
            self.pick("", "0") + self.pick("", "4", "9") + self.pick("", ",", "_") + self.pick("", ".2", ".0", ".4") + \
            self.pick("", "d", "f", "s", "x", "b", "e", "g", "%", "n", "o", "X", "G", "c")

    def integer(self, depth):
        if depth <= 0:
            return self.rng.choice(INTEGERS)
        if self.wrong(depth):
            return self.any(depth - 1)
        s, i = lambda: self.string(depth - 1), lambda: self.integer(depth - 1)
        l = lambda: self.list(depth - 1)
        return self.pick(
            lambda: i(), lambda: f"({i()} {self.pick('+', '-', '*', '//', '%')} {i()})", lambda: f"{i()} {self.pick('+', '-', '*', '//', '%')} {i()}",
            lambda: f"-{i()}", lambda: f"({i()}) ** {self.pick('2', '0', '3')}", lambda: f"({s()}).{self.pick('find', 'rfind', 'count', 'index')}({s()}{self.pick('', '', ', 1', ', 0, -1')})",
            lambda: f"{self.pick(s, l)} | {self.pick('length', 'count')}", lambda: f"{s()} | wordcount", lambda: f"{i()} | abs",
            lambda: f"{self.any(depth - 1)} | int{self.pick('', '(5)', '(0, 16)', '(base=8)', '(default=-1)')}", lambda: f"{self.real(depth - 1)} | round | int",
            lambda: f"{l()} | {self.pick('sum', 'min', 'max', 'first', 'last')}", lambda: f"numbers | {self.pick('sum', 'min', 'max')}",
            lambda: f"people | sum(attribute='age')", lambda: f"({l()}).count({self.any(depth - 1)})", lambda: f"({l()}).index({self.any(depth - 1)})")

    def real(self, depth):
        if depth <= 0:
            return self.rng.choice(FLOATS)
        i, r = lambda: self.integer(depth - 1), lambda: self.real(depth - 1)
        return self.pick(
            lambda: r(), lambda: f"({i()} / {i()})", lambda: f"({r()} {self.pick('+', '-', '*', '/', '//', '%')} {self.pick(r, i)})", lambda: f"{self.any(depth - 1)} | float{self.pick('', '(1.5)')}",
            lambda: f"{r()} | round{self.pick('', '(1)', '(2)', '(0, ' + chr(39) + 'floor' + chr(39) + ')', '(1, ' + chr(39) + 'ceil' + chr(39) + ')', '(-1)', '(method=' + chr(39) + 'common' + chr(39) + ')')}", lambda: f"{r()} | abs", lambda: f"({r()}) ** {self.pick('2', '-1', '0.5')}")

    def boolean(self, depth):
        if depth <= 0:
            return self.rng.choice(BOOLEANS + OTHERS[:2])
        s, i, a = lambda: self.string(depth - 1), lambda: self.integer(depth - 1), lambda: self.any(depth - 1)
        l, b = lambda: self.list(depth - 1), lambda: self.boolean(depth - 1)
        return self.pick(
            lambda: b(), lambda: f"{i()} {self.comparison()} {i()}", lambda: f"{s()} {self.comparison()} {s()}", lambda: f"{a()} {self.pick('==', '!=')} {a()}",
            lambda: f"{s()} {self.pick('in', 'not in')} {s()}", lambda: f"{a()} {self.pick('in', 'not in')} {l()}", lambda: f"{s()} in {self.dict(depth - 1)}",
            lambda: f"not {b()}", lambda: f"({b()} and {a()})", lambda: f"({b()} or {a()})", lambda: f"{b()} and {b()} or {b()}",
            lambda: f"{i()} {self.comparison()} {i()} {self.comparison()} {i()}", lambda: f"({s()}).{self.pick('startswith', 'endswith')}({self.pick(s, lambda: '(' + s() + ', ' + s() + ')')})",
            lambda: f"({s()}).{self.pick('isupper', 'islower', 'isdigit', 'isalpha', 'isalnum', 'isspace', 'istitle', 'isnumeric', 'isdecimal', 'isidentifier', 'isprintable', 'isascii')}()",
            lambda: f"({a()}) is {self.test(depth - 1)}", lambda: f"({a()}) is not {self.test(depth - 1)}", lambda: f"{self.other(0)} is {self.test(0)}",
            lambda: f"{l()} {self.comparison()} {l()}")

    def comparison(self):
        return self.pick("==", "!=", "<", "<=", ">", ">=")

    def test(self, depth):
        return self.pick("defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable",
                         "callable", "odd", "even", "lower", "upper", "true", "false", "escaped", "filter", "test", "divisibleby 2",
                         "divisibleby(3)", "sameas none", "sameas true", f"in {self.list(depth)}", f"eq {self.rng.choice(INTEGERS[3:6])}",
                         f"equalto({self.any(depth)})", f"ne({self.any(depth)})", f"lt({self.integer(depth)})", "gt 1", "ge 2", "le(3)", "greaterthan 1", "lessthan 5")

    def attribute(self):
        return self.pick("name", "age", "home.city", "tags", "tags.0", "zz")

    def list(self, depth):
        if depth <= 0:
            return self.rng.choice(LISTS)
        if self.wrong(depth):
            return self.any(depth - 1)
        s, i, a = lambda: self.string(depth - 1), lambda: self.integer(depth - 1), lambda: self.any(depth - 1)
        l, d = lambda: self.list(depth - 1), lambda: self.dict(depth - 1)
        lazy = lambda text: text + " | list"  # an error in a generator that nobody asks for items is Jinja's alone
        return self.pick(
            l, lambda: f"[{a()}, {a()}]", lambda: f"({a()}, {i()})", lambda: f"({l()} + {l()})", lambda: f"({l()} * {self.pick('2', '0', '1')})",
            lambda: f"({l()} | list)[{self.slice()}]", lambda: f"({s()}).{self.pick('split()', 'split(' + s() + ')', 'rsplit(' + s() + ', 1)', 'splitlines()', 'splitlines(true)', 'partition(' + s() + ')', 'rpartition(' + s() + ')', 'split(none, 1)', 'rsplit(none, 1)', 'split(maxsplit=1)', 'split(' + s() + ', 2)')}",
            lambda: f"{s()} | list", lambda: f"{l()} | sort{self.pick('', '(true)', '(reverse=true)', '(case_sensitive=true)', '(false, true)')}",
            lambda: f"people | sort(attribute='{self.attribute()}')", lambda: f"people | sort(attribute='age,name', reverse=true)",
            lambda: lazy(f"{l()} | {self.pick('reverse', 'unique', 'select', 'reject', 'batch(2)', 'batch(2, 0)', 'slice(2)', 'slice(3, none)', 'slice(2, 9)', 'unique(true)')}"),
            lambda: lazy(f"{l()} | map('{self.pick('string', 'length', 'upper', 'first', 'tojson', 'list', 'int', 'trim', 'e')}')"),
            lambda: lazy(f"{self.pick('people', 'messages', l())} | map(attribute='{self.pick('name', 'age', 'role', 'content', 'home.city', '0')}'{self.pick('', ', default=1')})"),
            lambda: lazy(f"{self.pick('people', 'messages')} | {self.pick('selectattr', 'rejectattr')}('{self.pick('name', 'age', 'role', 'home', 'content')}'{self.pick('', ', ' + chr(39) + 'defined' + chr(39), ', ' + chr(39) + 'string' + chr(39), ', ' + chr(39) + 'equalto' + chr(39) + ', ' + a(), ', ' + chr(39) + 'in' + chr(39) + ', ' + l())})"),
            lambda: lazy(f"{l()} | {self.pick('select', 'reject')}('{self.pick('defined', 'none', 'string', 'number', 'mapping', 'iterable')}')"),
            lambda: lazy(f"numbers | {self.pick('select', 'reject')}({self.pick(repr('odd'), repr('gt') + ', 1', repr('divisibleby') + ', 2')})"),
            lambda: f"people | groupby('{self.attribute()}'{self.pick('', ', default=' + chr(39) + 'q' + chr(39))})", lambda: f"{d()} | dictsort{self.pick('', '(true)', '(by=' + chr(39) + 'value' + chr(39) + ')', '(reverse=true)')}",
            lambda: lazy(f"{d()} | items"), lambda: lazy(f"{d()}.{self.pick('keys', 'values', 'items')}()"), lambda: f"{d()} | list", lambda: lazy(f"words | map('replace', 'a', 'é')"))

    def loop_list(self, depth):
        """A list or, where the last filter makes a generator, that generator: its items are all taken."""
        text = self.list(depth)
        return text.removesuffix(" | list") if self.chance(0.5) else text

    def dict(self, depth):
        if depth <= 0:
            return self.rng.choice(DICTS)
        if self.wrong(depth):
            return self.any(depth - 1)
        return self.pick(lambda: self.dict(depth - 1), lambda: f"{{{self.string(0)}: {self.any(depth - 1)}, 'q': {self.any(0)}}}", lambda: f"dict({self.dict(depth - 1)}, z={self.any(0)})",
                         lambda: f"{self.dict(0)}.{self.pick('copy()', 'get(' + chr(39) + 'k' + chr(39) + ')', 'get(' + chr(39) + 'nested' + chr(39) + ', {})')}", lambda: f"({self.list(0)})[{self.pick('0', '-1')}]")

    # Statements

    def tag(self, inside):
        begin, end = self.pick("", "", "", "-", "+"), self.pick("", "", "", "-", "+")
        return f"{{%{begin} {inside} {end}%}}" + self.space()

    def space(self):
        return self.pick("", "", " ", "\n", "\n  ", "x", " y\n", "\n\n", "\t{ ", "é")

    def output(self, depth=2):
        return f"{{{{{self.pick('', '', '-', '')} {self.any(self.rng.randint(0, depth))} {self.pick('', '', '-')}}}}}"

    def body(self, depth):
        text = self.space()
        for _ in range(self.rng.randint(1, 2)):
            text += self.statement(depth - 1) + self.space()
        return text

    def named(self, depth, *names):
        before = list(self.names)
        self.names += names
        text = self.body(depth)
        self.names = before
        return text

    def statement(self, depth):
        if depth <= 0 or self.chance(0.3):
            return self.output()
        t, a = self.tag, lambda d=1: self.any(d)
        return self.pick(
            lambda: t(f"if {self.boolean(2)}") + self.body(depth) + t("endif"),
            lambda: t(f"if {a()}") + self.body(depth) + t(f"elif {a()}") + self.body(depth) + t("else") + self.body(depth) + t("endif"),
            lambda: t(f"for v in {self.loop_list(2)}") + self.named(depth, "v", "loop.index", "loop.first") + self.loop_output() + t("endfor"),
            lambda: t(f"for v in {self.loop_list(1)} if {self.pick('v', 'v is string', 'v is not none', self.boolean(1))}") + self.loop_output() + self.named(depth, "v") + t("else") + self.body(depth) + t("endfor"),
            lambda: t(f"for k, v in {self.pick(self.dict(1) + '.items()', self.dict(1) + ' | items', self.dict(1) + ' | dictsort', self.list(1))}") + self.named(depth, "k", "v") + t("endfor"),
            lambda: t(f"for v in {self.loop_list(1)}") + t(f"if {self.pick('loop.index > 2', 'v is string', 'v', 'loop.last')}") + t(self.pick("break", "continue")) + t("endif") + self.named(depth, "v") + t("endfor"),
            lambda: t(f"set w = {a(2)}") + self.named(depth, "w"), lambda: t(f"set w, u = {a(0)}, {a(1)}") + self.named(depth, "w", "u"),
            lambda: t(self.pick("set w", "set w | upper", "set w | trim | title", "set w | replace('a', 'b')")) + self.body(depth) + t("endset") + self.named(depth, "w"),
            lambda: t(f"set ns = namespace(n=0, l=[], s={a(0)})") + t(f"for v in {self.loop_list(1)}") + t(f"set ns.n = ns.n + {self.pick('1', 'loop.index', '2')}") + t("set ns.l = ns.l + [v]") + self.named(depth, "ns.n", "v") + t("endfor") + "{{ ns.n }}{{ ns.l }}{{ ns.s }}",
            lambda: t(f"macro m(a, b={a(0)}, c={self.pick('a', '1', 'none')})") + self.named(depth, "a", "b", "c") + t("endmacro") + self.calls("m", depth),
            lambda: t(f"macro m()") + "{{ varargs }}{{ kwargs }}" + self.body(depth) + t("endmacro") + self.calls("m", depth),
            lambda: t("macro m(a=1)") + "[{{ a }}{{ caller(a) if caller else 'no' }}]" + t("endmacro") + t(self.pick("call(x) m(5)", "call m()", "call(x, y=2) m(a='q')", "call(x=3) m(1)")) + self.named(depth, "x", "y") + t("endcall"),
            lambda: t("macro m(a)") + "<{{ caller() }}>" + self.named(depth, "a") + t("endmacro") + t(f"call m({a(0)})") + self.body(depth) + t("endcall"),
            lambda: t(f"filter {self.pick('upper', 'trim', 'replace(1, 2)', 'indent(2)', 'title | trim', 'length', 'escape')}") + self.body(depth) + t("endfilter"),
            lambda: t(f"with w = {a()}, u = {a(0)}") + self.named(depth, "w", "u") + t("endwith"), lambda: t("with") + t(f"set w = {a()}") + self.named(depth, "w") + t("endwith") + "{{ w }}",
            lambda: f"{{#{self.pick('', '-', '+')} {self.space()} {self.pick('', '-', '+')}#}}" + self.body(depth),
            lambda: f"{{%{self.pick('', '-')} raw {self.pick('', '-')}%}}" + self.space() + "{{ a }}{% b" + self.space() + f"{{%{self.pick('', '-', '+')} endraw {self.pick('', '-', '+')}%}}" + self.space(),
            lambda: t("for v in nested recursive") + "{{ v if v is number else loop(v) }}" + self.pick("", "{{ loop.depth }}", "{{ loop.depth0 }}|") + t("endfor"),
            lambda: t("generation") + self.body(depth) + t("endgeneration"), lambda: t(f"print {a(1)}"),
            lambda: t("if yes") + t(f"set w = {a(1)}") + t("endif") + self.named(depth, "w"), lambda: t(f"for v in {self.loop_list(1)}") + t("set w = v") + "{{ w }}" + t("endfor") + self.named(depth, "w", "v"),
            lambda: t(f"for (a, (b, c)) in [({a(0)}, ({a(0)}, {a(0)}))]") + self.named(depth, "a", "b", "c") + t("endfor"),
            lambda: t("set c = cycler('a', 1)") + "{{ c.next() }}{{ c.current }}" + self.body(depth) + "{{ c.next() }}{{ c.next() }}", lambda: t("set j = joiner(';')") + t(f"for v in {self.loop_list(1)}") + "{{ j() }}{{ v }}" + t("endfor"),
            lambda: t(f"set w = {self.list(1)} | map('string')") + "{{ w | first }}{{ w | list }}{{ w | list }}", lambda: "{{ messages | map(attribute='role') | join(',') }}" + self.body(depth),
            lambda: t("for g in people | groupby('age')") + "{{ g.grouper }}{{ g.list | length }}{{ g[0] }}{{ g }}" + t("endfor"), lambda: t(f"for g, l in people | groupby('{self.attribute()}', default=0)") + "{{ g }}{{ l }}" + t("endfor"),
            lambda: t("for m in messages") + t(f"if m.role == '{self.pick('user', 'assistant', 'tool')}'") + self.named(depth, "m.content", "m", "loop.last", "m['role']", "m.tool_calls") + t("endif") + t("endfor"),
        )

    def loop_output(self):
        return "".join(f"{{{{ loop.{self.pick('index', 'index0', 'revindex', 'revindex0', 'first', 'last', 'length', 'depth', 'previtem', 'nextitem', 'zz', 'cycle(1, 2)', 'changed(v)', 'changed(loop.index > 2)')} }}}}" for _ in range(self.rng.randint(0, 2)))

    def calls(self, name, depth):
        arguments = lambda: self.pick("", self.any(1), f"{self.any(0)}, {self.any(1)}", f"a={self.any(0)}", f"{self.any(0)}, b={self.any(0)}", "1, 2, 3, 4", "z=1", "*[1, 2]", "**{'b': 3}", "1, c=2", "1, a=2")
        return "".join(f"{{{{ {name}({arguments()}) }}}}" for _ in range(self.rng.randint(1, 2)))


def random_template(rng):
    generator = Generator(rng)
    return "".join(generator.statement(3) + generator.space() for _ in range(rng.randint(1, 2)))
