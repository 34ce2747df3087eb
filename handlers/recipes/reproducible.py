"""Contexts for reproducible training: they set threads, deterministic kernels and seeds, and restore them.

Everything random is drawn from one generator on the CPU, so that a seed gives the same rows and noise on every device;
weights are equal on equal numerics (`docs/numerics.md`).

Source: https://docs.pytorch.org/docs/stable/notes/randomness.html
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["reproducible", "torch_threads"]

_CPU = torch.device("cpu")
_CUBLAS_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch compute on some threads, and restore their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def reproducible(seed: int, *, threads: int = 1, device: torch.device = _CPU) -> Iterator[torch.Generator]:
    """Train with deterministic kernels, and restore torch's state.

    Args:
        seed: of everything random.
        threads: number of torch's threads; another number sums in another order.
        device: where to train. On CUDA the few kernels without a deterministic variant warn instead of failing.

    Yields:
        The generator of everything random but initial weights, which are drawn from torch's own, seeded alike.
    """
    if device.type == "cuda":
        os.environ.setdefault(_CUBLAS_WORKSPACE, ":4096:8")  # before CUDA starts; otherwise cuBLAS sums in any order
    strict, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with torch_threads(threads), _exact_cuda(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
        try:
            yield torch.Generator().manual_seed(seed)
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warns)


@contextmanager
def _exact_cuda() -> Iterator[None]:
    """Disable TF32, which is imprecise, and the benchmark of algorithms, whose choice depends on the clock."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32
    cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = False, False, True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic, matmul.allow_tf32 = before
