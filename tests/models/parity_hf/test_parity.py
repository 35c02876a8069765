"""Random configurations against `transformers`: states, logits, loss, every gradient."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from minitransformer.models.bert import (
    Bert,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
)
from minitransformer.models.gpt import GPT
from minitransformer.models.llama import Llama
from minitransformer.models.transformer import Transformer, position_table
from minitransformer.models.vit import ViT
from minitransformer.models.whisper import Whisper

from .compare import compare, load_from, randomise

pytestmark = pytest.mark.slow  # `transformers` is installed for the slow tests only

SEEDS = range(4)
STATES = {"hidden_states": "hidden_states", "last_hidden_state": "last_hidden_state"}
WEIGHTS = {"attentions": "attentions"}


def build(theirs_class, ours_class, config, directory, seed, attention="eager"):
    config._attn_implementation = attention  # only "eager" returns attention weights
    theirs = theirs_class(config)
    randomise(theirs, seed)
    theirs.tie_weights()
    return theirs, load_from(theirs, ours_class, directory)


def tokens(rng, vocabulary, batch=None, length=None):
    shape = (batch or int(rng.integers(1, 4)), length or int(rng.integers(2, 12)))
    return rng.integers(1, vocabulary, shape)


def padded(rng, shape, side="right"):
    """A mask of 1 at tokens with at least one token in each row."""
    mask = np.ones(shape, dtype=np.int64)
    for row in mask[1:]:
        count = int(rng.integers(0, shape[1]))
        if count:
            row[-count:] = 0
    return mask if side == "right" else mask[:, ::-1].copy()


def causal_loss(labels):
    """Their own loss rounds the logits to float32 first; this one keeps their dtype."""

    def loss(out):
        scores, target = out["logits"][:, :-1], torch.from_numpy(labels)[:, 1:]
        return torch.nn.functional.cross_entropy(scores.flatten(0, 1), target.flatten())

    return loss


def compare_causal(theirs, ours, ids, mask):
    """Logits, states, weights, loss and gradients, with or without padding."""
    inputs, keep, extra = {"input_ids": ids}, None, {}
    labels = ids
    names = {"logits": "logits", "hidden_states": "hidden_states"}
    if theirs.config._attn_implementation == "eager":
        names["attentions"] = "attentions"
    options = {"output_hidden_states": True, "output_attentions": "attentions" in names}
    if mask is not None:
        keep, inputs["attention_mask"] = mask.astype(bool), mask
        labels = np.where(keep, ids, -100)
        extra["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)
    return compare(
        theirs,
        ours,
        {**inputs, **extra, **options},
        names,
        our_inputs={**inputs, **options, "labels": labels},
        keep=keep,
        prepare=exact_rotary,
        loss=causal_loss(labels),
    )


# A left-padded row may attend to nothing; only their fused form survives that without NaN.
PADDING = [(None, "eager"), ("right", "eager"), ("left", "sdpa")]


def ask(**inputs):
    return {**inputs, "output_hidden_states": True, "output_attentions": True}


def bert_config(rng):
    heads = int(rng.integers(1, 4))
    return transformers.BertConfig(
        vocab_size=int(rng.integers(20, 60)),
        hidden_size=heads * int(rng.integers(2, 9)),
        num_hidden_layers=int(rng.integers(1, 4)),
        num_attention_heads=heads,
        intermediate_size=int(rng.integers(5, 40)),
        max_position_embeddings=16,
        type_vocab_size=3,
        hidden_act=str(rng.choice(["gelu", "relu", "gelu_new"])),
        layer_norm_eps=float(rng.choice([1e-12, 1e-5])),
        id2label={i: str(i) for i in range(int(rng.integers(2, 5)))},
    )


def bert_inputs(rng, config):
    ids = tokens(rng, config.vocab_size)
    mask = padded(rng, ids.shape)
    types = rng.integers(0, 3, ids.shape)
    return ids, mask, {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}


@pytest.mark.parametrize("seed", SEEDS)
def test_bert_model(seed, tmp_path):
    rng = np.random.default_rng(seed)
    theirs, ours = build(transformers.BertModel, Bert, bert_config(rng), tmp_path, seed)
    _, mask, inputs = bert_inputs(rng, theirs.config)
    names = {**STATES, **WEIGHTS, "pooler_output": "pooler_output"}
    assert compare(theirs, ours, ask(**inputs), names, keep=mask.astype(bool)) >= 5


@pytest.mark.parametrize("seed", SEEDS)
def test_bert_for_masked_lm(seed, tmp_path):
    rng = np.random.default_rng(seed)
    config = bert_config(rng)
    theirs, ours = build(transformers.BertForMaskedLM, BertForMaskedLM, config, tmp_path, seed)
    ids, mask, inputs = bert_inputs(rng, config)
    labels = np.where((rng.random(ids.shape) < 0.5) & (mask == 1), ids, -100)
    labels[0, 0] = ids[0, 0]
    names = {"logits": "logits", "hidden_states": "hidden_states"}
    count = compare(theirs, ours, ask(**inputs, labels=labels), names, keep=mask.astype(bool))
    assert count > 15


@pytest.mark.parametrize("seed", SEEDS)
def test_bert_for_pre_training(seed, tmp_path):
    rng = np.random.default_rng(seed)
    config = bert_config(rng)
    theirs, ours = build(
        transformers.BertForPreTraining, BertForPreTraining, config, tmp_path, seed
    )
    ids, mask, inputs = bert_inputs(rng, config)
    extra = {"labels": ids, "next_sentence_label": rng.integers(0, 2, len(ids))}
    names = {"logits": "prediction_logits", "next_sentence_logits": "seq_relationship_logits"}
    compare(theirs, ours, ask(**inputs, **extra), names, keep=mask.astype(bool))


@pytest.mark.parametrize("seed", SEEDS)
def test_bert_for_sequence_classification(seed, tmp_path):
    rng = np.random.default_rng(seed)
    config = bert_config(rng)
    regression = seed == 3
    if regression:
        config.id2label = {0: "0"}
    theirs, ours = build(
        transformers.BertForSequenceClassification,
        BertForSequenceClassification,
        config,
        tmp_path,
        seed,
    )
    ids, _, inputs = bert_inputs(rng, config)
    labels = rng.integers(0, config.num_labels, len(ids))
    if regression:
        labels = rng.standard_normal(len(ids)).astype(np.float32)
    compare(theirs, ours, ask(**inputs, labels=labels), {"logits": "logits"})


@pytest.mark.parametrize("seed", SEEDS)
def test_bert_for_question_answering(seed, tmp_path):
    rng = np.random.default_rng(seed)
    config = bert_config(rng)
    config.id2label = {0: "start", 1: "end"}
    theirs, ours = build(
        transformers.BertForQuestionAnswering, BertForQuestionAnswering, config, tmp_path, seed
    )
    ids, mask, inputs = bert_inputs(rng, config)
    spans = {
        n: rng.integers(0, ids.shape[1] + 2, len(ids)) for n in ("start_positions", "end_positions")
    }
    spans["start_positions"][0] = spans["end_positions"][0] = 0
    names = {"start_logits": "start_logits", "end_logits": "end_logits"}
    compare(theirs, ours, ask(**inputs, **spans), names, keep=mask.astype(bool))


def gpt_config(rng, **more):
    heads = int(rng.integers(1, 4))
    return transformers.GPT2Config(
        vocab_size=int(rng.integers(20, 60)),
        n_positions=16,
        n_embd=heads * int(rng.integers(2, 9)),
        n_layer=int(rng.integers(1, 4)),
        n_head=heads,
        n_inner=int(rng.integers(5, 40)) if rng.random() < 0.5 else None,
        activation_function=str(rng.choice(["gelu_new", "relu", "gelu"])),
        bos_token_id=0,
        eos_token_id=0,
        **more,
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("padding", "attention"), PADDING)
def test_gpt2(seed, padding, attention, tmp_path):
    rng = np.random.default_rng(seed)
    config = gpt_config(rng)
    theirs, ours = build(transformers.GPT2LMHeadModel, GPT, config, tmp_path, seed, attention)
    ids = tokens(rng, config.vocab_size, batch=3)
    mask = padded(rng, ids.shape, padding) if padding else None
    assert compare_causal(theirs, ours, ids, mask) > 15


@pytest.mark.parametrize("seed", SEEDS)
def test_gpt1(seed, tmp_path):
    rng = np.random.default_rng(seed)
    config = transformers.OpenAIGPTConfig(
        vocab_size=31, n_positions=16, n_embd=12, n_layer=2, n_head=3
    )
    theirs, ours = build(transformers.OpenAIGPTLMHeadModel, GPT, config, tmp_path, seed)
    assert compare_causal(theirs, ours, tokens(rng, 31), None) > 15


def exact_rotary(model):
    """Their float64 model keeps the angles in float32; give it the formula in float64."""
    config = model.config
    if config.model_type != "llama":
        return
    size = config.head_dim or config.hidden_size // config.num_attention_heads
    theta = config.rope_parameters["rope_theta"]

    def forward(x, position_ids, *_, **__):
        half = torch.arange(0, size, 2, dtype=torch.float64) / size
        angle = position_ids[:, :, None].double() * theta**-half
        angle = torch.cat([angle, angle], dim=-1)
        return angle.cos().to(x.dtype), angle.sin().to(x.dtype)

    model.model.rotary_emb.forward = forward


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("padding", "attention"), PADDING)
def test_llama(seed, padding, attention, tmp_path):
    rng = np.random.default_rng(seed)
    groups, each = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    size = 2 * int(rng.integers(1, 5))
    config = transformers.LlamaConfig(
        vocab_size=int(rng.integers(20, 60)),
        hidden_size=groups * each * size,
        num_hidden_layers=int(rng.integers(1, 4)),
        num_attention_heads=groups * each,
        num_key_value_heads=groups,
        head_dim=size if rng.random() < 0.5 else 2 * size,
        intermediate_size=int(rng.integers(5, 40)),
        max_position_embeddings=16,
        rms_norm_eps=float(rng.choice([1e-6, 1e-5])),
        rope_theta=float(rng.choice([100.0, 10000.0])),
        tie_word_embeddings=bool(rng.random() < 0.5),
    )
    theirs, ours = build(transformers.LlamaForCausalLM, Llama, config, tmp_path, seed, attention)
    ids = tokens(rng, config.vocab_size, batch=3)
    mask = padded(rng, ids.shape, padding) if padding else None
    assert compare_causal(theirs, ours, ids, mask) > 12


def vit_sizes(rng):
    heads, patch = int(rng.integers(1, 4)), int(rng.integers(2, 5))
    return {
        "hidden_size": heads * int(rng.integers(2, 9)),
        "num_hidden_layers": int(rng.integers(1, 4)),
        "num_attention_heads": heads,
        "image_size": patch * int(rng.integers(2, 4)),
        "patch_size": patch,
        "num_channels": int(rng.integers(1, 4)),
        "qkv_bias": bool(rng.random() < 0.5),
        "id2label": {i: str(i) for i in range(3)},
    }


def pixels(rng, config, height=0, width=0):
    shape = (2, config.num_channels, height or config.image_size, width or config.image_size)
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("seed", SEEDS)
def test_vit_for_image_classification(seed, tmp_path):
    rng = np.random.default_rng(seed)
    config = transformers.ViTConfig(**vit_sizes(rng), intermediate_size=int(rng.integers(5, 40)))
    theirs, ours = build(transformers.ViTForImageClassification, ViT, config, tmp_path, seed)
    images = pixels(rng, config)
    names = {"logits": "logits", "attentions": "attentions"}
    inputs = ask(pixel_values=images, labels=rng.integers(0, 3, 2))
    assert compare(theirs, ours, inputs, names) > 15


@pytest.mark.parametrize("seed", SEEDS)
def test_dinov2_model(seed, tmp_path):
    rng = np.random.default_rng(seed)
    config = transformers.Dinov2Config(**vit_sizes(rng), mlp_ratio=3)
    theirs, ours = build(transformers.Dinov2Model, ViT, config, tmp_path, seed)
    grown = config.patch_size * int(rng.integers(1, 5))
    names = {**STATES, **WEIGHTS, "pooler_output": "pooler_output"}
    for height in (config.image_size, grown):  # also with resized positions
        inputs = ask(pixel_values=pixels(rng, config, height, config.image_size))
        assert compare(theirs, ours, inputs, names) > 4


@pytest.mark.parametrize("seed", SEEDS)
def test_dinov2_for_image_classification(seed, tmp_path):
    rng = np.random.default_rng(seed)
    config = transformers.Dinov2Config(**vit_sizes(rng), mlp_ratio=2)
    theirs, ours = build(transformers.Dinov2ForImageClassification, ViT, config, tmp_path, seed)
    inputs = ask(pixel_values=pixels(rng, config), labels=rng.integers(0, 3, 2))
    assert compare(theirs, ours, inputs, {"logits": "logits"}) > 15


def seq2seq_sizes(rng):
    heads = int(rng.integers(1, 4))
    inner = int(rng.integers(5, 40))
    return {
        "vocab_size": int(rng.integers(20, 60)),
        "d_model": heads * 2 * int(rng.integers(1, 5)),
        "encoder_layers": int(rng.integers(1, 3)),
        "decoder_layers": int(rng.integers(1, 3)),
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": inner,
        "decoder_ffn_dim": inner,
        "max_position_embeddings": 16,
        "activation_function": str(rng.choice(["gelu", "relu", "silu"])),
        "scale_embedding": bool(rng.random() < 0.5),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": None,
    }


def exact_positions(model):
    """Their table of sines was rounded to float32; give the float64 model the formula."""
    from minitransformer.models.transformer import TransformerConfig

    if model.config.model_type != "marian":
        return
    config = TransformerConfig(d_model=model.config.d_model, heads=1, positions="sinusoidal_halves")
    for side in (model.model.encoder, model.model.decoder):
        weight = side.embed_positions.weight
        table = torch.from_numpy(position_table(config, len(weight)))
        side.embed_positions.weight = torch.nn.Parameter(table, requires_grad=False)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["Marian", "Bart"])
def test_encoder_decoder(kind, seed, tmp_path):
    rng = np.random.default_rng(seed)
    sizes = seq2seq_sizes(rng)
    if kind == "Marian":
        config, theirs_class = transformers.MarianConfig(**sizes), transformers.MarianMTModel
    else:
        config = transformers.BartConfig(**sizes)
        theirs_class = transformers.BartForConditionalGeneration
    theirs = theirs_class(config)
    randomise(theirs, seed)
    if kind == "Marian":
        exact_positions(theirs)
        for side in (theirs.model.encoder, theirs.model.decoder):
            side.embed_positions.float()
    theirs.tie_weights()
    theirs.final_logits_bias.normal_(generator=torch.Generator().manual_seed(seed))
    theirs.config._attn_implementation = "eager"
    ours = load_from(theirs, Transformer, tmp_path)
    source, target = (tokens(rng, config.vocab_size, batch=3) for _ in range(2))
    mask = padded(rng, source.shape)
    target[0, -1] = -100
    inputs = ask(input_ids=source, attention_mask=mask, labels=target)
    names = {
        "logits": "logits",
        "hidden_states": "decoder_hidden_states",
        "attentions": "decoder_attentions",
        "cross_attentions": "cross_attentions",
    }
    count = compare(theirs, ours, inputs, names, prepare=exact_positions)
    assert count > 40


@pytest.mark.parametrize("seed", SEEDS)
def test_whisper(seed, tmp_path):
    rng = np.random.default_rng(seed)
    sizes = {k: v for k, v in seq2seq_sizes(rng).items() if k != "max_position_embeddings"}
    config = transformers.WhisperConfig(
        **{**sizes, "scale_embedding": False},
        num_mel_bins=int(rng.integers(2, 9)),
        max_source_positions=int(rng.integers(2, 9)),
        max_target_positions=16,
    )
    theirs, ours = build(
        transformers.WhisperForConditionalGeneration, Whisper, config, tmp_path, seed
    )
    sound = rng.standard_normal((3, config.num_mel_bins, 2 * config.max_source_positions))
    target = tokens(rng, config.vocab_size, batch=3)
    target[0, -1] = -100
    inputs = ask(input_features=sound.astype(np.float32), labels=target)
    names = {
        "logits": "logits",
        "hidden_states": "decoder_hidden_states",
        "attentions": "decoder_attentions",
        "cross_attentions": "cross_attentions",
        "encoder_attentions": "encoder_attentions",
        "encoder_last_hidden_state": "encoder_last_hidden_state",
    }
    assert compare(theirs, ours, inputs, names) > 40
