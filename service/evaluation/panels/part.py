"""A part of a panel: one small function of the evidence, whose output is JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.evaluation.evidence import Evidence
from service.evaluation.results import Panel

__all__ = ["JSON", "Part"]

JSON = Any
"""What `json` writes and reads back the same: None, bool, int, finite float, str, lists and dicts of such."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A step of a panel, of a few seconds at most.

    Attributes:
        name: unique among all parts; outputs are kept by it.
        panel: the first question it is for; later panels may read its output, too.
        stage: words for people.
        compute: evidence to JSON. The same evidence gives the same output.
    """

    name: str
    panel: Panel
    stage: str
    compute: Callable[[Evidence], JSON]
