import io
import json
import sys
import wave

import numpy as np
import pytest

pytest.importorskip("tokenizers")

from minitransformer import manual_seed
from minitransformer.cli import main
from minitransformer.data.text import Tokenizer
from minitransformer.models.bert import Bert, BertConfig, BertForMaskedLM
from minitransformer.models.gpt import GPT, GPTConfig
from minitransformer.models.vit import ViT, ViTConfig
from minitransformer.models.whisper import Whisper, WhisperConfig

TEXTS = ["the cat sat on the mat", "a dog and a cat", "one two three four five"] * 4


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A tiny saved model of every kind, with a tokenizer trained on three lines."""
    root = tmp_path_factory.mktemp("models")
    manual_seed(0)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe = Tokenizer.train(TEXTS, kind="bpe", vocab_size=300, special_tokens=special)
    words = Tokenizer.train(TEXTS, kind="wordpiece", vocab_size=80)
    sound = Tokenizer.train(
        TEXTS, kind="bpe", vocab_size=300,
        special_tokens=["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"],
    )  # fmt: skip
    chat = json.dumps({"chat_template": "<|im_start|>", "eos_token": "<|endoftext|>"})
    saved = {
        "gpt": (GPT(GPTConfig(bpe.vocab_size, 64, 12, 1, 2, initializer_range=0.4)), bpe, chat),
        "bert": (Bert(BertConfig(words.vocab_size, 16, 2, 12, 1, 2, 16)), words, "{}"),
        "masked": (BertForMaskedLM(BertConfig(words.vocab_size, 16, 2, 12, 1, 2, 16)), words, "{}"),
        "vit": (ViT(ViTConfig(28, 14, 3, 12, 1, 2, 16)), None, "{}"),
        "classes": (ViT(ViTConfig(28, 14, 3, 12, 1, 2, 16, num_labels=3)), None, "{}"),
        "whisper": (
            Whisper(
                WhisperConfig(
                    sound.vocab_size, 8, 50, 20, 12, 1, 1, 2, 16, pad_token_id=0,
                    decoder_start_token_id=1, eos_token_id=0,
                )
            ),
            sound,
            "{}",
        ),
    }  # fmt: skip
    for name, (model, tokenizer, settings) in saved.items():
        texts = {"tokenizer_config.json": settings}
        if tokenizer is not None:
            texts["tokenizer.json"] = tokenizer.to_json()
        model.save_pretrained(root / name, texts)
    return root


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments, stdin=b"", status=0):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        assert main([str(a) for a in arguments]) == status
        out, error = capsys.readouterr()
        if status:
            assert not out and error.count("\n") == 1 and "Traceback" not in error
            return error
        assert not error
        return out

    return call


def test_generate(models, run):
    short = ("generate", "--model", models / "gpt", "--max-new-tokens", 6)
    text = run(*short, "the cat")
    assert text.startswith("the cat") and text.endswith("\n") and len(text) > 8
    piped = json.loads(run(*short, "--json", stdin=b"the cat"))
    assert piped["prompt"] + piped["text"] + "\n" == text
    assert json.loads(run(*short, "--json", stdin=b""))["prompt"] == ""
    drawn = [run(*short, "x", "--temperature", 2, "--seed", seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert run(*short, "the cat", "--beams", 3).startswith("the cat")
    stopped = run(*short, "the cat", "--stop", piped["text"][2:4])
    assert stopped == "the cat" + piped["text"][:2] + "\n" or len(stopped) < len(text)


def test_chat(models, run):
    short = ("chat", "--model", models / "gpt", "--max-new-tokens", 5, "--json")
    lines = run(*short, stdin=b"hi\n\nyou\n").splitlines()
    assert [json.loads(line)["user"] for line in lines] == ["hi", "you"]
    assert run(*short, stdin=b"") == ""


def test_embed(models, run):
    short = ("embed", "--model", models / "bert")
    rows = [json.loads(x) for x in run(*short, "--json", stdin=b"the cat\n\na dog\n").splitlines()]
    assert [row["text"] for row in rows] == ["the cat", "a dog"]
    for row in rows:
        assert len(row["embedding"]) == 12
        assert abs(np.linalg.norm(row["embedding"]) - 1) < 1e-5
    table = run(*short, "the cat", "the cat").splitlines()
    assert table[0].split()[1:3] == ["1.0000", "1.0000"]
    long = "cat " * 30
    assert "the model reads up to 16" in run(*short, long, status=2)
    assert run(*short, "--truncate", long)


def test_fill_mask(models, run):
    short = ("fill-mask", "--model", models / "masked")
    found = json.loads(run(*short, "--json", "--top", 3, "the [MASK] sat"))
    assert len(found["words"]) == 3
    values = [word["probability"] for word in found["words"]]
    assert values == sorted(values, reverse=True)
    assert len(run(*short, stdin=b"the [MASK] and [MASK]\n").splitlines()) == 10
    assert "no [MASK]" in run(*short, "the cat", status=2)


def test_classify_image(models, run, tmp_path):
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "m.png"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image.fromarray(pixels).save(path)
    features = json.loads(run("classify-image", "--model", models / "vit", "--json", path))
    assert len(features["features"]) == 12
    assert "12 features" in run("classify-image", "--model", models / "vit", path, path)
    classes = json.loads(run("classify-image", "--model", models / "classes", "--json", path))
    assert abs(sum(c["probability"] for c in classes["classes"]) - 1) < 1e-6
    assert run("classify-image", "--model", models / "vit", "--size", 42, path)
    wrong = ("classify-image", "--model", models / "vit")
    assert "multiple of 14" in run(*wrong, "--size", 15, path, status=2)
    assert "no such image" in run(*wrong, tmp_path / "no.png", status=2)


def test_transcribe(models, run, tmp_path):
    path = tmp_path / "m.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
        file.writeframes(np.random.default_rng(0).integers(-999, 999, 24000, "<i2").tobytes())
    short = ("transcribe", "--model", models / "whisper")
    found = json.loads(run(*short, "--json", path))
    assert found["seconds"] == 1.5 and isinstance(found["text"], str)
    path.write_bytes(path.read_bytes()[:30])
    assert "not a readable WAV" in run(*short, path, status=2)


@pytest.mark.parametrize("name", ["gpt", "bert", "vit", "whisper"])
def test_inspect(models, run, name):
    report = json.loads(run("inspect", "--json", "--arrays", models / name))
    assert report["format"] == "safetensors" and report["parameters"] > 0
    text = run("inspect", models / name)
    assert run("inspect", "--model", models / name) == text
    assert f"{report['parameters']:,}" in text and report["architecture"] in text


def test_inspect_of_an_unknown_architecture(run, tmp_path):
    from minitransformer.models.checkpoint import write_safetensors

    write_safetensors({"a": np.zeros((2, 3))}, tmp_path / "m.safetensors")
    report = json.loads(run("inspect", "--json", tmp_path / "m.safetensors"))
    assert report["elements_in_file"] == 6 and report["architecture"].startswith("unknown")


@pytest.mark.parametrize(
    ("arguments", "stdin", "expected"),
    [
        (["generate", "--model", "MODELS/bert", "x"], b"", "needs GPT or Llama"),
        (["generate", "--model", "MODELS/gpt"], b"\xff\xfe", "not UTF-8"),
        (["generate", "--model", "MODELS/gpt", "a " * 200], b"", "positions"),
        (["generate", "--model", "MODELS/gpt", "x", "--top-p", "2"], b"", "top_p is 2.0"),
        (["generate", "--model", "MODELS/gpt", "x", "--seed", "-1"], b"", "--seed"),
        (["generate", "--model", "MODELS/nothing", "x"], b"", "no such file"),
        (["chat", "--model", "MODELS/gpt"], b"\xff\n", "not UTF-8"),
        (["embed", "--model", "MODELS/bert"], b"\n", "no texts"),
        (["embed", "--model", "MODELS/gpt", "x"], b"", "needs Bert"),
        (["transcribe", "--model", "MODELS/whisper", "MODELS/no.wav"], b"", "no such sound"),
        (["inspect", "MODELS"], b"", "no model.safetensors"),
    ],
)
def test_bad_input_is_one_clear_line(models, run, arguments, stdin, expected):
    arguments = [a.replace("MODELS", str(models)) for a in arguments]
    assert expected in run(*arguments, stdin=stdin, status=2)


def test_a_tokenizer_that_does_not_belong(models, run, tmp_path):
    GPT(GPTConfig(20, 16, 8, 1, 2)).save_pretrained(
        tmp_path / "m", {"tokenizer.json": (models / "gpt" / "tokenizer.json").read_text()}
    )
    error = run("generate", "--model", tmp_path / "m", "x", status=2)
    assert "do not belong together" in error


def test_huge_input_is_refused(models, run, monkeypatch):
    from minitransformer.models import commands

    monkeypatch.setattr(commands, "MAX_INPUT", 100)
    error = run("generate", "--model", models / "gpt", stdin=b"a" * 101, status=2)
    assert "more than 100 bytes" in error


def test_a_pickle_is_refused(run, tmp_path):
    import pickle

    (tmp_path / "model.bin").write_bytes(pickle.dumps({"a": 1}))
    assert "pickle" in run("inspect", tmp_path, status=2)
