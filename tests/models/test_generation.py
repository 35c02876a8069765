import numpy as np
import pytest

from minitransformer import manual_seed
from minitransformer.autograd import Tensor, is_grad_enabled, no_grad
from minitransformer.models.generation import (
    GenerationOptions,
    generate,
    keep_likely,
    stream,
    stream_text,
)
from minitransformer.models.gpt import GPT, GPTConfig
from minitransformer.models.layers import KeyValueCache
from minitransformer.models.llama import Llama, LlamaConfig
from minitransformer.models.transformer import Transformer, TransformerConfig

VOCABULARY = 23


def gpt(**more):
    config = {"vocab_size": VOCABULARY, "n_positions": 40, "n_embd": 12, "n_layer": 2, "n_head": 3}
    return GPT(GPTConfig(**{**config, "initializer_range": 0.5, **more})).eval()


def llama():
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 20}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.5}
    return Llama(LlamaConfig(VOCABULARY, 40, **sizes, **heads)).eval()


MODELS = {
    "gpt2": gpt,
    "gpt1": lambda: gpt(post_norm=True),
    "gpt3": lambda: gpt(band=3),
    "llama": llama,
}


@pytest.fixture(params=MODELS)
def model(request):
    manual_seed(0)
    return MODELS[request.param]()


PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10, 11]]


def test_the_cache_gives_the_uncached_result(model):
    cached = generate(model, PROMPTS, GenerationOptions(12))
    plain = generate(model, PROMPTS, GenerationOptions(12, use_cache=False))
    assert cached == plain
    assert all(len(new) == 12 for new in cached)


def test_cached_logits_equal_the_full_forward(model):
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (2, 9))
    with no_grad():
        full = model(ids).logits.numpy()
        cache, parts = KeyValueCache(9), []
        for begin, end in ((0, 4), (4, 5), (5, 9)):
            parts.append(model(ids[:, begin:end], cache=cache).logits.numpy())
    stepwise = np.concatenate(parts, axis=1)
    np.testing.assert_allclose(stepwise, full, rtol=0, atol=1e-5 * np.abs(full).max())


def test_a_batch_of_unequal_prompts_equals_each_alone(model):
    for options in (GenerationOptions(10), GenerationOptions(10, temperature=0.9, seed=3)):
        alone = generate(model, PROMPTS[:1], options)
        together = generate(model, PROMPTS, options)
        assert together[0] == alone[0]
    for prompt, new in zip(PROMPTS, generate(model, PROMPTS, GenerationOptions(10))):
        assert generate(model, [prompt], GenerationOptions(10)) == [new]


def test_later_tokens_change_nothing_before_them(model):
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (1, 8))
    other = ids.copy()
    other[0, 5] = (other[0, 5] + 1) % VOCABULARY
    with no_grad():
        first, second = model(ids).logits.numpy(), model(other).logits.numpy()
    np.testing.assert_array_equal(first[:, :5], second[:, :5])
    assert (first[:, 5:] != second[:, 5:]).any()


def test_the_end_token_ends_a_row_and_is_given_out(model):
    whole = generate(model, PROMPTS, GenerationOptions(12))
    end = whole[0][4]
    ended = generate(model, PROMPTS, GenerationOptions(12, eos_token_ids=(end,)))
    for new, free in zip(ended, whole):
        cut = free.index(end) + 1 if end in free else 12
        assert new == free[:cut]


def test_seeds_reproduce_and_differ(model):
    def draw(seed):
        return generate(model, PROMPTS, GenerationOptions(10, temperature=1.5, seed=seed))

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    manual_seed(5)
    first = draw(None)
    second = draw(None)
    manual_seed(5)
    assert draw(None) == first
    assert first != second


def test_streaming_equals_generating(model):
    options = GenerationOptions(8, temperature=0.7, seed=1)
    assert list(stream(model, PROMPTS[0], options)) == generate(model, PROMPTS[:1], options)[0]


def test_nothing_is_recorded_and_the_mode_does_not_leak(model):
    model.train()
    tokens = stream(model, [1], GenerationOptions(3))
    next(tokens)
    assert is_grad_enabled()
    generate(model, [[1]], GenerationOptions(2))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_top_k_of_one_is_greedy(model):
    greedy = generate(model, PROMPTS, GenerationOptions(8))
    for options in (
        GenerationOptions(8, temperature=5.0, top_k=1, seed=0),
        GenerationOptions(8, temperature=5.0, top_p=1e-9, seed=0),
    ):
        assert generate(model, PROMPTS, options) == greedy


def test_suppressed_tokens_never_appear(model):
    greedy = generate(model, PROMPTS, GenerationOptions(8))
    hidden = tuple({row[0] for row in greedy})
    new = generate(model, PROMPTS, GenerationOptions(8, suppress=hidden))
    assert not set(hidden) & {token for row in new for token in row}
    first = generate(model, PROMPTS, GenerationOptions(8, suppress_first=hidden))
    assert not set(hidden) & {row[0] for row in first}


