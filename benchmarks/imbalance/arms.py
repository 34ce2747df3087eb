"""The arms of the experiment: the plan of the training rows of each, and whether its loss is weighted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ARMS", "Arm"]

_SYNTHESIS = {"model": "mnist-cvae", "classifier": "mnist-classifier", "min_confidence": 0.5, "copy_quantile": 0.01}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm.

    Attributes:
        name: of the row of the table.
        mix: sources of the rows added to the small class; empty: none are added.
        weighted: whether the loss uses the plan's class weights.
    """

    name: str
    mix: Mapping[str, float] = field(default_factory=dict)
    weighted: bool = False

    def plan_spec(self, dataset: str, seed: int) -> dict[str, Any]:
        """Create the plan specification, as in a PLAN.yaml."""
        spec: dict[str, Any] = {"dataset": dataset, "seed": seed}
        if self.mix:
            spec |= {"target": {"balance": "largest"}, "mix": dict(self.mix)}
        if "transformed" in self.mix:
            spec["verification"] = {"classifier": _SYNTHESIS["classifier"]}
        if "synthesised" in self.mix:
            spec["synthesis"] = _SYNTHESIS
        return spec


ARMS = (
    Arm(name="unbalanced"),
    Arm(name="class weights", weighted=True),
    Arm(name="resampled", mix={"resampled": 1.0}),
    Arm(name="transformed", mix={"transformed": 1.0}),
    Arm(name="synthesised", mix={"synthesised": 1.0}),
    Arm(name="mixed", mix={"resampled": 1.0, "transformed": 1.0, "synthesised": 1.0}),
)
"""All arms, in the order of the table."""
