"""Metric parts: small functions of the evidence whose output is JSON, and what panels share between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from service.evaluation.evidence import Evidence
from service.evaluation.panels.reference_sample import DRAWS
from service.evaluation.results import Panel

__all__ = ["JSON", "MetricPart", "outputs_of_draws", "parts_with_draws"]

JSON = Any
"""What `json` writes and reads back the same: None, bool, int, finite float, str, lists and dicts of such."""


@dataclass(frozen=True, kw_only=True)
class MetricPart:
    """A step of a panel, of a few seconds at most.

    Attributes:
        name: unique among all parts; outputs are stored by it.
        panel: the first panel that uses it; later panels may read its output, too.
        stage: progress message.
        compute: evidence to JSON. The same evidence gives the same output.
    """

    name: str
    panel: Panel
    stage: str
    compute: Callable[[Evidence], JSON]


def parts_with_draws(
    name: str, panel: Panel, stage: str, compute: Callable[[int | None, Evidence], JSON]
) -> tuple[MetricPart, ...]:
    """Make the part that measures the samples, and one for each reference sample drawn in their place.

    Args:
        name: parts are called `name.samples` and `name.real.0`, `name.real.1`, ...
        panel: of the parts.
        stage: of the parts.
        compute: takes None for the samples or the number of a reference sample, and the evidence; its output is None
            for a reference sample that is not drawn.
    """
    draws: dict[str, int | None] = {f"{name}.samples": None} | {f"{name}.real.{draw}": draw for draw in range(DRAWS)}
    return tuple(
        MetricPart(name=each, panel=panel, stage=stage, compute=partial(compute, draw)) for each, draw in draws.items()
    )


def outputs_of_draws(outputs: Mapping[str, JSON], name: str) -> list[JSON]:
    """Return the outputs of the reference samples of `parts_with_draws` that were drawn."""
    return [output for draw in range(DRAWS) if (output := outputs[f"{name}.real.{draw}"]) is not None]
