"""Parameters: how a call wants its samples drawn, with the card's defaults for what it leaves unset."""

from __future__ import annotations

import math

from fount.v1 import sampling_pb2
from handlers.cards.card import Card
from handlers.family import Draw
from handlers.worker.items import ItemError

__all__ = ["read_draw"]

_FLOATS = ("truncation", "temperature", "top_p", "guidance_scale")
_WHOLE = ("top_k", "steps")


def read_draw(parameters: sampling_pb2.Parameters, card: Card) -> Draw:
    """Read the parameters of a call.

    Raises:
        ItemError: one is not in the card, or outside its range.
    """
    values = {name: _read(parameters, name, card) for name in (*_FLOATS, *_WHOLE)}
    whole = {name: None if (value := values[name]) is None else int(value) for name in _WHOLE}
    return Draw(
        truncation=values["truncation"],
        temperature=values["temperature"],
        top_p=values["top_p"],
        guidance_scale=values["guidance_scale"],
        top_k=whole["top_k"],
        steps=whole["steps"],
    )


def _read(parameters: sampling_pb2.Parameters, name: str, card: Card) -> float | None:
    known = {str(key): parameter for key, parameter in card.parameters.items()}.get(name)
    if not parameters.HasField(name):  # type: ignore[arg-type]
        return known.default if known else None
    value = float(getattr(parameters, name))
    if known is None:
        taken = ", ".join(card.parameters) or "none"
        raise ItemError("PARAMETER_UNKNOWN", f"the model does not take {name}; it takes {taken}")
    if not math.isfinite(value) or not known.min <= value <= known.max:
        raise ItemError("PARAMETER_OUT_OF_RANGE", f"{name} is {value:g}; it must be {known.min:g} to {known.max:g}")
    return value
