"""A card with every key explained above it, for a person to fill in.

The keys and their order are those of the schema; what is said of each is here. A card enters; YAML leaves, in which
optional keys that the card does not use are there too, commented out, with an example.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from handlers.cards.card import Card, Quality, Recipe
from handlers.cards.reader import default_of
from handlers.cards.schema import Latent
from handlers.scaffold.key_comments import KEY_COMMENTS

__all__ = ["card_to_text"]

_WIDTH = 110  # columns of a comment
_HEADER = """\
# The card of this model: what it accepts, what it gives, how good it is. Packing, workers and the gateway read it.
# Keys that are commented out are optional. A key that is misspelt, missing or wrong is named by `fount check`.
"""
_EXAMPLES: Mapping[str, Any] = {
    "family.config": {"features": 64},
    "family.source": "generator.py",
    "family.class_name": "Generator",
    "classes": ("cat", "dog"),
    "prior": (0.5, 0.5),
    "latent": Latent(shape=(100,)),
    "recipe": Recipe(name="my-training", seed=0, steps=10000, data="my-data", data_digest="sha256:" + "0" * 64),
    "quality": (Quality(metric="label-accuracy", value=0.95, interval=(0.93, 0.97), method="how it was measured"),),
    "quality.real_value": 0.99,
    "weights.digest": "sha256:" + "0" * 64,
}
"""What optional keys look like; those that the schema itself gives a value show that."""


def card_to_text(card: Card) -> str:
    """Write a card as YAML with comments.

    Returns:
        Text that `load_card` reads as this very card.
    """
    blocks = ["\n".join(lines) for lines in _blocks_of(card, "")]
    return "\n".join([_HEADER, "\n\n".join(blocks), ""])


def _blocks_of(record: Any, prefix: str) -> Iterator[list[str]]:
    """Write each key of a record: its comment, then its value."""
    for field in dataclasses.fields(record):
        key, value = f"{prefix}{field.name}", getattr(record, field.name)
        unused = value == default_of(field) and default_of(field) is not dataclasses.MISSING
        lines = list(_entry(field.name, _EXAMPLES.get(key, value) if unused else value, key))
        comment = textwrap.wrap(KEY_COMMENTS[key], _WIDTH, initial_indent="# ", subsequent_indent="# ")
        yield [*comment, *(f"# {line}" if unused else line for line in lines)]


def _entry(name: str, value: Any, key: str) -> Iterator[str]:
    if dataclasses.is_dataclass(value):
        yield f"{name}:"
        yield from _indented(value, key)
    elif key == "parameters" and value:
        yield f"{name}:"
        for parameter, described in value.items():
            yield f"  {parameter}:"
            yield from (f"  {line}" for line in _indented(described, key))
    elif key == "quality" and value:
        yield f"{name}:"
        for metric in value:
            first, *others = _indented(metric, key)
            yield f"- {first.strip()}"
            yield from others
    else:
        yield f"{name}: {_to_yaml(value)}"


def _indented(record: Any, key: str) -> Iterator[str]:
    for block in _blocks_of(record, f"{key}."):
        yield from (f"  {line}" for line in block)


def _to_yaml(value: Any) -> str:
    """Write a value in one line."""
    plain = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
    text = yaml.safe_dump(plain, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.strip().removesuffix("\n...")
