"""The model card: its schema as records, and reading and writing it as `model.yaml`.

A card describes one served model, and is stored next to its weights. Packing, workers and `fount check` read it, so
nothing here imports torch. The annotations of the records are the schema; `handlers.cards.rules` has the rules between
fields.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from fount.documents import DocumentError, Problem, check, parse, record
from fount.names import normal_name
from fount.plain_yaml import dump_yaml, read_yaml
from handlers.cards.rules import cross_check

__all__ = [
    "CARD_FILE", "NAME_RULE", "Card", "CardError", "ConditionName", "Direction", "Family", "Golden", "Input",
    "Latent", "Limits", "OperationName", "Parameter", "ParameterName", "Precision", "Problem", "Quality", "Recipe",
    "Sample", "ScoreColumn", "Weights", "default_of", "is_model_name", "load_card", "to_plain", "write_card",
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
ParameterName = Literal[
    "truncation", "temperature", "top_k", "top_p", "guidance_scale", "steps", "eta", "importance_samples", "prior_fit"
]
ConditionName = Literal["PREFIX", "MASK"]
OperationName = Literal["SAMPLE", "CLASSIFY", "EMBED", "TRANSFORM", "ENCODE", "DECODE", "TRANSLATE", "SCORE"]
Precision = Literal["fp32", "bf16"]


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
    """The shape of one sample, or of what a model reads. Floats are within value_range, ends included.

    An image has height, width and channels, a vector a length, a text the length of the longest. A text is a row of its
    bytes, 0 to 255, filled up with 0. A transformer takes images of any shape; this is the one it is measured and
    verified with.
    """

    modality: Literal["image", "vector", "text"]
    height: Count | None = None
    width: Count | None = None
    channels: Count | None = None
    length: Count | None = None
    value_range: Span

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C) of an image, (length,) of a vector or a text."""
        sides = (self.height, self.width, self.channels) if self.modality == "image" else (self.length,)
        return tuple(side for side in sides if side is not None)

    @property
    def tensor_shape(self) -> tuple[int, ...]:
        """The shape of a row in a family: (C, H, W) of an image, (length,) of a vector or a text."""
        return (*self.shape[2:], *self.shape[:2]) if self.modality == "image" else self.shape


@record
class Input:
    """The shape of the images that TRANSLATE takes, where it is not that of a sample; their value range is the same."""

    height: Count
    width: Count
    channels: Count

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self.height, self.width, self.channels


@record
class Parameter:
    """The range of one sampling parameter, ends included; a default of None means that it is off when unset."""

    min: float
    max: float
    default: float | None
    description: Text


@record
class ScoreColumn:
    """One number that SCORE returns for each row; the description names the levels and dimensions of its law."""

    name: Name
    unit: Literal["nats"]
    kind: Literal["EXACT", "LOWER_BOUND", "ESTIMATE"]
    description: Text


@record
class Direction:
    """A direction of the latent space along which one attribute of decoded images changes."""

    name: Name
    description: Text
    vector: Annotated[tuple[float, ...], _NOT_EMPTY]


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
    """What a served model is. Classes, prior, recipe and quality are empty for models without them.

    Attributes:
        input: of the images that TRANSLATE takes; None: as `sample`.
        latent_dim: length of the latent that ENCODE returns and DECODE takes.
        latent_spread: root mean square of the standard deviations of the training rows' latents.
        draw_steps: steps of a draw without parameters.
        conditions: what samples can be conditional on besides a label.
        prefix_unit: of how many bytes a prefix must be a multiple, for a model with the condition PREFIX.
        score_columns: what SCORE returns for each row.
        directions: of the latent space.
    """

    name: Name
    version: Annotated[str, _matches(r"[0-9]+(\.[0-9]+)*", 'must be digits and dots, like "1.0"')]
    description: Text
    family: Family
    operations: Annotated[tuple[OperationName, ...], _NOT_EMPTY, _DISTINCT]
    classes: Annotated[tuple[ClassName, ...], _DISTINCT] = ()
    prior: tuple[float, ...] = ()
    latent: Latent | None = None
    sample: Sample
    input: Input | None = None
    parameters: Mapping[ParameterName, Parameter]
    encodings: Annotated[tuple[Literal["UINT8", "FLOAT32", "PNG"], ...], _DISTINCT]
    latent_dim: Count | None = None
    latent_spread: Annotated[float, check(lambda spread: 0 < spread < math.inf, "must be above 0")] = 1.0
    draw_steps: Count = 1
    conditions: Annotated[tuple[ConditionName, ...], _DISTINCT] = ()
    prefix_unit: Count = 1
    score_columns: tuple[ScoreColumn, ...] = ()
    directions: tuple[Direction, ...] = ()
    limits: Limits
    precisions: Annotated[tuple[Precision, ...], _DISTINCT]
    recipe: Recipe | None = None
    quality: tuple[Quality, ...] = ()
    data_licence: Text
    intended_use: Text
    weights: Weights
    golden: Golden = Golden(file="golden.safetensors")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(H, W, C) of the images that TRANSLATE takes."""
        return self.input.shape if self.input else self.sample.shape


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
        return parse(Card, read_yaml(file), more=cross_check)
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
