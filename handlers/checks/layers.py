"""Find the layer of a module where two runs that should be equal first differ, and advise how to correct it.

Hooks record the inputs and outputs of every submodule in a run. Two recorded runs are then compared call by call: the
first submodule whose outputs differ is the cause when its inputs were equal, and otherwise the code that called it.
Programs whose submodules have no hooks are named as a whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from handlers.checks.report import join_first

__all__ = ["TRAINING_MODE_ADVICE", "Call", "Divergence", "find_divergence", "remedy_for_mixing",
           "remedy_for_randomness", "remedy_for_state", "trace"]  # fmt: skip

TRAINING_MODE_ADVICE = "likely saved or run in training mode: call eval() before saving, and train() nowhere; else "
"""The most frequent cause of mixed rows in a program and of changing statistics; precedes other advice."""

_MAX_CALLS = 2000  # a many-step sampler calls layers without end; runs that differ do so early
_MAX_VALUES = 16384  # recorded of one tensor, evenly spaced
_MAX_NESTING = 4
_MAX_NAMED = 5  # changed tensors in a message
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_NORMS = (nn.modules.batchnorm._BatchNorm,)
_DROPOUTS = (nn.modules.dropout._DropoutNd,)
_BATCH_FIRST = (nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)

Values = tuple[Tensor, ...]


@dataclass(kw_only=True)
class Call:
    """One call of one submodule.

    Attributes:
        name: the submodule's, like "net.3"; "" is the module itself.
        module: the submodule.
        inputs: recorded input values.
        outputs: recorded output values; None while it runs.
        parent: the call that made this one; None when the code of `sample` made it.
        is_leaf: whether it called no other submodule.
    """

    name: str
    module: nn.Module
    inputs: Values
    outputs: Values | None = None
    parent: Call | None = None
    is_leaf: bool = True

    def __str__(self) -> str:
        """Name the layer as its author would look for it."""
        return f"layer {self.name} ({_class_name(self.module)})" if self.name else f"{_class_name(self.module)}.forward"


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The place where two runs first differ.

    Attributes:
        description: follows "first" in a message, like "in layer net.1 (BatchNorm1d)".
        module: the submodule that causes it; None when it is code between submodules.
    """

    description: str
    module: nn.Module | None = None


def trace(root: nn.Module, run: Callable[[], object], row: int | None, rows: int) -> list[Call]:
    """Run a batch, and record the inputs and outputs of every submodule of `root`.

    Args:
        root: the module whose submodules are recorded.
        run: runs one batch.
        row: the row that is recorded of every tensor; None records whole tensors.
        rows: how many rows the batch has.

    Returns:
        The calls in the order they ended, at most 2000.
    """
    ended: list[Call] = []
    running: list[Call] = []
    with contextlib.ExitStack() as stack:
        for name, module in root.named_modules():
            with contextlib.suppress(RuntimeError, AttributeError):  # parts of a program accept no hooks
                _hook(stack, name, module, ended, running, lambda value: tuple(_record(value, row, rows)))
        run()
    return ended


def find_divergence(first: Sequence[Call], second: Sequence[Call], tolerance: float, entry: str) -> Divergence:
    """Find where two runs with different results first differ.

    Args:
        first: calls of one run.
        second: calls of the other.
        tolerance: allowed difference as a share of the largest value; 0 is none.
        entry: the method that is called from outside, "sample" or "forward".
    """
    last: Call | None = None
    for a, b in zip(first, second, strict=False):
        if a.name != b.name:
            after = last if last is not None else "the start"
            return Divergence(description=f"in {entry}() itself: the two runs call other layers after {after}")
        if not _equal(a.outputs, b.outputs, tolerance):
            return _find_cause(a, b, tolerance, entry)
        last = a
    if len(first) == _MAX_CALLS:
        return Divergence(description=f"after the first {_MAX_CALLS} calls of layers")
    if last is None:
        return Divergence(description=f"in {entry}() itself, outside any layer")
    return Divergence(description=f"in {entry}() itself, after {last}")


def remedy_for_mixing(divergence: Divergence, entry: str) -> str:
    """Advise what to change so that rows no longer influence each other."""
    module = divergence.module
    if isinstance(module, _NORMS):
        if getattr(module, "running_mean", None) is None:
            return (
                "it has no running statistics (track_running_stats=False), so it normalises by its batch: train with"
                " running statistics, or use GroupNorm or InstanceNorm"
            )
        return "it is in training mode and normalises by its batch: do not call train(), so that eval() stays"
    if isinstance(module, _BATCH_FIRST) and not getattr(getattr(module, "self_attn", module), "batch_first", True):
        return "it takes dimension 0 for time: build it with batch_first=True"
    rule = "compute means, sums and sorts over the dimensions of one row, like x.mean(dim=(1, 2, 3), keepdim=True)"
    code = _code_of(module, entry)
    return f"{code} lets rows of a batch influence each other: {rule}, or leave that part out when sampling"


