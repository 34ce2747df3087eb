"""Layers: where in a module two runs part that should be alike.

Hooks note what every submodule gets and gives in a run. Two runs are then walked side by side: the first submodule
whose results differ is at fault when what it got was the same, and else the code that called it. Programs whose
submodules have no hooks are named as a whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "Call",
    "Place",
    "Trace",
    "find_parting",
    "layers_in_training",
    "remedy_for_memory",
    "remedy_for_mixing",
    "remedy_for_randomness",
    "told_training",
    "trace",
]


_MOST_CALLS = 2000  # a many-step sampler calls layers without end; runs that part do so early
_MOST_VALUES = 16384  # of one tensor that are kept, spread over it
_MOST_NESTED = 4

Values = tuple[Tensor, ...]


@dataclass(kw_only=True)
class Call:
    """One call of one submodule.

    Attributes:
        name: the submodule's, like "net.3"; "" is the module itself.
        module: the submodule.
        inputs: what it got, as kept.
        outputs: what it gave, as kept; None while it runs.
        parent: the call it was made from; None when the code of `sample` made it.
        is_leaf: whether it called no other submodule.
    """

    name: str
    module: nn.Module
    inputs: Values
    outputs: Values | None = None
    parent: Call | None = None
    is_leaf: bool = True

    @property
    def told(self) -> str:
        """The layer as a person looks for it."""
        return f"layer {self.name} ({_kind(self.module)})" if self.name else f"{_kind(self.module)}.forward"


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The calls of one run, in the order they ended.

    Attributes:
        calls: at most 2000.
        is_whole: whether all of them are here.
    """

    calls: tuple[Call, ...]
    is_whole: bool


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where two runs part.

    Attributes:
        told: words for it, to stand after "first at" or "in".
        module: the submodule at fault; None when it is code between submodules.
    """

    told: str
    module: nn.Module | None = None


def trace(root: nn.Module, run: Callable[[], object], row: int | None, rows: int) -> Trace:
    """Run, and note what every submodule got and gave.

    Args:
        root: the module whose submodules are watched.
        run: runs one batch.
        row: the row that is kept of every tensor; None keeps whole tensors.
        rows: how many the batch has.
    """
    ended: list[Call] = []
    running: list[Call] = []
    with contextlib.ExitStack() as stack:
        for name, module in root.named_modules():
            with contextlib.suppress(RuntimeError, AttributeError):  # parts of a program take no hooks
                _watch(stack, name, module, ended, running, lambda value: tuple(_keep(value, row, rows)))
        run()
    return Trace(calls=tuple(ended), is_whole=len(ended) < _MOST_CALLS)


def find_parting(first: Trace, second: Trace, tolerance: float, entry: str) -> Place:
    """Find where two runs part whose results differ.

    Args:
        first: one run.
        second: the other.
        tolerance: how far values may be apart, as a share of the largest; 0 is none.
        entry: what is called from outside, "sample" or "forward".
    """
    last: Call | None = None
    for a, b in zip(first.calls, second.calls, strict=False):
        if a.name != b.name:
            return Place(told=f"in {entry}() itself: the two runs call other layers after {_told(last)}")
        if not _agree(a.outputs, b.outputs, tolerance):
            return _blame(a, b, tolerance, entry)
        last = a
    if not first.is_whole:
        return Place(told=f"after the first {_MOST_CALLS} calls of layers")
    if last is None:
        return Place(told=f"in {entry}() itself, outside any layer")
    return Place(told=f"in {entry}() itself, after {last.told}")


def _blame(a: Call, b: Call, tolerance: float, entry: str) -> Place:
    """Name who made the difference of the first call that shows one."""
    if _agree(a.inputs, b.inputs, tolerance):
        if a.is_leaf:
            return Place(told=f"in {a.told}", module=a.module)
        return Place(told=f"in the code of {a.told} itself, between the layers it calls", module=a.module)
    before = f"before {a.told}"
    while a.parent is not None and b.parent is not None:
        a, b = a.parent, b.parent
        if _agree(a.inputs, b.inputs, tolerance):
            return Place(told=f"in the code of {a.told}, {before}", module=a.module)
    return Place(told=f"in {entry}() itself, {before}")


def _told(call: Call | None) -> str:
    return call.told if call is not None else "the start"


def _kind(module: nn.Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))  # of TorchScript, the class it was made from


def _watch(
    stack: contextlib.ExitStack,
    name: str,
    module: nn.Module,
    ended: list[Call],
    running: list[Call],
    keep: Callable[[object], Values],
) -> None:
    """Note the calls of one submodule until the stack is closed."""

    def begin(_: nn.Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
        parent = running[-1] if running else None
        if parent is not None:
            parent.is_leaf = False
        kept = keep((args, named)) if len(ended) < _MOST_CALLS else ()
        running.append(Call(name=name, module=module, inputs=kept, parent=parent))

    def end(_: nn.Module, _args: tuple[Any, ...], _named: dict[str, Any], output: object) -> None:
        call = running.pop()
        if len(ended) < _MOST_CALLS:
            call.outputs = keep(output)
            ended.append(call)

    stack.callback(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
    stack.callback(module.register_forward_hook(end, with_kwargs=True).remove)


def _keep(value: object, row: int | None, rows: int, depth: int = 0) -> Iterator[Tensor]:
    """Copy what is to be compared of every tensor in a value."""
    if isinstance(value, Tensor):
        yield _spread(_row_of(value, row, rows) if row is not None else value)
    elif isinstance(value, dict) and depth < _MOST_NESTED:
        for item in value.values():
            yield from _keep(item, row, rows, depth + 1)
    elif isinstance(value, tuple | list) and depth < _MOST_NESTED:
        for item in value:
            yield from _keep(item, row, rows, depth + 1)


def _row_of(values: Tensor, row: int, rows: int) -> Tensor:
    """Take one row's part: of (B, ...), of (B k, ...) as (B, k, ...) flattened, or of (T, B, ...)."""
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


