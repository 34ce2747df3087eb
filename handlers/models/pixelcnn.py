"""The gated PixelCNN: p(x) as a product over pixels in reading order, each given those before it.

A vertical stack sees the rows above, a horizontal stack the pixels to the left; what leaves is, for every pixel, a
mixture of logistics over finitely many levels, its outer bins open to infinity, so that log p(x) is exact. A table adds
what the class says of each place. Sampling inverts the discrete law itself. One step of a draw is a run of pixels
within a row: the features of the rows above are computed once, then the horizontal stack goes from pixel to pixel with
what it computed to the left. The state is the pixels, -1 where none is drawn yet. No layer mixes the rows of a batch.

Sources: van den Oord et al., "Conditional image generation with PixelCNN decoders", 2016, section 2 and equations 4, 5;
Salimans et al., "PixelCNN++", 2017, section 2.1 and equation 2 (the mixture); Ramachandran et al., "Fast generation for
convolutional autoregressive models", 2017 (caches).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from fount.address import Stream
from handlers.discrete import draw_values
from handlers.family import Deadline, Draw, Given, Noise
from handlers.stepping import sample_in_steps

__all__ = ["GatedPixelCnn", "PixelCnnConfig", "level_log_law", "level_log_probability"]

_UP, _SIDE, _LEFT = 2, 2, 2  # rows above, columns to each side, and pixels to the left that a layer sees
_LEAST_ROWS = 4  # of a batch when drawing: matrix products of fewer rows are rounded differently
_LEAST_LOG_SCALE = -7.0
_LEAST_PROBABILITY = 1e-300  # of a level when drawing, so that logarithms are finite


@dataclass(frozen=True, kw_only=True)
class PixelCnnConfig:
    """The shape of a gated PixelCNN.

    Attributes:
        height: pixels.
        width: pixels, divisible by run.
        channels: of the images, 1.
        classes: 0 for an unconditional model.
        features: channels of both stacks.
        blocks: gated layers of each stack after its first layer.
        components: logistics in the mixture of a pixel.
        levels: values of a pixel, evenly spaced in [0, 1].
        run: pixels drawn in a step.
    """

    height: int
    width: int
    channels: int
    classes: int
    features: int
    blocks: int
    components: int
    levels: int
    run: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        known, begin = {field.name for field in fields(cls)}, "gated-pixelcnn configuration"
        if wrong := sorted(set(config) ^ known):
            raise ValueError(f"{begin} has unknown or missing keys {wrong}; it takes {sorted(known)}")
        for key, value in config.items():
            least = {"classes": 0, "levels": 2}.get(key, 1)
            if type(value) is not int or value < least:
                raise ValueError(f"{begin}: {key} is {value!r}, must be a whole number of {least} or more")
        if config["channels"] != 1:
            raise ValueError(f"{begin}: channels is {config['channels']}, must be 1")
        if config["width"] % config["run"]:
            raise ValueError(f"{begin}: width is {config['width']}, must be divisible by run")
        return cls(**config)


def level_log_probability(mixture: Tensor, levels: Tensor, count: int) -> Tensor:
    """Compute the log-probability of one level of each pixel.

    The mass of a bin between edges b < a is σ(a) - σ(b) = σ(a) σ(-b) (1 - exp(b - a)), whose factors lose no digits.

    Args:
        mixture: (..., 3 K): logits, means in [-1, 1] and log scales of K logistics.
        levels: (...) int64, 0 to count - 1.
        count: of levels.

    Returns:
        (...) nats, of the mixture's type.

    Source: Salimans et al. 2017, equation 2.
    """
    logits, means, inverse_scales = _read_mixture(mixture)
    half = 1 / (count - 1)
    centres = (2 * half * levels - 1).to(mixture.dtype)[..., None]
    above = functional.logsigmoid((centres + half - means) * inverse_scales)
    below = functional.logsigmoid((means - centres + half) * inverse_scales)
    middle = above + below + torch.log(-torch.expm1(-2 * half * inverse_scales))
    lowest, highest = (levels == 0)[..., None], (levels == count - 1)[..., None]
    bins = torch.where(lowest, above, torch.where(highest, below, middle))
    return torch.logsumexp(functional.log_softmax(logits, dim=-1) + bins, dim=-1)


def level_log_law(mixture: Tensor, count: int) -> Tensor:
    """Compute the log-probabilities of all levels of one pixel of each row.

    Args:
        mixture: (B, 3 K) as in `level_log_probability`.
        count: of levels.

    Returns:
        (B, count) float64, finite.
    """
    logits, means, inverse_scales = _read_mixture(mixture.double())
    half = 1 / (count - 1)
    edges = torch.arange(1, count, dtype=torch.float64, device=mixture.device).mul_(2 * half).sub_(1 + half)
    x = (edges - means[..., None]) * inverse_scales[..., None]  # (B, K, count - 1)
    weights = torch.softmax(logits, dim=-1)
    inner = weights * -torch.expm1(-2 * half * inverse_scales)
    below, above = torch.sigmoid(x), torch.sigmoid(-x)  # of the edges, both without loss of digits
    middle = inner[..., None] * below[..., 1:] * above[..., :-1]
    bins = torch.cat([weights[..., None] * below[..., :1], middle, weights[..., None] * above[..., -1:]], dim=2)
    return bins.sum(dim=1).clamp_min_(_LEAST_PROBABILITY).log_()


def _read_mixture(mixture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split a mixture into logits, means and inverse scales, each (..., K)."""
    logits, means, log_scales = mixture.chunk(3, dim=-1)
    return logits, means, torch.exp(-log_scales.clamp_min(_LEAST_LOG_SCALE))


