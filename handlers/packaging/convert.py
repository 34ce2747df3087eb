"""Converting: the tensors of a checkpoint, read without unpickling anything else, written as safetensors.

A checkpoint of torch.save is a pickle. Torch's weights-only reader takes tensors and plain values from one and refuses
everything that would run code; what it refuses is told and never loaded. Enters: a checkpoint. Leaves: one safetensors
file with the names a module expects, and an account of what was taken off and left out.
"""

from __future__ import annotations

import logging
import os
import pickle
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from handlers.execution.errors import describe_error
from handlers.loading.file_kinds import Kind, kind_of
from handlers.loading.memory import InsufficientMemoryError, require_memory

__all__ = ["Conversion", "ConvertError", "convert"]

ROOT_KEY = "."
"""What a key is called that means the checkpoint itself."""

_LOG = logging.getLogger(__name__)
_WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and AveragedModel, and of torch.compile
_COUNTER = "n_averaged"  # which AveragedModel saves beside the names that begin with "module."
_GENERATORS = ("generator", "gen", "g", "netg", "net_g", "g_ema", "generator_ema")
_DISCRIMINATORS = ("discriminator", "disc", "d", "netd", "net_d", "critic")
_MOST_NAMED = 5
_SAVE_RIGHTLY = (
    "where it was trained, save the weights alone: from safetensors.torch import save_file; "
    'save_file(model.state_dict(), "weights.safetensors")'
)


class ConvertError(Exception):
    """A checkpoint cannot be converted. Do what the message says."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was written.

    Attributes:
        tensors: how many.
        size_bytes: of the file.
        key: where in the checkpoint they were; "." is the checkpoint itself.
        taken_off: prefixes that names lost, in order.
        left_out: names that were not written: no tensors, without the prefix asked for, or an average's counter.
    """

    tensors: int
    size_bytes: int
    key: str
    taken_off: tuple[str, ...]
    left_out: tuple[str, ...]


def convert(
    file: Path, out: Path, *, key: str | None = None, prefix: str | None = None, force: bool = False
) -> Conversion:
    """Convert a checkpoint.

    Args:
        file: a checkpoint of torch.save, or safetensors.
        out: the safetensors file to write, whole or not at all.
        key: the dotted path of the state dict within the checkpoint; None finds the only one.
        prefix: what names must begin with, and lose; None takes off what DataParallel, AveragedModel and torch.compile
            put on.
        force: replace `out`.

    Raises:
        ConvertError: it cannot be read safely, has no or several state dicts, or `out` cannot be written.
    """
    if out.exists() and (not force or out.samefile(file)):
        remedy = "name another file" if out.samefile(file) else "name another file, or say --force"
        raise ConvertError(f"{out} exists; {remedy}")
    found, state = _choose(file, _find_states(_read(file)), key)
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    no_tensors = [str(name) for name in state if str(name) not in tensors]
    stripped, taken_off, dropped = _strip(file, tensors, prefix)
    _tell_several(file, stripped)
    _write({name: _own_memory(file, name, tensor) for name, tensor in stripped.items()}, out)
    return Conversion(
        tensors=len(stripped),
        size_bytes=out.stat().st_size,
        key=found,
        taken_off=tuple(taken_off),
        left_out=(*no_tensors, *dropped),
    )


def _read(file: Path) -> object:
    try:
        kind = kind_of(file)
        require_memory(file)
    except OSError as error:
        raise ConvertError(f"{file} cannot be read ({error.strerror}); check the path") from error
    except InsufficientMemoryError as error:
        raise ConvertError(str(error)) from error
    if kind in ("torchscript", "exported"):
        remedy = f"serve it as it is: weights.file {file.name}, family.name {kind}, and latent in the card"
        raise ConvertError(f"{file} is a whole program and no checkpoint; {remedy}")
    if kind == "unknown":
        raise ConvertError(f"{file} is neither a checkpoint of torch.save nor safetensors; copy it or save it again")
    return _read_kind(file, kind)


def _read_kind(file: Path, kind: Kind) -> object:
    try:
        if kind == "safetensors":
            return load_file(file)
        with file.open("rb") as stream:
            is_zip = stream.read(2) == b"PK"
            stream.seek(0)
            if file.suffix == ".safetensors":  # torch believes the name of a path
                return torch.load(stream, map_location="cpu", weights_only=True)
        return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        wants = ", ".join(_find_globals(file)) or "more than tensors"
        raise ConvertError(f"{file} holds {wants}, and reading those could run code; {_SAVE_RIGHTLY}") from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError) as error:
        raise ConvertError(f"{file} is damaged: {describe_error(error)}; copy it or save it again") from error


