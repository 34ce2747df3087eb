"""Classes as users name them on the command line: parsed, and found among those of a model."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import click

from fount.client.catalog import ModelInfo
from fount.errors import NotFound
from fount.names import class_index, parse_index

__all__ = ["class_indices", "parse_label", "parse_labels", "parse_mixture"]


def parse_label(text: str) -> str:
    """Parse a class, which `class_index` finds once the model's classes are known."""
    text = text.strip()
    if not text:
        raise click.BadParameter(f"{text!r} is not a label; give the name or the index of a class")
    return text


def parse_labels(text: str) -> list[str]:
    """Parse classes separated by commas."""
    return [parse_label(each) for each in text.split(",")]


def parse_mixture(text: str) -> dict[str, float]:
    """Parse labels and weights, as in 7=0.9,1=0.1."""
    mixture: dict[str, float] = {}
    for component in text.split(","):
        name, _, weight = component.rpartition("=")
        label = name.strip()
        if label in mixture:
            raise click.BadParameter(f"{name!r} is given twice")
        try:
            mixture[label] = float(weight if label else "")
        except ValueError:
            raise click.BadParameter(f"{component!r} is not LABEL=WEIGHT, as in 7=0.9,1=0.1") from None
    return mixture


def class_indices(texts: Sequence[str], info: ModelInfo, name: str) -> list[int]:
    """Return the index of each class; one that `class_index` does not find may be an index that the server refuses.

    Raises:
        NotFound: a text is neither a class nor an index.
    """
    indices: dict[str, int] = {}
    for text in dict.fromkeys(texts):
        found = class_index(text, info.labels)
        index = parse_index(text) if found is None else found
        if index is None:
            command = f"fount model {shlex.quote(name)}"
            raise NotFound(f"{info.name} has no class {text!r}; `{command}` lists its classes.")
        indices[text] = index
    return [indices[text] for text in texts]
