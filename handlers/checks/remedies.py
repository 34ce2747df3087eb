"""Remedies: what to change about a layer that mixes rows, draws at random, or remembers.

Enters: the place where two runs part. Leaves: one sentence a person can act on.
"""

from __future__ import annotations

from torch import nn

from handlers.checks.layers import Place

__all__ = ["layers_in_training", "remedy_for_memory", "remedy_for_mixing", "remedy_for_randomness", "told_training"]

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