def test_draws_follow_the_probabilities():
    """10,000 draws from known probabilities: within four deviations of each."""
    from minitransformer.models.generation import _draw

    probability = np.array([0.5, 0.25, 0.15, 0.1])
    random = np.random.default_rng(0)
    options = GenerationOptions(1, temperature=1.0)
    drawn = [_draw(np.log(probability), options, random) for _ in range(10000)]
    share = np.bincount(drawn, minlength=4) / 10000
    assert (np.abs(share - probability) < 4 * np.sqrt(probability / 10000)).all()
    options = GenerationOptions(1, temperature=1.0, top_k=2)
    drawn = [_draw(np.log(probability), options, random) for _ in range(2000)]
    assert set(drawn) == {0, 1}


@pytest.mark.slow
def test_keep_likely_agrees_with_transformers():
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    rng = np.random.default_rng(0)
    for top_k, top_p in [(0, 0.3), (5, 1.0), (5, 0.7), (1, 0.5), (100, 0.99), (0, 1e-6)]:
        scores = rng.standard_normal(50).astype(np.float32) * 3
        expected = torch.from_numpy(scores[None])
        if top_k:
            expected = transformers.TopKLogitsWarper(top_k)(None, expected)
        if top_p < 1:
            expected = transformers.TopPLogitsWarper(top_p)(None, expected)
        np.testing.assert_array_equal(keep_likely(scores, top_k, top_p), expected[0].numpy())


def exhaustive(model, prompt, length):
    """The most likely continuation of all there are."""
    import itertools

    continuations = list(itertools.product(range(VOCABULARY), repeat=length))
    ids = np.array([[*prompt, *c] for c in continuations])
    with no_grad():
        logits = model(ids).logits.numpy().astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    at = len(prompt) - 1
    score = sum(logp[np.arange(len(ids)), at + i, ids[:, at + i + 1]] for i in range(length))
    return list(continuations[int(score.argmax())])


def test_a_wide_beam_search_is_exhaustive(model):
    options = GenerationOptions(2, num_beams=VOCABULARY)
    assert generate(model, [[1, 2]], options) == [exhaustive(model, [1, 2], 2)]


def test_beam_search_cached_equals_uncached(model):
    options = {"num_beams": 3, "length_penalty": 0.8, "eos_token_ids": (4, 5)}
    cached = generate(model, PROMPTS, GenerationOptions(9, **options))
    assert cached == generate(model, PROMPTS, GenerationOptions(9, use_cache=False, **options))


def test_encoder_decoder_generation():
    manual_seed(0)
    sizes = {"d_model": 12, "encoder_layers": 1, "decoder_layers": 2, "heads": 3, "d_ff": 20}
    model = Transformer(TransformerConfig(VOCABULARY, 30, **sizes, initializer_range=0.4)).eval()
    source, mask = np.array([[3, 4, 5, 6], [7, 8, 0, 0]]), np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    with no_grad():
        memory = model.encode(source, mask)
        alone = model.encode(source[1:, :2])
    for more in ({}, {"num_beams": 3}):
        options = GenerationOptions(8, **more)
        both = generate(model, [[1], [1]], options, memory=memory, memory_mask=mask)
        plain = GenerationOptions(8, use_cache=False, **more)
        assert both == generate(model, [[1], [1]], plain, memory=memory, memory_mask=mask)
        assert generate(model, [[1]], options, memory=alone)[0] == both[1]


def test_prompts_longer_than_the_context():
    model = gpt()
    with pytest.raises(ValueError, match="ask for at most 11 new tokens"):
        generate(model, [[1] * 30], GenerationOptions(20))
    with pytest.raises(ValueError, match="shorten the prompt"):
        generate(model, [[1] * 60], GenerationOptions(1))
    assert len(generate(model, [[1] * 30], GenerationOptions(11))[0]) == 11
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        generate(model, [[1], []])
    assert generate(model, []) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")},
        {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}, {"repetition_penalty": 0.0},
        {"num_beams": 0}, {"num_beams": 2, "temperature": 1.0},
        {"length_penalty": float("inf")},
    ],
)  # fmt: skip
def test_bad_options(wrong):
    with pytest.raises(ValueError):
        GenerationOptions(**wrong)


def test_a_full_cache_is_an_error():
    cache = KeyValueCache(3)
    x = Tensor(np.zeros((1, 1, 4, 2), np.float32))
    with pytest.raises(ValueError, match="holds 3 tokens, 4 are needed"):
        cache.extend(0, x, x)


class Letters:
    """A tokenizer of one letter per token, to see the text of every step."""

    eos_id, bos_id = None, 0

    def encode(self, text):
        return [ord(c) - 97 for c in text]

    def stream(self, ids):
        return (chr(97 + i) for i in ids)


def test_stop_sequences():
    pytest.importorskip("tokenizers")
    model, options = gpt(), GenerationOptions(10)
    whole = "".join(stream_text(model, Letters(), "abc", options))
    assert len(whole) == 10
    for begin in range(8):
        stop = whole[begin : begin + 3]
        pieces = list(stream_text(model, Letters(), "abc", options, stop=["@@", stop]))
        assert "".join(pieces) == whole[: whole.find(stop)]
    never = list(stream_text(model, Letters(), "abc", options, stop=["@"]))
    assert "".join(never) == whole
    held = list(stream_text(model, Letters(), "abc", options, stop=[whole[-1] + "@"]))
    assert "".join(held) == whole
    with pytest.raises(ValueError, match="stop sequence is empty"):
        list(stream_text(model, Letters(), "abc", options, stop=[""]))
    assert "".join(stream_text(model, Letters(), "", options))
