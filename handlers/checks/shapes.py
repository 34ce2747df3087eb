"""Shapes: what is wrong with what a module gave, and what would make it right."""

from __future__ import annotations

from torch import Tensor

from handlers.cards.card import Card

__all__ = ["find_wrong_shape"]


def find_wrong_shape(given: object, count: int, card: Card) -> tuple[str, str] | None:
    """Compare what a module gave with what the card promises.

    Args:
        given: what it gave.
        count: how many rows were asked for.
        card: the card.

    Returns:
        What is wrong and what to change; None when all is right.
    """
    if not isinstance(given, Tensor):
        kind = type(given).__name__
        return f"the module gave a {kind}, not a tensor", "return the images alone, a (B, C, H, W) tensor"
    sample = card.sample
    wanted = (count, sample.channels, sample.height, sample.width)
    if (shape := tuple(given.shape)) != wanted:
        seen = f"the module gave shape {shape} for {count} row{'s' * (count > 1)} where {wanted} is due"
        return seen, _remedy(shape, count, wanted)
    if not given.is_floating_point():
        kind = str(given.dtype).removeprefix("torch.")
        return (
            f"the module gave {kind} where floats are due",
            "return floats in the card's value_range: images.float() / 255",
        )
    return None


def _remedy(shape: tuple[int, ...], count: int, wanted: tuple[int, int, int, int]) -> str:
    _, channels, height, width = wanted
    if not shape or shape[0] != count:
        return "give one picture a row of z, in the order of z"
    rest = shape[1:]
    if rest == (height, width, channels):
        return "put channels first: images.permute(0, 3, 1, 2)"
    if rest == (height, width) and channels == 1:
        return "add the channel: images.unsqueeze(1)"
    if len(rest) == 1 and rest[0] == channels * height * width:
        return f"give pictures: images.reshape(-1, {channels}, {height}, {width})"
    if len(rest) == 3:
        return f"set sample: channels {rest[0]}, height {rest[1]}, width {rest[2]} in model.yaml, or change the module"
    return "give (B, C, H, W)"
