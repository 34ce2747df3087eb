"""All figures of the report, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Collection

from service.evaluation.report import charts, galleries
from service.evaluation.report.pictures import Figure, FigureData
from service.evaluation.results import Panel

__all__ = ["FIGURES", "Figure", "FigureData", "figures_of"]

_EVERY: frozenset[Panel] = frozenset()
_STAGE = "drawing figures"


def _of(*panels: Panel) -> frozenset[Panel]:
    return frozenset(panels)


FIGURES: tuple[Figure, ...] = (
    Figure(name="samples-by-class", stage=_STAGE, needs=_EVERY, compute=galleries.samples_by_class),
    Figure(name="feature-map", stage=_STAGE, needs=_EVERY, compute=charts.feature_map),
    Figure(name="best-and-worst", stage=_STAGE, needs=_of(Panel.REALISM), compute=galleries.best_and_worst),
    Figure(name="closest-pairs", stage=_STAGE, needs=_of(Panel.DIVERSITY), compute=galleries.closest_pairs),
    Figure(name="class-histogram", stage=_STAGE, needs=_of(Panel.DIVERSITY), compute=charts.class_histogram),
    Figure(name="distances", stage=_STAGE, needs=_of(Panel.MEMORISATION), compute=charts.distances),
    Figure(
        name="nearest-training-rows",
        stage=_STAGE,
        needs=_of(Panel.MEMORISATION),
        compute=galleries.nearest_training_rows,
        restricted=True,
    ),
    Figure(name="confusion", stage=_STAGE, needs=_of(Panel.LABEL_FIDELITY), compute=charts.confusion),
    Figure(name="same-noise", stage=_STAGE, needs=_of(Panel.LABEL_FIDELITY), compute=galleries.same_noise),
)


def figures_of(panels: Collection[Panel]) -> tuple[Figure, ...]:
    """The figures of a report with these panels."""
    asked = frozenset(panels)
    return tuple(figure for figure in FIGURES if figure.needs <= asked)
