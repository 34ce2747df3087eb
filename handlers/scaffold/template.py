"""What is asked of `fount new`, checked, and the card it leads to. No torch here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from handlers.cards.card import (
    NAME_RULE,
    Card,
    Family,
    Golden,
    Latent,
    Limits,
    Parameter,
    Sample,
    Weights,
    is_model_name,
)
from handlers.models import CUSTOM_FAMILY, PROGRAM_FAMILIES

__all__ = ["FAMILIES", "FamilyName", "Wish", "WishError", "card_of", "keys_unwritten"]

FamilyName = Literal["module", "conditional-gan", "vae", "conditional-vae", "torchscript", "exported"]
FAMILIES: tuple[FamilyName, ...] = get_args(FamilyName)

_TANH: tuple[FamilyName, ...] = ("module", "conditional-gan", "torchscript", "exported")  # end with tanh: [-1, 1]
_UNTRAINED = "UNTRAINED"
_LICENCE = "Say whose data the weights were trained on, and under which licence."
_USE = "Say what the samples are for, and what they are not for."
_PROGRAM_FILES = {"torchscript": "generator.pt", "exported": "generator.pt2"}
_MOST_STAGES = 3
_MOST_PIXELS = 2**26  # of one sample; larger ones are a slip of the finger


class WishError(Exception):
    """A model cannot be begun as asked. Ask again as the message says."""


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A model to begin.

    Attributes:
        name: of model and folder.
        height: pixels.
        width: pixels.
        channels: 1 is grey, 3 is RGB.
        classes: names, in the order of their labels; empty is unconditional.
        latent_dim: length of z.
        family: how the model comes in.
    """

    name: str
    height: int
    width: int
    channels: int
    classes: tuple[str, ...]
    latent_dim: int
    family: FamilyName

    def __post_init__(self) -> None:
        """Refuse what no card can say.

        Raises:
            WishError: the name is none, the size is beyond reason, or classes and family contradict each other.
        """
        if not is_model_name(self.name):
            raise WishError(f"the name {self.name!r} {NAME_RULE}{_suggest(self.name)}")
        if self.height * self.width * self.channels > _MOST_PIXELS:
            raise WishError(f"one sample of {self.height}×{self.width}×{self.channels} has more than 2^26 values; "
                            "ask for a smaller --size")  # fmt: skip
        if self.family.startswith("conditional-") and not self.classes:
            raise WishError(f"family {self.family} needs classes; name them with --labels")
        if self.family == "vae" and self.classes:
            raise WishError("family vae has no classes; use --family conditional-vae, or leave --labels out")

    @property
    def stub_config(self) -> dict[str, int]:
        """What the stand-in's class is built with."""
        size = {"latent_dim": self.latent_dim, "height": self.height, "width": self.width, "channels": self.channels}
        return size | ({"classes": len(self.classes)} if self.classes else {})


def card_of(wish: Wish) -> Card:
    """Write the card of a model nobody has trained yet."""
    classes, size = wish.classes, f"{wish.height}×{wish.width}×{wish.channels}"
    own = wish.family == CUSTOM_FAMILY or wish.family in PROGRAM_FAMILIES
    return Card(
        name=wish.name,
        version="1.0",
        description=f"{_UNTRAINED}: noise of {size}, until your own generator is here. Say then what it draws.",
        family=_family_of(wish),
        operations=("SAMPLE",),
        classes=classes,
        prior=tuple(1 / len(classes) for _ in classes),
        latent=Latent(shape=(wish.latent_dim,)) if own else None,
        sample=Sample(
            modality="image", height=wish.height, width=wish.width, channels=wish.channels,
            value_range=(-1.0, 1.0) if wish.family in _TANH else (0.0, 1.0),
        ),
        parameters={
            "truncation": Parameter(
                min=0.5, max=4.0, default=None,
                description="Draws components of z beyond this many standard deviations again: lower is more typical.",
            )
        },
        encodings=("UINT8", "FLOAT32", "PNG") if wish.channels in (1, 3) else ("UINT8", "FLOAT32"),
        limits=Limits(max_count=100_000_000, max_labels=100_000, max_exec_batch=64),
        precisions=("fp32",),
        data_licence=_LICENCE,
        intended_use=_USE,
        weights=Weights(file=_PROGRAM_FILES.get(wish.family, "weights.safetensors")),
        golden=Golden(file="golden.safetensors"),
    )  # fmt: skip


def keys_unwritten(card: Card) -> tuple[str, ...]:
    """Name the keys of a card whose text still is what `card_of` put there for its author to replace."""
    stand_ins = {
        "description": card.description.startswith(_UNTRAINED),
        "data_licence": card.data_licence.strip() == _LICENCE,
        "intended_use": card.intended_use.strip() == _USE,
    }
    return tuple(key for key, is_stand_in in stand_ins.items() if is_stand_in)


def _family_of(wish: Wish) -> Family:
    if wish.family == CUSTOM_FAMILY:
        return Family(name=CUSTOM_FAMILY, config=wish.stub_config, source="generator.py", class_name="Generator")
    if wish.family in PROGRAM_FAMILIES:
        return Family(name=wish.family)
    return Family(name=wish.family, config=wish.stub_config | _built_in_config(wish))


def _built_in_config(wish: Wish) -> dict[str, int]:
    """Choose the rest of a built-in family's configuration: sizes of an ordinary small model."""
    stages = next((n for n in range(_MOST_STAGES, 0, -1) if not wish.height % 2**n and not wish.width % 2**n), 0)
    if not stages:
        raise WishError(f"family {wish.family} halves height and width; ask for an even --size, or use --family module")
    if wish.family == "conditional-gan":
        return {"features": 32, "stages": stages}
    prior = {"components": 50} if wish.family == "vae" else {}
    return {"encoder_features": 16, "decoder_features": 32, "stages": stages} | prior


def _suggest(name: str) -> str:
    near = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:64].rstrip("-")
    return f"; try {near}" if is_model_name(near) else ""
