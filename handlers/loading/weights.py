"""Load safetensors weights into a module, strictly.

Every name of the module must be in the file with its shape, there may be no others, and every value must be finite: a
network that is partly loaded or contains NaN would still draw images, only wrong ones. A tensor that the module shares
under two names may be in the file once.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from handlers.loading.file_kinds import describe_wrong_kind

__all__ = ["WeightsError", "load_weights"]

_LOG = logging.getLogger(__name__)
_MAX_NAMED = 5


class WeightsError(Exception):
    """A weights file does not fit its module, or has unusable values. Train or export it again."""


def load_weights(module: nn.Module, file: Path) -> None:
    """Fill a module from a file; floats become the module's own type.

    Raises:
        WeightsError: the file is not safetensors, lacks or adds names, has other shapes or element types, or a
            value is not finite.
    """
    found = _read(file)
    expected: Mapping[str, Tensor] = module.state_dict()
    custom = _custom_class(module)
    remedy = f"make {custom} match these weights" if custom else "make the card's family and configuration match"
    absent = _compare_names(file, expected, found.keys(), remedy)
    _compare_shapes(file, found, expected, remedy)
    for name, tensor in found.items():
        _compare_tensor(file, name, tensor, expected[name])
    _log_rounding(file, found, expected)
    with torch.no_grad():
        module.load_state_dict(found, strict=not absent)


def _read(file: Path) -> dict[str, Tensor]:
    try:
        if wrong := describe_wrong_kind(file, "safetensors"):
            raise WeightsError(wrong)
        return load_file(file)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{file.name} cannot be read as safetensors ({error}); export the weights again") from error


def _custom_class(module: nn.Module) -> str:
    """Name the custom class that must match the weights; empty when the module's class is of a package."""
    kind = type(module)
    source = getattr(sys.modules.get(kind.__module__), "__file__", None) or ""
    is_custom = bool(source) and Path(source).name == source  # `custom_source` sets no folder
    return f"{source}'s class {kind.__name__} and family.config" if is_custom else ""


def _compare_names(file: Path, expected: Mapping[str, Tensor], found: Collection[str], remedy: str) -> set[str]:
    """Check that names match.

    Returns:
        The names that the file lacks because they are second names of a tensor it has.
    """
    present = {_storage_of(expected[name]) for name in found if name in expected}
    missing, extra = expected.keys() - set(found), set(found) - expected.keys()
    tied = {name for name in missing if _storage_of(expected[name]) in present}
    named = [
        f"{what} {', '.join(names[:_MAX_NAMED])}" + (f" and {len(names) - _MAX_NAMED} more" * (len(names) > _MAX_NAMED))
        for what, names in (("lacks", sorted(missing - tied)), ("has unknown", sorted(extra)))
        if names
    ]
    if named:
        remedy = _remedy_of_prefix(file, expected.keys() - tied, found) or remedy
        raise WeightsError(f"{file.name} {' and '.join(named)}; {remedy}")
    return tied


def _storage_of(tensor: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...]] | int:
    """Identify the memory of a tensor; empty tensors share none."""
    return (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else id(tensor)


def _remedy_of_prefix(file: Path, expected: Collection[str], found: Collection[str]) -> str | None:
    """Suggest stripping a prefix, if the module has names of the file without it: all of them, or all it needs."""
    source, stripped = (shlex.quote(str(path)) for path in (file, file.parent / "stripped.safetensors"))
    convert = f"run `fount convert {source} --out {stripped} --strip-prefix"
    prefix = next(iter(found), "").rpartition(".")[0]
    while prefix:
        start = f"{prefix}."
        is_extra = all(name.startswith(start) and name not in expected for name in found)
        if is_extra and any(name.removeprefix(start) in expected for name in found):
            wrong = f"all names begin with {start}, the module's do not"
            return f"{wrong}: {convert} {shlex.quote(start)}`, and set weights.file to that"
        prefix = prefix.rpartition(".")[0]
    first = min(expected, default="")
    starts = sorted(name.removesuffix(first) for name in found if first and name.endswith(f".{first}"))
    for start in starts:
        if all(start + name in found for name in expected):
            found_all = f"the file has all names of the module after {start}"
            return f"{found_all}: {convert} {shlex.quote(start)}`, and set weights.file to that"
    return None


def _compare_shapes(file: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor], remedy: str) -> None:
    wrong = [
        f"{name} has shape {tuple(tensor.shape)}, the module has {tuple(expected[name].shape)}"
        for name, tensor in found.items()
        if tensor.shape != expected[name].shape
    ]
    if wrong:
        more = [f"{len(wrong) - _MAX_NAMED} more"] if len(wrong) > _MAX_NAMED else []
        shown = "; ".join([*wrong[:_MAX_NAMED], *more])
        raise WeightsError(f"{file.name}: {shown}; {remedy}")


def _compare_tensor(file: Path, name: str, found: Tensor, expected: Tensor) -> None:
    if _category_of(found) != _category_of(expected):
        types = f"{_category_of(found)} ({found.dtype}), the module has {_category_of(expected)} ({expected.dtype})"
        raise WeightsError(f"{file.name}: {name} holds {types}; export the weights of this module again")
    if found.is_floating_point() and not _is_usable(found, expected):
        raise WeightsError(f"{file.name}: {name} holds NaN or infinite values; train the model again")


def _category_of(tensor: Tensor) -> str:
    if tensor.is_floating_point():
        return "floats"
    if tensor.is_complex():
        return "complex numbers"
    return "truth values" if tensor.dtype == torch.bool else "whole numbers"


def _is_usable(found: Tensor, expected: Tensor) -> bool:
    """Return whether values are finite, except where the untrained module has the same: a mask's infinities."""
    values = found if found.dtype in (torch.float32, torch.float64) else found.float()
    bad = ~torch.isfinite(values)
    return not bool(bad.any()) or torch.equal(values[bad], expected.to(values.dtype)[bad])


def _log_rounding(file: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Log when values are rounded: samples may then differ slightly from those in the file's own precision."""
    kinds = {name: (tensor.dtype, expected[name].dtype) for name, tensor in found.items() if tensor.is_floating_point()}
    rounded = [name for name, (old, new) in kinds.items() if torch.promote_types(old, new) != new]
    if rounded:
        old, new = kinds[rounded[0]]
        first = f"{rounded[0]}: {old} to {new}"
        _LOG.warning("%s: %d tensors are rounded, the first is %s", file.name, len(rounded), first)
