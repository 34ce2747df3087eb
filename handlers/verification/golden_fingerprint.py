"""What golden samples were made of, so that those of other weights or other code are not packed by mistake.

A golden file's metadata hold one digest over weights, family and, for a model of one's own, its source. Files without
it are older, and are believed. No torch here: packing asks, too.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from safetensors import SafetensorError, safe_open

from fount.archive import digest_of_ingredients
from handlers.cards.card import Card, file_digest, source_of
from handlers.models import OWN_FAMILY

__all__ = ["MADE_OF", "is_golden_stale", "made_of"]

MADE_OF = "made_of"
"""The key of a golden file's metadata."""


def made_of(card: Card, folder: Path) -> str | None:
    """Name what samples of a model come from; None when its weights or its source are not there.

    Args:
        card: the card.
        folder: where its weights, and a source of its own, lie.

    Returns:
        "sha256:" and 64 hexadecimal digits.
    """
    weights = folder / card.weights.file
    source = source_of(card, folder) if card.family.name == OWN_FAMILY else None
    if not weights.is_file() or (source is not None and not source.is_file()):
        return None
    return digest_of_ingredients(
        {
            "weights": file_digest(weights),
            "family": [card.family.name, card.family.config, card.family.class_name],
            "source": file_digest(source) if source else None,
            "latent": list(card.latent.shape) if card.latent else None,
            "sample": dataclasses.asdict(card.sample),
            "classes": len(card.classes),
        }
    )


def is_golden_stale(card: Card, folder: Path) -> bool:
    """Whether a model's golden samples do not say that they are of what its folder holds now."""
    try:
        with safe_open(folder / card.golden.file, framework="np") as stream:
            recorded = (stream.metadata() or {}).get(MADE_OF)
    except (OSError, SafetensorError, ValueError):
        return False  # whoever reads the file says what is wrong with it
    return recorded != made_of(card, folder)
