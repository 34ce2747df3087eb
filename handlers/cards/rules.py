"""The rules between the fields of a model card, which its schema cannot express."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fount.documents import Problem
from handlers.models import CUSTOM_FAMILY, PROGRAM_FAMILIES

if TYPE_CHECKING:
    from handlers.cards.card import Card

__all__ = ["cross_check"]

_IN_ORDER = ("fully-visible", "gated-pixelcnn", "image-transformer")
"""Families that draw the pixels of a picture one after the other."""


def cross_check(card: Card) -> Iterator[Problem]:
    """Find what is wrong between fields."""
    yield from _check_family(card)
    yield from _check_sample(card)
    yield from _check_operations(card)
    yield from _check_latent(card)
    yield from _check_scores(card)
    yield from _check_conditions(card)
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
    if latent is None and "SAMPLE" in card.operations:
        remedy = f"family {family.name} needs the shape of z: add, for instance, latent: {{shape: [100]}}"
        yield Problem(key="latent", wrong="missing", remedy=remedy)
    if is_program and card.operations != ("SAMPLE",):
        remedy = f"a model of family {family.name} can only sample: set it to [SAMPLE]"
        yield Problem(key="operations", wrong=f"is {list(card.operations)}", remedy=remedy)
    if is_module and "TRANSFORM" in card.operations:
        remedy = f"a model of family {CUSTOM_FAMILY} has no TRANSFORM: remove it"
        yield Problem(key="operations", wrong=f"is {list(card.operations)}", remedy=remedy)


def _check_sample(card: Card) -> Iterator[Problem]:
    sample = card.sample
    needed = {"height", "width", "channels"} if sample.modality == "image" else {"length"}
    for key in ("height", "width", "channels", "length"):
        value = getattr(sample, key)
        if key in needed and value is None:
            yield Problem(key=f"sample.{key}", wrong="missing", remedy=f"a {sample.modality} has one")
        elif key not in needed and value is not None:
            remedy = f"a sample of modality {sample.modality} has none: remove it"
            yield Problem(key=f"sample.{key}", wrong=f"is {value}", remedy=remedy)
    if sample.modality == "vector" and not set(card.encodings) <= {"FLOAT32"}:
        remedy = "vectors are encoded as FLOAT32 only: set it to [FLOAT32]"
        yield Problem(key="encodings", wrong=f"is {list(card.encodings)}", remedy=remedy)
    if sample.modality == "text":
        if not set(card.encodings) <= {"UINT8"}:
            remedy = "texts are encoded as UINT8 only: set it to [UINT8]"
            yield Problem(key="encodings", wrong=f"is {list(card.encodings)}", remedy=remedy)
        if sample.value_range != (0.0, 255.0):
            remedy = "the values of a text are bytes: set it to [0.0, 255.0]"
            yield Problem(key="sample.value_range", wrong=f"is {list(sample.value_range)}", remedy=remedy)
        if foreign := set(card.operations) - {"SAMPLE", "SCORE"}:
            remedy = f"a model of text can SAMPLE and SCORE: remove {', '.join(sorted(foreign))}"
            yield Problem(key="operations", wrong=f"is {list(card.operations)}", remedy=remedy)


def _check_latent(card: Card) -> Iterator[Problem]:
    has_latent = bool({"ENCODE", "DECODE"} & set(card.operations))
    if has_latent and card.latent_dim is None:
        yield Problem(key="latent_dim", wrong="missing", remedy="operations has ENCODE or DECODE: add the length of z")
    if not has_latent and card.latent_dim is not None:
        remedy = "only a model with ENCODE or DECODE has one: remove it"
        yield Problem(key="latent_dim", wrong=f"is {card.latent_dim}", remedy=remedy)
    for place, direction in enumerate(card.directions):
        if len(direction.vector) != card.latent_dim:
            remedy = f"must have as many as latent_dim, {card.latent_dim}"
            wrong = f"has {len(direction.vector)} numbers"
            yield Problem(key=f"directions[{place}].vector", wrong=wrong, remedy=remedy)


def _check_scores(card: Card) -> Iterator[Problem]:
    if ("SCORE" in card.operations) != bool(card.score_columns):
        remedy = "must list what SCORE returns when operations has SCORE, else be absent"
        yield Problem(key="score_columns", wrong=f"has {len(card.score_columns)} entries", remedy=remedy)
    names = [column.name for column in card.score_columns]
    if len(set(names)) != len(names):
        yield Problem(key="score_columns", wrong=f"has the names {names}", remedy="give each its own")


def _check_conditions(card: Card) -> Iterator[Problem]:
    if card.conditions and "SAMPLE" not in card.operations:
        remedy = "only a model with SAMPLE has conditions: remove it"
        yield Problem(key="conditions", wrong=f"is {list(card.conditions)}", remedy=remedy)
    if card.conditions and card.sample.modality == "vector":
        remedy = "samples that are vectors have no conditions: remove it"
        yield Problem(key="conditions", wrong=f"is {list(card.conditions)}", remedy=remedy)
    if "MASK" in card.conditions and card.sample.modality == "text":
        yield Problem(key="conditions", wrong="has MASK", remedy="a text has no mask: remove it")
    if "MASK" in card.conditions and card.family.name in _IN_ORDER:
        remedy = f"a model of family {card.family.name} draws pixels without seeing later ones: replace it by PREFIX"
        yield Problem(key="conditions", wrong="has MASK", remedy=remedy)
    if card.prefix_unit > 1 and "PREFIX" not in card.conditions:
        remedy = "only a model with the condition PREFIX has one: remove it"
        yield Problem(key="prefix_unit", wrong=f"is {card.prefix_unit}", remedy=remedy)


def _check_operations(card: Card) -> Iterator[Problem]:
    if bool({"SAMPLE", "TRANSLATE"} & set(card.operations)) != bool(card.encodings):
        remedy = "must list the encodings it offers when operations has SAMPLE or TRANSLATE, else be []"
        yield Problem(key="encodings", wrong=f"is {list(card.encodings)}", remedy=remedy)
    if "TRANSLATE" in card.operations and card.sample.modality != "image":
        wrong, remedy = f"is {list(card.operations)}", "only images are translated: remove TRANSLATE"
        yield Problem(key="operations", wrong=wrong, remedy=remedy)
    if card.input is not None and "TRANSLATE" not in card.operations:
        yield Problem(key="input", wrong=f"is {list(card.input.shape)}", remedy="only TRANSLATE has one: remove it")
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
