"""The way in: which module a check looks into, and what is called of it.

A model of one's own is wrapped to become a family; what a person knows, and can change, is the module inside.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch
from torch import nn

from fount.address import Stream
from handlers.cards.card import source_of
from handlers.checks.subject import Subject
from handlers.execution.rows import Rows, SampleRows
from handlers.family import Deadline, Noise, Sampler
from handlers.loading.build import call_own, is_own
from handlers.models import OWN_FAMILY, PROGRAM_FAMILIES
from handlers.models.own import values_by_name

__all__ = ["call_by_hand", "entry_of", "own_module", "source_file_of", "told_export"]


def own_module(subject: Subject) -> nn.Module:
    """Give the module whose layers are named: the user's own inside its wrapper, else the family's."""
    module = subject.network.module
    inner = getattr(module, "module", None) if is_own(subject.card) else module
    return inner if isinstance(inner, nn.Module) else module


def entry_of(subject: Subject) -> str:
    """Name what a worker calls of the module."""
    if subject.transforms:
        return "transform"
    if not subject.samples:
        return "classify" if "CLASSIFY" in subject.card.operations else "embed"
    return "sample" if callable(getattr(own_module(subject), "sample", None)) else "forward"


def told_export(subject: Subject) -> str:
    """What is to be done after the code was changed: nothing, or for a program to make it again."""
    is_program = subject.card.family.name in PROGRAM_FAMILIES
    return "; then save the program again, after module.eval()" if is_program else ""


def source_file_of(subject: Subject) -> Path | None:
    """The file in which a person would change the code; None when the model is a program or of this package."""
    return source_of(subject.card, subject.folder) if subject.card.family.name == OWN_FAMILY else None


@torch.inference_mode()
def call_by_hand(subject: Subject, module: nn.Module, rows: Rows) -> object:
    """Give some rows' z and labels to a module, as a notebook would, or as the code around a family does.

    Args:
        subject: the model.
        module: that of `own_module`, or another one built alike.
        rows: samples or pictures to run.

    Returns:
        Whatever the module gives: (B, C, H, W) floats, if it is as it should be. For pictures, what a worker would.
    """
    network = subject.network
    if not isinstance(rows, SampleRows):
        return subject.run(rows, dataclasses.replace(network, module=module))
    noise = Noise(addresses=rows.addresses, device=network.device, dtype=network.dtype)
    labels = None if rows.labels is None else torch.from_numpy(rows.labels).to(network.device)
    draw, latent = subject.draw, subject.card.latent
    if latent is None or not is_own(subject.card):
        assert isinstance(module, Sampler)
        return module.sample(noise, labels, draw, Deadline())
    z = noise.normal(Stream.LATENT, latent.shape, truncation=draw.truncation)
    return call_own(module, z, labels, values_by_name(noise, draw, Deadline(), latent.shape))
