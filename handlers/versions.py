"""Versions of what a worker computes; each is raised by hand when the code behind it changes."""

from __future__ import annotations

__all__ = ["EXECUTION_VERSION", "PROFILE_VERSION"]

EXECUTION_VERSION = "execution-1"
"""Part of every model digest, like `fount.address.NOISE_VERSION`.

Raise it when a change of this package gives a sample other bytes on the same numerics (folding has numerics of its own,
and padding a layer changes no byte): how floats are rounded to uint8
(`handlers.execution.pixels`), the memory layout of a network (`handlers.execution.network`), how batches are padded
(`handlers.execution.rows`), which batch sizes may run (`handlers.verification.profile`) and which of them a batch gets
(`handlers.execution.batches`), how discrete values are drawn (`handlers.discrete`), or how a custom model is built and
called (`handlers.loading.custom_source`, `handlers.models.custom`).
"""

PROFILE_VERSION = 3
"""Version of stored profiles. Raise it when profiles are measured or chosen differently; stored ones are then measured
again."""
