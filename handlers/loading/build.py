"""Build a model from its card and folder into a module with its weights.

A model is a family of this package with a state dict, a class in a custom source file with a state dict, or a program,
which contains both. A card and its folder enter; a family for a network leaves, or an error that says what to change.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from torch import nn

from handlers.cards.card import Card
from handlers.cards.digests import source_of
from handlers.execution.network import FamilyBuilder
from handlers.family import Draw
from handlers.loading.custom_source import CustomSourceError, build_custom_class
from handlers.loading.memory import InsufficientMemoryError, require_memory
from handlers.loading.weights import load_weights
from handlers.models import CUSTOM_FAMILY, PROGRAM_FAMILIES, UnknownFamilyError, load_family
from handlers.stepping import SteppedSampler

__all__ = ["BuildError", "build_module", "build_unwrapped", "is_custom", "wrap_module"]


class BuildError(Exception):
    """A model cannot be built from its card, source and weights. Change what the message names."""


def is_custom(card: Card) -> bool:
    """Return whether a model is a custom module or a program, rather than of a family of this package."""
    return card.family.name in (CUSTOM_FAMILY, *PROGRAM_FAMILIES)


def build_module(card: Card, folder: Path, build_family: FamilyBuilder = load_family) -> nn.Module:
    """Build the module that a network runs.

    Args:
        card: the card.
        folder: the model folder, with the weights and a custom source file.
        build_family: builds a family's module from its name and configuration.

    Returns:
        The family, or a wrapped custom module, with its weights.

    Raises:
        BuildError: it cannot be built; the message says why and what to do.
        UnknownFamilyError: the family is not one of this package.
        WeightsError: the weights do not fit.
    """
    module = build_unwrapped(card, folder, build_family)
    if is_custom(card):
        return wrap_module(card, module)
    _check_steps(card, module)
    return module


def wrap_module(card: Card, module: nn.Module) -> nn.Module:
    """Wrap a custom module, or a program, as a family.

    Raises:
        BuildError: it cannot be called as its card says.
    """
    # Imported only when needed, because archives of other families do not contain it.
    custom = importlib.import_module("handlers.models.custom")
    listed = {str(name): parameter.default for name, parameter in card.parameters.items()}
    latent_shape = card.latent.shape if card.latent else (card.latent_dim or 1,)
    try:
        family: nn.Module = custom.CustomModel(
            module, latent_shape, labelled=bool(card.classes), listed=listed, operations=card.operations
        )
    except ValueError as error:
        file = card.family.source if card.family.name == CUSTOM_FAMILY else card.weights.file
        raise BuildError(f"{file}: {error}") from error
    return family


def build_unwrapped(card: Card, folder: Path, build_family: FamilyBuilder = load_family) -> nn.Module:
    """Build the model itself with its weights, a custom module without the wrapper that makes it a family.

    Args and raises: as in `build_module`.
    """
    file = folder / card.weights.file
    try:
        require_memory(file)
        if card.family.name in PROGRAM_FAMILIES:
            return _load_program(card, file)
        if card.family.name == CUSTOM_FAMILY:
            module = build_custom_class(source_of(card, folder), str(card.family.class_name), card.family.config)
        else:
            module = _build_family(card, build_family)
    except (CustomSourceError, InsufficientMemoryError) as error:
        raise BuildError(str(error)) from error
    load_weights(module, file)
    return module


def _build_family(card: Card, build_family: FamilyBuilder) -> nn.Module:
    name = card.family.name
    try:
        module = build_family(name, card.family.config)
    except UnknownFamilyError:
        raise
    except ImportError as error:  # its message says what to install
        raise BuildError(str(error)) from error
    except ValueError as error:
        raise BuildError(f"the family {name} refuses its configuration: {error}; correct the card") from error
    if not isinstance(module, nn.Module):
        raise BuildError(f"the family {name} is no torch module; correct the family")
    return module


def _check_steps(card: Card, module: nn.Module) -> None:
    """Check that the card has the steps of its family, from which waiting times and progress are computed."""
    if not isinstance(module, SteppedSampler):
        return
    known = card.parameters.get("steps")
    usual = known.default if known else None
    try:
        steps = module.steps(Draw(steps=None if usual is None else int(usual)))
    except ValueError as error:
        wrong = f"the family {card.family.name} refuses the card's default: {error}"
        raise BuildError(f"{wrong}; correct parameters.steps in model.yaml") from error
    if steps != card.draw_steps:
        wrong = f"draw_steps is {card.draw_steps}, and a draw of this {card.family.name} takes {steps} steps"
        raise BuildError(f"{wrong}; set draw_steps: {steps} in model.yaml")


def _load_program(card: Card, file: Path) -> nn.Module:
    loading = importlib.import_module("handlers.loading.program")  # needed for programs only, as above
    try:
        module: nn.Module = loading.load_program(file, card.family.name, most_rows=card.limits.max_exec_batch)
    except ValueError as error:
        raise BuildError(str(error)) from error
    return module
