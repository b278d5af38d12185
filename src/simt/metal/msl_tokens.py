"""The tokens of preprocessed Metal text, with the lines that they come from."""
import re

TOKEN = re.compile(r'^#[^\n]*|"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[A-Za-z_]\w*|\.?\d(?:[eEpP][+-]|[\w.])*|\s+'
                   r'|::|->|&&|\|\||[<>=!+\-*/%&|^]=|.', re.M)
LINE_MARKER = re.compile(r'#\s+(\d+)\s+"([^"]*)"')
CLOSE = {"(": ")", "[": "]", "{": "}", "<": ">"}
SPACES = ("device", "constant", "threadgroup", "thread")


class ShaderError(Exception):
    pass


def is_blank(token):
    return token.isspace() or token.startswith("#")


def is_name(token):
    return token[:1].isalpha() or token[:1] == "_"


class Tokens:
    """`t` holds the significant tokens. What is replaced keeps its line breaks, so that lines stay where they were."""

    def __init__(self, text):
        self.all = TOKEN.findall(text)
        self.at = [i for i, t in enumerate(self.all) if not is_blank(t)]
        self.t = [self.all[i] for i in self.at]
        self.lines = self._lines()

    def _lines(self):
        lines, file, line = [], "", 1
        for token in self.all:
            marker = LINE_MARKER.match(token)
            if marker:
                file, line = marker.group(2), int(marker.group(1)) - 1
            elif not is_blank(token):
                lines.append((file, line))
            line += token.count("\n")
        return lines

    def error(self, k, message):
        file, line = self.lines[min(k, len(self.lines) - 1)]
        return ShaderError(f"{file}:{line}: error: {message}")

    def replace(self, begin, end, text):
        """Puts text in place of the significant tokens begin … end - 1."""
        for k in range(begin, end):
            self.all[self.at[k]] = ""
            self.t[k] = ""
        self.all[self.at[begin]] = text

    def close(self, k):
        """The place of the bracket that closes the one at k; None if it is no bracket after all."""
        stack = []
        for j in range(k, len(self.t)):
            t = self.t[j]
            if t in CLOSE and (t != "<" or not stack or stack[-1] == ">"):
                stack.append(CLOSE[t])
            elif stack and t == stack[-1]:
                stack.pop()
                if not stack:
                    return j
            elif t in (";", "{", "}") and stack and stack[0] == ">":
                return None
        return None

    def text(self, begin, end):
        return " ".join(t for t in self.t[begin:end] if t)

    def split(self, begin, end, separator=","):
        """The parts of begin … end - 1 between separators outside of brackets."""
        parts, depth, start = [], 0, begin
        for k in range(begin, end):
            depth += {"(": 1, "[": 1, "<": 1, "{": 1, ")": -1, "]": -1, ">": -1, "}": -1}.get(self.t[k], 0)
            if self.t[k] == separator and depth == 0:
                parts.append((start, k))
                start = k + 1
        return parts + [(start, end)] if end > begin else []

    def functions(self):
        """(name, parameters' opening and closing, body's opening and closing bracket) of each function defined here."""
        for k in range(1, len(self.t) - 1):
            if self.t[k] != "(" or not is_name(self.t[k - 1]) or self.t[k - 1] in NOT_FUNCTIONS:
                continue
            closing = self.close(k)
            if closing is None:
                continue
            body = closing + 1
            while body < len(self.t) and self.t[body] in ("const", "[") and self.t[body] != "{":
                body = self.close(body) + 1 if self.t[body] == "[" else body + 1
            if body < len(self.t) and self.t[body] == "{" and self.t[k - 2] not in (".", "->"):
                yield self.t[k - 1], k, closing, body, self.close(body)


NOT_FUNCTIONS = {"if", "for", "while", "switch", "return", "sizeof", "alignas", "alignof", "decltype", "static_assert",
                 "operator"}
