import json

import numpy as np
import pytest

from minitransformer import nn
from minitransformer.autograd import no_grad
from minitransformer.models.auto import load_model
from minitransformer.models.bert import Bert, BertConfig, BertForMaskedLM
from minitransformer.models.checkpoint import (
    CheckpointError,
    open_checkpoint,
    verify_directory,
    write_safetensors,
)
from minitransformer.models.gpt import GPT, GPTConfig
from minitransformer.models.inspection import describe
from minitransformer.models.llama import Llama, LlamaConfig
from minitransformer.models.pretrained import Take
from minitransformer.models.transformer import Transformer, TransformerConfig
from minitransformer.models.vit import ViT, ViTConfig
from minitransformer.models.whisper import Whisper, WhisperConfig

IDS = np.array([[1, 2, 3, 4]])
SIZES = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "d_ff": 12}
BERT = BertConfig(20, 8, 2, 8, 2, 2, 12)
MODELS = {
    "gpt": (lambda: GPT(GPTConfig(20, 8, 8, 2, 2)), (IDS,)),
    "gpt1": (lambda: GPT(GPTConfig(20, 8, 8, 2, 2, post_norm=True)), (IDS,)),
    "untied": (lambda: GPT(GPTConfig(20, 8, 8, 2, 2, tie_word_embeddings=False)), (IDS,)),
    "bert": (lambda: Bert(BERT), (IDS,)),
    "masked": (lambda: BertForMaskedLM(BERT), (IDS,)),
    "llama": (lambda: Llama(LlamaConfig(20, 8, 8, 2, 12, 4, 2)), (IDS,)),
    "vit": (
        lambda: ViT(ViTConfig(8, 4, 3, 8, 2, 2, 12, layer_scale=0.5, num_labels=3)),
        (np.ones((1, 3, 8, 8), np.float32),),
    ),
    "transformer": (
        lambda: Transformer(TransformerConfig(20, 8, **SIZES, final_logits_bias=True)),
        (IDS, None, IDS),
    ),
    "whisper": (
        lambda: Whisper(WhisperConfig(20, 4, 6, 8, **SIZES, pad_token_id=0)),
        (np.ones((1, 4, 12), np.float32), IDS),
    ),
}


@pytest.fixture(params=MODELS)
def case(request):
    build, inputs = MODELS[request.param]
    model = build().eval()
    for _, tensor in model._saved_tensors().items():
        noise = np.random.default_rng(len(tensor.array)).standard_normal(tensor.shape)
        tensor.array = (0.3 * noise + (tensor.array == 1)).astype(np.float32)
    return model, inputs


def run(model, inputs):
    with no_grad():
        out = model(*inputs)
    found = out.logits if out.logits is not None else out.last_hidden_state
    return found.numpy()


def test_saved_and_loaded_computes_the_same(case, tmp_path):
    model, inputs = case
    model.save_pretrained(tmp_path / "m", {"tokenizer.json": "{}"})
    verify_directory(tmp_path / "m")
    again = load_model(tmp_path / "m")
    assert type(again) is type(model) and again.config == model.config
    assert not again.training
    np.testing.assert_array_equal(run(again, inputs), run(model, inputs))
    arrays = model._saved_tensors()
    for name, tensor in again._saved_tensors().items():
        np.testing.assert_array_equal(tensor.array, arrays[name].array)
        assert tensor.array.flags.writeable and tensor.array.flags.c_contiguous


def test_float64(case, tmp_path):
    model, _ = case
    model.save_pretrained(tmp_path / "m")
    again = type(model).from_pretrained(tmp_path / "m", dtype="float64")
    assert {p.array.dtype for p in again.parameters()} == {np.dtype("float64")}


def damaged(tmp_path, change):
    """A saved GPT whose arrays went through `change`."""
    model = MODELS["gpt"][0]()
    model.save_pretrained(tmp_path / "m")
    checkpoint = open_checkpoint(tmp_path / "m")
    arrays = {name: checkpoint[name] for name in checkpoint}
    change(arrays)
    write_safetensors(arrays, tmp_path / "m" / "model.safetensors")
    return tmp_path / "m"


def test_missing_unexpected_and_misshapen_are_named(tmp_path):
    def change(arrays):
        del arrays["wpe.weight"]
        arrays["extra"] = np.zeros(2)
        arrays["ln_f.bias"] = np.zeros(3)

    path = damaged(tmp_path, change)
    with pytest.raises(CheckpointError) as caught:
        GPT.from_pretrained(path)
    message = str(caught.value)
    for part in ("missing 1: wpe.weight", "unexpected 1: extra", "misshapen 1: ln_f.bias is (8,)"):
        assert part in message
    with pytest.raises(CheckpointError, match="misshapen"):
        GPT.from_pretrained(path, strict=False)


