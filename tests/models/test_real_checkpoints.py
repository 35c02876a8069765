"""Published weights: they load strictly and give their known results.

MiniLM runs always; the rest is slow. The parts come from the package registries, see `parts`.
"""

import json

import numpy as np
import pytest

from minitransformer.autograd import no_grad
from minitransformer.data.audio import load_wav
from minitransformer.data.text import Tokenizer
from minitransformer.models.auto import load_model, load_tokenizer
from minitransformer.models.bert import Bert
from minitransformer.models.checkpoint import open_checkpoint
from minitransformer.models.commands import embed
from minitransformer.models.generation import GenerationOptions, generate, stream_text
from minitransformer.models.llama import Llama
from minitransformer.models.vit import ViT
from minitransformer.models.whisper import Whisper, transcribe

from . import parts

MIXED = [
    "The cat sat on the mat.",
    "naïve café — déjà vu… “quotes”",
    "Привет, мир! Γειά σου Κόσμε",
    "你好，世界。 こんにちは世界 안녕하세요",
    "مرحبا بالعالم שלום עולם",
    "नमस्ते दुनिया สวัสดีชาวโลก",
    "🙂👩‍👩‍👧‍👦🇩🇪",
    "x = 3.14159; y=12345  # tabs\tand\nnewlines",
    "don't can't I'll we've",
    "",
]


@pytest.fixture(scope="module")
def minilm():
    return Bert.from_pretrained(parts.minilm()), load_tokenizer(parts.minilm())


@pytest.fixture(scope="module")
def smollm2():
    return Llama.from_pretrained(parts.smollm2()), load_tokenizer(parts.smollm2())


def test_minilm_embeddings(minilm):
    model, tokenizer = minilm
    assert model.num_parameters() == 22713216
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "The stock market fell today."]
    vectors = embed(model, tokenizer, texts)
    cosines = vectors[0] @ vectors[1:].T
    np.testing.assert_allclose(cosines, [0.6654, 0.1030], atol=5e-5)
    one_by_one = [embed(model, tokenizer, [text])[0] for text in texts]
    np.testing.assert_allclose(one_by_one, vectors, atol=2e-6)


@pytest.mark.slow
def test_minilm_equals_transformers(minilm):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model, tokenizer = minilm
    theirs = transformers.BertModel.from_pretrained(parts.minilm())
    batch = tokenizer.encode_batch(MIXED)
    inputs = (batch.ids, batch.attention_mask, batch.token_type_ids)
    with torch.no_grad():
        ids, mask, types = (torch.from_numpy(x.astype(np.int64)) for x in inputs)
        expected = theirs(ids, mask, token_type_ids=types)
    with no_grad():
        found = model(*inputs)
    keep = batch.attention_mask
    for ours, reference in (
        (found.last_hidden_state.numpy()[keep], expected.last_hidden_state.numpy()[keep]),
        (found.pooler_output.numpy(), expected.pooler_output.numpy()),
    ):
        np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_minilm_tokenizer(minilm):
    transformers = pytest.importorskip("transformers")
    _, tokenizer = minilm
    theirs = transformers.AutoTokenizer.from_pretrained(parts.minilm())
    from_vocabulary = Tokenizer.load(parts.minilm() / "vocab.txt")
    for text in MIXED:
        expected = theirs(text)["input_ids"]
        assert tokenizer.encode(text) == expected
        assert from_vocabulary.encode(text) == expected
    assert tokenizer.encode("a", "b") == theirs("a", "b")["input_ids"]


@pytest.mark.slow
def test_gpt2_tokenizer():
    tokenizer = Tokenizer.load(parts.gpt2_tokenizer())
    assert tokenizer.vocab_size == 50257 and tokenizer.eos_id == 50256
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.encode("naïve café") == [2616, 38776, 40304]
    for text in MIXED:
        assert tokenizer.decode(tokenizer.encode(text)) == text
        assert "".join(tokenizer.stream(tokenizer.encode(text))) == text


@pytest.mark.slow
def test_smollm2_weights_equal_the_gguf_package():
    gguf = pytest.importorskip("gguf")
    checkpoint = open_checkpoint(parts.smollm2())
    tensors = gguf.GGUFReader(parts.smollm2()).tensors
    assert len(tensors) == len(checkpoint) == 272
    for tensor in tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(checkpoint[tensor.name].ravel(), expected.ravel())


