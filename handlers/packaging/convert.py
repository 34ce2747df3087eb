"""Convert checkpoints to safetensors, reading only tensors and plain values.

A checkpoint of torch.save is a pickle, which `handlers.packaging.checkpoints` reads without running code of it. A
checkpoint enters; a safetensors file with the names a module expects leaves, with a summary of stripped prefixes,
skipped entries and dropped objects.
"""

from __future__ import annotations

import io
import logging
import pickle
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from fount.files import atomic_path
from handlers.execution.errors import describe_error, is_out_of_memory
from handlers.loading.file_kinds import Kind, kind_of
from handlers.loading.memory import InsufficientMemoryError, require_memory
from handlers.packaging.checkpoints import (
    Node,
    Placeholder,
    UnsafeCheckpointError,
    count_tensors,
    read_checkpoint,
    walk,
)

__all__ = ["Conversion", "ConvertError", "convert"]

ROOT_KEY = "."
"""The key of the checkpoint itself."""

_LOG = logging.getLogger(__name__)
_WRAPPERS = ("module.", "_orig_mod.")  # of DataParallel and AveragedModel, and of torch.compile
_COUNTER = "n_averaged"  # which AveragedModel saves in addition to the names that start with "module."
_GENERATORS = ("generator", "gen", "g", "netg", "net_g", "g_ema", "generator_ema")
_DISCRIMINATORS = ("discriminator", "disc", "d", "netd", "net_d", "critic")
_MAX_NAMED = 5
_SAVE_REMEDY = (
    "where it was trained, save the weights alone: from safetensors.torch import save_file; "
    'save_file(model.state_dict(), "weights.safetensors")'
)


class ConvertError(Exception):
    """A checkpoint cannot be converted. Do what the message says."""


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """What was written.

    Attributes:
        tensors: their number.
        size_bytes: of the file.
        key: the path of the tensors in the checkpoint; "." is the checkpoint itself.
        stripped: prefixes removed from names, in order.
        skipped: names that were not written: no tensors, without the requested prefix, or an average's counter.
        dropped: objects of the checkpoint that were not read, like "args (argparse.Namespace)".
    """

    tensors: int
    size_bytes: int
    key: str
    stripped: tuple[str, ...]
    skipped: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def convert(
    file: Path, out: Path, *, key: str | None = None, prefix: str | None = None, force: bool = False
) -> Conversion:
    """Convert a checkpoint.

    Args:
        file: a checkpoint of torch.save, or safetensors.
        out: the safetensors file, written atomically.
        key: the dotted path of the state dict within the checkpoint; None finds the only one.
        prefix: of the names to write, removed from them; None removes those that DataParallel, AveragedModel and
            torch.compile add.
        force: replace `out`.

    Raises:
        ConvertError: it cannot be read safely, has no or several state dicts, its tensors are in objects that are not
            read, or `out` cannot be written.
    """
    if out.exists() and (not force or out.samefile(file)):
        remedy = "name another file" if out.samefile(file) else "name another file, or add --force"
        raise ConvertError(f"{out} exists; {remedy}")
    nodes = _find_nodes(file, _read(file))
    found, state = _choose(file, nodes, key)
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    no_tensors = [str(name) for name, value in state.items() if not isinstance(value, Tensor | Placeholder)]
    renamed, stripped, skipped = _strip(file, tensors, prefix)
    _warn_of_discriminator(file, renamed)
    copies = {name: _copy(file, name, tensor) for name, tensor in renamed.items()}
    try:
        with atomic_path(out) as part:
            save_file(copies, part)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConvertError(f"{out} cannot be written ({reason}); name another file or free some space") from error
    return Conversion(
        tensors=len(renamed),
        size_bytes=out.stat().st_size,
        key=found,
        stripped=tuple(stripped),
        skipped=(*no_tensors, *skipped),
        dropped=tuple(_describe(node) for node in nodes if isinstance(node.value, Placeholder)),
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
            if file.suffix == ".safetensors":  # torch would trust the file's suffix
                data = io.BytesIO(stream.read())
                return read_checkpoint(lambda: torch.load(_rewound(data), map_location="cpu", weights_only=True))
        return read_checkpoint(lambda: torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip))
    except (UnsafeCheckpointError, pickle.UnpicklingError) as error:
        content = str(error) if isinstance(error, UnsafeCheckpointError) else "more than tensors"
        raise ConvertError(f"{file} contains {content}, and reading those could run code; {_SAVE_REMEDY}") from error
    except Exception as error:  # torch raises many kinds for damaged files
        if is_out_of_memory(error):
            raise
        raise ConvertError(f"{file} is damaged: {describe_error(error)}; copy it or save it again") from error