def test_missing_parameters_start_anew_where_that_is_asked_for(tmp_path):
    def change(arrays):
        del arrays["wpe.weight"], arrays["ln_f.weight"]

    path = damaged(tmp_path, change)
    model = GPT.from_pretrained(path, strict=False)
    assert model.load_report.missing == ["wpe.weight", "ln_f.weight"]
    assert 0.005 < model.wpe.weight.array.std() < 0.05
    assert (model.ln_f.weight.array == 1).all()
    assert "missing 2" in str(model.load_report)


def test_integer_weights_are_refused_and_nothing_is_half_loaded(tmp_path):
    path = damaged(tmp_path, lambda arrays: arrays.update({"ln_f.bias": np.zeros(8, np.int32)}))
    model = MODELS["gpt"][0]()
    before = {name: p.array.copy() for name, p in model.named_parameters()}
    with pytest.raises(CheckpointError, match="int32"):
        model.load_checkpoint(open_checkpoint(path), own=True)
    for name, p in model.named_parameters():
        np.testing.assert_array_equal(p.array, before[name])


def test_shapes_are_compared_before_an_array_is_read(tmp_path, monkeypatch):
    from minitransformer.models.checkpoint import Entry

    path = damaged(tmp_path, lambda arrays: arrays.update({"ln_f.bias": np.zeros(9)}))
    monkeypatch.setattr(Entry, "read", lambda self: pytest.fail("an array was read"))
    with pytest.raises(CheckpointError, match="misshapen"):
        GPT.from_pretrained(path)


@pytest.mark.parametrize(
    "settings",
    [
        {"n_layer": 1 << 20}, {"n_layer": -1}, {"n_layer": "two"}, {"n_layer": None},
        {"n_embd": 1 << 26}, {"n_embd": 7}, {"vocab_size": 1 << 26}, {"vocab_size": 0},
        {"vocab_size": True}, {"layer_norm_epsilon": "small"}, {"layer_norm_epsilon": None},
        {"dropout": [1]}, {"nothing": 1}, {"activation": "mystery"}, {"band": 0.5},
    ],
)  # fmt: skip
def test_hostile_configurations(settings, tmp_path):
    MODELS["gpt"][0]().save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    content = json.loads(file.read_text())
    content["config"].update(settings)
    file.write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        GPT.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize(
    "content",
    [
        {}, {"model_type": "gpt2"}, {"model_type": "t5"}, {"model_type": ["gpt2"]},
        {"minitransformer": "1", "class": "Nothing"}, {"minitransformer": "1", "class": "GPT"},
        {"minitransformer": "1", "class": "GPT", "config": 3}, {"architectures": 3},
        {"model_type": "bert", "architectures": ["BertForMaskedLM"], "hidden_act": []},
        {"model_type": "llama", "rope_parameters": 3},
    ],
)  # fmt: skip
def test_bad_configuration_files(content, tmp_path):
    MODELS["gpt"][0]().save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        load_model(tmp_path / "m")


def test_the_wrong_class_is_named(tmp_path):
    MODELS["gpt"][0]().save_pretrained(tmp_path / "m")
    with pytest.raises(CheckpointError, match="saved from GPT, not Llama"):
        Llama.from_pretrained(tmp_path / "m")


def test_take():
    array = np.arange(24.0).reshape(4, 6)
    assert Take("a", axes=(1, 0)).apply(array).shape == (6, 4)
    np.testing.assert_array_equal(Take("a", part=1, parts=2).apply(array), array[2:])
    turned = Take("a", rotary_heads=1).apply(array)
    np.testing.assert_array_equal(turned, array[[0, 2, 1, 3]])
    joined = Take("b", before="a")
    assert joined.apply(array[None], array[None]).shape == (1, 8, 6)
    cases = [
        (Take("a", axes=(1, 0)), (4, 6)), (Take("a", shape=(24,)), (4, 6)),
        (Take("a", part=1, parts=2, rotary_heads=1), (4, 6)), (Take("a"), ()),
        (Take("a", axes=(0, 2, 1), shape=(2, 12)), (2, 3, 4)),
    ]  # fmt: skip
    for take, shape in cases:
        assert take.result_shape(shape) == take.apply(np.zeros(shape)).shape
    for take, shape in [
        (Take("a", axes=(1, 0)), (4,)), (Take("a", shape=(5,)), (4,)),
        (Take("a", parts=3), (4, 6)), (Take("a", rotary_heads=3), (4, 6)), (Take("a", parts=2), ()),
    ]:  # fmt: skip
        assert take.result_shape(shape) is None
    assert joined.result_shape((1, 4, 6), (1, 2, 6)) == (1, 6, 6)
    assert joined.result_shape((1, 4, 6), (2, 2, 6)) is None