class _Block(nn.Module):
    """One gated layer of both stacks.

    Source: van den Oord et al. 2016, figure 2; with a skip connection in the vertical stack, too.
    """

    def __init__(self, features: int, labels: int) -> None:
        super().__init__()
        gates = 2 * features
        self.vertical = nn.Conv2d(features, gates, (_UP + 1, 2 * _SIDE + 1))
        self.horizontal = nn.Linear((_LEFT + 1) * features, gates, bias=False)
        self.link = nn.Linear(gates, gates)
        self.skip = nn.Linear(features, features, bias=False)
        self.vertical_label = nn.Embedding(labels, gates)
        self.horizontal_label = nn.Embedding(labels, gates)
        nn.init.normal_(self.vertical_label.weight, std=0.1)
        nn.init.normal_(self.horizontal_label.weight, std=0.1)


class GatedPixelCnn(nn.Module):
    """A gated PixelCNN of grey pictures, conditional on a class, or on none, or unconditional."""

    discrete: ClassVar[bool] = True

    def __init__(self, config: PixelCnnConfig) -> None:
        super().__init__()
        self.config = config
        features, labels = config.features, config.classes + 1  # the last: no class
        self.vertical_input = nn.Conv2d(2, features, (_UP + 1, 2 * _SIDE + 1))
        self.horizontal_input = nn.Linear((_LEFT + 1) * 2, features)
        self.blocks = nn.ModuleList(_Block(features, labels) for _ in range(config.blocks))
        self.places = nn.Embedding(labels, config.height * config.width * features)
        self.hidden = nn.Linear(features, features)
        self.output = nn.Linear(features, 3 * config.components)
        nn.init.zeros_(self.places.weight)
        with torch.no_grad():
            self.output.weight.mul_(0.1)
            _, means, log_scales = self.output.bias.chunk(3)
            means.copy_(torch.linspace(-1, 1, config.components))
            log_scales.fill_(-2.0)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module with untrained weights.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(PixelCnnConfig.read(config))

    def forward(self, levels: Tensor, labels: Tensor) -> Tensor:
        """Compute the mixture of every pixel from those before it.

        Args:
            levels: (B, 1, H, W) int64.
            labels: (B,) int64, `classes` for no class.

        Returns:
            (B, H, W, 3 components).
        """
        x = self._embed(levels)
        v = self.vertical_input(functional.pad(x, (_SIDE, _SIDE, _UP + 1, 0))[:, :, :-1])
        h = self.horizontal_input(_left_windows(x.permute(0, 2, 3, 1), before=_LEFT + 1)[:, :, :-1])
        h = h + self._place_features()[labels]
        for block in self.blocks:
            assert isinstance(block, _Block)
            a = block.vertical(functional.pad(v, (_SIDE, _SIDE, _UP, 0)))
            b = block.horizontal(_left_windows(h, before=_LEFT))
            b = b + block.link(a.permute(0, 2, 3, 1)) + block.horizontal_label(labels)[:, None, None]
            h = h + block.skip(_gate(b, dim=-1))
            if block is not self.blocks[-1]:
                v = v + _gate(a + block.vertical_label(labels)[:, :, None, None], dim=1)
        return self._head(h)

    def log_likelihood(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute log p(x|y) of images rounded to the model's levels, all pixels at once.

        Args:
            images: (B, 1, H, W) in [0, 1].
            labels: (B,) int64, `classes` for no class.

        Returns:
            (B,) float64 nats.
        """
        levels = self._nearest_levels(images)
        mixture = self.forward(levels, labels).double()
        return level_log_probability(mixture, levels[:, 0], self.config.levels).sum(dim=(1, 2))

    def score(self, images: Tensor, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Compute log p(x|y), or log p(x) without labels, (B, 1) nats, exact."""
        return self.log_likelihood(images, self._label_indices(labels, images))[:, None]

    def steps(self, draw: Draw) -> int:
        """Return the number of runs of a picture."""
        return self.config.height * self.config.width // self.config.run

    def probe(self) -> tuple[Draw, tuple[int, ...]]:
        """Return the first step, the start of a row in the middle, and the last step: all run the same shapes."""
        row_steps = self.config.width // self.config.run
        return Draw(), tuple(sorted({0, self.config.height // 2 * row_steps, self.steps(Draw()) - 1}))

    def begin(self, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return (B, 1, H, W) of -1: nothing is drawn yet."""
        shape = (len(noise.addresses), self.config.channels, self.config.height, self.config.width)
        return torch.full(shape, -1.0, device=noise.device)

    def begin_given(self, given: Given, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Return the given pixels, in [0, 1], and -1 elsewhere; those after drawn ones are kept, but not seen."""
        begun = self.begin(noise, labels, draw)
        values = given.values.to(begun)
        return values if given.mask is None else torch.where(given.mask > 0, values, begun)

    def advance(self, state: Tensor, step: int, noise: Noise, labels: Tensor | None, draw: Draw) -> Tensor:
        """Draw the pixels of one run that are not given, from left to right."""
        config = self.config
        row, first = divmod(step * config.run, config.width)
        known = state[:, 0, row, first : first + config.run]
        if bool((known >= 0).all()):
            return state
        uniforms = noise.uniform(Stream.STEP, config.run, step=step)
        indices = self._label_indices(labels, state)
        levels = self._nearest_levels(state)
        passes = [_Row(self, levels, row, first, indices)]
        scale = 1.0 if draw.guidance_scale is None or labels is None else draw.guidance_scale
        if scale != 1:
            passes.append(_Row(self, levels, row, first, torch.full_like(indices, config.classes)))
        drawn = []
        for place in range(config.run):
            law = passes[0].log_law()
            if scale != 1:
                law_without = passes[1].log_law()
                law = law_without + scale * (law - law_without)
            level = draw_values(law, uniforms[:, place], draw)
            value = torch.where(known[:, place] >= 0, known[:, place], level / (config.levels - 1))
            drawn.append(value)
            if place + 1 < config.run:
                for each in passes:
                    each.append(self._nearest_levels(value))
        result = state.clone()
        result[:, 0, row, first : first + config.run] = torch.stack(drawn, dim=1)
        return result

    def finish(self, state: Tensor) -> Tensor:
        """Return the pixels, (B, 1, H, W) in [0, 1]; those that were never drawn are 0."""
        return state.clamp_min(0)

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one image for each row (see `Sampler.sample`)."""
        return sample_in_steps(self, noise, labels, draw, deadline)

    def _label_indices(self, labels: Tensor | None, like: Tensor) -> Tensor:
        """Return the row of the label tables for each row of a batch, (B,) int64."""
        if labels is None:
            return torch.full((len(like),), self.config.classes, dtype=torch.int64, device=like.device)
        if not self.config.classes:
            raise ValueError("a model without classes takes no labels")
        return labels

    def _nearest_levels(self, values: Tensor) -> Tensor:
        """Round values in [0, 1] to levels, int64; -1, which is not drawn yet, to 0."""
        return (values.float() * (self.config.levels - 1)).round().clamp(0, self.config.levels - 1).long()

    def _place_features(self) -> Tensor:
        """Return what each class adds to the horizontal stack at each pixel, (classes + 1, H, W, features)."""
        return self.places.weight.view(-1, self.config.height, self.config.width, self.config.features)

    def _embed(self, levels: Tensor) -> Tensor:
        """Scale levels, (B, 1, ...), to [-1, 1], and add a channel of ones, which padding lacks: (B, 2, ...)."""
        x = (levels * (2 / (self.config.levels - 1)) - 1).to(self.output.weight.dtype)
        return torch.cat([x, torch.ones_like(x)], dim=1)

    def _head(self, h: Tensor) -> Tensor:
        """Compute mixtures from features of the horizontal stack, (..., features) to (..., 3 components)."""
        mixture: Tensor = self.output(functional.relu(self.hidden(functional.relu(h))))
        return mixture


class _Row:
    """The walk along one row: features of the rows above for all its pixels, and of the pixels to the left so far.

    Every step runs the same shapes, wherever its row is: features of rows above the picture are computed and set to 0.
    """

    def __init__(self, model: GatedPixelCnn, levels: Tensor, row: int, first: int, labels: Tensor) -> None:
        """Compute everything that pixels before (row, first) determine.

        Args:
            model: with weights.
            levels: (B, 1, H, W) int64; those after (row, first) are not read.
            row: of the run.
            first: column of its first pixel.
            labels: (B,) int64, `classes` for no class.
        """
        self._model, self._column, self._rows = model, first, len(levels)
        self._blocks = [block for block in model.blocks if isinstance(block, _Block)]
        self._above = self._see_rows_above(levels, row, labels)
        self._places = model._place_features()[labels, row]  # (B, W, features)
        rows = max(len(levels), _LEAST_ROWS)
        if rows > len(levels):
            repeats = torch.arange(rows, device=levels.device) % len(levels)
            levels, self._above = levels[repeats], [above[repeats] for above in self._above]
            self._places = self._places[repeats]
        x = model._embed(levels[:, :, row, :first]).transpose(1, 2)  # (B, 2, first) -> (B, first, 2), to the left
        self._pixels = x.new_zeros(rows, model.config.width + _LEFT + 1, 2)
        self._features = [x.new_zeros(rows, model.config.width + _LEFT, model.config.features) for _ in self._blocks]
        if first:
            self._pixels[:, _LEFT + 1 : _LEFT + 1 + first] = x
            h = model.horizontal_input(_windows(self._pixels, first)) + self._places[:, :first]
            for block, features, above in zip(self._blocks, self._features, self._above, strict=True):
                features[:, _LEFT : _LEFT + first] = h
                b = block.horizontal(_windows(features, first)) + above[:, :first]
                h = h + block.skip(_gate(b, dim=-1))

    def log_law(self) -> Tensor:
        """Compute the log-probabilities of all levels of the next pixel, (B, levels) float64."""
        model, column = self._model, self._column
        h = model.horizontal_input(self._pixels[:, column : column + _LEFT + 1].flatten(1)) + self._places[:, column]
        for block, features, above in zip(self._blocks, self._features, self._above, strict=True):
            features[:, column + _LEFT] = h
            left = features[:, column : column + _LEFT + 1].flatten(1)
            b = torch.addmm(above[:, column], left, block.horizontal.weight.t())
            h = torch.addmm(h, _gate(b, dim=-1), block.skip.weight.t())
        return level_log_law(model._head(h)[: self._rows], model.config.levels)

    def append(self, levels: Tensor) -> None:
        """Add the pixel that was drawn, (B,) int64."""
        self._pixels[: self._rows, self._column + _LEFT + 1] = self._model._embed(levels[:, None])
        self._column += 1

    def _see_rows_above(self, levels: Tensor, row: int, labels: Tensor) -> list[Tensor]:
        """Compute what each block of the horizontal stack gets from above and from the class, (B, W, 2 features)."""
        model, blocks = self._model, self._blocks
        seen = _UP * len(blocks) + _UP + 1  # rows above that a pixel depends on
        x = model._embed(levels[:, :, max(row - seen, 0) : row])
        v = model.vertical_input(functional.pad(x, (_SIDE, _SIDE, seen - x.shape[2], 0)))
        above = []
        for number, block in enumerate(blocks, start=1):
            v[:, :, : max(v.shape[2] - 1 - row, 0)] = 0  # rows above the picture
            a = block.vertical(functional.pad(v, (_SIDE, _SIDE)))
            linked = block.link(a[:, :, -1].transpose(1, 2))  # (B, 2F, W) -> (B, W, 2F)
            above.append(linked + block.horizontal_label(labels)[:, None])
            if number < len(blocks):
                v = v[:, :, _UP:] + _gate(a + block.vertical_label(labels)[:, :, None, None], dim=1)
        return above


def _gate(values: Tensor, dim: int) -> Tensor:
    """Multiply tanh of the first half of the channels with σ of the second half.

    Source: van den Oord et al. 2016, equation 2.
    """
    signal, gate = values.chunk(2, dim=dim)
    return torch.tanh(signal) * torch.sigmoid(gate)


def _left_windows(values: Tensor, before: int) -> Tensor:
    """Join each pixel with those to its left: (B, H, W, F) to (B, H, W + before - _LEFT, (_LEFT + 1) F)."""
    return _windows(functional.pad(values, (0, 0, before, 0)), values.shape[2] + before - _LEFT)


def _windows(padded: Tensor, count: int) -> Tensor:
    """Join each of the first pixels with those to its left: (..., W + _LEFT, F) to (..., count, (_LEFT + 1) F)."""
    return torch.cat([padded[..., shift : shift + count, :] for shift in range(_LEFT + 1)], dim=-1)
