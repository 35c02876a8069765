import json

import numpy as np
import pytest

pytest.importorskip("tokenizers")

from minitransformer.data.text import Tokenizer

MIXED = [
    "The cat sat on the mat.",
    "naïve café — déjà vu… “quotes”",
    "Привет, мир! Γειά σου Κόσμε",
    "你好，世界。 こんにちは世界 안녕하세요",
    "مرحبا بالعالم שלום עולם",
    "नमस्ते दुनिया สวัสดีชาวโลก",
    "🙂👩‍👩‍👧‍👦🇩🇪 \u200d\ufe0f",
    "x = 3.14159; y=12345  # tabs\tand\nnewlines\r\n",
    "  leading and trailing  ",
    "",
    "don't can't I'll we've",
    "ﬁ ½ ① Ａ \u0000 \u200b",
]


@pytest.fixture(scope="module")
def trained():
    texts = [*MIXED, "the cat and the dog", "a stitch in time saves nine"] * 3
    return {
        kind: Tokenizer.train(texts, kind=kind, vocab_size=400)
        for kind in ("bpe", "wordpiece", "unigram")
    }


def test_byte_level_bpe_is_lossless(trained):
    for text in MIXED:
        assert trained["bpe"].decode(trained["bpe"].encode(text)) == text


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_saved_and_loaded_gives_the_same_ids(kind, trained, tmp_path):
    tokenizer = trained[kind]
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    again = Tokenizer.load(tmp_path)
    assert again.vocab_size == tokenizer.vocab_size <= 600
    for text in MIXED:
        assert again.encode(text) == tokenizer.encode(text)


def test_native_files_give_the_same_ids(trained, tmp_path):
    for kind, names in {
        "bpe": ["vocab.json", "merges.txt"],
        "wordpiece": ["vocab.txt"],
        "unigram": ["unigram.json"],
    }.items():
        directory = tmp_path / kind
        directory.mkdir()
        trained[kind].backend.model.save(str(directory))
        assert sorted(p.name for p in directory.iterdir()) == sorted(names)
    (tmp_path / "wordpiece" / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    for kind in ("bpe", "wordpiece"):
        loaded = Tokenizer.load(tmp_path / kind)
        for text in MIXED:
            assert loaded.encode(text) == trained[kind].encode(text), (kind, text)
    plain = Tokenizer.load(tmp_path / "unigram")
    assert plain.encode("the cat") == trained["unigram"].encode("the cat")


def test_gguf_metadata_builds_the_tokenizer(trained):
    state = json.loads(trained["bpe"].to_json())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in state["merges"]],
        "tokenizer.ggml.token_type": [3 if t == "<|endoftext|>" else 1 for t in tokens],
        "tokenizer.ggml.eos_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.chat_template": "{{ '<|im_start|>' }}",
    }
    loaded = Tokenizer.from_gguf(metadata)
    for text in MIXED + ["a<|endoftext|>b"]:
        assert loaded.encode(text) == trained["bpe"].encode(text)
    assert loaded.eos_id == tokens.index("<|endoftext|>")
    assert loaded.chat_form == "chatml"
    digits = Tokenizer.from_gguf({**metadata, "tokenizer.ggml.pre": "smollm"})
    assert len(digits.encode("12345", add_special_tokens=False)) == 5
    for key, bad in [
        ("tokenizer.ggml.model", "llama"),
        ("tokenizer.ggml.tokens", [1, 2]),
        ("tokenizer.ggml.tokens", None),
        ("tokenizer.ggml.tokens", [*tokens, tokens[0]]),
        ("tokenizer.ggml.merges", ["a"]),
        ("tokenizer.ggml.merges", ["zz yy"]),
    ]:
        with pytest.raises(ValueError):
            Tokenizer.from_gguf({**metadata, key: bad})


@pytest.mark.parametrize("side", ["right", "left"])
def test_batches_are_padded(side, trained):
    tokenizer = trained["wordpiece"]
    texts = ["the cat", "the cat and the dog"]
    batch = tokenizer.encode_batch(texts, padding_side=side)
    assert batch.ids.shape == batch.attention_mask.shape and batch.ids.dtype == np.int64
    for row, text in enumerate(texts):
        assert batch.ids[row][batch.attention_mask[row]].tolist() == tokenizer.encode(text)
        assert (batch.ids[row][~batch.attention_mask[row]] == tokenizer.pad_id).all()
    assert bool(batch.attention_mask[0][0]) is (side == "right")


