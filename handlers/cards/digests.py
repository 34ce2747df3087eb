"""Digests of a model folder: the model digest, which names what is served, and the golden fingerprint.

The model digest covers weights, configuration, the family's source, and the versions of noise and execution, and
nothing that is measured. The golden fingerprint covers what golden samples depend on; it is stored with them, so that
samples of other weights or other code are not packed by mistake. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fount.address import NOISE_VERSION
from fount.archive import digest_of_ingredients
from fount.files import sha256_of
from handlers.cards.card import CARD_FILE, Card, CardError, Problem
from handlers.models import CUSTOM_FAMILY, base_file, source_file
from handlers.versions import EXECUTION_VERSION

__all__ = [
    "FINGERPRINT_KEY", "check_weights", "file_digest", "golden_fingerprint", "is_golden_stale", "model_digest",
    "model_ingredients", "source_of",
]  # fmt: skip

FINGERPRINT_KEY = "fingerprint"
"""The key of a golden file's metadata that holds the fingerprint."""


def file_digest(file: Path) -> str:
    """Compute the SHA-256 of a file, as "sha256:" and hexadecimal digits."""
    return f"sha256:{sha256_of(file)[0]}"


def source_of(card: Card, folder: Path) -> Path:
    """Find the source file in the model digest: the family's, or the custom source file next to the card.

    Raises:
        UnknownFamilyError: the family is not one of this package.
    """
    if card.family.name == CUSTOM_FAMILY and card.family.source is not None:
        return folder / card.family.source
    return source_file(card.family.name)


def model_digest(card: Card, folder: Path, source: Path | None = None) -> str:
    """Compute the model digest: "sha256:" and 64 hexadecimal digits of the canonical JSON of `model_ingredients`.

    Args and raises: as in `model_ingredients`.
    """
    return digest_of_ingredients(model_ingredients(card, folder, source))


def model_ingredients(card: Card, folder: Path, source: Path | None = None) -> dict[str, Any]:
    """List what the model digest covers.

    The largest batch is part of it because it decides which batch sizes agree, hence which bits a sample has; so are
    the prior, by which labels are drawn, the defaults of parameters that a request leaves unset, and the spread and the
    directions of the latent space, by which rows are varied.

    Args:
        card: the card.
        folder: the model folder, with the weights.
        source: the family's source file; None uses `source_of`.

    Raises:
        CardError: the weights file is absent or not the one the card names, or the custom source file is absent.
        UnknownFamilyError: no source is given and the family is not one of this package.
    """
    weights = check_weights(card, folder)
    file = source or source_of(card, folder)
    if not file.is_file():
        raise _absent("family.source", file, folder)
    base = base_file(card.family.name)
    return {
        "weights": weights,
        "config": _configuration(card),
        "source": file_digest(file),
        **({"base": file_digest(base)} if base else {}),
        "noise": NOISE_VERSION,
        "execution": EXECUTION_VERSION,
    }


def check_weights(card: Card, folder: Path) -> str:
    """Check that the weights file is the one the card names, and return its digest.

    Raises:
        CardError: it is absent, or its SHA-256 is not the card's.
    """
    file = folder / card.weights.file
    if not file.is_file():
        raise _absent("weights.file", file, folder)
    found = file_digest(file)
    if card.weights.digest not in (None, found):
        remedy = "restore the file, train again, or remove this key to accept any file"
        problem = Problem(key="weights.digest", wrong=f"{file.name} has {found}", remedy=remedy)
        raise CardError(folder / CARD_FILE, [problem])
    return found


def golden_fingerprint(card: Card, folder: Path) -> str | None:
    """Compute the fingerprint of what a model's golden samples depend on.

    Args:
        card: the card.
        folder: the model folder, with the weights and the custom source file if there is one.

    Returns:
        "sha256:" and 64 hexadecimal digits; None when the weights or the custom source file are absent.
    """
    weights = folder / card.weights.file
    source = source_of(card, folder) if card.family.name == CUSTOM_FAMILY else None
    if not weights.is_file() or (source is not None and not source.is_file()):
        return None
    return digest_of_ingredients(
        {
            "weights": file_digest(weights),
            "family": [card.family.name, card.family.config, card.family.class_name],
            "source": file_digest(source) if source else None,
            "latent": list(card.latent.shape) if card.latent else None,
            "sample": _sample(card),
            "classes": len(card.classes),
            **_input(card),
        }
    )


def is_golden_stale(card: Card, folder: Path) -> bool:
    """Return whether the recorded golden samples are not of the weights, card and source in the folder."""
    try:
        with safe_open(folder / card.golden.file, framework="np") as stream:
            metadata = stream.metadata() or {}
    except (OSError, SafetensorError, ValueError):
        return False  # an unreadable file is reported where its content is needed
    return metadata.get(FINGERPRINT_KEY) != golden_fingerprint(card, folder)


def _configuration(card: Card) -> dict[str, Any]:
    """Collect the fields of a card that change results; keys that a model does not have are absent."""
    configuration: dict[str, Any] = {
        "family": card.family.name,
        "config": card.family.config,
        "classes": list(card.classes) or None,
        "prior": list(card.prior) or None,
        "defaults": {name: parameter.default for name, parameter in card.parameters.items()},
        "sample": _sample(card),
        "operations": list(card.operations),
        "max_exec_batch": card.limits.max_exec_batch,
        **_input(card),
    }
    if card.latent:
        configuration["latent"] = list(card.latent.shape)
    if card.latent_dim:  # what variants of a row are drawn with, and walk along
        vectors = {each.name: list(each.vector) for each in card.directions}
        configuration["latent_space"] = {"dim": card.latent_dim, "spread": card.latent_spread, "directions": vectors}
    if card.family.class_name:
        configuration["class_name"] = card.family.class_name
    return configuration


def _sample(card: Card) -> dict[str, Any]:
    """Return the keys that the sample specification has."""
    return {key: value for key, value in dataclasses.asdict(card.sample).items() if value is not None}


def _input(card: Card) -> dict[str, Any]:
    """Return the shape of what TRANSLATE takes, where it is not that of samples."""
    return {"input": list(card.input.shape)} if card.input else {}


def _absent(key: str, file: Path, folder: Path) -> CardError:
    problem = Problem(key=key, wrong=f"{file.name} is not in {folder}", remedy="put it next to the card")
    return CardError(folder / CARD_FILE, [problem])
