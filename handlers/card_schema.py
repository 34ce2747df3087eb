"""What a model card holds: its records, whose annotations are the schema, and the rules between its fields.

No torch here, and no files: `handlers.card` reads and writes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from handlers.card_reader import Problem, Rule

__all__ = [
    "Card", "Family", "Golden", "Limits", "Parameter", "Quality", "Recipe", "Sample", "Weights", "cross_check",
]  # fmt: skip


def _matching(pattern: str, must_be: str) -> Rule:
    return Rule(holds=lambda text: re.fullmatch(pattern, text) is not None, must_be=must_be)


Text = Annotated[str, Rule(holds=lambda text: bool(text.strip()), must_be="text that says something")]
Count = Annotated[int, Rule(holds=lambda count: count >= 1, must_be="1 or more")]
Digest = Annotated[str, _matching("sha256:[0-9a-f]{64}", '"sha256:" and 64 lower-case hexadecimal digits')]
FileName = Annotated[
    str, _matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", "a plain file name in the card's folder, without a path")
]
Interval = Annotated[tuple[float, float], Rule(holds=lambda ends: ends[0] <= ends[1], must_be="low end first")]
Unsigned = Annotated[int, Rule(holds=lambda seed: 0 <= seed < 2**64, must_be="0 to 2^64 - 1")]
Name = Annotated[str, _matching("[a-z][a-z0-9-]{0,63}", "a lower-case letter, then a-z, 0-9 and -, 64 in all at most")]
ParameterName = Literal["truncation", "temperature", "top_k", "top_p", "guidance_scale", "steps"]
_DISTINCT = Rule(holds=lambda items: len(set(items)) == len(items), must_be="free of repetitions")
_NOT_EMPTY = Rule(holds=lambda items: len(items) > 0, must_be="one or more")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Which architecture, and what its `from_config` gets."""

    name: Name
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The shape of one sample, or of the images a classifier reads. Floats lie within value_range, ends included."""

    modality: Literal["image"]
    height: Count
    width: Count
    channels: Count
    value_range: Annotated[tuple[float, float], Rule(holds=lambda r: r[0] < r[1], must_be="the lower end first")]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """The range of one sampling parameter, ends included; a default of None means off when unset."""

    min: float
    max: float
    default: float | None
    description: Text


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of one request: samples, explicit labels, and samples in one executed batch."""

    max_count: Count
    max_labels: Count
    max_exec_batch: Count


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the weights were trained."""

    name: Text
    seed: Unsigned
    steps: Count
    data: Text
    data_digest: Digest


@dataclass(frozen=True, kw_only=True)
class Quality:
    """One measured metric with its 95 % interval, and the same statistic for real data where there is one."""

    metric: Text
    value: float
    interval: Interval
    real_value: float | None = None
    method: Text


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The weights file beside the card (safetensors), and its SHA-256."""

    file: FileName
    digest: Digest


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The file beside the card (safetensors) with what known addresses or images gave when the model was trained."""

    file: FileName


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a served model is. Empty classes and prior: it has none."""

    name: Name
    version: Annotated[str, _matching(r"[0-9]+(\.[0-9]+)*", 'digits and dots, in quotes, like "1.0"')]
    description: Text
    family: Family
    operations: Annotated[tuple[Literal["SAMPLE", "CLASSIFY", "EMBED"], ...], _NOT_EMPTY, _DISTINCT]
    classes: Annotated[tuple[Text, ...], _DISTINCT] = ()
    prior: tuple[float, ...] = ()
    sample: Sample
    parameters: Mapping[ParameterName, Parameter]
    encodings: Annotated[tuple[Literal["UINT8", "FLOAT32", "PNG"], ...], _DISTINCT]
    limits: Limits
    precisions: Annotated[tuple[Literal["fp32", "bf16"], ...], _DISTINCT]
    recipe: Recipe
    quality: tuple[Quality, ...]
    data_licence: Text
    intended_use: Text
    weights: Weights
    golden: Golden


def cross_check(fields: Mapping[str, Any]) -> Iterator[Problem]:
    """Compare fields with each other; a field that could not be read is left out of it."""
    for needed, check in _CROSS_CHECKS:
        if all(name in fields for name in needed):
            yield from check(*(fields[name] for name in needed))


def _check_prior(operations: tuple[str, ...], classes: tuple[str, ...], prior: tuple[float, ...]) -> Iterator[Problem]:
    wanted = len(classes) if "SAMPLE" in operations else 0
    if len(prior) != wanted:
        yield Problem(
            key="prior", wrong=f"has {len(prior)} weights", remedy=f"must have {wanted}, one a class to sample"
        )
    elif prior and (min(prior) < 0 or not math.isclose(sum(prior), 1.0, abs_tol=1e-9)):
        yield Problem(key="prior", wrong=f"sums to {sum(prior):g}", remedy="must be weights of 0 or more that sum to 1")


def _check_operations(
    operations: tuple[str, ...], classes: tuple[str, ...], encodings: tuple[str, ...]
) -> Iterator[Problem]:
    if ("SAMPLE" in operations) != bool(encodings):
        remedy = "must list what it can give when operations has SAMPLE, else be []"
        yield Problem(key="encodings", wrong=f"is {list(encodings)}", remedy=remedy)
    if "CLASSIFY" in operations and not classes:
        yield Problem(key="classes", wrong="missing", remedy="operations has CLASSIFY: add the classes it knows")


def _check_precisions(precisions: tuple[str, ...]) -> Iterator[Problem]:
    if "fp32" not in precisions:
        yield Problem(key="precisions", wrong=f"is {list(precisions)}", remedy="must list fp32")


def _check_parameters(parameters: Mapping[str, Parameter]) -> Iterator[Problem]:
    for name, parameter in parameters.items():
        if parameter.min > parameter.max:
            yield Problem(key=f"parameters.{name}", wrong="has min above max", remedy="exchange them")
        elif parameter.default is not None and not parameter.min <= parameter.default <= parameter.max:
            remedy = "must lie within min and max, or be null"
            yield Problem(key=f"parameters.{name}.default", wrong=f"is {parameter.default:g}", remedy=remedy)


_CROSS_CHECKS: tuple[tuple[tuple[str, ...], Callable[..., Iterator[Problem]]], ...] = (
    (("operations", "classes", "prior"), _check_prior),
    (("operations", "classes", "encodings"), _check_operations),
    (("precisions",), _check_precisions),
    (("parameters",), _check_parameters),
)