def test_every_model_gives_its_states_and_attention_by_name(case):
    model, inputs = case
    with no_grad():
        out = model(*inputs, output_hidden_states=True, output_attentions=True)
        plain = model(*inputs)
    assert out.attentions and out.hidden_states
    for weights in (*out.attentions, *(out.cross_attentions or ())):
        assert weights.ndim == 4
        np.testing.assert_allclose(weights.numpy().sum(-1), 1, rtol=1e-5)
    assert plain.attentions is None and plain.hidden_states is None
    scale = np.abs(plain.last_hidden_state.numpy()).max()
    np.testing.assert_allclose(
        out.last_hidden_state.numpy(), plain.last_hidden_state.numpy(), atol=2e-5 * scale
    )


def test_hooks_see_every_linear_layer(case):
    """Also those that are otherwise inside one fused kernel."""
    model, inputs = case
    before, seen = run(model, inputs), {}
    names = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and "lm_head" not in name
    }

    def watch(name):
        def hook(module, args, out):
            seen[name] = out.shape

        model.get_submodule(name).register_forward_hook(hook)

    for name in names:
        watch(name)
    after = run(model, inputs)
    assert set(seen) == names
    np.testing.assert_allclose(after, before, atol=2e-5 * np.abs(before).max())


def test_inspection_counts(case, tmp_path):
    model, _ = case
    model.save_pretrained(tmp_path / "m")
    report = describe(tmp_path / "m", arrays=True)
    assert report["parameters"] == model.num_parameters()
    assert report["architecture"] == type(model).__name__
    assert len(report["arrays"]) == len(model._saved_tensors())
    assert report["flops_per_token"] > 0


def test_flops_of_a_gpt_by_hand(tmp_path):
    MODELS["gpt"][0]().save_pretrained(tmp_path / "m")
    report = describe(tmp_path / "m")
    per_layer = 8 * 24 + 8 * 8 + 8 * 32 + 32 * 8
    assert report["flops_per_token"] == 2 * (2 * per_layer + 8 * 20)
    assert report["flops_per_token_of_context"] == 2 * (2 * 8 + 2 * 8)
    assert report["cache_bytes_per_token"] == 2 * 2 * 8 * 4


def test_bad_inputs_of_models():
    model = MODELS["gpt"][0]()
    with pytest.raises(ValueError, match="9 tokens, the model has 8 positions"):
        model(np.ones((1, 9), np.int64))
    with pytest.raises(IndexError, match="table of 20 rows"):
        model(np.full((1, 2), 20))
    with pytest.raises(IndexError):
        model(np.full((1, 2), -1))
    with pytest.raises(TypeError, match="integers"):
        model(np.ones((1, 2)))
    with pytest.raises(ValueError, match="batch, length"):
        model(np.ones(3, np.int64))
    with pytest.raises(ValueError, match="attention_mask"):
        model(IDS, np.ones((1, 3)))
    vit = MODELS["vit"][0]()
    for shape in [(1, 3, 9, 8), (1, 1, 8, 8), (3, 8, 8), (1, 3, 0, 8)]:
        with pytest.raises(ValueError, match="multiples of 4"):
            vit(np.zeros(shape, np.float32))
    whisper = MODELS["whisper"][0]()
    with pytest.raises(ValueError, match="spectrograms are"):
        whisper(np.zeros((1, 4, 11), np.float32), IDS)
    with pytest.raises(ValueError, match="give decoder_input_ids or labels"):
        MODELS["transformer"][0]()(IDS)


def test_gpt3_band():
    """Layer 1 sees the nearest three tokens; layer 0 all before it."""
    model = GPT(GPTConfig(20, 8, 8, 2, 2, band=3)).eval()
    with no_grad():
        first, second = model(np.arange(8)[None], output_attentions=True).attentions
    seen = np.tri(8, dtype=bool)
    assert ((first.numpy()[0] > 0) == seen).all()
    assert ((second.numpy()[0] > 0) == (seen & ~np.tri(8, k=-3, dtype=bool))).all()


def test_tiny_checkpoint_fuzz(tmp_path):
    """One bit flipped at 300 places of a saved model's files: refused, or a model."""
    MODELS["gpt"][0]().save_pretrained(tmp_path / "m")
    rng = np.random.default_rng(0)
    refused = 0
    for name in ("config.json", "model.safetensors"):
        file = tmp_path / "m" / name
        whole = file.read_bytes()
        header = min(len(whole), 2500)
        for position in rng.integers(0, header * 8, 150):
            flipped = bytearray(whole)
            flipped[position // 8] ^= 1 << int(position % 8)
            file.write_bytes(flipped)
            try:
                load_model(tmp_path / "m")
            except CheckpointError:
                refused += 1
        file.write_bytes(whole)
    assert refused > 100
