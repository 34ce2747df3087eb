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

from handlers.cards.card import Card, Latent, Quality, Recipe, default_of

__all__ = ["KEY_COMMENTS", "card_to_text"]


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


# FOLDED FROM handlers.scaffold.card_text:
# What every key of a card means, in the words of someone who fills one in for the first time.


KEY_COMMENTS: Mapping[str, str] = {
    "name": "What clients ask for: a lower-case letter, then a-z, 0-9 and -.",
    "version": "In quotes: digits and dots. Clients that ask for none get the newest. Raise it when samples change; "
    "the older one may stay in a folder of its own, and both are served.",
    "description": "One or two sentences that `fount model` shows: what the samples are, and from what kind of model.",
    "family": "How the model comes in.",
    "family.name": "module: a class of your own in a file beside this card. torchscript or exported: a program, which "
    "the weights file is. Or an architecture of Fount's own: vae, conditional-vae, conditional-gan, classifier.",
    "family.config": "What the class is built with, by name, like Generator(**config); Fount's own architectures have "
    "keys of their own, which they name when one is missing. Not for programs.",
    "family.source": "For module: the Python file with the class. It may import what the worker has installed, but no "
    "other file of yours: it is packed alone.",
    "family.class_name": "For module: the class, a torch.nn.Module.",
    "operations": "SAMPLE for generators; CLASSIFY and EMBED for models that read images.",
    "classes": "The names of the classes, in the order of their labels, from 0. An unconditional model has none.",
    "prior": "How often each class is drawn when a request names none: one weight a class, summing to 1.",
    "latent": "The noise that the model is given.",
    "latent.shape": "z is (B, *shape), N(0, 1), drawn by the address of each sample: [100] for a vector, [4, 8, 8] for "
    "a map.",
    "sample": "One sample, as the model gives it, or one image, as a classifier reads it.",
    "sample.modality": "image is the one there is so far.",
    "sample.height": "Pixels.",
    "sample.width": "Pixels.",
    "sample.channels": "1 is grey, 3 is RGB; others are served as arrays, not as pictures.",
    "sample.value_range": "The range of the floats that the model gives, ends included: [-1, 1] after a tanh, [0, 1] "
    "after a sigmoid. Its ends become 0 and 255. A sample beyond it is refused, not clipped.",
    "parameters": "What a request may set, with ranges: truncation always; temperature, top_k, top_p, guidance_scale "
    "and steps if your `sample` takes them by name.",
    "parameters.min": "The least a request may set, included.",
    "parameters.max": "The most, included.",
    "parameters.default": "What is used when a request sets none; null is off.",
    "parameters.description": "What it does, for `fount model`.",
    "encodings": "How clients may have samples. PNG needs 1 or 3 channels.",
    "limits": "Bounds of one request, and of one batch.",
    "limits.max_count": "Samples.",
    "limits.max_labels": "Labels written out one by one.",
    "limits.max_exec_batch": "The largest batch a worker runs. `fount check` measures which is best; larger ones need "
    "more memory.",
    "precisions": "What workers may compute in: fp32, and bf16 if `fount check` finds the samples close enough.",
    "recipe": "How the weights were trained, if that is to be known.",
    "recipe.name": "Of the training script or configuration.",
    "recipe.seed": "Of the training run.",
    "recipe.steps": "Optimiser steps.",
    "recipe.data": "The name of the data set.",
    "recipe.data_digest": "SHA-256 that tells this data set from another.",
    "quality": "What was measured, if anything was: one entry a metric, each with a 95 % interval.",
    "quality.metric": "Its name.",
    "quality.value": "Of the samples.",
    "quality.interval": "The 95 % interval of the value, low end first.",
    "quality.real_value": "The same statistic of held-out real data: what a perfect generator would reach.",
    "quality.method": "On what, by what and how the interval comes about.",
    "data_licence": "Whose data the weights were trained on, and under which licence.",
    "intended_use": "What the samples are for, and what they are not for.",
    "weights": "The trained weights.",
    "weights.file": "Beside this card: safetensors, or the program of a family torchscript or exported. Pickles (.pt, "
    ".pth, .ckpt of torch.save) are never loaded: `fount convert` turns them into safetensors.",
    "weights.digest": "SHA-256 of that file, if no other may ever be packed under this card.",
    "golden": "What known addresses gave when the model was checked.",
    "golden.file": "Written by `fount check`. A worker that does not draw the same does not serve.",
}
"""By key, with the keys around it before dots; entries of a list or a mapping share theirs."""
