"""Building: from a card and its folder to a module with its weights, whichever of three ways the model comes in.

A family of this package, with a state dict; a class in a file of one's own, with a state dict; or a program, which is
both. Enters: a card and the folder it lies in. Leaves: a sampler or classifier that a network can run, or an error that
says what to change.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from handlers.cards.card import Card, source_of
from handlers.execution.network import FamilyBuilder
from handlers.loading.memory import RoomError, check_room
from handlers.loading.own_source import OwnSourceError, build_own_class
from handlers.loading.weights import load_weights
from handlers.models import OWN_FAMILY, PROGRAM_FAMILIES, UnknownFamilyError, load_family

__all__ = ["BuildError", "build_module", "build_own", "call_own", "is_own", "source_of"]


class BuildError(Exception):
    """A model cannot be built from its card, file and weights. Change what the message names."""


def is_own(card: Card) -> bool:
    """Whether a model is a module or a program of one's own, rather than of a family of this package."""
    return card.family.name in (OWN_FAMILY, *PROGRAM_FAMILIES)


def build_module(card: Card, folder: Path, build_family: FamilyBuilder = load_family) -> nn.Module:
    """Build what a network runs.

    Args:
        card: the card.
        folder: where its weights, and a file of one's own, lie.
        build_family: builds a family's module from its name and configuration.

    Returns:
        A Sampler or Classifier with its weights.

    Raises:
        BuildError: it cannot be built; one sentence says why and what to do.
        UnknownFamilyError: the family is not this package's.
        WeightsError: the weights do not fit.
    """
    module = build_own(card, folder, build_family)
    if not is_own(card):
        return module
    # Imported only when needed, so that archives of other families can do without.
    own = importlib.import_module("handlers.models.own")
    listed = {str(name): parameter.default for name, parameter in card.parameters.items()}
    try:
        sampler: nn.Module = own.OwnSampler(
            module, card.latent.shape if card.latent else (), labelled=bool(card.classes), listed=listed
        )
    except ValueError as error:
        raise BuildError(f"{_file_of(card)}: {error}") from error
    return sampler


def build_own(card: Card, folder: Path, build_family: FamilyBuilder = load_family) -> nn.Module:
    """Build the model itself, with its weights and unwrapped: what its author's notebook would hold.

    Args and raises: as in `build_module`.
    """
    file = folder / card.weights.file
    try:
        check_room(file)
        if card.family.name in PROGRAM_FAMILIES:
            return _load_program(card, file)
        if card.family.name == OWN_FAMILY:
            module = build_own_class(source_of(card, folder), str(card.family.class_name), card.family.config)
        else:
            module = _build_family(card, build_family)
    except (OwnSourceError, RoomError) as error:
        raise BuildError(str(error)) from error
    load_weights(module, file)
    return module


def call_own(module: nn.Module, z: Tensor, labels: Tensor | None, values: Mapping[str, object] | None = None) -> Any:
    """Call a module of one's own as a worker does; see `handlers.models.own.call_own`."""
    return importlib.import_module("handlers.models.own").call_own(module, z, labels, values)


def _build_family(card: Card, build_family: FamilyBuilder) -> nn.Module:
    name = card.family.name
    try:
        module = build_family(name, card.family.config)
    except UnknownFamilyError:
        raise
    except ValueError as error:
        raise BuildError(f"the family {name} refuses its configuration: {error}; mend the card") from error
    if not isinstance(module, nn.Module):
        raise BuildError(f"the family {name} is no torch module; mend the family")
    return module


def _load_program(card: Card, file: Path) -> nn.Module:
    loading = importlib.import_module("handlers.loading.program")  # needed for programs alone, as above
    try:
        module: nn.Module = loading.load_program(file, card.family.name, most_rows=card.limits.max_exec_batch)
    except ValueError as error:
        raise BuildError(str(error)) from error
    return module


def _file_of(card: Card) -> str:
    return str(card.family.source if card.family.name == OWN_FAMILY else card.weights.file)
