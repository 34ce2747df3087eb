"""Recall, coverage and Vendi score within each class, where collapse of one class alone shows."""

from __future__ import annotations

from functools import partial

from service.evaluation.evidence import Evidence
from service.evaluation.panels.birthday import FEWEST_IN_CLASS
from service.evaluation.panels.manifold_parts import measure_manifold
from service.evaluation.panels.measure import attempt
from service.evaluation.panels.part import JSON, Part
from service.evaluation.panels.reference_sample import DRAWS, class_standing, held_out_class
from service.evaluation.results import Panel
from service.evaluation.statistics.vendi import estimate_vendi

__all__ = ["CLASSES", "CLASS_PARTS"]

CLASSES = "classes"
_STAGE = "looking into classes"


def _measure(number: int | None, evidence: Evidence) -> JSON:
    return [_measure_class(number, each, evidence) for each in range(len(evidence.classes))]


def _measure_class(number: int | None, class_id: int, evidence: Evidence) -> JSON:
    standing, real = class_standing(evidence, class_id, number), held_out_class(evidence, class_id)
    if standing is None or min(len(standing), len(real)) < FEWEST_IN_CLASS:
        return None
    measured = measure_manifold(standing, real, evidence, f"of class {class_id}")
    return {
        "rows": len(standing),
        "precision": measured["precision"],
        "recall": measured["recall"],
        "coverage": measured["coverage"],
        "vendi": attempt(lambda: estimate_vendi(standing.features, blocks=standing.blocks)),
    }


CLASS_PARTS: tuple[Part, ...] = (
    Part(name=f"{CLASSES}.samples", panel=Panel.DIVERSITY, stage=_STAGE, compute=partial(_measure, None)),
    *(
        Part(name=f"{CLASSES}.real.{number}", panel=Panel.DIVERSITY, stage=_STAGE, compute=partial(_measure, number))
        for number in range(DRAWS)
    ),
)
