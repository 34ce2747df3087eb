"""Causal transformers: of pictures as a raster scan of patches, and of text as bytes.

log p(x) = Σ log p(x_t | x_<t, y), each factor a softmax over the values of a token. A picture is quantised to a few
grey levels, and a square patch of it is one token: the likelihood is exact for the quantised picture. Text is a row of
bytes.

A step draws `run` tokens. It computes keys and values of all tokens before it in one pass, then of one token at a time,
and keeps none for the next step: a pass over many tokens rounds otherwise than passes over single ones, so a draw that
is resumed from its state alone would have other bytes than an uninterrupted one. No layer mixes the rows of a batch.

Sources: Vaswani et al., "Attention is all you need", 2017; Radford et al., "Language models are unsupervised multitask
learners", 2019 (normalisation before each part, scale of initial weights); Chen et al., "Generative pretraining from
pixels", 2020 (raster scan of quantised pictures); Ho and Salimans, "Classifier-free diffusion guidance", 2022 (applied
to logits).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.discrete import draw_values
from handlers.family import Deadline, Draw, Given, Noise
from handlers.stepping import sample_in_steps

__all__ = ["CausalTransformer", "ImageConfig", "ImageTransformer", "TextConfig", "TextTransformer"]

_INITIAL_SCALE = 0.02
_BYTES = 256
_MOST_VALUES = 4096  # of a token
_FEWEST_VECTORS = 8  # multiplied by a dense layer together
_FORBIDDEN = -1e4  # added to the logits of bytes outside the alphabet; finite, so that such texts have finite scores


@dataclass(frozen=True, kw_only=True)
class _Config:
    """What both families have.

    Attributes:
        layers: blocks of attention and dense layers.
        features: width of every token's vector, divisible by `heads`.
        heads: of the attention.
        run: tokens drawn in a step.
    """

    layers: int
    features: int
    heads: int
    run: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known = {each.name for each in fields(cls)}
        needed = {each.name for each in fields(cls) if each.default is MISSING}
        if wrong := sorted((set(config) - known) | (needed - set(config))):
            raise ValueError(f"transformer configuration has unknown or missing keys {wrong}; it takes {sorted(known)}")
        for key, value in config.items():
            least = 0 if key == "classes" else 1
            if key == "alphabet":
                is_right, requirement = type(value) is str and "\0" not in value, "a string without the character 0"
            else:
                is_right, requirement = type(value) is int and value >= least, f"a whole number from {least}"
            if not is_right:
                raise ValueError(f"transformer configuration: {key} is {value!r}, must be {requirement}")
        for key, divisor in (("features", "heads"), ("height", "patch"), ("width", "patch")):
            if key in config and config[key] % config[divisor]:
                raise ValueError(f"transformer configuration: {key} is {config[key]}, must be divisible by {divisor}")
        return cls(**config)


@dataclass(frozen=True, kw_only=True)
class ImageConfig(_Config):
    """The shape of a transformer of pictures.

    Attributes:
        height: pixels, divisible by `patch`.
        width: pixels, divisible by `patch`.
        channels: of the pictures.
        patch: side of the square of pixels that is one token.
        levels: of each pixel, 2 or more.
        classes: 0 for an unconditional model.
    """

    height: int
    width: int
    channels: int
    patch: int
    levels: int
    classes: int = 0


@dataclass(frozen=True, kw_only=True)
class TextConfig(_Config):
    """The shape of a transformer of text.

    Attributes:
        length: bytes of every sample, and the most of a scored text.
        alphabet: the characters whose UTF-8 bytes may be drawn; empty for all bytes but 0, which is padding.
    """

    length: int
    alphabet: str = ""


class _Dense(nn.Linear):
    """A dense layer; few vectors are multiplied as part of more, because kernels round a single one differently."""

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer, (..., in) -> (..., out)."""
        vectors = input.flatten(0, -2)
        if (count := len(vectors)) >= _FEWEST_VECTORS:
            return super().forward(input)
        more = vectors.repeat(-(-_FEWEST_VECTORS // count), 1)
        return super().forward(more)[:count].reshape(*input.shape[:-1], self.out_features)


class _Block(nn.Module):
    """Attention to all earlier tokens, then dense layers on each token; both add to their input."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(features)
        self.keys_and_values = _Dense(features, 2 * features)
        self.queries = _Dense(features, features)
        self.attention_output = _Dense(features, features)
        self.dense_norm = nn.LayerNorm(features)
        self.dense_input = _Dense(features, 4 * features)
        self.dense_output = _Dense(4 * features, features)

    def keep(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute what later tokens read: normalised x (B, N, F), keys and values (B, heads, N, F / heads)."""
        normal = self.attention_norm(x)
        keys, values = self.keys_and_values(normal).chunk(2, dim=2)
        return normal, self._split(keys), self._split(values)

    def forward(self, x: Tensor, normal: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Compute the last N tokens of M, all or one, from x and `keep` of it (Vaswani et al. 2017, equation 1)."""
        queries = self._split(self.queries(normal))
        mixed = nn.functional.scaled_dot_product_attention(queries, keys, values, is_causal=x.shape[1] > 1)
        x = x + self.attention_output(mixed.transpose(1, 2).flatten(2))  # (B, N, heads, F / heads) -> (B, N, F)
        return torch.add(x, self.dense_output(nn.functional.gelu(self.dense_input(self.dense_norm(x)))))

    def _split(self, x: Tensor) -> Tensor:
        """Split features into heads: (B, N, F) -> (B, heads, N, F / heads)."""
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class CausalTransformer(nn.Module, ABC):
    """The base of both families: their network, draws by steps, and scores.

    A state is the picture or the text itself, with -1 where nothing is drawn yet.
    """

    discrete: ClassVar[bool] = True
    has_padding: ClassVar[bool] = False
    bias: Tensor

    def __init__(self, config: _Config, *, tokens: int, values: int) -> None:
        super().__init__()
        self.tokens, self.values, self.run = tokens, values, config.run
        self.embedding = nn.Embedding(values, config.features)
        self.start = nn.Parameter(torch.empty(1, config.features))  # stands before the first token
        self.blocks = nn.ModuleList(_Block(config.features, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.features)
        self.head = _Dense(config.features, values)
        self.register_buffer("bias", torch.zeros(values), persistent=False)

    @classmethod
    @abstractmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights; errors as in `read` of its configuration."""

    def _set_initial_weights(self) -> None:
        """Draw initial weights; outputs of blocks add up, so theirs are smaller (Radford et al. 2019, section 2.3)."""
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                is_output = name.endswith(("attention_output.weight", "dense_output.weight"))
                scale = _INITIAL_SCALE / math.sqrt(2 * len(self.blocks)) if is_output else _INITIAL_SCALE
                nn.init.normal_(parameter, std=scale)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @abstractmethod
    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Read pictures or texts, with -1 where nothing is drawn, (B, ...) in the model's value range.

        Returns:
            (B, T) int64 tokens, 0 where nothing is drawn; (B, T) bool, whether a token is drawn or given.
        """

    @abstractmethod
    def _write(self, tokens: Tensor) -> Tensor:
        """Turn tokens, (B, T) int64, into rows of the state, (B, ...) float32."""

    @abstractmethod
    def _positions(self, labels: Tensor | None) -> Tensor:
        """Return the vector of each position, (B or 1, T, F): of the token predicted there, not of the one before."""

    def _logits_of(self, x: Tensor) -> Tensor:
        """Compute logits from the blocks' output, (..., F) -> (..., values)."""
        return torch.add(self.head(self.norm(x)), self.bias)

    def _inputs(self, tokens: Tensor, labels: Tensor | None) -> Tensor:
        """Embed the start and the first N tokens, (B, N) -> (B, N + 1, F)."""
        vectors = torch.cat([self.start.expand(len(tokens), 1, -1), self.embedding(tokens)], dim=1)
        return vectors + self._positions(labels)[:, : vectors.shape[1]]

    def logits(self, tokens: Tensor, labels: Tensor | None) -> Tensor:
        """Compute the logits of every token, (B, T, values), given those before it; labels as in `log_likelihood`."""
        x = self._inputs(tokens[:, :-1], labels)
        for block in self.blocks:
            assert isinstance(block, _Block)
            x = block(x, *block.keep(x))
        return self._logits_of(x)

    def _extend(self, x: Tensor, cache: list[tuple[Tensor, Tensor]]) -> Tensor:
        """Compute the logits of the token after N more, (B, values), and keep their keys and values.

        Args:
            x: (B, N, F) inputs, of one token unless the cache is empty.
            cache: of each block, keys and values of the tokens before, (B, heads, M, F / heads); it is extended.
        """
        for depth, block in enumerate(self.blocks):
            assert isinstance(block, _Block)
            normal, keys, values = block.keep(x)
            if depth < len(cache):
                keys, values = torch.cat([cache[depth][0], keys], dim=2), torch.cat([cache[depth][1], values], dim=2)
            cache[depth : depth + 1] = [(keys, values)]
            if depth == len(self.blocks) - 1:  # of the last block, only the last token's output is read
                x, normal = x[:, -1:], normal[:, -1:]
            x = block(x, normal, keys, values)
        return self._logits_of(x[:, 0])

    def steps(self, draw: Draw) -> int:
        """Return the number of runs of tokens (see `SteppedSampler.steps`)."""
        return -(-self.tokens // self.run)

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return rows in which nothing is drawn (see `SteppedSampler.begin`)."""
        tokens = torch.zeros(len(noise.addresses), self.tokens, dtype=torch.int64, device=noise.device)
        return torch.full_like(self._write(tokens), -1.0)

    def begin_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return rows with the given values (see `GivenStepsSampler.begin_given`); tokens given in part are drawn."""
        values = given.values.float()
        return values if given.mask is None else torch.where(given.mask > 0, values, -1.0)

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Draw the tokens of a step that are not given (see `SteppedSampler.advance`).

        Guidance moves logits away from those without a class, which are computed in a pass of their own.
        """
        tokens, is_given = self._read(state)
        start, stop = step * self.run, min((step + 1) * self.run, self.tokens)
        if bool(is_given[:, start:stop].all()):
            return state
        uniforms = noise.uniform(Stream.STEP, stop - start, step=step)  # (B, run)
        guidance = 1.0 if draw.guidance_scale is None or labels is None else draw.guidance_scale
        passes = [labels] if guidance == 1 else [labels, None]
        inputs = [self._inputs(tokens[:, :start], each) for each in passes]
        positions = [self._positions(each) for each in passes]
        caches: list[list[tuple[Tensor, Tensor]]] = [[] for _ in passes]
        for position in range(start, stop):
            found = [self._extend(x, cache) for x, cache in zip(inputs, caches, strict=True)]
            logits = found[0] if guidance == 1 else found[1] + guidance * (found[0] - found[1])
            values = draw_values(logits, uniforms[:, position - start], draw)
            tokens[:, position] = torch.where(is_given[:, position], tokens[:, position], values)
            if position + 1 < stop:
                vectors = self.embedding(tokens[:, position, None])  # (B, 1, F)
                inputs = [vectors + each[:, position + 1, None] for each in positions]
        is_given[:, :start], is_given[:, stop:] = True, True  # or left out
        drawn = self._write((~is_given).long() * (self.values - 1)) > 0  # the last value has no 0 in it
        return torch.where(drawn, self._write(tokens), state)

    def finish(self, state: Tensor) -> Tensor:
        """Return the pictures or texts; what was never drawn is 0."""
        return state.clamp(min=0)

    def probe(self) -> tuple[Draw, tuple[int, ...]]:
        """Return the first, the middle and the last step (see `ManyStepSampler.probe`)."""
        steps = self.steps(Draw())
        return Draw(), tuple(sorted({0, steps // 2, steps - 1}))

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one picture or text for each row (see `Sampler.sample`)."""
        return sample_in_steps(self, noise, labels, draw, deadline)

    def log_likelihood(self, values: Tensor, labels: Tensor | None) -> Tensor:
        """Compute log p(x|y), (B,) nats.

        Args:
            values: (B, ...) pictures or texts in the model's value range.
            labels: (B,) int64, the number of classes for no class; None for no class of all rows.
        """
        tokens = self._read(values)[0]
        logits = self.logits(tokens, labels).flatten(0, 1)  # (B, T, values) -> (B·T, values)
        losses = nn.functional.cross_entropy(logits, tokens.flatten(), reduction="none").view_as(tokens)
        if self.has_padding:  # zeros at the end of a row
            losses = losses * (tokens.flip(1).cumsum(dim=1).flip(1) > 0)
        return -losses.sum(dim=1)

    def score(self, images: Tensor, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Compute the exact log-likelihood, (B, 1) nats (see `Scorer.score`); nothing is drawn."""
        deadline.check()
        return self.log_likelihood(images, labels)[:, None]


class ImageTransformer(CausalTransformer):
    """A transformer of pictures in [0, 1], row by row of patches.

    A place is described by its row, its column, and what the class adds to it.
    """

    place_values: Tensor

    def __init__(self, config: ImageConfig) -> None:
        grid, digits = (config.height // config.patch, config.width // config.patch), config.channels * config.patch**2
        if not 2 <= (values := config.levels ** min(digits, _MOST_VALUES)) <= _MOST_VALUES:
            wrong = f"levels is {config.levels}, must be 2 or more, its power of channels·patch² up to {_MOST_VALUES}"
            raise ValueError(f"transformer configuration: {wrong}")
        super().__init__(config, tokens=math.prod(grid), values=values)
        self.grid, self.digits = grid, digits
        self.config = config
        self.row_positions = nn.Parameter(torch.empty(self.grid[0], config.features))
        self.column_positions = nn.Parameter(torch.empty(self.grid[1], config.features))
        self.class_positions = nn.Embedding(config.classes + 1, self.tokens * config.features)  # the last: no class
        self.register_buffer("place_values", config.levels ** torch.arange(digits), persistent=False)
        self._set_initial_weights()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module, as in the base; errors as in `ImageConfig.read`, and for tokens of too many values."""
        return cls(ImageConfig.read(config))

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        config = self.config
        # (B, C, H, W) -> (B, C, R, p, columns, p) -> (B, R, columns, C, p, p) -> (B, T, C·p·p)
        cut = rows.reshape(len(rows), config.channels, self.grid[0], config.patch, self.grid[1], config.patch)
        patches = cut.permute(0, 2, 4, 1, 3, 5).reshape(len(rows), self.tokens, self.digits)
        levels = (patches * (config.levels - 1)).round().clamp(0, config.levels - 1).long()
        return (levels * self.place_values).sum(dim=2), (patches >= 0).all(dim=2)

    def _write(self, tokens: Tensor) -> Tensor:
        config = self.config
        levels = tokens[:, :, None] // self.place_values % config.levels  # (B, T, C·p·p)
        cut = levels.reshape(len(tokens), *self.grid, config.channels, config.patch, config.patch)
        # (B, R, columns, C, p, p) -> (B, C, R, p, columns, p) -> (B, C, H, W)
        joined = cut.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), config.channels, config.height, config.width)
        return joined.float() / (config.levels - 1)

    def _positions(self, labels: Tensor | None) -> Tensor:
        grid = (self.row_positions[:, None] + self.column_positions).flatten(0, 1)  # (R, columns, F) -> (T, F)
        classes = self.class_positions.weight[-1:] if labels is None else self.class_positions(labels)
        return torch.add(grid, classes.view(-1, *grid.shape))


class TextTransformer(CausalTransformer):
    """A transformer of bytes: rows of (B, length) values from 0 to 255, without classes."""

    has_padding = True

    def __init__(self, config: TextConfig) -> None:
        super().__init__(config, tokens=config.length, values=_BYTES)
        self.text_positions = nn.Parameter(torch.empty(config.length, config.features))
        allowed = set(config.alphabet.encode() or range(1, _BYTES))
        self.bias[[byte for byte in range(_BYTES) if byte not in allowed]] = _FORBIDDEN
        self._set_initial_weights()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights; errors as in `TextConfig.read`."""
        return cls(TextConfig.read(config))

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows.round().clamp(0, _BYTES - 1).long(), rows >= 0

    def _write(self, tokens: Tensor) -> Tensor:
        return tokens.float()

    def _positions(self, labels: Tensor | None) -> Tensor:
        return self.text_positions[None]
