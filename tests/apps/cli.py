"""What the tests of the command nibble share: running it, and what is expected of errors.

Each test file is started as: python3 tests/apps/NAME_test.py build/release/apps/nibble tests/data
"""

import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

NIBBLE, DATA = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
MODELS = DATA / "models"
FOLDER, GGUF = MODELS / "llama-bf16", MODELS / "llama-gguf-floats" / "model.gguf"  # both have a tokenizer
SILENT = MODELS / "llama-ct-mxfp4"  # has none
TEMPLATE_TEXT = "<|start|>user\nHi<|end|>\n<|start|>assistant\n"


def nibble(*arguments, stdin=b"", timeout=60, **environment):
    """The finished process; stdout and stderr are bytes."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIBBLE_")}
    quick = {"NIBBLE_ROOF_MB": "8"}  # tests want a roof, whatever it is
    return subprocess.run([NIBBLE, *map(str, arguments)], input=stdin, capture_output=True, timeout=timeout,
                          env=clean | quick | environment)


def golden(folder):
    return json.loads((folder / "golden.json").read_text())


def listed(tokens):
    return ",".join(map(str, tokens))


def read_npy(path):
    """Rows of a float32 .npy file, and its header as a dictionary."""
    data = path.read_bytes()
    assert data[:8] == b"\x93NUMPY\x01\x00", data[:8]
    length, = struct.unpack("<H", data[8:10])
    header = eval(data[10:10 + length], {"__builtins__": {}})
    rows, columns = header["shape"]
    values = struct.unpack(f"<{rows * columns}f", data[10 + length:])
    return [values[r * columns:(r + 1) * columns] for r in range(rows)], header, 10 + length


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="nibble_cli_"))
        self.addCleanup(shutil.rmtree, self.folder)

    def succeed(self, *arguments, **more):
        result = nibble(*arguments, **more)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def report(self, *arguments, **more):
        return json.loads(self.succeed(*arguments, "--json", **more).stdout)

    def refuse(self, *arguments, says=(), code=2, **more):
        """Exit code 2, nothing on stdout, and a message on stderr with all of `says`."""
        result = nibble(*arguments, **more)
        self.assertEqual((result.returncode, result.stdout), (code, b""), result.stderr)
        message = result.stderr.decode()
        for part in says:
            self.assertIn(str(part), message)
        return message

    def chart(self, path):
        """All texts of an SVG, and the rectangles that are bars."""
        namespace = "{http://www.w3.org/2000/svg}"
        root = ElementTree.parse(path).getroot()
        self.assertEqual(root.tag, namespace + "svg")
        bars = [e for e in root.iter(namespace + "rect") if e.get("rx")]
        return [e.text for e in root.iter(namespace + "text")], bars

    def copy(self, folder):
        copied = self.folder / folder.name
        shutil.copytree(folder, copied)
        return copied

    def write(self, name, contents):
        path = self.folder / name
        path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
        return path


def main():
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
