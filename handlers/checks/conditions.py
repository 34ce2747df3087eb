"""The check `conditions`: samples keep the values that they are given, byte for byte.

A card promises what samples can be conditional on, and of how many bytes a prefix is a multiple. A family that draws
given values again does not fail: its samples merely ignore them. So some rows are drawn from prefixes, and from
pictures with masks, of random bytes, and the given bytes are looked for in the results.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fount.address import Addresses, Stream
from handlers.cards.card import Card, ConditionName
from handlers.checks.report import Finding, failed, passed
from handlers.checks.subject import CHECK_SEED, SEVERAL, Subject
from handlers.execution.pixels import floats_to_uint8, uint8_to_floats
from handlers.execution.rows import GivenRows

__all__ = ["check_conditions"]

_CHECK = "conditions"
_ASCII = 128  # bytes of any text; 0 is padding


def check_conditions(subject: Subject) -> Finding:
    """Draw rows under each condition of the card, and compare what was given with what is returned."""
    card = subject.card
    if not card.conditions:
        return passed(_CHECK, "the card lists none")
    if not subject.network.is_conditioned:
        seen = f"the card lists {', '.join(card.conditions)}, and the model cannot be given values"
        return failed(_CHECK, seen, "remove conditions from model.yaml, or add begin_given to the family")
    if "PREFIX" in card.conditions and card.prefix_unit > (size := math.prod(card.sample.shape)):
        seen = f"prefix_unit is {card.prefix_unit}, and a sample has {size} bytes"
        return failed(_CHECK, seen, f"set prefix_unit in model.yaml to {size} or less")
    for condition in card.conditions:
        if finding := _check_condition(subject, condition):
            return finding
    return passed(_CHECK, f"values given by {', '.join(card.conditions)} are returned as they were given")


def _check_condition(subject: Subject, condition: ConditionName) -> Finding | None:
    card, addresses = subject.card, Addresses.of_range(CHECK_SEED, 0, subject.batch(SEVERAL))
    levels = _random_levels(card, addresses)
    mask = _prefixes(card, addresses) if condition == "PREFIX" else _random_mask(addresses, levels.shape[1])
    classes, shape = len(card.classes), (len(addresses), *card.sample.shape)
    rows = GivenRows(
        values=uint8_to_floats(levels.reshape(shape), card.sample.value_range),
        labels=np.arange(len(addresses), dtype=np.int64) % classes if classes else None,
        addresses=addresses,
        mask=mask.reshape(shape).astype(np.float32),
    )
    drawn = np.asarray(subject.network.run("SAMPLE", rows, subject.draw), np.float32)
    returned = floats_to_uint8(np.nan_to_num(drawn), card.sample.value_range).reshape(levels.shape)
    changed = np.argwhere(mask & (returned != levels))  # (changes, 2): row and byte
    if not len(changed):
        return None
    row, byte = changed[0]
    what = f"prefix of {mask[row].sum()} bytes" if condition == "PREFIX" else "picture with a mask"
    seen = f"a {what} is drawn again: byte {byte} was {levels[row, byte]}, is {returned[row, byte]}"
    unit = "set prefix_unit in model.yaml to the bytes that the family draws as one, " if condition == "PREFIX" else ""
    return failed(_CHECK, seen, f"{unit}remove {condition} from conditions, or let the family keep given values")


def _random_levels(card: Card, addresses: Addresses) -> NDArray[np.uint8]:
    """Draw the bytes of a row for each address, (n, bytes); of a text without padding."""
    uniforms = addresses.uniforms(Stream.LATENT, math.prod(card.sample.shape))
    return (1 + uniforms * (_ASCII - 1) if card.sample.modality == "text" else uniforms * 256).astype(np.uint8)


def _random_mask(addresses: Addresses, size: int) -> NDArray[np.bool_]:
    """Draw which bytes of each row are given, (n, bytes): half of them."""
    return addresses.uniforms(Stream.STEP, size) < 0.5


def _prefixes(card: Card, addresses: Addresses) -> NDArray[np.bool_]:
    """Draw the prefix of each row, (n, bytes); the first row has the shortest one."""
    size, unit = math.prod(card.sample.shape), card.prefix_unit
    units = 1 + (addresses.uniforms(Stream.STEP, 1)[:, 0] * (size // unit)).astype(np.int64)
    units[0] = 1
    return np.arange(size) < unit * units[:, None]
