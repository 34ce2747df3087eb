"""Write a model card as YAML with a comment above every key, for its author to fill in.

A card enters; YAML leaves, which also contains the optional keys that the card does not use, commented out and with an
example. Keys and their order are those of the schema; their comments are here.
"""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from fount.plain_yaml import dump_yaml
from handlers.cards.card import Card, Direction, Input, Latent, Quality, Recipe, ScoreColumn, default_of

__all__ = ["KEY_COMMENTS", "card_to_text"]


_WIDTH = 110  # columns of a comment
_HEADER = """\
# The card of this model: its inputs, outputs and quality. Packing, workers and the gateway read it.
# Keys that are commented out are optional. `fount check` names every key that is misspelt, missing or wrong.
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
    "input": Input(height=7, width=7, channels=1),
    "latent_dim": 100,
    "draw_steps": 1,
    "conditions": ("PREFIX",),
    "prefix_unit": 1,
    "score_columns": (
        ScoreColumn(name="log-density", unit="nats", kind="EXACT", description="log p(x) of the 784 pixels"),
    ),
    "directions": (Direction(name="thickness", description="Thickness of strokes", vector=(0.5, -0.5)),),
    "weights.digest": "sha256:" + "0" * 64,
}
"""Examples of optional keys; other optional keys show their default."""

KEY_COMMENTS: Mapping[str, str] = {
    "name": "The name that clients request: a lower-case letter, then a-z, 0-9 and -.",
    "version": "In quotes: digits and dots. Clients that name none get the newest. Raise it when samples change; "
    "the older version may stay in a folder of its own, and both are served.",
    "description": "One or two sentences that `fount model` shows: what the samples are, and from what kind of model.",
    "family": "The kind of model.",
    "family.name": "module: a class of your own in a file of this folder. torchscript or exported: a program, in the "
    "weights file. Or a built-in architecture: vae, conditional-vae, conditional-gan, classifier, diffusers-unet.",
    "family.config": "Keyword arguments of the class, as in Generator(**config). Built-in architectures have their own "
    "keys, and report missing ones. Not for programs.",
    "family.source": "For module: the Python file with the class. It may import packages that the worker has "
    "installed, but no other file of yours: only this one is packed.",
    "family.class_name": "For module: the class, a torch.nn.Module.",
    "operations": "SAMPLE for generators; CLASSIFY and EMBED for models that read images; ENCODE and DECODE for models "
    "with a latent space; SCORE for models that compute log-likelihoods; TRANSLATE for models that make an image of "
    "another one.",
    "classes": "The names of the classes, in the order of their labels, from 0. An unconditional model has none.",
    "prior": "Probability of each class when a request names none: one weight for each class, summing to 1.",
    "latent": "The noise that is the input of the model.",
    "latent.shape": "z is (B, *shape), N(0, 1), drawn by the address of each sample: [100] for a vector, [4, 8, 8] "
    "for a map.",
    "sample": "One sample as the model returns it, or one image as a classifier reads it.",
    "sample.modality": "image; vector: a point of a few numbers; or text: bytes of UTF-8.",
    "sample.height": "Of an image: pixels.",
    "sample.width": "Of an image: pixels.",
    "sample.channels": "Of an image: 1 is grey, 3 is RGB; others are served as arrays, not as pictures.",
    "sample.length": "Of a vector: its numbers. Of a text: the most bytes of one, its prefix included.",
    "sample.value_range": "The range of the floats that the model returns, ends included: [-1, 1] after a tanh, [0, 1] "
    "after a sigmoid. Its ends become 0 and 255. A sample outside is refused, not clipped.",
    "input": "The image that TRANSLATE takes, where its shape is not that of a sample; its value range is the same.",
    "input.height": "Pixels.",
    "input.width": "Pixels.",
    "input.channels": "1 is grey, 3 is RGB.",
    "parameters": "What a request may set, with ranges: truncation always; temperature, top_k, top_p, guidance_scale "
    "and steps if your `sample` takes them by name.",
    "parameters.min": "The smallest value a request may set, included.",
    "parameters.max": "The largest value, included.",
    "parameters.default": "The value when a request sets none; null is off.",
    "parameters.description": "Its effect, for `fount model`.",
    "encodings": "Formats of samples for clients. PNG needs 1 or 3 channels.",
    "latent_dim": "Length of the latent that ENCODE returns and DECODE takes.",
    "latent_spread": "Root mean square of the standard deviations of the training rows' latents: the unit in which "
    "variants are spread.",
    "draw_steps": "Steps of a draw when a request sets none: what a sample costs.",
    "conditions": "What samples can be conditional on besides a label: PREFIX, their beginning, or MASK, any part of a "
    "picture. For built-in architectures.",
    "prefix_unit": "Of how many bytes a prefix must be a multiple.",
    "score_columns": "What SCORE returns for each row.",
    "score_columns.name": "Name of the column.",
    "score_columns.unit": "nats.",
    "score_columns.kind": "EXACT, LOWER_BOUND or ESTIMATE of the log-likelihood.",
    "score_columns.description": "Of which law, with its levels and dimensions.",
    "directions": "Attributes that change along a line in the latent space.",
    "directions.name": "Name of the attribute.",
    "directions.description": "What changes, and by how much for one unit.",
    "directions.vector": "One unit of it, latent_dim numbers.",
    "limits": "Bounds of one request, and of one batch.",
    "limits.max_count": "Samples.",
    "limits.max_labels": "Labels given one by one.",
    "limits.max_exec_batch": "The largest batch a worker runs. `fount check` measures which is best; larger ones need "
    "more memory.",
    "precisions": "Precisions of workers: fp32, and bf16 if `fount check` finds the samples close enough.",
    "recipe": "How the weights were trained, to reproduce them.",
    "recipe.name": "Name of the training script or configuration.",
    "recipe.seed": "Seed of the training run.",
    "recipe.steps": "Optimiser steps.",
    "recipe.data": "The name of the data set.",
    "recipe.data_digest": "SHA-256 that identifies the data set.",
    "quality": "Measured quality: one entry for each metric, with a 95 % interval.",
    "quality.metric": "Name of the metric.",
    "quality.value": "Its value for samples.",
    "quality.interval": "The 95 % interval of the value, low end first.",
    "quality.real_value": "The same statistic of held-out real data: what a perfect generator would reach.",
    "quality.method": "Data, classifier and method of the interval.",
    "data_licence": "Owner and licence of the data that the weights were trained on.",
    "intended_use": "Purposes for which the samples are suitable, and for which not.",
    "weights": "The trained weights.",
    "weights.file": "In this folder: safetensors, or the program of a family torchscript or exported. Pickles (.pt, "
    ".pth, .ckpt of torch.save) are never loaded: `fount convert` turns them into safetensors.",
    "weights.digest": "SHA-256 of that file; packing then refuses any other.",
    "golden": "Recorded samples of fixed addresses.",
    "golden.file": "Written by `fount check`. A worker that does not reproduce them refuses to serve.",
}
"""Comments by the path of a key; entries of a list or a mapping share theirs."""


def card_to_text(card: Card) -> str:
    """Write a card as YAML with comments.

    Returns:
        Text that `load_card` reads as an equal card.
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
    elif key in ("quality", "score_columns", "directions") and value:
        yield f"{name}:"
        for each in value:
            first, *others = _indented(each, key)
            yield f"- {first.strip()}"
            yield from others
    else:
        yield f"{name}: {_to_yaml(value)}"


def _indented(record: Any, key: str) -> Iterator[str]:
    for block in _blocks_of(record, f"{key}."):
        yield from (f"  {line}" for line in block)


def _to_yaml(value: Any) -> str:
    plain = list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value
    return dump_yaml(plain, flow=True, width=10**6).strip().removesuffix("\n...")