def _find_globals(file: Path) -> list[str]:
    """Name what a checkpoint would import, without importing it."""
    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))[:_MOST_NAMED]
    except Exception:  # noqa: BLE001 - it reads a broken or foreign pickle; the refusal stands without it
        return []


def _find_states(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Find mappings of names to tensors; those of an optimiser have numbers above them."""
    if isinstance(value, Mapping):
        if any(isinstance(item, Tensor) and item.ndim for item in value.values()):
            yield ".".join(path) or ROOT_KEY, value
        for name, item in value.items():
            if isinstance(name, str):
                yield from _find_states(item, (*path, name))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _find_states(item, (*path, str(i)))


def _choose(
    file: Path, states: Iterator[tuple[str, Mapping[Any, Any]]], key: str | None
) -> tuple[str, Mapping[Any, Any]]:
    there = dict(states)
    if key in there:
        return key, there[key]
    told = ", ".join(f"{name} ({_count(state)} tensors)" for name, state in there.items())
    if not there:
        raise ConvertError(f"{file} holds no mapping of names to tensors; {_SAVE_RIGHTLY}")
    if key is not None:
        raise ConvertError(f"{file} has no tensors at {key!r}; say --key with one of: {told}")
    if len(there) > 1:
        raise ConvertError(f"{file} holds several models; say --key with one of: {told}")
    return next(iter(there.items()))


def _count(state: Mapping[Any, Any]) -> int:
    return sum(isinstance(value, Tensor) for value in state.values())


def _strip(
    file: Path, tensors: Mapping[str, Tensor], prefix: str | None
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Take prefixes off names.

    Returns:
        Tensors by their new names, the prefixes taken off, and the names left out: those without the prefix asked for,
        and the counter of an average of weights.
    """
    taken_off: list[str] = []
    named, left_out = dict(tensors), list[str]()
    if prefix is None or not any(name.startswith(prefix) for name in named):  # it may be that of a wrapper, too
        named = _unwrap(named, taken_off, left_out)
    if prefix is None:
        return named, taken_off, left_out
    kept = {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
    left_out += [name for name in named if not name.startswith(prefix)]
    if not kept or "" in kept:
        there = ", ".join(sorted({f"{name.split('.')[0]}." for name in named})[:_MOST_NAMED])
        raise ConvertError(f"{file} has no names that begin with {prefix!r} and go on; they begin with {there}")
    taken_off.append(prefix)
    return _unwrap(kept, taken_off, left_out), taken_off, left_out


def _unwrap(tensors: dict[str, Tensor], taken_off: list[str], left_out: list[str]) -> dict[str, Tensor]:
    """Take off what wrappers put on all names; both lists grow."""
    for wrapper in _WRAPPERS * 2:  # one may stand around the other, in either order
        inner = {name: tensor for name, tensor in tensors.items() if name != _COUNTER or wrapper != "module."}
        if inner and all(name.startswith(wrapper) and name != wrapper for name in inner):
            left_out += [name for name in tensors if name not in inner]
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in inner.items()}
            taken_off.append(wrapper)
    return tensors


def _tell_several(file: Path, names: Collection[str]) -> None:
    """Say in the log when a discriminator is among what was converted: a generator then is one prefix of several."""
    tops = sorted({name.split(".")[0] for name in names if "." in name})
    others = [top for top in tops if top.lower() not in _DISCRIMINATORS]
    if others and len(others) < len(tops):
        likely = next((top for top in others if top.lower() in _GENERATORS), others[0])
        told = ", ".join(f"{top}." for top in tops)
        _LOG.warning(
            "%s: names begin with %s; to keep the generator alone, convert with --strip-prefix %s.", file, told, likely
        )


def _own_memory(file: Path, name: str, tensor: Tensor) -> Tensor:
    """Give a tensor memory of its own, in row-major order: safetensors shares none."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ConvertError(f"{file}: {name} is sparse or quantised; save it as a plain tensor")
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def _write(tensors: dict[str, Tensor], out: Path) -> None:
    """Write beside the place, then move there."""
    try:
        handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
        os.close(handle)
        try:
            save_file(tensors, temporary)
            Path(temporary).chmod(0o644)
            os.replace(temporary, out)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except (OSError, SafetensorError) as error:
        raise ConvertError(f"{out} cannot be written ({error}); name another file or make room") from error