@pytest.mark.slow
def test_smollm2_logits_equal_transformers(smollm2):
    """Weights through the reference's own GGUF reading, not through ours."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    pytest.importorskip("gguf")
    model, tokenizer = smollm2
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    settings = load_gguf_checkpoint(str(parts.smollm2()))["config"]
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings)).eval()
    read = load_gguf_checkpoint(str(parts.smollm2()), return_tensors=True, model_to_load=theirs)
    keys = theirs.load_state_dict(read["tensors"], strict=False)
    assert not keys.unexpected_keys and keys.missing_keys in ([], ["lm_head.weight"])
    theirs.tie_weights()
    for text in ("The capital of France is", "Once upon a time, 12 dogs"):
        ids = np.array([tokenizer.encode(text)])
        with torch.no_grad():
            expected = theirs(torch.from_numpy(ids)).logits.numpy()
        with no_grad():
            found = model(ids).logits.numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
    greedy = theirs.generate(
        torch.from_numpy(ids), max_new_tokens=12, do_sample=False, eos_token_id=2, pad_token_id=2
    )
    new = generate(model, ids.tolist(), GenerationOptions(12, eos_token_ids=(2,)))[0]
    assert new == greedy[0, ids.shape[1] :].tolist()


@pytest.mark.slow
def test_smollm2_answers_and_chats(smollm2):
    model, tokenizer = smollm2
    text = "".join(
        stream_text(model, tokenizer, "The capital of France is", GenerationOptions(4), stop=["."])
    )
    assert text == " Paris"
    messages = []
    for question, answer in (("What is the capital of France?", "Paris"), ("And Italy?", "Rome")):
        messages.append({"role": "user", "content": question})
        reply = "".join(stream_text(model, tokenizer, tokenizer.chat(messages)))
        assert answer in reply and "<|im_end|>" not in reply
        messages.append({"role": "assistant", "content": reply})


@pytest.mark.slow
def test_smollm2_tokenizer(smollm2):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    _, tokenizer = smollm2
    theirs = transformers.AutoTokenizer.from_pretrained(
        parts.smollm2().parent, gguf_file=parts.smollm2().name
    )
    for text in MIXED:
        assert tokenizer.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
    framed = "<|im_start|>user\nHi<|im_end|>\n"
    assert tokenizer.encode(framed)[0] == 1
    assert tokenizer.decode(tokenizer.encode(framed)) == "user\nHi\n"


@pytest.mark.slow
def test_dinov2_features_equal_onnxruntime():
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    model = ViT.from_pretrained(parts.dinov2())
    assert (model.config.image_size, model.config.patch_size) == (518, 14)
    graph = onnx.load(parts.dinov2())
    outputs = [n.output[0] for n in graph.graph.node if n.name.startswith("/backbone/layernorm")]
    graph.graph.output.append(onnx.helper.make_tensor_value_info(outputs[-1], 1, None))
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    images = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)
    expected = session.run([outputs[-1]], {"input_image": images})[0]
    with no_grad():
        found = model(images).last_hidden_state.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_whisper_writes_down_speech():
    directory = parts.whisper()
    model, tokenizer = load_model(directory), load_tokenizer(directory)
    assert isinstance(model, Whisper)
    settings = json.loads((directory / "config.json").read_text())
    for name, text in (
        ("Front_Center", "Front, center."),
        ("Front_Left", "Front, left."),
        ("Front_Right", "Front, right."),
        ("Side_Right", "Side, right."),
    ):
        sound = load_wav(parts.speech() / f"{name}.wav")
        assert transcribe(model, tokenizer, sound, settings=settings) == [text]


@pytest.mark.slow
def test_whisper_features_equal_transformers():
    transformers = pytest.importorskip("transformers")
    from minitransformer.data.audio import log_mel

    sound = load_wav(parts.speech() / "Front_Center.wav")
    extractor = transformers.WhisperFeatureExtractor()
    expected = extractor(sound, sampling_rate=16000, return_tensors="np")["input_features"][0]
    # theirs works in float32 and takes the logarithm of what is nearly nothing
    np.testing.assert_allclose(log_mel(sound), expected, rtol=0, atol=1e-4)
