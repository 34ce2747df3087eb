"""The check `conditions`, and cards whose conditions or steps are not those of their family."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from handlers.cards.card import Card, CardError, Family, Parameter, Sample, load_card, write_card
from handlers.checks.conditions import check_conditions
from handlers.checks.report import Finding
from handlers.checks.subject import Subject
from handlers.execution.network import build_network
from handlers.family import Given
from handlers.loading.build import BuildError, build_module
from handlers.models import load_family
from handlers.models.diffusion import EdmDiffusion
from handlers.settings import Settings
from tests.handlers.toys import toy_card, write_model

SHAPE: dict[str, Any] = {"height": 8, "width": 8, "channels": 1, "classes": 3}
CORE: dict[str, Any] = {"layers": 1, "features": 8, "heads": 2}
PATCHES = {**SHAPE, **CORE, "patch": 2, "levels": 4, "run": 4}
"""A row of patches has 16 pixels."""

TEXT = {**CORE, "length": 8, "run": 4}
PIXELS = {**SHAPE, "features": 4, "blocks": 1, "components": 2, "levels": 5, "run": 4}
BELIEF = {**SHAPE, "run": 8}
NOISES = {**SHAPE, "features": [8]}
GAN = {**SHAPE, "latent_dim": 4, "features": 4, "stages": 1}


def card_of(family: str, config: dict[str, Any], **changes: Any) -> Card:
    low = -1.0 if family == "edm-diffusion" else 0.0
    sample = Sample(modality="image", height=8, width=8, channels=1, value_range=(low, 1.0))
    if "length" in config:
        sample = Sample(modality="text", length=8, value_range=(0.0, 255.0))
        changes = {"encodings": ("UINT8",), **changes}
    card = dataclasses.replace(toy_card(config.get("classes", 0), max_exec_batch=16), sample=sample, parameters={})
    return dataclasses.replace(card, family=Family(name=family, config=config), **changes)


def check(card: Card) -> Finding:
    torch.manual_seed(0)
    module = load_family(card.family.name, card.family.config)
    assert isinstance(module, torch.nn.Module)
    subject = Subject(folder=Path(), settings=Settings(), picture=Path())
    subject.card, subject.network = card, build_network(card, module, Settings())
    return check_conditions(subject)


@pytest.mark.parametrize(
    "card",
    [
        card_of("image-transformer", PATCHES, conditions=("PREFIX",), prefix_unit=16),
        card_of("text-transformer", TEXT, conditions=("PREFIX",)),
        card_of("gated-pixelcnn", PIXELS, conditions=("PREFIX",)),
        card_of("fully-visible", BELIEF, conditions=("PREFIX",)),
        card_of("edm-diffusion", NOISES, conditions=("PREFIX", "MASK")),
    ],
    ids=lambda card: card.family.name,
)
def test_a_family_keeps_what_its_card_promises(card: Card) -> None:
    finding = check(card)
    assert (finding.state, finding.seen) == (
        "passed", f"values given by {', '.join(card.conditions)} are returned as they were given",
    )  # fmt: skip


@pytest.mark.parametrize("unit", [1, 8], ids=["pixels", "half-patches"])
def test_a_prefix_of_parts_of_patches_is_found(unit: int) -> None:
    finding = check(card_of("image-transformer", PATCHES, conditions=("PREFIX",), prefix_unit=unit))
    assert finding.state == "failed"
    assert finding.seen.startswith(f"a prefix of {unit} bytes is drawn again: byte 0 was ")
    assert finding.change.startswith("set prefix_unit in model.yaml to the bytes that the family draws as one")


def test_a_prefix_longer_than_a_sample_is_found() -> None:
    finding = check(card_of("text-transformer", TEXT, conditions=("PREFIX",), prefix_unit=9))
    assert (finding.seen, finding.change) == (
        "prefix_unit is 9, and a sample has 8 bytes", "set prefix_unit in model.yaml to 8 or less",
    )  # fmt: skip


def test_a_model_that_cannot_be_given_values_is_found() -> None:
    finding = check(card_of("conditional-gan", GAN, conditions=("MASK",)))
    assert finding.seen == "the card lists MASK, and the model cannot be given values"


def test_a_mask_that_is_ignored_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EdmDiffusion, "begin_given", _begin_without)
    finding = check(card_of("edm-diffusion", NOISES, conditions=("MASK",)))
    assert finding.seen.startswith("a picture with a mask is drawn again: byte ")
    assert finding.change == "remove MASK from conditions, or let the family keep given values"


def _begin_without(self: EdmDiffusion, given: Given, *arguments: Any) -> Tensor:
    return self.begin(*arguments)


@pytest.mark.parametrize(
    ("family", "config"),
    [("image-transformer", PATCHES), ("gated-pixelcnn", PIXELS), ("fully-visible", BELIEF)],
    ids=["image-transformer", "gated-pixelcnn", "fully-visible"],
)
def test_a_mask_of_pixels_drawn_in_order_is_refused(tmp_path: Path, family: str, config: dict[str, Any]) -> None:
    write_card(card_of(family, config, conditions=("MASK",)), tmp_path)
    words = f"conditions: has MASK; a model of family {family} draws pixels without seeing later ones: replace it by"
    with pytest.raises(CardError, match=words):
        load_card(tmp_path)


@pytest.mark.parametrize("family", ["gated-pixelcnn", "fully-visible"])
def test_other_steps_than_the_familys_are_refused(tmp_path: Path, family: str) -> None:
    config = PIXELS if family == "gated-pixelcnn" else BELIEF
    module = load_family(family, config)
    assert isinstance(module, torch.nn.Module)
    steps = 16 if family == "gated-pixelcnn" else 8
    card = write_model(tmp_path, card_of(family, config, draw_steps=steps), module)
    build_module(card, tmp_path)
    words = f"draw_steps is 5, and a draw of this {family} takes {steps} steps; set draw_steps: {steps} in model.yaml"
    with pytest.raises(BuildError, match=words):
        build_module(dataclasses.replace(card, draw_steps=5), tmp_path)


def test_a_default_that_the_family_refuses_is_named(tmp_path: Path) -> None:
    module = EdmDiffusion.from_config(NOISES)
    card = write_model(tmp_path, card_of("edm-diffusion", NOISES, draw_steps=18), module)
    steps = Parameter(min=1.0, max=300.0, default=300.0, description="Of a draw.")
    words = "refuses the card's default: steps is 300, must be in 1 to 256; correct parameters.steps in model.yaml"
    with pytest.raises(BuildError, match=words):
        build_module(dataclasses.replace(card, parameters={"steps": steps}), tmp_path)
