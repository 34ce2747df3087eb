"""Model cards: what a served model is, in one YAML file beside its weights.

A card is read by packing, by workers and by the gateway's catalog, so nothing here imports torch. The model digest says
what is served: weights, configuration, the family's source, the versions of noise and execution, and nothing measured.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from fount.address import NOISE_VERSION
from fount.archive import digest_of_ingredients
from handlers.cards.reader import Problem, default_of, read_fields
from handlers.cards.schema import (
    Card,
    Family,
    Golden,
    Latent,
    Limits,
    Parameter,
    Quality,
    Recipe,
    Sample,
    Weights,
    cross_check,
)
from handlers.execution.rows import EXECUTION_VERSION
from handlers.models import OWN_FAMILY, source_file

__all__ = [
    "CARD_FILE", "Card", "CardError", "Family", "Golden", "Latent", "Limits", "Parameter", "Problem", "Quality",
    "Recipe", "Sample", "Weights", "check_weights", "file_digest", "load_card", "model_digest", "model_ingredients",
    "source_of", "write_card",
]  # fmt: skip

CARD_FILE = "model.yaml"
_MAX_CARD_BYTES = 2**20


class CardError(Exception):
    """A model's folder is not what its card must say. Mend each problem named, then load it again.

    Attributes:
        problems: all of them.
    """

    def __init__(self, where: Path, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)]))


def load_card(folder: Path) -> Card:
    """Read a model's card.

    Raises:
        CardError: the card is absent, larger than 1 MiB, not YAML, or breaks its schema; all problems at once.
    """
    file = folder / CARD_FILE
    problems: list[Problem] = []
    fields = read_fields(Card, _load_yaml(file), "", problems)
    if fields is not None:
        problems.extend(cross_check(fields))
    if problems or fields is None:
        raise CardError(file, problems)
    return Card(**fields)


def write_card(card: Card, folder: Path) -> Path:
    """Write a card in the order of its fields; optional keys at their defaults are left out."""
    file = folder / CARD_FILE
    text = yaml.safe_dump(_to_plain(card), sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    file.write_text(text, encoding="utf-8")
    return file


def file_digest(file: Path) -> str:
    """SHA-256 of a file, as "sha256:" and hexadecimal digits."""
    with file.open("rb") as stream:
        return "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest()


def source_of(card: Card, folder: Path) -> Path:
    """Find the file whose digest is the ingredient "source": the family's, or that of one's own beside the card.

    Raises:
        UnknownFamilyError: the family is not this package's.
    """
    own = card.family.name == OWN_FAMILY and card.family.source is not None
    return folder / str(card.family.source) if own else source_file(card.family.name)


def model_digest(card: Card, folder: Path, source: Path | None = None) -> str:
    """Name what is served: weights, configuration, family source, and the versions of noise and execution.

    Args:
        card: the card.
        folder: where its weights lie.
        source: the family's source file; None is that of `source_of`.

    Returns:
        "sha256:" and 64 hexadecimal digits, of canonical JSON.

    Raises:
        CardError: the weights file is absent, or not the one the card names; or the source of one's own is absent.
        UnknownFamilyError: no source is given and the family is not this package's.
    """
    return digest_of_ingredients(model_ingredients(card, folder, source))


def model_ingredients(card: Card, folder: Path, source: Path | None = None) -> dict[str, Any]:
    """List what the model digest is taken of.

    The largest batch belongs to it: it decides which batch sizes agree, hence which bits come out. So do the prior, by
    which labels are drawn, and the defaults of the parameters a request leaves unset.

    Args:
        card: the card.
        folder: where its weights lie.
        source: the family's source file; None is that of `source_of`.

    Raises:
        CardError: as in `model_digest`.
        UnknownFamilyError: as in `model_digest`.
    """
    return {
        "weights": check_weights(card, folder),
        "config": _configuration(card),
        "source": _source_digest(card, folder, source),
        "noise": NOISE_VERSION,
        "execution": EXECUTION_VERSION,
    }


def _configuration(card: Card) -> dict[str, Any]:
    """Say what weights and source are run with; what only models of one's own have is left out for all others."""
    configuration = {
        "family": card.family.name,
        "config": card.family.config,
        "classes": list(card.classes) or None,
        "prior": list(card.prior) or None,
        "defaults": {name: parameter.default for name, parameter in card.parameters.items()},
        "sample": dataclasses.asdict(card.sample),
        "operations": list(card.operations),
        "max_exec_batch": card.limits.max_exec_batch,
    }
    latent = {"latent": list(card.latent.shape)} if card.latent else {}
    return configuration | latent | ({"class_name": card.family.class_name} if card.family.class_name else {})


