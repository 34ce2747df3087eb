"""Scores and class probabilities of rows, as arrays that know what their columns are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fount.sampling.decode import decode, enum_name
from fount.sampling.types import Samples
from fount.v1 import model_pb2

__all__ = ["Probabilities", "ScoreColumn", "Scores", "score_column"]


@dataclass(frozen=True, kw_only=True)
class ScoreColumn:
    """One number that a model's SCORE returns for each row.

    Attributes:
        name: by which `Scores` selects it.
        unit: as "nats".
        kind: "exact", "lower-bound" or "estimate" of the log-likelihood.
        description: of which law it is; scores of different laws cannot be compared.
    """

    name: str
    unit: str
    kind: str
    description: str


def score_column(column: model_pb2.ScoreColumn) -> ScoreColumn:
    """Decode a column."""
    return decode(ScoreColumn, column, kind=enum_name(model_pb2.ScoreColumn.Kind, "KIND_", column.kind))


class Scores(Samples):
    """An (N, columns) float32 array of scores; `scores["elbo"]` is the (N,) column of a name, as a plain array.

    Attributes:
        columns: what each column is.
    """

    columns: tuple[ScoreColumn, ...]

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self.columns = getattr(obj, "columns", ())

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return super().__getitem__(key)
        names = [column.name for column in self.columns]
        if key not in names:
            raise KeyError(f'there is no score "{key}"; there are {", ".join(names)}')
        return super().__getitem__((..., names.index(key)))


class Probabilities(Samples):
    """An (N, classes) float32 array of class probabilities, each row summing to 1.

    Attributes:
        classes: the class names, in the order of the columns.
    """

    classes: tuple[str, ...]

    def __array_finalize__(self, obj: Any) -> None:
        super().__array_finalize__(obj)
        self.classes = getattr(obj, "classes", ())
