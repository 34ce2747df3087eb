"""The figures of the report, in the order in which they are computed."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from service.evaluation.evidence import Evidence
from service.evaluation.report import charts, galleries
from service.evaluation.report.charts import FigureData
from service.evaluation.results import Panel

__all__ = ["FIGURES", "Figure", "figures_of"]


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: lower case with dashes.
        panel: the figure is shown when this panel was requested; None: always.
        compute: takes a few seconds at most; the same evidence gives the same JSON, to the last byte on one machine.
        restricted: it shows training rows, which only callers with a grant of their own may see.
    """

    name: str
    panel: Panel | None
    compute: Callable[[Evidence], FigureData]
    restricted: bool = False


FIGURES: tuple[Figure, ...] = (
    Figure(name="samples-by-class", panel=None, compute=galleries.samples_by_class),
    Figure(name="feature-map", panel=None, compute=charts.feature_map),
    Figure(name="best-and-worst", panel=Panel.REALISM, compute=galleries.best_and_worst),
    Figure(name="closest-pairs", panel=Panel.DIVERSITY, compute=galleries.closest_pairs),
    Figure(name="class-histogram", panel=Panel.DIVERSITY, compute=charts.class_histogram),
    Figure(name="distances", panel=Panel.MEMORISATION, compute=charts.distances),
    Figure(
        name="nearest-training-rows", panel=Panel.MEMORISATION, compute=galleries.nearest_training_rows, restricted=True
    ),
    Figure(name="confusion", panel=Panel.LABEL_FIDELITY, compute=charts.confusion),
    Figure(name="same-noise", panel=Panel.LABEL_FIDELITY, compute=galleries.same_noise),
)


def figures_of(panels: Collection[Panel]) -> tuple[Figure, ...]:
    """Return the figures of a report with these panels."""
    return tuple(figure for figure in FIGURES if figure.panel is None or figure.panel in panels)
