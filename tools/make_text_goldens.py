"""Makes tests/data/text: a small byte-level BPE vocabulary and what the Hugging Face tokenizers library does with it.

Run it with PyPI's tokenizers installed; its output is checked in, so that the tests need none of this.

    python tools/make_text_goldens.py tests/data/text
"""

import json
import pathlib
import sys

import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The miller's daughter ground the corn, and the corn became flour, and the flour became bread.",
    "She'd said they'll come at 10:45, or at 11:05; we're waiting since 1999, haven't they've told you?",
    "for (int i = 0; i < 128; i++) {\n    total += values[i] * weights[i];\n}\n\n",
    "Im Frühling blühen die Äpfel über der Straße. Où êtes-vous allée, naïve façade ?",
    "Привет, мир! Как дела? 日本語のテキストです。 한국어 문장입니다. 😀 👩‍👩‍👧 ",
    "HTTP/2 GET /index.html?x=1&y=2   \t\ttabs    and     spaces\r\n\r\n",
    "It isn't the case that one and one and one are never three; bread and corn and flour are.",
]

TEXTS = [
    "", " ", "   ", "\n", " \n \n\n x", "\t\tindent", "the corn and the flour", "The flour  became   bread.",
    "it's IT'S we'LL They'd don'T o'clock 's", "naïve café e\u0301 A\u030a \u1100\u1161\u11a8 ﬃ ſ 'ſ",
    "1 12 123 1234 12345 3.14 ½ ٣ Ⅷ", "Привет мир", "日本語のテキスト 한국어", "😀😃👩‍👩‍👧🇩🇪",
    "x\u00a0y\u3000z\u2028w\u0085v\u180eu\u200bt", "a\r\n\r\nb\r\n  c", "tab\there", "\u0000\u0001\u007f",
    "<|start|>the corn<|end|>", "the<|start|>  <|end|>corn", "<|start|><|start|>", "<|star", "x  <pad>  y", "<pad>",
    "word flourish wordy word, swords word", "user_defined  user_defined", "naïve\u0301 cafe\u0301 cafe\u0301s",
    "=================", "a" * 70, "and" * 40, " " * 40 + "x", "\n" * 30, "!!??..,,;;::", "snake_case_name __init__",
    "don\u2019t \u201cquote\u201d", "\ufeffbom", "\ud7ff\ue000\ufffd\U0010ffff",
]

SPLITS = {
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=420, min_frequency=2, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_special_tokens([AddedToken("<|start|>", special=True), AddedToken("<|end|>", special=True),
                                  AddedToken("<pad>", special=True, lstrip=True, rstrip=True)])
    tokenizer.add_tokens([AddedToken("word", single_word=True, normalized=False),
                          AddedToken("user_defined ", normalized=False), AddedToken("cafe\u0301", normalized=True)])
    return json.loads(tokenizer.to_str())


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def variants():
    byte_level = pre_tokenizers.ByteLevel
    plain = byte_level(add_prefix_space=False, use_regex=False)
    yield "gpt2", byte_level(add_prefix_space=False), None, {}
    yield "gpt2_prefix_space", byte_level(add_prefix_space=True), None, {}
    yield "smollm", pre_tokenizers.Sequence([pre_tokenizers.Digits(True), byte_level(add_prefix_space=False)]), None, {}
    yield "smollm_prefix_space", pre_tokenizers.Sequence([pre_tokenizers.Digits(False), byte_level(add_prefix_space=True)]), None, {}
    for name, pattern in SPLITS.items():
        yield name, pre_tokenizers.Sequence([split(pattern), plain]), None, {}
    yield "qwen2_nfc", pre_tokenizers.Sequence([split(SPLITS["qwen2"]), plain]), normalizers.NFC(), {}
    yield "llama3_ignore_merges", pre_tokenizers.Sequence([split(SPLITS["llama3"]), plain]), None, {"ignore_merges": True}
    for behavior in ["removed", "merged_with_previous", "merged_with_next", "contiguous"]:
        yield behavior, pre_tokenizers.Sequence([split(r"[aeiou\s]", behavior), plain]), None, {}
        yield behavior + "_inverted", pre_tokenizers.Sequence([split(r"\w+|x*", behavior, True), plain]), None, {}
    yield "string", pre_tokenizers.Sequence([pre_tokenizers.Split(" |.*(", "isolated"), pre_tokenizers.Split("and", "removed"), plain]), None, {}


def main():
    folder = pathlib.Path(sys.argv[1])
    base = train()
    (folder / "tokenizer.json").write_text(json.dumps(base, ensure_ascii=False, separators=(",", ":")) + "\n")
    cases = []
    for name, pre_tokenizer, normalizer, model in variants():
        file = json.loads(json.dumps(base))
        file["model"].update(model)
        tokenizer = Tokenizer.from_str(json.dumps(file))
        tokenizer.pre_tokenizer = pre_tokenizer
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        changed = json.loads(tokenizer.to_str())
        patch = {"model": model, "pre_tokenizer": changed["pre_tokenizer"], "normalizer": changed["normalizer"]}
        cases.append({"name": name, "patch": patch, "texts": [
            {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids} for text in TEXTS]})
    goldens = {"judge": f"tokenizers {tokenizers.__version__}", "cases": cases}
    (folder / "tokenizer_golden.json").write_text(json.dumps(goldens, separators=(",", ":")) + "\n")


main()
