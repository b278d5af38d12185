"""What Metal Shading Language forbids and clang, for which a shader is C++, would let pass. The rest (address spaces of
pointers, double arithmetic, C++ newer than Metal's) is clang's own to find, in the pass of translate.py that checks only.
"""
from msl_tokens import NOT_FUNCTIONS, SPACES, is_name

FORBIDDEN = {
    "double": "Metal has no double", "virtual": "Metal has no virtual functions", "new": "Metal has no new",
    "delete": "Metal has no delete", "throw": "Metal has no exceptions", "try": "Metal has no exceptions",
    "catch": "Metal has no exceptions", "goto": "Metal has no goto", "dynamic_cast": "Metal has no dynamic_cast",
    "typeid": "Metal has no typeid", "noexcept": "Metal has no noexcept", "thread_local": "Metal has no thread_local",
    "asm": "Metal has no asm", "register": "Metal has no register", "std": "Metal has no standard library",
    "wchar_t": "Metal has no wchar_t",
}


def check(tokens):
    forbidden_words(tokens)
    lambdas_and_bases(tokens)
    function_pointers(tokens)
    recursion(tokens)
    address_spaces(tokens)
    program_scope(tokens)


def forbidden_words(tokens):
    for k, t in enumerate(tokens.t):
        if t in FORBIDDEN:
            raise tokens.error(k, FORBIDDEN[t])
        if t == "long" and tokens.t[k + 1] == "long":
            raise tokens.error(k, "Metal has no long long")


def lambdas_and_bases(tokens):
    t = tokens.t
    for k in range(1, len(t) - 2):
        if t[k] == "[" and t[k - 1] in ("=", "(", ",", "return", "{", ";") and t[k + 1] != "[":
            raise tokens.error(k, "Metal has no lambda expressions")
        if t[k] in ("struct", "class") and is_name(t[k + 1]) and t[k + 2] == ":":
            raise tokens.error(k, "Metal has no derived classes")


def function_pointers(tokens):
    t = tokens.t
    for k in range(len(t) - 3):
        if t[k] == "(" and t[k + 1] in ("*", "&"):
            name = k + 2 if is_name(t[k + 2]) else k + 1
            if t[name + 1:name + 3] == [")", "("]:
                raise tokens.error(k, "Metal has no function pointers")


def recursion(tokens):
    calls, place = {}, {}
    functions = list(tokens.functions())
    names = {name for name, *_ in functions}
    for name, opening, _, body, end in functions:
        place[name] = opening
        called = calls.setdefault(name, set())
        for k in range(body, end):
            is_call = tokens.t[k + 1] == "(" or tokens.t[k + 1] == "<"
            if tokens.t[k] in names and is_call and tokens.t[k - 1] not in (".", "->"):
                called.add(tokens.t[k])

    def reaches(start):
        seen, todo = set(), list(calls[start])
        while todo:
            name = todo.pop()
            if name == start:
                return True
            if name not in seen:
                seen.add(name)
                todo.extend(calls[name])
        return False

    for name in calls:
        if reaches(name):
            raise tokens.error(place[name], f"Metal has no recursion: {name} calls itself, perhaps through others")


def address_spaces(tokens):
    t = tokens.t
    for name, opening, closing, body, end in tokens.functions():
        for begin, last in tokens.split(opening + 1, closing):
            declared = []
            for k in range(begin, last):
                if t[k] == "=" or (t[k] == "[" and t[k + 1] == "["):
                    break
                declared.append(t[k])
            if ("*" in declared or "&" in declared) and not set(SPACES) & set(declared):
                raise tokens.error(begin, f"{name}: the pointer or reference {tokens.text(begin, last)} names no address space")
        for k in range(body, end):
            if t[k] not in (";", "{", "}"):
                continue
            j = k + 1
            while t[j] == "const":
                j += 1
            if not is_name(t[j]) or t[j] in SPACES or t[j] in NOT_FUNCTIONS:
                continue
            j += 1
            if t[j] == "<" and tokens.close(j):
                j = tokens.close(j) + 1
            if t[j] == "const":
                j += 1
            if t[j] in ("*", "&") and is_name(t[j + 1]) and t[j + 2] in ("=", ";", "[", ","):
                raise tokens.error(k + 1, f"the pointer or reference {t[j + 1]} names no address space")


def program_scope(tokens):
    """Variables outside of functions are constant, and none is computed from a function constant."""
    t = tokens.t
    function_constants = {t[k - 3] for k in range(3, len(t)) if t[k] == "function_constant" and t[k - 1] == "["}
    depth, start = 0, 0
    for k in range(len(t)):
        depth += {"{": 1, "(": 1, "}": -1, ")": -1}.get(t[k], 0)
        if depth:
            continue
        if t[k] == ";" and "=" in t[start:k] and t[start] not in ("using", "template", "namespace"):
            equals = t.index("=", start)
            is_function = "(" in t[start:equals]
            if not is_function and "constant" not in t[start:equals]:
                raise tokens.error(start, "a variable outside of functions must be constant")
            if not is_function and function_constants & set(t[equals:k]):
                raise tokens.error(start, "computed from a function constant: compute it in the kernel")
        if t[k] in (";", "}"):
            start = k + 1