def test_pairs_have_types(trained):
    batch = trained["wordpiece"].encode_batch([("the cat", "the dog")])
    length = len(trained["wordpiece"].encode("the cat"))
    types = batch.token_type_ids[0]
    assert types[:length].max() == 0 and types[length:].min() == 1


def test_too_long_is_an_error_and_says_which(trained):
    with pytest.raises(ValueError, match=r"text 1 has \d+ tokens, the model reads up to 6"):
        trained["bpe"].encode_batch(["a", "the quick brown fox jumps"], max_length=6)
    with pytest.raises(ValueError, match="no texts"):
        trained["bpe"].encode_batch([])
    with pytest.raises(ValueError, match="padding_side"):
        trained["bpe"].encode_batch(["a"], padding_side="top")


def test_streaming_never_cuts_a_character(trained):
    tokenizer = trained["bpe"]
    for text in MIXED:
        ids = tokenizer.encode(text)
        pieces = list(tokenizer.stream(ids))
        assert "".join(pieces) == text
        assert "\ufffd" not in "".join(pieces) and all(pieces)
    incomplete = tokenizer.encode("🙂")[:-1]
    assert "".join(tokenizer.stream(incomplete)) == tokenizer.decode(incomplete) == "\ufffd"


def test_chat_form(trained):
    tokenizer = Tokenizer(trained["bpe"].backend, chat="chatml")
    text = tokenizer.chat([{"role": "user", "content": "Hi"}])
    assert text == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    with pytest.raises(ValueError, match="no chat form"):
        trained["bpe"].chat([{"role": "user", "content": "Hi"}])
    with pytest.raises(ValueError, match="role"):
        tokenizer.chat([{"role": "robot", "content": "Hi"}])


def test_lone_surrogates_are_refused(trained):
    with pytest.raises(ValueError, match="surrogate"):
        trained["bpe"].encode("a\ud800b")


def test_bad_numbers_and_roles(trained):
    with pytest.raises(ValueError, match="no token number"):
        trained["bpe"].decode([-1])
    with pytest.raises(ValueError, match="not in the vocabulary"):
        trained["bpe"].token_id("<nothing>")
    with pytest.raises(ValueError, match="roles"):
        Tokenizer(trained["bpe"].backend, {"sepp": "x"})
    with pytest.raises(ValueError, match="kind"):
        Tokenizer.train(["a"], kind="words")
    with pytest.raises(ValueError, match="no room"):
        Tokenizer.train(["a"], kind="wordpiece", vocab_size=3)


BAD_FILES = {
    "tokenizer.json": ["", "[]", "{}", "{", '{"model": 3}', '{"model": {"type": "BPE"}}',
                       "[" * 100000, '{"model": {"type": "Nothing", "vocab": {}}}'],
    "vocab.txt": ["", "a\nb", "[UNK]\n[CLS]\n[SEP]\n[SEP]"],
    "vocab.json": ["{}", "[]", '{"a": "b"}', '{"a": 0}'],
    "unigram.json": ["{}", '[["a"]]', '{"vocab": [["a", 0]], "unk_id": 7}'],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content"), [(name, c) for name, contents in BAD_FILES.items() for c in contents]
)
def test_bad_files(name, content, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError) as caught:
        Tokenizer.load(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(ValueError, match=r"none of tokenizer\.json"):
        Tokenizer.load(tmp_path)
    with pytest.raises(ValueError, match="no such"):
        Tokenizer.load(tmp_path / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not UTF-8"):
        Tokenizer.load(tmp_path)


def test_damaged_tokenizer_file_never_crashes(trained, tmp_path):
    """One bit flipped at 400 places: ValueError, or a tokenizer."""
    raw = Tokenizer.train(["the cat sat"], kind="bpe", vocab_size=262).to_json().encode()
    rng = np.random.default_rng(0)
    refused = 0
    for position in rng.integers(0, len(raw) * 8, 400):
        flipped = bytearray(raw)
        flipped[position // 8] ^= 1 << int(position % 8)
        (tmp_path / "tokenizer.json").write_bytes(flipped)
        try:
            Tokenizer.load(tmp_path).encode("the cat")
        except ValueError:
            refused += 1
    assert refused > 20
