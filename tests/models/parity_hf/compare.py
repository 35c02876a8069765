"""One comparison for every model: the same weights here and in `transformers`.

The reference is the other library in float64; its own float32 run is the naive implementation of
the tolerance rule. Weights travel through a safetensors file and the model's own key map, so that
the map is tested too, and gradients come back through the same map.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import torch

from minitransformer.models.checkpoint import Checkpoint, write_safetensors
from tests.tolerance import assert_close


def randomise(model: torch.nn.Module, seed: int) -> None:
    """Weights of ordinary size everywhere: biases and norms start at 0 and 1 otherwise."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            one = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(noise * (0.2 if parameter.ndim == 1 else 0.3) + (1.0 if one else 0.0))


def load_from(theirs: torch.nn.Module, ours_class, directory, **settings):
    """Our model with the weights of theirs, through files as a user would have them."""
    arrays = {n: t.numpy() for n, t in theirs.state_dict().items()}
    directory.mkdir(exist_ok=True)
    write_safetensors(arrays, directory / "model.safetensors")
    config = {**theirs.config.to_dict(), "architectures": [type(theirs).__name__], **settings}
    (directory / "config.json").write_text(json.dumps(config))
    return ours_class.from_pretrained(directory)


def torch_inputs(inputs):
    return {n: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for n, v in inputs.items()}


def run_theirs(model, inputs, dtype):
    model = copy.deepcopy(model).to(dtype)
    inputs = {
        n: v.to(dtype) if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for n, v in torch_inputs(inputs).items()
    }
    out = model(**inputs)
    return model, out


def flat(value):
    """Pairs of a suffix and a tensor."""
    if value is None:
        return
    if isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from ((f"[{i}]{rest}", t) for rest, t in flat(item))
    else:
        yield "", value


def compare(
    theirs,
    ours,
    inputs,
    names,
    our_inputs=None,
    keep=None,
    prepare=lambda model: None,
    loss=lambda out: out["loss"],
):
    """Outputs called `names`, the loss and every gradient agree within the tolerance rule.

    `names` maps our output to theirs. `keep` (B, L) bool marks positions that are compared: what a
    padded position holds is nobody's business. `prepare` is given their float64 model; `loss` finds
    the loss of their output.
    """
    theirs.eval()
    ours.eval()
    exact_model = copy.deepcopy(theirs).to(torch.float64)
    prepare(exact_model)
    exact_model, exact = run_theirs(exact_model, inputs, torch.float64)
    naive_model, naive = run_theirs(theirs, inputs, torch.float32)
    found = ours(**(our_inputs or inputs))
    compared = 0

    def visible(array):
        if keep is None or array.shape[:2] != keep.shape:
            return array
        return array[keep]

    for our_name, their_name in names.items():
        mine = dict(flat(getattr(found, our_name)))
        truth = dict(flat(exact[their_name]))
        rough = dict(flat(naive[their_name]))
        assert mine.keys() == truth.keys() and mine, (our_name, mine.keys(), truth.keys())
        for suffix, tensor in mine.items():
            arrays = [t.detach().numpy() for t in (tensor, truth[suffix], rough[suffix])]
            if "attentions" in our_name:
                arrays = [a.transpose(0, 2, 1, 3) for a in arrays]  # (B, L, H, S)
            assert_close(*map(visible, arrays), name=our_name + suffix)
            compared += 1
    if found.loss is None:
        return compared
    losses = (found.loss, loss(exact), loss(naive))
    assert_close(*(t.detach().numpy() for t in losses), name="loss")
    for each in losses:
        each.backward()
    return compared + compare_gradients(exact_model, naive_model, ours)


def compare_gradients(exact_model, naive_model, ours) -> int:
    """Every parameter of ours against theirs, through the key map."""
    exact = dict(exact_model.named_parameters(remove_duplicate=False))
    naive = dict(naive_model.named_parameters(remove_duplicate=False))
    takes = ours.sources(Checkpoint(Path("theirs"), "safetensors", dict.fromkeys(exact)))
    seen, found = set(), {}
    for name, parameter in ours.named_parameters():
        take = takes[name]
        assert all(source in exact for source in take.names), (name, take)
        seen.update(take.names)
        if exact[take.names[0]].grad is None:
            assert parameter.grad is None or not parameter.grad.numpy().any(), name
            continue
        assert parameter.grad is not None, name
        grads = [
            parameter.grad.numpy(),
            take.apply(*(exact[s].grad.numpy() for s in take.names)),
            take.apply(*(naive[s].grad.numpy() for s in take.names)),
        ]
        if name.endswith(("key.weight", "k_proj.weight")):
            weights = grads
        elif name.endswith(("key.bias", "k_proj.bias")):
            # A key bias moves all scores of a query alike, so its gradient is zero and what is
            # found is rounding on the scale of the weight's gradient: judge the two together.
            pairs = zip(weights, grads)
            grads = [np.concatenate([weight.ravel(), bias]) for weight, bias in pairs]
        found[name] = grads
    left = {n for n, p in exact_model.named_parameters() if p.grad is not None} - seen
    assert not left, f"gradients of theirs that no parameter of ours has: {left}"
    # In a tensor of ten numbers deep in a model it is luck how far the naive run is off, so its
    # error is taken relative to each tensor's size and the worst tensor stands for all.
    worst = max(np.abs(n - e).max() / (np.abs(e).max() or 1.0) for _, e, n in found.values())
    for name, (ours_grad, truth, _) in found.items():
        pooled = (truth + worst * np.abs(truth).max()).astype(np.float32)
        assert_close(ours_grad, truth, pooled, "backward", name=f"d {name}")
    return len(found)
