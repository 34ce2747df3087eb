"""Mixtures of normals on the line and in the plane, sampled by inverting their distribution function.

The configuration is the law, p(x) = Σ_k π_k N(x; μ_k, Σ_k), so there is nothing to train and there are no weights.
A point is drawn coordinate by coordinate, each by one uniform u: x_1 solves F_1(x_1) = u_1, and x_2 solves
F_2(x_2|x_1) = u_2, where the second coordinate's law given the first is again a mixture, with the weights
π_k N(x_1; μ_k1, σ_k1²). Each equation is solved by bisection within the bounds of the points. Everything is computed in
float64 and rounded once; no row depends on another one.

Sources: Devroye, "Non-uniform random variate generation", 1986, section II.2 (inversion, bisection); Rosenblatt,
"Remarks on a multivariate transformation", 1952 (coordinate by coordinate).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from fount.address import Stream
from handlers.family import Deadline, Draw, Noise

__all__ = ["DensityConfig", "MixtureDensity"]

_BISECTIONS = 60  # halve bounds of 16 to 1e-17, below the spacing of float64 near 1
_MAX_LENGTH = 2
_LOG_2PI = math.log(2 * math.pi)
_SUM_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class DensityConfig:
    """A mixture of normals in one or two dimensions.

    Attributes:
        low: least value of a coordinate.
        high: largest value of a coordinate; points are drawn within both.
        weights: of the components, above 0, with the sum 1.
        means: of each component, one or two coordinates.
        deviations: of each component, the standard deviation of each coordinate, above 0.
        correlations: of each component's two coordinates, within -1 and 1; empty on the line.
    """

    low: float
    high: float
    weights: tuple[float, ...]
    means: tuple[tuple[float, ...], ...]
    deviations: tuple[tuple[float, ...], ...]
    correlations: tuple[float, ...] = ()

    @property
    def length(self) -> int:
        """Coordinates of a point."""
        return len(self.means[0])

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Check a card's configuration.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names every such key.
        """
        known = [field.name for field in fields(cls)]
        if wrong := sorted((set(config) - set(known)) | (set(known) - {"correlations"} - set(config))):
            raise ValueError(f"density configuration has unknown or missing keys {wrong}; it takes {known}")
        problems = [f"{key} is {config[key]!r}, {remedy}" for key, remedy in _find_problems(config)]
        if problems:
            raise ValueError(f"density configuration: {'; '.join(problems)}")
        return cls(
            low=float(config["low"]),
            high=float(config["high"]),
            weights=_floats(config["weights"]),
            means=tuple(map(_floats, config["means"])),
            deviations=tuple(map(_floats, config["deviations"])),
            correlations=_floats(config.get("correlations", ())),
        )


