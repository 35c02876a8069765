"""Token for token what `transformers` generates from the same weights."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
import transformers

from minitransformer.autograd import no_grad
from minitransformer.models.generation import GenerationOptions, generate
from minitransformer.models.gpt import GPT
from minitransformer.models.llama import Llama
from minitransformer.models.transformer import Transformer

from .compare import load_from, randomise
from .test_parity import padded, seq2seq_sizes

pytestmark = pytest.mark.slow  # `transformers` is installed for the slow tests only

SEARCHES = [
    {},
    {"repetition_penalty": 1.3},
    {"num_beams": 2},
    {"num_beams": 4, "early_stopping": True},
    {"num_beams": 3, "length_penalty": 2.0},
    {"num_beams": 3, "length_penalty": 0.0, "repetition_penalty": 1.2},
    {"num_beams": 3, "length_penalty": -1.0},
]
END, LENGTH = 2, 14


def decoder_pair(kind, directory):
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=40, n_positions=64, n_embd=24, n_layer=2, n_head=3
        )
        theirs, ours = transformers.GPT2LMHeadModel(config), GPT
    else:
        config = transformers.LlamaConfig(
            vocab_size=40,
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=30,
            max_position_embeddings=64,
        )
        theirs, ours = transformers.LlamaForCausalLM(config), Llama
    randomise(theirs.eval(), 0)
    theirs.tie_weights()
    return theirs, load_from(theirs, ours, directory)


def cut(rows, prompt_length):
    """New tokens up to and with the end token."""
    rows = [row[prompt_length:] for row in rows.tolist()]
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("search", SEARCHES)
def test_decoder(kind, search, tmp_path):
    theirs, ours = decoder_pair(kind, tmp_path)
    for seed in range(4):
        rng = np.random.default_rng(seed)
        ids = rng.integers(3, 40, (3, int(rng.integers(1, 7))))
        mask = padded(rng, ids.shape, "left")
        expected = theirs.generate(
            torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            max_new_tokens=LENGTH,
            do_sample=False,
            eos_token_id=END,
            pad_token_id=END,
            **search,
        )
        prompts = [row[m == 1].tolist() for row, m in zip(ids, mask)]
        if search.get("repetition_penalty"):
            # theirs also punishes the token that stands in for padding
            keep = [i for i, m in enumerate(mask) if m.all()]
            expected, prompts = expected[keep], [prompts[i] for i in keep]
        options = GenerationOptions(LENGTH, eos_token_ids=(END,), **search)
        assert generate(ours, prompts, options) == cut(expected, ids.shape[1])


@pytest.mark.parametrize("search", SEARCHES)
def test_encoder_decoder(search, tmp_path):
    rng = np.random.default_rng(1)
    config = transformers.BartConfig(**seq2seq_sizes(rng))
    theirs = transformers.BartForConditionalGeneration(config).eval()
    randomise(theirs, 1)
    theirs.tie_weights()
    ours = load_from(theirs, Transformer, tmp_path)
    source = rng.integers(3, config.vocab_size, (3, 8))
    mask = padded(rng, source.shape)
    expected = theirs.generate(
        torch.from_numpy(source),
        attention_mask=torch.from_numpy(mask),
        max_new_tokens=LENGTH,
        do_sample=False,
        **search,
    )
    with no_grad():
        memory = ours.encode(source, mask)
    options = GenerationOptions(LENGTH, eos_token_ids=(END,), **search)
    prompts = [[config.decoder_start_token_id]] * 3
    new = generate(ours, prompts, options, memory=memory, memory_mask=mask)
    assert new == cut(expected, 1)
