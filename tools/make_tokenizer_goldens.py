"""Makes tests/data/text/tokenizers: small tokenizers of many kinds and what their own libraries do with awkward texts.

Run it with PyPI's tokenizers and sentencepiece installed; its output is checked in, so that the tests need none of this.

    python tools/make_tokenizer_goldens.py tests/data/text/tokenizers
"""

import io
import json
import pathlib
import sys
import tempfile

import sentencepiece
import tokenizers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CORPUS = [
    "The miller's daughter ground the corn, and the corn became flour, and the flour became bread.",
    "She'd said they'll come at 10:45, or at 11:05; we're waiting since 1999, haven't they told you?",
    "for (int i = 0; i < 128; i++) {\n    total += values[i] * weights[i];\n}\n\n",
    "Im Frühling blühen die Äpfel über der Straße. Où êtes-vous allée, naïve façade ?",
    "Привет, мир! Как дела? 日本語のテキストです。 한국어 문장입니다. 😀 สวัสดีครับ السلام عليكم नमस्ते",
    "HTTP/2 GET /index.html?x=1&y=2   \t\ttabs    and     spaces\r\n\r\n",
    "It isn't the case that one and one and one are never three; bread and corn and flour are.",
    "THE MILLER, McDonald and iPhone; CamelCase WORDS in snake_case, eBay's 12345 67 8.",
]

TEXTS = [
    "", " ", "  ", "   x", "x   ", " \n \n\n x", "\t\tindent", "the corn and the flour", " The flour  became   bread. ",
    "it's IT'S we'LL They'd don'T", "naïve café e\u0301 A\u030a \u1100\u1161\u11a8 ﬃ ſ İstanbul ΑΣ", "1 12 123 1234 12345 3.14 ½ ٣ Ⅷ ²",
    "Привет мир", "日本語のテキスト 한국어", "😀😃👩‍👩‍👧🇩🇪", "x\u00a0y\u3000z\u2028w\u0085v\u180eu\u200bt\ufeffs", "a\r\n\r\nb\r\n  c",
    "\u0001\u007f", "<s>the corn</s>", "the<s>  </s>corn", "<s><s>", "<s", "x  <pad>  y", "<pad>", "word words sword word, word",
    "the▁corn ▁ ▁▁x", "▁", "▁ ▁", "user_defined  user_defined x", "a" * 40, "and" * 20, " " * 40 + "x", "\n" * 30,
    "!!??..,,;;::", "snake_case_name __init__ CamelCaseName HTTPServer", "don\u2019t \u201cquote\u201d", "\ufffd\U0010ffff",
    "สวัสดีครับ السلام عليكم नमस्ते", "q\u0302\u0323\u0307 q\u0307\u0323", "<0x41><0x0A>", "ǆ Ǆ ǅ ß ẞ", "½ ﷺ ㈱ ｱｲｳ", "a Cafe Cafes cafe",
    "\u4e00\u4e8c3\u4e09", "Αθήνα ΑΘΗΝΑ", "x\u0000y", "tab\there",
]
BYTES = [b"a\xffb", b"\xf0\x9f\x98 x", b"\xe0\x80\x80", b"\xed\xa0\x80", b"x\xe6\x97"]

PATTERNS = {
    "gpt4o": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "tekken": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "kimi": r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "bloom": r" ?[^(\s|[.,!?…。，、।۔،])]+",
}


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def add_tokens(tokenizer):
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True),
                                  AddedToken("<pad>", special=True, lstrip=True, rstrip=True)])
    tokenizer.add_tokens([AddedToken("word", single_word=True, normalized=False),
                          AddedToken("user_defined ", normalized=False), AddedToken("Cafe", normalized=True)])


def byte_level(pre_tokenizer, normalizer=None):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=380, min_frequency=2, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    add_tokens(tokenizer)
    return tokenizer


BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]
LLAMA_DECODER = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]


def characters(normalizer, pre_tokenizer, decoder, fallback=True, fuse=True, **options):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=fuse, byte_fallback=fallback))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if pre_tokenizer is not None:
        tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoder
    tokenizer.train_from_iterator([" ".join(line.split(" ")) for line in CORPUS], trainers.BpeTrainer(
        vocab_size=480 if fallback else 260, min_frequency=2, show_progress=False, limit_alphabet=90,
        special_tokens=["<unk>"] + (BYTE_TOKENS if fallback else [])))
    file = json.loads(tokenizer.to_str())
    file["added_tokens"] = [token for token in file["added_tokens"] if not token["content"].startswith("<0x")]
    file["model"].update(options)
    tokenizer = Tokenizer.from_str(json.dumps(file))
    add_tokens(tokenizer)
    return tokenizer


def unigram(normalizer, pre_tokenizer, decoder):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizer, pre_tokenizer, decoder
    tokenizer.train_from_iterator(CORPUS, trainers.UnigramTrainer(
        vocab_size=250, show_progress=False, unk_token="<unk>", special_tokens=["<unk>"]))
    add_tokens(tokenizer)
    return tokenizer


def with_template(tokenizer, prefix, suffix):
    ids = [(token, tokenizer.token_to_id(token)) for token in {*prefix, *suffix}]
    tokenizer.post_processor = processors.TemplateProcessing(single=[*prefix, "$A", *suffix], special_tokens=ids)
    return tokenizer


