"""Pad single layers of a network, so that a row gets the same bits in a small batch as in a large one.

Kernels choose their blocking by the batch size, and often only a few layers round differently in a small batch: on
processors with AVX2 a Linear below four rows. If such a layer alone runs with the rows of a larger batch, the whole
network may run unpadded. The layers are found by measurement: while the network runs a batch at which rows are
right, each layer runs parts of its input again. Whether padding them is enough is for the caller to verify.

A network and a way to run it enter; the padding of its layers leaves, or is applied to the network in place. Only calls
of modules can be padded: what a forward computes by functions is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Padding", "find_padding", "pad_layers", "read_padding", "unpad_layers"]

Padding = Mapping[str, Mapping[int, int]]
"""For each layer, by name: the number of rows to run instead of the number it gets."""

_MARK = "_fount_padded_rows"
_MAX_PARTS = 16  # of an input, run again at one size


def find_padding(
    module: nn.Module, run: Callable[[], object], *, reference: int, sizes: Sequence[int], wanted: Sequence[int]
) -> Padding:
    """Find the layers whose rows depend on the size of a batch, and the size from which they do not.

    Args:
        module: the network's, whose layers are not padded.
        run: runs one batch of `reference` rows through it.
        reference: a batch size at which rows are right.
        sizes: batch sizes that may be executed.
        wanted: those of them below `reference` at which layers may be padded.

    Returns:
        The padding of each layer that depends on one of the wanted sizes; empty when none does.
    """
    found: dict[nn.Module, tuple[int, dict[int, int]]] = {}
    smaller = [size for size in sizes if size < reference]

    def examine(part: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        rows = _rows_of(inputs, named, output, reference)
        if part not in found and rows:
            good = {size for size in smaller if _is_equal(part, inputs[0], output, size * rows // reference)}
            targets = [*sorted(good), reference]
            bad = [size for size in wanted if size not in good]
            padded = {size: next(target for target in targets if target > size) for size in bad}
            scaled = {size * rows // reference: target * rows // reference for size, target in padded.items()}
            found[part] = rows, scaled
        elif part in found and rows != found[part][0]:
            found[part] = 0, {}  # called with several numbers of rows: which of them are right is not clear

    names = {part: name for name, part in module.named_modules()}
    with ExitStack() as hooks:
        for part in names:
            if not any(part.children()) and not isinstance(part, torch.jit.ScriptModule):
                hooks.callback(part.register_forward_hook(examine, with_kwargs=True).remove)
        run()
    return {names[part]: padded for part, (_, padded) in found.items() if padded}


def pad_layers(module: nn.Module, padding: Padding) -> None:
    """Pad layers in place; those that are not in the network are ignored."""
    layers = dict(module.named_modules())
    for name, sizes in padding.items():
        if (part := layers.get(name)) is not None:
            setattr(part, _MARK, dict(sizes))
            part.forward = _pad(part.forward, sizes)


def unpad_layers(module: nn.Module) -> None:
    """Undo `pad_layers`."""
    for part in module.modules():
        if vars(part).pop(_MARK, None) is not None:
            del part.forward


def read_padding(module: nn.Module) -> Padding:
    """Read what `pad_layers` did to a network."""
    return {name: vars(part)[_MARK] for name, part in module.named_modules() if _MARK in vars(part)}


def _rows_of(inputs: tuple[Any, ...], named: Mapping[str, Any], output: Any, reference: int) -> int:
    """Return the rows of a layer's call, a multiple of the batch's; 0 when the layer cannot be padded."""
    if len(inputs) != 1 or named or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor):
        return 0
    rows = inputs[0].shape[0] if inputs[0].ndim else 0
    is_by_row = output.ndim > 0 and output.shape[0] == rows and rows % reference == 0
    is_copy = output.data_ptr() != inputs[0].data_ptr()  # a layer that changes its input must get that very input
    return rows if is_by_row and is_copy else 0


def _is_equal(part: nn.Module, values: Tensor, output: Tensor, size: int) -> bool:
    """Return whether a layer gives parts of its input the same bits as all of it."""
    for start in range(0, min(len(values), size * _MAX_PARTS), size):
        # Cloned, because a batch of this size would start at an address of its own.
        result = part.forward(values[start : start + size].clone())
        if not torch.equal(result, output[start : start + size]):
            return False
    return True


def _pad(forward: Callable[[Tensor], Tensor], sizes: Mapping[int, int]) -> Callable[[Tensor], Tensor]:
    def padded(values: Tensor) -> Tensor:
        rows = values.shape[0]
        size = sizes.get(rows, rows)
        if size == rows:
            return forward(values)
        # The last pair is of the first dimension: zeros below the rows.
        return forward(torch.constant_pad_nd(values, [0, 0] * (values.ndim - 1) + [0, size - rows]))[:rows]

    return padded
