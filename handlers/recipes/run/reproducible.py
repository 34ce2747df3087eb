"""Training that gives the same bits again: threads, kernels and seeds, set for a while and then put back.

Everything random comes from one generator on the CPU, so that a seed means the same rows and noise on every device;
weights are the same on the same numerics (`docs/numerics.md`).

Source: https://docs.pytorch.org/docs/stable/notes/randomness.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["one_thread", "reproducible"]

_CPU = torch.device("cpu")
_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread, and then on as many as before."""
    with _threads(1):
        yield


@contextmanager
def reproducible(seed: int, *, threads: int = 1, device: torch.device = _CPU) -> Iterator[torch.Generator]:
    """Train with deterministic kernels; leave torch as it was.

    Args:
        seed: of everything random.
        threads: how many torch computes on; other counts add in another order.
        device: where. On CUDA the few kernels that have no deterministic twin warn instead of stopping.

    Yields:
        The generator of everything random but initial weights, which come from torch's own, seeded alike and put back.
    """
    if device.type == "cuda":
        os.environ.setdefault(_CUBLAS_WORKSPACE, ":4096:8")  # before CUDA starts, or cuBLAS adds in any order
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with _threads(threads), _no_shortcuts(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warns)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_shortcuts() -> Iterator[None]:
    """No TF32 and no trial of algorithms on CUDA: the first is coarse, the second chooses by the clock."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32
    cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = False, False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = before