def variants():
    level = pre_tokenizers.ByteLevel
    plain = level(add_prefix_space=False, use_regex=False)
    sequence, meta = pre_tokenizers.Sequence, pre_tokenizers.Metaspace
    for name, pattern in PATTERNS.items():
        yield name, byte_level(sequence([split(pattern), plain]))
    yield "falcon", byte_level(sequence([pre_tokenizers.Punctuation("contiguous"), level(add_prefix_space=False),
                                         pre_tokenizers.Digits(False), split("[0-9][0-9][0-9]")]))
    yield "roberta", byte_level(level(add_prefix_space=True))
    yield "nfkc", byte_level(level(add_prefix_space=False), normalizers.NFKC())
    yield "forms", byte_level(level(add_prefix_space=False), normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase(), normalizers.Strip()]))
    yield "replace", byte_level(level(add_prefix_space=False), normalizers.Sequence(
        [normalizers.NFKD(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Replace("corn", "maize"), normalizers.Nmt()]))
    legacy = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    strip = decoders.Sequence([*LLAMA_DECODER, decoders.Strip(" ", 1, 0)])
    yield "llama2", with_template(characters(legacy, None, strip), ["<s>"], [])
    yield "llama2_first", with_template(characters(None, meta("▁", "first", False), strip), ["<s>"], ["</s>"])
    yield "mistral_always", characters(None, meta("▁", "always", True), decoders.Metaspace("▁", "always"))
    yield "never_no_fallback", characters(None, meta("▁", "never", True), decoders.Metaspace("▁", "never"), fallback=False)
    yield "unknown_not_fused", characters(legacy, None, strip, fallback=False, fuse=False)
    yield "gemma", characters(normalizers.Replace(" ", "▁"), pre_tokenizers.Split(" ", "merged_with_previous"),
                              decoders.Sequence(LLAMA_DECODER))
    yield "ignore_merges", characters(None, meta("▁", "always", True), decoders.Metaspace("▁", "always"), ignore_merges=True)
    yield "words", characters(None, sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()]),
                              decoders.Fuse(), fallback=False)
    yield "white_space", characters(None, sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Digits(True),
                                                    meta("▁", "first", True)]), decoders.Metaspace("▁", "first"))
    yield "unigram", with_template(unigram(normalizers.NFKC(), meta("▁", "always", True), decoders.Metaspace("▁", "always")),
                                   [], ["</s>"])


# A few rules of NFKC, which whole would be 240 KB: what is longer, shorter, nothing, or spaces.
RULES = "RULES"
RULE_LINES = ["FB03\t66 66 69", "65 301\tE9", "65 302\tEA", "A0\t20", "3000\t20", "9\t20", "A\t20", "AD\t", "200B\t20", "7F\t",
              "FDFA\t635 644 649 20 627 644 644 647", "BD\t31 2044 32", "71 302 323 307\t51", "41 30A\tC5", "130\t69 307"]

SENTENCEPIECE = {
    "bpe_identity": dict(model_type="bpe", normalization_rule_name="identity", byte_fallback=True, vocab_size=480,
                         remove_extra_whitespaces=False, user_defined_symbols=["user_defined", "▁▁▁"]),
    "bpe_nmt": dict(model_type="bpe", normalization_rule_tsv=RULES, vocab_size=230, user_defined_symbols=["<x>"]),
    "bpe_no_prefix": dict(model_type="bpe", normalization_rule_tsv=RULES, byte_fallback=True, vocab_size=480,
                          add_dummy_prefix=False, remove_extra_whitespaces=False),
    "unigram_nmt": dict(model_type="unigram", normalization_rule_tsv=RULES, vocab_size=230,
                        user_defined_symbols=["user_defined"]),
    "unigram_bytes": dict(model_type="unigram", normalization_rule_name="identity", byte_fallback=True, vocab_size=480,
                          remove_extra_whitespaces=False, split_digits=True),
    "unigram_suffix": dict(model_type="unigram", normalization_rule_tsv=RULES, vocab_size=230,
                           treat_whitespace_as_suffix=True),
}


def train_sentencepiece(options):
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write("".join(line + "\n" for line in RULE_LINES))
        rules.flush()
        options = {key: rules.name if value == RULES else value for key, value in options.items()}
        train_model(model, options)
    return model.getvalue()


def train_model(model, options):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, character_coverage=0.98, hard_vocab_limit=False,
        minloglevel=2, num_threads=1, **options)


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for name, tokenizer in variants():
        texts = []
        for text in TEXTS:
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            texts.append({"text": text, "ids": ids, "with_roles": tokenizer.encode(text).ids,
                          "decoded": tokenizer.decode(ids, skip_special_tokens=False)})
        cases.append({"name": name, "file": json.loads(tokenizer.to_str()), "texts": texts})
    goldens = {"judge": f"tokenizers {tokenizers.__version__}", "cases": cases}
    (folder / "json_golden.json").write_text(json.dumps(goldens, separators=(",", ":")) + "\n")
    cases = []
    for name, options in SENTENCEPIECE.items():
        model = train_sentencepiece(options)
        (folder / f"{name}.model").write_bytes(model)
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        texts = [{"bytes": text.hex(), "ids": processor.encode(text), "decoded": processor.decode(processor.encode(text)),
                  "has_unknown": processor.unk_id() in processor.encode(text)}
                 for text in [text.encode() for text in TEXTS] + BYTES]
        cases.append({"name": name, "bos": processor.bos_id(), "eos": processor.eos_id(), "texts": texts})
    goldens = {"judge": f"sentencepiece {sentencepiece.__version__}", "cases": cases}
    (folder / "sentencepiece_golden.json").write_text(json.dumps(goldens, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