def _spread(values: Tensor) -> Tensor:
    """Copy at most 16384 values, evenly spread, to the CPU."""
    flat = values.detach().reshape(-1)
    step = max(1, -(-flat.numel() // _MOST_VALUES))
    flat = flat[::step]
    flat = flat.float() if flat.is_floating_point() else flat
    return flat.to("cpu", copy=True)


def _agree(first: Values | None, second: Values | None, tolerance: float) -> bool:
    """Whether kept values are equal, but for rounding; tensors of other shapes tell nothing, and count as equal."""
    return all(_close(a, b, tolerance) for a, b in zip(first or (), second or (), strict=False))


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    if a.shape != b.shape or torch.equal(a, b):
        return True
    if not a.is_floating_point():
        return False
    if tolerance == 0:
        return torch.equal(a.nan_to_num(), b.nan_to_num())  # NaN equals NaN here
    return bool((a - b).abs().max() <= tolerance * torch.maximum(a.abs().max(), b.abs().max()))


# FOLDED FROM handlers.checks.layers:
# Remedies: what to change about a layer that mixes rows, draws at random, or remembers. Enters: the place where
# two runs part. Leaves: one sentence a person can act on.


_MOST_NAMED = 3
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_NORMS = (nn.modules.batchnorm._BatchNorm,)
_DROPOUTS = (nn.modules.dropout._DropoutNd,)
_BATCH_FIRST = (nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def layers_in_training(module: nn.Module) -> list[str]:
    """Name submodules that are in training mode, each with its class: three, and how many more."""
    names = [
        f"{name or 'the module'} ({type(part).__name__})" for name, part in module.named_modules() if part.training
    ]
    more = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return names[:_MOST_NAMED] + more


def remedy_for_mixing(place: Place, entry: str) -> str:
    """Say what to change so that rows no longer see each other."""
    module = place.module
    if isinstance(module, _NORMS):
        return _remedy_for_norm(module)
    if isinstance(module, _BATCH_FIRST) and not _is_batch_first(module):
        return "it takes dimension 0 for time: build it with batch_first=True"
    rule = "compute means, sums and sorts over the dimensions of one row, like x.mean(dim=(1, 2, 3), keepdim=True)"
    where = f"{type(module).__name__}.forward" if module is not None else f"{entry}()"
    return f"{where} lets rows of a batch see each other: {rule}, or leave that part out when sampling"


def remedy_for_randomness(place: Place, entry: str) -> str:
    """Say what to change so that nothing is drawn but by address."""
    module = place.module
    if isinstance(module, _DROPOUTS):
        mode = "is in training mode: do not call train()" if module.training else "is on"
        return f"the dropout {mode}; let eval() switch it off, or leave it out of the path that samples"
    where = f"{type(module).__name__}.forward" if module is not None else f"{entry}()"
    return (
        f"{where} draws its own random numbers: take them from z (a longer latent), or let sample() take `noise` and"
        " call noise(step), which a worker gives by address; never torch.randn, torch.rand or Dropout in training mode"
    )


def told_training() -> str:
    """Name first what most often is the cause of rows that mix in a program, and of statistics that move."""
    return "likely saved or run in training mode: call eval() before saving, and train() nowhere; else "


def remedy_for_memory(names: list[str]) -> str:
    """Say what to change so that a call leaves nothing behind."""
    told = f"{', '.join(names)}: " if names else ""
    training = told_training() if any(name.endswith(_STATISTICS) for name in names) else ""
    rule = "sampling must not write to buffers, parameters or attributes; compute what is needed from z and label"
    return f"{training}{told}{rule}"


def _remedy_for_norm(module: nn.Module) -> str:
    if getattr(module, "running_mean", None) is None:
        return (
            "it has no running statistics (track_running_stats=False), so it normalises by its batch: train with"
            " running statistics, or use GroupNorm or InstanceNorm"
        )
    return "it is in training mode and normalises by its batch: do not call train(), so that eval() stays"


def _is_batch_first(module: nn.Module) -> bool:
    inner = getattr(module, "self_attn", module)
    return bool(getattr(inner, "batch_first", True))
