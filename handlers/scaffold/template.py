"""The model template of `fount new`: its validated options, and the card of the new model. Does not import torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from handlers.cards.card import (
    NAME_RULE,
    Card,
    Family,
    Golden,
    Input,
    Latent,
    Limits,
    Parameter,
    Sample,
    Weights,
    is_model_name,
)
from handlers.models import CUSTOM_FAMILY, PROGRAM_FAMILIES

__all__ = [
    "DATA_LICENCE", "FAMILIES", "INTENDED_USE", "FamilyName", "ModelTemplate", "TemplateError", "keys_unwritten",
    "template_to_card",
]  # fmt: skip

FamilyName = Literal["module", "conditional-gan", "vae", "conditional-vae", "torchscript", "exported"]
FAMILIES: tuple[FamilyName, ...] = get_args(FamilyName)

_TANH: tuple[FamilyName, ...] = ("module", "conditional-gan", "torchscript", "exported")  # end with tanh: [-1, 1]
_UNTRAINED = "UNTRAINED"
DATA_LICENCE = "Say whose data the weights were trained on, and under which licence."
INTENDED_USE = "Say what the samples are for, and what they are not for."
_PROGRAM_FILES = {"torchscript": "generator.pt", "exported": "generator.pt2"}
_TRUNCATION = Parameter(
    min=0.5,
    max=4.0,
    default=None,
    description="Draws components of z beyond this many standard deviations again: lower is more typical.",
)
_MAX_STAGES = 3
_MAX_VALUES = 2**26  # of one sample; larger ones are typing errors


class TemplateError(Exception):
    """A model folder cannot be created with these options. The message says what to change."""


@dataclass(frozen=True, kw_only=True)
class ModelTemplate:
    """Options of a new model.

    Attributes:
        name: of the model and its folder.
        height, width: in pixels.
        channels: 1 is grey, 3 is RGB.
        classes: names, in the order of their labels; empty is unconditional.
        latent_dim: length of z.
        family: kind of model.
        input_shape: (height, width, channels) of the pictures that it translates; None: it samples.
        draws: whether a translation is drawn, so that a picture has many.
    """

    name: str
    height: int
    width: int
    channels: int
    classes: tuple[str, ...]
    latent_dim: int
    family: FamilyName
    input_shape: tuple[int, int, int] | None = None
    draws: bool = False

    def __post_init__(self) -> None:
        """Validate the options.

        Raises:
            TemplateError: the name is invalid, the size is too large, or classes and family contradict each other.
        """
        if not is_model_name(self.name):
            raise TemplateError(f"the name {self.name!r} {NAME_RULE}{_suggest(self.name)}")
        if self.height * self.width * self.channels > _MAX_VALUES:
            raise TemplateError(f"one sample of {self.height}×{self.width}×{self.channels} has more than 2^26 values; "
                            "use a smaller --size")  # fmt: skip
        if self.family.startswith("conditional-") and not self.classes:
            raise TemplateError(f"family {self.family} needs classes; name them with --labels")
        if self.input_shape and self.family != CUSTOM_FAMILY:
            raise TemplateError(f"family {self.family} translates no pictures; leave --family out")
        if self.input_shape and math.prod(self.input_shape) > _MAX_VALUES:
            raise TemplateError("one picture to translate has more than 2^26 values; use a smaller --input-size")
        if self.family == "vae" and self.classes:
            raise TemplateError("family vae has no classes; use --family conditional-vae, or leave --labels out")

    @property
    def has_latent(self) -> bool:
        """Whether it reads z."""
        return self.input_shape is None or self.draws

    @property
    def stub_config(self) -> dict[str, int]:
        """Keyword arguments of the placeholder class."""
        size = {"height": self.height, "width": self.width, "channels": self.channels}
        if self.input_shape:
            size["input_channels"] = self.input_shape[2]
        if self.has_latent:
            size = {"latent_dim": self.latent_dim} | size
        return size | ({"classes": len(self.classes)} if self.classes else {})


def template_to_card(template: ModelTemplate) -> Card:
    """Create the card of an untrained model."""
    classes, size = template.classes, f"{template.height}×{template.width}×{template.channels}"
    own, translates = (template.height, template.width, template.channels), template.input_shape is not None
    is_custom = template.family in (CUSTOM_FAMILY, *PROGRAM_FAMILIES)
    return Card(
        name=template.name,
        version="1.0",
        description=f"{_UNTRAINED}: noise of {size}, until you add your own generator. Then describe it here.",
        family=_family_of(template),
        operations=("TRANSLATE",) if translates else ("SAMPLE",),
        classes=classes,
        prior=() if translates else tuple(1 / len(classes) for _ in classes),
        latent=Latent(shape=(template.latent_dim,)) if is_custom and template.has_latent else None,
        sample=Sample(
            modality="image", height=template.height, width=template.width, channels=template.channels,
            value_range=(-1.0, 1.0) if template.family in _TANH else (0.0, 1.0),
        ),
        input=_input_of(template.input_shape) if template.input_shape not in (None, own) else None,
        parameters={"truncation": _TRUNCATION} if template.has_latent else {},
        encodings=("UINT8", "FLOAT32", "PNG") if template.channels in (1, 3) else ("UINT8", "FLOAT32"),
        limits=Limits(max_count=100_000_000, max_labels=100_000, max_exec_batch=64),
        precisions=("fp32",),
        data_licence=DATA_LICENCE,
        intended_use=INTENDED_USE,
        weights=Weights(file=_PROGRAM_FILES.get(template.family, "weights.safetensors")),
        golden=Golden(file="golden.safetensors"),
    )  # fmt: skip


def _input_of(shape: tuple[int, int, int] | None) -> Input | None:
    return None if shape is None else Input(height=shape[0], width=shape[1], channels=shape[2])


def keys_unwritten(card: Card) -> tuple[str, ...]:
    """Name the keys of a card that still have the placeholder text of `template_to_card`."""
    placeholders = {
        "description": card.description.startswith(_UNTRAINED),
        "data_licence": card.data_licence.strip() == DATA_LICENCE,
        "intended_use": card.intended_use.strip() == INTENDED_USE,
    }
    return tuple(key for key, is_placeholder in placeholders.items() if is_placeholder)


def _family_of(template: ModelTemplate) -> Family:
    if template.family == CUSTOM_FAMILY:
        return Family(name=CUSTOM_FAMILY, config=template.stub_config, source="generator.py", class_name="Generator")
    if template.family in PROGRAM_FAMILIES:
        return Family(name=template.family)
    return Family(name=template.family, config=template.stub_config | _built_in_config(template))


def _built_in_config(template: ModelTemplate) -> dict[str, int]:
    """Choose the remaining configuration of a built-in family: sizes of a small model."""
    stages = next((n for n in range(_MAX_STAGES, 0, -1) if not template.height % 2**n and not template.width % 2**n), 0)
    if not stages:
        raise TemplateError(
            f"family {template.family} halves height and width; use an even --size, or use --family module"
        )
    if template.family == "conditional-gan":
        return {"features": 32, "stages": stages}
    prior = {"components": 50} if template.family == "vae" else {}
    return {"encoder_features": 16, "decoder_features": 32, "stages": stages} | prior


def _suggest(name: str) -> str:
    near = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:64].rstrip("-")
    return f"; try {near}" if is_model_name(near) else ""
