"""The model card: its schema as records, and reading and writing it as `model.yaml`.

A card describes one served model, and is stored next to its weights. Packing, workers and `fount check` read it, so
nothing here imports torch. The annotations of the records are the schema; rules between fields are in `_cross_check`.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from fount.documents import DocumentError, Problem, check, parse, record
from fount.names import normal_name
from fount.plain_yaml import dump_yaml, read_yaml
from handlers.models import CUSTOM_FAMILY, PROGRAM_FAMILIES

__all__ = [
    "CARD_FILE", "NAME_RULE", "Card", "CardError", "Family", "Golden", "Latent", "Limits", "Parameter",
    "ParameterName", "Problem", "Quality", "Recipe", "Sample", "Weights", "default_of", "is_model_name", "load_card",
    "to_plain", "write_card",
]  # fmt: skip

CARD_FILE = "model.yaml"


def _matches(pattern: str, remedy: str) -> AfterValidator:
    return check(lambda text: re.fullmatch(pattern, text) is not None, remedy)


_DISTINCT = check(lambda items: len(set(items)) == len(items), "must be free of repetitions")
_NOT_EMPTY = check(lambda items: len(items) > 0, "must be one or more")

Text = Annotated[str, check(lambda text: bool(text.strip()), "must not be empty")]
Count = Annotated[int, check(lambda count: count >= 1, "must be 1 or more")]
Digest = Annotated[str, _matches("sha256:[0-9a-f]{64}", 'must be "sha256:" and 64 lower-case hexadecimal digits')]
FileName = Annotated[
    str,
    _matches(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", "must be a plain file name in the card's folder, without a path"),
]
SourceName = Annotated[
    str, _matches(r"[A-Za-z_][A-Za-z0-9_]{0,123}\.py", "must be a Python file in the card's folder, like generator.py")
]
Interval = Annotated[tuple[float, float], check(lambda ends: ends[0] <= ends[1], "must have the lower end first")]
Span = Annotated[tuple[float, float], check(lambda ends: ends[0] < ends[1], "must have the lower end first")]
Unsigned = Annotated[int, check(lambda seed: 0 <= seed < 2**64, "must be 0 to 2^64 - 1")]
NAME_RULE = "must be a lower-case letter, then a-z, 0-9 and -, 64 characters at most"
Name = Annotated[str, check(lambda name: is_model_name(name), NAME_RULE)]
ClassName = Annotated[
    str,
    AfterValidator(normal_name),
    check(
        lambda name: 0 < len(name) <= 128 and name == name.strip() and name.isprintable(),
        "must be text of 128 characters at most, without control characters or space at its ends",
    ),
]
PythonName = Annotated[str, check(str.isidentifier, "must be the name of a Python class")]
ParameterName = Literal["truncation", "temperature", "top_k", "top_p", "guidance_scale", "steps"]


class CardError(Exception):
    """A model folder does not match its card, or the card breaks its schema. Correct each problem listed.

    Attributes:
        problems: all of them.
    """

    def __init__(self, where: Path, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)]))


@record
class Family:
    """The architecture: a family of this package, a custom module, or a program.

    Attributes:
        name: a family of `handlers.models`; "module" for a class in a file of the folder; "torchscript" or "exported"
            for a program, which is then the weights file.
        config: arguments of the family's `from_config`, or keyword arguments of the custom class.
        source: the Python file next to the card that defines the class; for "module" only.
        class_name: the class, a torch.nn.Module; for "module" only.
    """

    name: Name
    config: Mapping[str, Any] = field(default_factory=dict)
    source: SourceName | None = None
    class_name: PythonName | None = None


@record
class Latent:
    """The latent passed to a custom model or program: z is (B, *shape), N(0, 1), drawn by address."""

    shape: Annotated[tuple[Count, ...], _NOT_EMPTY]


@record
class Sample:
    """The shape of one sample, or of the images a classifier reads. Floats are within value_range, ends included.

    A transformer takes images of any shape; this is the one it is measured and verified with.
    """

    modality: Literal["image"]
    height: Count
    width: Count
    channels: Count
    value_range: Span


@record
class Parameter:
    """The range of one sampling parameter, ends included; a default of None means that it is off when unset."""

    min: float
    max: float
    default: float | None
    description: Text


@record
class Limits:
    """Bounds of one request: samples, explicit labels, and samples in one executed batch."""

    max_count: Count
    max_labels: Count
    max_exec_batch: Count


@record
class Recipe:
    """How the weights were trained."""

    name: Text
    seed: Unsigned
    steps: Count
    data: Text
    data_digest: Digest


@record
class Quality:
    """One measured metric with its 95 % interval, and the same statistic of real data if it has one."""

    metric: Text
    value: float
    interval: Interval
    real_value: float | None = None
    method: Text


@record
class Weights:
    """The weights file next to the card: safetensors, or a program. A digest of None accepts any content."""

    file: FileName
    digest: Digest | None = None


@record
class Golden:
    """The safetensors file next to the card with the recorded golden samples."""

    file: FileName


@record
class Card:
    """What a served model is. Classes, prior, recipe and quality are empty for models without them."""

    name: Name
    version: Annotated[str, _matches(r"[0-9]+(\.[0-9]+)*", 'must be digits and dots, like "1.0"')]
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


def is_model_name(text: str) -> bool:
    """Return whether a text can be the name of a model; `NAME_RULE` is the rule in words."""
    return re.fullmatch("[a-z][a-z0-9-]{0,63}", text) is not None


def load_card(folder: Path) -> Card:
    """Read the card of a model folder.

    Raises:
        CardError: the card is absent, larger than 1 MiB, not plain YAML, or breaks its schema; lists every problem.
    """
    file = folder / CARD_FILE
    try:
        return parse(Card, read_yaml(file), more=_cross_check)
    except OSError as error:
        problem = Problem(key="", wrong=f"cannot be read: {error.strerror}", remedy="every model folder needs a card")
        raise CardError(file, [problem]) from error
    except DocumentError as error:
        raise CardError(file, error.problems) from error


def write_card(card: Card, folder: Path) -> Path:
    """Write a card with its keys in the order of the schema; optional keys at their defaults are left out."""
    file = folder / CARD_FILE
    file.write_text(dump_yaml(to_plain(card)), encoding="utf-8")
    return file


def default_of(key: dataclasses.Field[Any]) -> Any:
    """Return the value of an optional key when it is absent; `dataclasses.MISSING` for a required key."""
    return key.default if key.default_factory is dataclasses.MISSING else key.default_factory()


def to_plain(value: Any) -> Any:
    """Convert a card or a part of it to values for YAML; optional keys at their defaults are left out."""
    if dataclasses.is_dataclass(value):
        kept = [key.name for key in dataclasses.fields(value) if getattr(value, key.name) != default_of(key)]
        return {name: to_plain(getattr(value, name)) for name in kept}
    if isinstance(value, Mapping):
        return {name: to_plain(item) for name, item in value.items()}
    return [to_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _cross_check(card: Card) -> Iterator[Problem]:
    """Check the rules between fields."""
    yield from _check_family(card)
    yield from _check_operations(card)
    yield from _check_prior(card)
    if "fp32" not in card.precisions:
        yield Problem(key="precisions", wrong=f"is {list(card.precisions)}", remedy="must list fp32")
    for name, parameter in card.parameters.items():
        if parameter.min > parameter.max:
            yield Problem(key=f"parameters.{name}", wrong="has min above max", remedy="exchange them")
        elif parameter.default is not None and not parameter.min <= parameter.default <= parameter.max:
            remedy = "must be within min and max, or null"
            yield Problem(key=f"parameters.{name}.default", wrong=f"is {parameter.default:g}", remedy=remedy)


def _check_family(card: Card) -> Iterator[Problem]:
    family, latent = card.family, card.latent
    is_module, is_program = family.name == CUSTOM_FAMILY, family.name in PROGRAM_FAMILIES
    for key, value in (("source", family.source), ("class_name", family.class_name)):
        if is_module and value is None:
            remedy = "add the Python file" if key == "source" else "add the class in that file"
            yield Problem(key=f"family.{key}", wrong="missing", remedy=f"family {CUSTOM_FAMILY} needs it: {remedy}")
        elif not is_module and value is not None:
            remedy = f"only family {CUSTOM_FAMILY} has one: remove it, or set family.name to {CUSTOM_FAMILY}"
            yield Problem(key=f"family.{key}", wrong=f"is {value!r}", remedy=remedy)
    if is_program and family.config:
        remedy = "a program has no configuration: remove it"
        yield Problem(key="family.config", wrong=f"has {', '.join(family.config)}", remedy=remedy)
    if not (is_module or is_program):
        if latent is not None:
            remedy = f"family {family.name} defines its own latent: remove it"
            yield Problem(key="latent", wrong=f"is {list(latent.shape)}", remedy=remedy)
        return
    if latent is None:
        remedy = f"family {family.name} needs the shape of z: add, for instance, latent: {{shape: [100]}}"
        yield Problem(key="latent", wrong="missing", remedy=remedy)
    if card.operations != ("SAMPLE",):
        remedy = f"a model of family {family.name} can only sample: set it to [SAMPLE]"
        yield Problem(key="operations", wrong=f"is {list(card.operations)}", remedy=remedy)


def _check_operations(card: Card) -> Iterator[Problem]:
    if ("SAMPLE" in card.operations) != bool(card.encodings):
        remedy = "must list the encodings it offers when operations has SAMPLE, else be []"
        yield Problem(key="encodings", wrong=f"is {list(card.encodings)}", remedy=remedy)
    if "CLASSIFY" in card.operations and not card.classes:
        yield Problem(key="classes", wrong="missing", remedy="operations has CLASSIFY: add the classes it knows")
    if "TRANSFORM" in card.operations and (len(card.operations) > 1 or card.classes):
        remedy = "a transformer has no other operation and no classes: set it to [TRANSFORM], and remove classes"
        yield Problem(key="operations", wrong=f"is {list(card.operations)}", remedy=remedy)


def _check_prior(card: Card) -> Iterator[Problem]:
    weights, expected = card.prior, len(card.classes) if "SAMPLE" in card.operations else 0
    if len(weights) != expected:
        remedy = f"must have {expected}, one for each class of a model that samples"
        yield Problem(key="prior", wrong=f"has {len(weights)} weights", remedy=remedy)
    elif weights and (min(weights) < 0 or not math.isclose(sum(weights), 1.0, abs_tol=1e-9)):
        remedy = "must be weights of 0 or more that sum to 1"
        yield Problem(key="prior", wrong=f"sums to {sum(weights):g}", remedy=remedy)
