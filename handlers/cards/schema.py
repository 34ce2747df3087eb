"""What a model card holds: its records, whose annotations are the schema, and the rules between its fields.

No torch here, and no files: `handlers.cards.card` reads and writes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from handlers.cards.reader import Problem, Rule
from handlers.models import OWN_FAMILY, PROGRAM_FAMILIES

__all__ = [
    "Card", "Family", "Golden", "Latent", "Limits", "Parameter", "Quality", "Recipe", "Sample", "Weights",
    "cross_check",
]  # fmt: skip


def _matching(pattern: str, must_be: str) -> Rule:
    return Rule(holds=lambda text: re.fullmatch(pattern, text) is not None, must_be=must_be)


Text = Annotated[str, Rule(holds=lambda text: bool(text.strip()), must_be="text that says something")]
Count = Annotated[int, Rule(holds=lambda count: count >= 1, must_be="1 or more")]
Digest = Annotated[str, _matching("sha256:[0-9a-f]{64}", '"sha256:" and 64 lower-case hexadecimal digits')]
FileName = Annotated[
    str, _matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", "a plain file name in the card's folder, without a path")
]
SourceName = Annotated[
    str, _matching(r"[A-Za-z_][A-Za-z0-9_]{0,123}\.py", "a Python file in the card's folder, like generator.py")
]
Interval = Annotated[tuple[float, float], Rule(holds=lambda ends: ends[0] <= ends[1], must_be="low end first")]
Unsigned = Annotated[int, Rule(holds=lambda seed: 0 <= seed < 2**64, must_be="0 to 2^64 - 1")]
Name = Annotated[str, _matching("[a-z][a-z0-9-]{0,63}", "a lower-case letter, then a-z, 0-9 and -, 64 in all at most")]
ClassName = Annotated[
    str,
    Rule(
        holds=lambda name: 0 < len(name) <= 128 and name == name.strip() and name.isprintable(),
        must_be="text of 128 characters at most, without control characters or space at its ends",
    ),
]
PythonName = Annotated[str, Rule(holds=lambda name: name.isidentifier(), must_be="the name of a Python class")]
ParameterName = Literal["truncation", "temperature", "top_k", "top_p", "guidance_scale", "steps"]
_DISTINCT = Rule(holds=lambda items: len(set(items)) == len(items), must_be="free of repetitions")
_NOT_EMPTY = Rule(holds=lambda items: len(items) > 0, must_be="one or more")


@dataclass(frozen=True, kw_only=True)
class Family:
    """Which architecture: one of this package, a module of one's own, or a program.

    Attributes:
        name: of a family here; "module" for a class in a file beside the card; "torchscript" or "exported" for a
            program, which the weights file then is.
        config: what the family's `from_config`, or the class of one's own, is built with.
        source: the Python file beside the card that has the class; of "module" alone.
        class_name: the class, a torch.nn.Module; of "module" alone.
    """

    name: Name
    config: Mapping[str, Any] = field(default_factory=dict)
    source: SourceName | None = None
    class_name: PythonName | None = None


@dataclass(frozen=True, kw_only=True)
class Latent:
    """The z a model of one's own is given: (B, *shape), N(0, 1), drawn by address."""

    shape: Annotated[tuple[Count, ...], _NOT_EMPTY]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The shape of one sample, or of the images a classifier reads. Floats lie within value_range, ends included.

    A transformer takes images of any shape; this is the one it is measured and tried with.
    """

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
    """The weights file beside the card, and its SHA-256; a digest of None is whatever the file is.

    It is safetensors, or the program of a family "torchscript" or "exported".
    """

    file: FileName
    digest: Digest | None = None


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The file beside the card (safetensors) with what known addresses or images gave when the model was made."""

    file: FileName


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a served model is. Empty classes and prior: it has none. No recipe or quality: nobody said."""

    name: Name
    version: Annotated[str, _matching(r"[0-9]+(\.[0-9]+)*", 'digits and dots, in quotes, like "1.0"')]
    description: Text
    family: Family
    operations: Annotated[tuple[Literal["SAMPLE", "CLASSIFY", "EMBED", "TRANSFORM"], ...], _NOT_EMPTY, _DISTINCT]
    classes: Annotated[tuple[ClassName, ...], _DISTINCT] = ()
    prior: tuple[float, ...] = ()
    latent: Latent | None = None
    sample: Sample
    parameters: Mapping[ParameterName, Parameter]
    encodings: Annotated[tuple[Literal["UINT8", "FLOAT32", "PNG"], ...], _DISTINCT]
    limits: Limits
    precisions: Annotated[tuple[Literal["fp32", "bf16"], ...], _DISTINCT]
    recipe: Recipe | None = None
    quality: tuple[Quality, ...] = ()
    data_licence: Text
    intended_use: Text
    weights: Weights
    golden: Golden = Golden(file="golden.safetensors")


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
    if "TRANSFORM" in operations and (len(operations) > 1 or classes):
        remedy = "a transformer takes images of any class and does nothing else: set it to [TRANSFORM], without classes"
        yield Problem(key="operations", wrong=f"is {list(operations)}", remedy=remedy)


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


def _check_family(family: Family, latent: Latent | None, operations: tuple[str, ...]) -> Iterator[Problem]:
    own, program = family.name == OWN_FAMILY, family.name in PROGRAM_FAMILIES
    for key, value in (("source", family.source), ("class_name", family.class_name)):
        if own and value is None:
            remedy = "add the Python file" if key == "source" else "add the class in that file"
            yield Problem(key=f"family.{key}", wrong="missing", remedy=f"family {OWN_FAMILY} needs it: {remedy}")
        elif not own and value is not None:
            remedy = f"only family {OWN_FAMILY} has one: remove it, or set family.name to {OWN_FAMILY}"
            yield Problem(key=f"family.{key}", wrong=f"is {value!r}", remedy=remedy)
    if program and family.config:
        remedy = "a program is whole as it is: remove it"
        yield Problem(key="family.config", wrong=f"has {', '.join(family.config)}", remedy=remedy)
    yield from _check_latent(family, latent, own or program)
    if (own or program) and operations != ("SAMPLE",):
        remedy = f"a family {family.name} samples: set it to [SAMPLE]"
        yield Problem(key="operations", wrong=f"is {list(operations)}", remedy=remedy)


def _check_latent(family: Family, latent: Latent | None, brought: bool) -> Iterator[Problem]:
    if brought and latent is None:
        remedy = f"family {family.name} needs the shape of z: add, for instance, latent: {{shape: [100]}}"
        yield Problem(key="latent", wrong="missing", remedy=remedy)
    elif not brought and latent is not None:
        remedy = f"family {family.name} has a z of its own: remove it"
        yield Problem(key="latent", wrong=f"is {list(latent.shape)}", remedy=remedy)


_CROSS_CHECKS: tuple[tuple[tuple[str, ...], Callable[..., Iterator[Problem]]], ...] = (
    (("family", "latent", "operations"), _check_family),
    (("operations", "classes", "prior"), _check_prior),
    (("operations", "classes", "encodings"), _check_operations),
    (("precisions",), _check_precisions),
    (("parameters",), _check_parameters),
)
