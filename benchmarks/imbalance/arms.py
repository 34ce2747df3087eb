"""The six ways: which rows each trains on, as plans, and whether its loss is weighted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ARMS", "Arm"]

_SYNTHESIS = {"model": "mnist-cvae", "classifier": "mnist-classifier", "min_confidence": 0.5, "copy_quantile": 0.01}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train.

    Attributes:
        name: of the row of the table.
        mix: what fills the small class up to the largest; empty: nothing does.
        weighted: whether the loss weighs classes by the plan's class weights.
    """

    name: str
    mix: Mapping[str, float] = field(default_factory=dict)
    weighted: bool = False

    def wishes(self, dataset: str, seed: int) -> dict[str, Any]:
        """The plan's wishes, as in a PLAN.yaml."""
        wishes: dict[str, Any] = {"dataset": dataset, "seed": seed}
        if self.mix:
            wishes |= {"target": {"balance": "largest"}, "mix": dict(self.mix)}
        if "transformed" in self.mix:
            wishes["verification"] = {"classifier": _SYNTHESIS["classifier"]}
        if "synthesised" in self.mix:
            wishes["synthesis"] = _SYNTHESIS
        return wishes


ARMS = (
    Arm(name="unbalanced"),
    Arm(name="class weights", weighted=True),
    Arm(name="resampled", mix={"resampled": 1.0}),
    Arm(name="transformed", mix={"transformed": 1.0}),
    Arm(name="synthesised", mix={"synthesised": 1.0}),
    Arm(name="mixed", mix={"resampled": 1.0, "transformed": 1.0, "synthesised": 1.0}),
)
"""In the order of the table."""