def _rewound(stream: io.BytesIO) -> io.BytesIO:
    stream.seek(0)
    return stream


def _find_nodes(file: Path, checkpoint: object) -> list[Node]:
    try:
        return list(walk(checkpoint))
    except ValueError as error:
        raise ConvertError(f"{file} is damaged: {error}; copy it or save it again") from error


def _describe(node: Node) -> str:
    """Describe a placeholder: its path, class, and how many tensors are lost with it."""
    assert isinstance(node.value, Placeholder)
    count = count_tensors(node.value)
    tensors = f", with {count} tensor{'s' * (count > 1)}" if count else ""
    return f"{'.'.join(node.path) or ROOT_KEY} ({node.value.kind}{tensors})"


def _choose(file: Path, nodes: Sequence[Node], key: str | None) -> tuple[str, Mapping[Any, Any]]:
    """Choose a mapping of names to tensors; an optimiser's have numbers above them, and are not among the nodes."""
    found = {
        ".".join(node.path) or ROOT_KEY: node.value
        for node in nodes
        if isinstance(node.value, Mapping)
        and any(isinstance(item, Tensor) and item.ndim for item in node.value.values())
    }
    if key in found:
        return key, found[key]
    counts = {name: sum(isinstance(value, Tensor) for value in state.values()) for name, state in found.items()}
    listed = ", ".join(f"{name} ({count} tensors)" for name, count in counts.items())
    objects = [node for node in nodes if isinstance(node.value, Placeholder) and count_tensors(node.value)]
    unread = ", ".join(map(_describe, objects[:_MAX_NAMED]))
    if not found:
        instead = f", but {unread}, which is not read" if unread else ""
        raise ConvertError(f"{file} contains no mapping of names to tensors{instead}; {_SAVE_REMEDY}")
    if key is not None:
        raise ConvertError(f"{file} has no tensors at {key!r}; set --key to one of: {listed}")
    if objects:
        raise ConvertError(f"{file} also contains {unread}, which is not read; set --key to one of: {listed}")
    if len(found) > 1:
        raise ConvertError(f"{file} contains several models; set --key to one of: {listed}")
    return next(iter(found.items()))


def _strip(
    file: Path, tensors: Mapping[str, Tensor], prefix: str | None
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Strip prefixes from names.

    Returns:
        Tensors by their new names, the prefixes stripped, and the names skipped: those without the requested prefix,
        and the counter of an average of weights.
    """
    stripped, skipped, named = list[str](), list[str](), dict(tensors)
    if prefix is None or not any(name.startswith(prefix) for name in named):  # the prefix may be inside a wrapper's
        named = _unwrap(named, stripped, skipped)
    if prefix is None:
        return named, stripped, skipped
    kept = {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
    skipped += [name for name in named if not name.startswith(prefix)]
    if not kept or "" in kept:
        starts = ", ".join(sorted({f"{name.split('.')[0]}." for name in named})[:_MAX_NAMED])
        raise ConvertError(f"{file} has no names that continue after {prefix!r}; they begin with {starts}")
    stripped.append(prefix)
    return _unwrap(kept, stripped, skipped), stripped, skipped


def _unwrap(tensors: dict[str, Tensor], stripped: list[str], skipped: list[str]) -> dict[str, Tensor]:
    """Strip what wrappers add to all names; appends to both lists."""
    for wrapper in _WRAPPERS * 2:  # wrappers may be nested in either order
        inner = {name: tensor for name, tensor in tensors.items() if name != _COUNTER or wrapper != "module."}
        if inner and all(name.startswith(wrapper) and name != wrapper for name in inner):
            skipped += [name for name in tensors if name not in inner]
            tensors = {name.removeprefix(wrapper): tensor for name, tensor in inner.items()}
            stripped.append(wrapper)
    return tensors


def _warn_of_discriminator(file: Path, names: Collection[str]) -> None:
    """Log a warning when a discriminator was converted, too: the generator alone has a prefix of its own."""
    tops = sorted({name.split(".")[0] for name in names if "." in name})
    others = [top for top in tops if top.lower() not in _DISCRIMINATORS]
    if others and len(others) < len(tops):
        likely = next((top for top in others if top.lower() in _GENERATORS), others[0])
        starts = ", ".join(f"{top}." for top in tops)
        remedy = f"to keep the generator alone, convert with --strip-prefix {shlex.quote(likely)}."
        _LOG.warning("%s: names begin with %s; %s", file, starts, remedy)


def _copy(file: Path, name: str, tensor: Tensor) -> Tensor:
    """Copy a tensor into row-major memory of its own: safetensors does not support shared memory."""
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise ConvertError(f"{file}: {name} is sparse or quantised; save it as a plain tensor")
    return tensor.detach().clone(memory_format=torch.contiguous_format)
