"""Weights: safetensors into a family's module, strictly.

Every name the module has must be in the file with its shape, nothing else may be, and every value must be finite: a
network that is half-loaded or full of NaN would still draw pictures, only wrong ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

__all__ = ["WeightsError", "load_weights"]

_MOST_NAMED = 5


class WeightsError(Exception):
    """A weights file does not fit its family, or holds no usable numbers. Train or export it again."""


def load_weights(module: nn.Module, file: Path) -> None:
    """Fill a module from a file.

    Raises:
        WeightsError: the file is not safetensors, lacks or adds names, has other shapes, or a value is not finite.
    """
    try:
        found = load_file(file)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{file.name} cannot be read as safetensors ({error}); export the weights again") from error
    expected: Mapping[str, Tensor] = module.state_dict()
    _compare_names(file, expected.keys(), found.keys())
    for name, tensor in found.items():
        if tensor.shape != expected[name].shape:
            shapes = f"{tuple(tensor.shape)}, the family wants {tuple(expected[name].shape)}"
            raise WeightsError(f"{file.name}: {name} has shape {shapes}; make the card's configuration match")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise WeightsError(f"{file.name}: {name} holds NaN or infinite values; train the model again")
    module.load_state_dict(found, strict=True)


def _compare_names(file: Path, expected: Iterable[str], found: Iterable[str]) -> None:
    missing, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    differences = [
        f"{what} {', '.join(names[:_MOST_NAMED])}"
        + (f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED))
        for what, names in (("lacks", missing), ("has unknown", extra))
        if names
    ]
    if differences:
        raise WeightsError(f"{file.name} {' and '.join(differences)}; make the card's family and configuration match")