def _source_digest(card: Card, folder: Path, source: Path | None) -> str:
    file = source or source_of(card, folder)
    if not file.is_file():
        problem = Problem(key="family.source", wrong=f"{file.name} is not in {folder}", remedy="put it beside the card")
        raise CardError(folder / CARD_FILE, [problem])
    return file_digest(file)


def check_weights(card: Card, folder: Path) -> str:
    """Make sure that the weights file is the one the card names, if it names one.

    Returns:
        The file's digest.

    Raises:
        CardError: it is absent, or its SHA-256 is another.
    """
    file = folder / card.weights.file
    if not file.is_file():
        problem = Problem(key="weights.file", wrong=f"{file.name} is not in {folder}", remedy="put it beside the card")
        raise CardError(folder / CARD_FILE, [problem])
    found = file_digest(file)
    if card.weights.digest not in (None, found):
        remedy = "restore the file, train again, or remove this key so that the file may be any"
        problem = Problem(key="weights.digest", wrong=f"{file.name} has {found}", remedy=remedy)
        raise CardError(folder / CARD_FILE, [problem])
    return found


def _load_yaml(file: Path) -> object:
    """Read YAML without aliases, whose expansion a small file could make endless, and without keys that are lost."""
    try:
        if file.stat().st_size > _MAX_CARD_BYTES:
            raise CardError(file, [Problem(key="", wrong="is larger than 1 MiB", remedy="keep data out of the card")])
        text = file.read_text(encoding="utf-8")
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader)):
            raise CardError(file, [Problem(key="", wrong="has a YAML alias (*)", remedy="write the value out")])
        if twice := list(_find_repeated_keys(yaml.compose(text, Loader=yaml.SafeLoader), "")):
            raise CardError(file, [Problem(key=key, wrong="is there twice", remedy="keep one") for key in twice])
        return yaml.safe_load(text)
    except OSError as error:
        problem = Problem(key="", wrong=f"cannot be read: {error.strerror}", remedy="every model folder needs a card")
        raise CardError(file, [problem]) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        wrong = f"is not YAML: {' '.join(str(error).split())}"
        raise CardError(file, [Problem(key="", wrong=wrong, remedy="mend the syntax")]) from error


def _find_repeated_keys(node: yaml.Node | None, key: str) -> Iterator[str]:
    """Name keys that a mapping has twice: YAML would silently keep the last."""
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _find_repeated_keys(item, f"{key}[{i}]")
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[tuple[str, str]] = set()
    for name, item in node.value:
        told = str(name.value) if isinstance(name, yaml.ScalarNode) else "?"
        inner = f"{key}.{told}" if key else told
        if isinstance(name, yaml.ScalarNode) and (name.tag, told) in seen:
            yield inner
        seen.add((name.tag, told))
        yield from _find_repeated_keys(item, inner)


def _to_plain(value: Any) -> Any:
    """Turn a record into what YAML and JSON can say; optional fields at their defaults are left out."""
    if dataclasses.is_dataclass(value):
        kept = [f for f in dataclasses.fields(value) if getattr(value, f.name) != default_of(f)]
        return {field.name: _to_plain(getattr(value, field.name)) for field in kept}
    if isinstance(value, Mapping):
        return {name: _to_plain(item) for name, item in value.items()}
    return [_to_plain(item) for item in value] if isinstance(value, tuple | list) else value