class MixtureDensity(nn.Module):
    """A mixture of normals on the line or in the plane.

    Its parameters are constants in float64 and no tensors of the module, which a network would round to its own type.
    """

    def __init__(self, config: DensityConfig) -> None:
        super().__init__()
        self.config = config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build the module.

        Raises:
            ValueError: a key is unknown, missing or out of range; the message names it.
        """
        return cls(DensityConfig.read(config))

    def sample(self, noise: Noise, labels: Tensor | None, draw: Draw, deadline: Deadline) -> Tensor:
        """Draw one point for each row, by inverting the distribution function of each coordinate in turn.

        Args:
            noise: B addresses.
            labels: not read.
            draw: without parameters.
            deadline: checked before each coordinate.

        Returns:
            (B, length) float64 within low and high.

        Raises:
            DeadlinePassed: the deadline passed.
        """
        uniforms = noise.uniform(Stream.LATENT, self.config.length).to(noise.device)  # (B, length)
        points = torch.empty_like(uniforms)
        for axis in range(self.config.length):
            deadline.check()
            points[:, axis] = self._invert(uniforms[:, axis], points[:, :axis])
        return points

    def score(self, images: Tensor, labels: Tensor | None, noise: Noise, draw: Draw, deadline: Deadline) -> Tensor:
        """Compute the exact log-density of each point.

        Args:
            images: (B, length) points.
            labels: not read.
            noise: not read.
            draw: without parameters.
            deadline: checked once.

        Returns:
            (B, 1) float64, nats.

        Raises:
            DeadlinePassed: the deadline passed.
        """
        deadline.check()
        return torch.logsumexp(self._log_weights(images.double()), dim=1, keepdim=True)  # (B, components) -> (B, 1)

    def distribution(self, points: Tensor) -> Tensor:
        """Compute the distribution function of each coordinate given those before it.

        Args:
            points: (B, length).

        Returns:
            (B, length) float64 in [0, 1], independent and uniform for points of this law.

        Source: Rosenblatt 1952, equation 1.
        """
        x, axes = points.double(), range(self.config.length)
        return torch.stack([_distribute(x[:, k], *self._next_coordinate(x[:, :k])) for k in axes], dim=1)

    def responsibilities(self, points: Tensor) -> Tensor:
        """Compute the posterior probability of each component at points, (B, length); (B, components) float64."""
        return torch.softmax(self._log_weights(points.double()), dim=1)

    def _invert(self, uniform: Tensor, before: Tensor) -> Tensor:
        """Find the next coordinate, (B,), whose distribution function is uniform, (B,), by bisection."""
        parts = self._next_coordinate(before)
        low = torch.full_like(uniform, self.config.low)
        high = torch.full_like(uniform, self.config.high)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            is_below = _distribute(middle, *parts) <= uniform
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return low

    def _next_coordinate(self, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the mixture of the next coordinate, given (B, axis) those before it.

        Returns:
            Weights and means, (B, components), and standard deviations, (components,).
        """
        return self.responsibilities(before), *self._condition(before)

    def _log_weights(self, before: Tensor) -> Tensor:
        """Compute log π_k plus component k's log-density of the given coordinates, (B, axis); (B, components)."""
        weights = _constant(self.config.weights, before).log().expand(len(before), -1)
        for axis in range(before.shape[1]):
            means, deviations = self._condition(before[:, :axis])
            standard = (before[:, axis : axis + 1] - means) / deviations
            weights = weights - 0.5 * (standard.square() + _LOG_2PI) - deviations.log()
        return weights

    def _condition(self, before: Tensor) -> tuple[Tensor, Tensor]:
        """Compute mean and standard deviation of each component's next coordinate, given those before it.

        Returns:
            (B, components) and (components,).
        """
        axis = before.shape[1]
        means, deviations = _constant(self.config.means, before), _constant(self.config.deviations, before)
        if not axis:
            return means[:, 0].expand(len(before), -1), deviations[:, 0]
        correlations = _constant(self.config.correlations, before)
        standard = (before[:, :1] - means[:, 0]) / deviations[:, 0]  # (B, components)
        shifted = means[:, 1] + correlations * deviations[:, 1] * standard
        return shifted, deviations[:, 1] * (1 - correlations.square()).sqrt()


def _distribute(x: Tensor, weights: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    """Compute the distribution function of a mixture of normals at x, (B,); the other shapes are those above."""
    below: Tensor = torch.special.ndtr((x[:, None] - means) / deviations)  # (B, components)
    return (weights * below).sum(dim=1)


def _constant(values: Sequence[object], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=torch.float64, device=like.device)


def _find_problems(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Find keys that are out of range, each with what it must be."""
    problems = []
    low, high, weights = config["low"], config["high"], config["weights"]
    if not (_is_number(low) and _is_number(high) and low < high):
        problems += [("low", "must be a number below high")]
    if not _are_numbers(weights) or min(weights) <= 0 or abs(sum(weights) - 1) > _SUM_TOLERANCE:
        problems += [("weights", "must be numbers above 0 with the sum 1")]
        return problems
    count = len(weights)
    means, deviations = config["means"], config["deviations"]
    length = _row_length(means, count)
    if not 1 <= length <= _MAX_LENGTH:
        problems += [("means", f"must be {count} lists of one or two numbers, one for each weight")]
        return problems
    if _row_length(deviations, count) != length or min(map(min, deviations)) <= 0:
        problems += [("deviations", f"must be {count} lists of {length} numbers above 0")]
    correlations = config.get("correlations", [])
    if length == 1 and correlations:
        problems += [("correlations", "must be left out, since points have one coordinate")]
    elif length > 1 and not (
        _are_numbers(correlations) and len(correlations) == count and all(abs(value) < 1 for value in correlations)
    ):
        problems += [("correlations", f"must be {count} numbers between -1 and 1, one for each weight")]
    return problems


def _row_length(rows: Any, count: int) -> int:
    """Return the common length of `count` lists of numbers; 0 when it is anything else."""
    if not isinstance(rows, list | tuple) or len(rows) != count or not all(map(_are_numbers, rows)):
        return 0
    lengths = {len(row) for row in rows}
    return lengths.pop() if len(lengths) == 1 else 0


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list | tuple) and len(values) > 0 and all(map(_is_number, values))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(map(float, values))