def remedy_for_randomness(divergence: Divergence, entry: str) -> str:
    """Advise what to change so that all random numbers are drawn by address."""
    module = divergence.module
    if isinstance(module, _DROPOUTS):
        mode = "is in training mode: do not call train()" if module.training else "is on"
        return f"the dropout {mode}; let eval() switch it off, or leave it out of the path that samples"
    return (
        f"{_code_of(module, entry)} draws its own random numbers: take them from z (a longer latent), or let sample()"
        " take `noise` and call noise(step), which a worker provides by address; never torch.randn, torch.rand or"
        " Dropout in training mode"
    )


def remedy_for_state(names: list[str]) -> str:
    """Advise what to change so that a call leaves no state behind; `names` are the tensors that changed."""
    changed = f"{join_first(names, _MAX_NAMED)}: " if names else ""
    training = TRAINING_MODE_ADVICE if any(name.endswith(_STATISTICS) for name in names) else ""
    rule = "sampling must not write to buffers, parameters or attributes; compute what is needed from z and label"
    return f"{training}{changed}{rule}"


def _find_cause(a: Call, b: Call, tolerance: float, entry: str) -> Divergence:
    """Attribute the difference of the first call whose outputs differ to that layer or to code that called it."""
    if _equal(a.inputs, b.inputs, tolerance):
        if a.is_leaf:
            return Divergence(description=f"in {a}", module=a.module)
        return Divergence(description=f"in the code of {a} itself, between the layers it calls", module=a.module)
    before = f"before {a}"
    while a.parent is not None and b.parent is not None:
        a, b = a.parent, b.parent
        if _equal(a.inputs, b.inputs, tolerance):
            return Divergence(description=f"in the code of {a}, {before}", module=a.module)
    return Divergence(description=f"in {entry}() itself, {before}")


def _class_name(module: nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))  # in TorchScript: the class it was made from


def _code_of(module: nn.Module | None, entry: str) -> str:
    return f"{type(module).__name__}.forward" if module is not None else f"{entry}()"


def _hook(
    stack: contextlib.ExitStack,
    name: str,
    module: nn.Module,
    ended: list[Call],
    running: list[Call],
    record: Callable[[object], Values],
) -> None:

    def start(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        parent = running[-1] if running else None
        if parent is not None:
            parent.is_leaf = False
        inputs = record((args, named)) if len(ended) < _MAX_CALLS else ()
        running.append(Call(name=name, module=module, inputs=inputs, parent=parent))

    def end(_: nn.Module, _args: tuple[Any, ...], _named: dict[str, Any], output: object) -> None:
        call = running.pop()
        if len(ended) < _MAX_CALLS:
            call.outputs = record(output)
            ended.append(call)

    stack.callback(module.register_forward_pre_hook(start, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(end, with_kwargs=True).remove)


def _record(value: object, row: int | None, rows: int, depth: int = 0) -> Iterator[Tensor]:
    """Copy the compared values of every tensor in a nested value."""
    if isinstance(value, Tensor):
        yield _subsample(_row_of(value, row, rows) if row is not None else value)
    elif isinstance(value, dict | tuple | list) and depth < _MAX_NESTING:
        for item in value.values() if isinstance(value, dict) else value:
            yield from _record(item, row, rows, depth + 1)


def _row_of(values: Tensor, row: int, rows: int) -> Tensor:
    """Select one row's part: of (B, ...), of (B k, ...) as (B, k, ...) flattened, or of (T, B, ...)."""
    if values.ndim == 0:
        return values
    if values.shape[0] == rows:
        return values[row]
    if values.ndim > 1 and values.shape[1] == rows:
        return values[:, row]
    if values.shape[0] and values.shape[0] % rows == 0:
        share = values.shape[0] // rows
        return values[row * share : (row + 1) * share]
    return values


def _subsample(values: Tensor) -> Tensor:
    """Copy at most 16384 evenly spaced values to the CPU."""
    flat = values.detach().reshape(-1)
    step = max(1, -(-flat.numel() // _MAX_VALUES))
    flat = flat[::step]
    flat = flat.float() if flat.is_floating_point() else flat
    return flat.to("cpu", copy=True)


def _equal(first: Values | None, second: Values | None, tolerance: float) -> bool:
    """Whether recorded values are equal but for rounding; tensors of different shapes count as equal."""
    return all(_close(a, b, tolerance) for a, b in zip(first or (), second or (), strict=False))


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape or torch.equal(a, b):
        return True
    if not a.is_floating_point():
        return False
    if tolerance == 0:
        return torch.equal(a.nan_to_num(), b.nan_to_num())  # NaN equals NaN here
    return bool((a - b).abs().max() <= tolerance * torch.maximum(a.abs().max(), b.abs().max()))
