"""The measured model as a user of torch serves it: the plain module, eager, in evaluation and inference mode.

TorchServe alone and the peers run it. The rows of all requests of a batch are joined, run at once and split again;
neither are batch sizes chosen nor rows padded. This file is also packed into TorchServe's archive.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from fount.address import Addresses
from handlers.cards.card import load_card
from handlers.execution.numerics import configure_torch
from handlers.execution.pixels import floats_to_uint8
from handlers.family import Deadline, Draw, Noise
from handlers.loading.build import build_module
from handlers.settings import settings_from_environment

try:
    from benchmarks.request_body import read_body
except ModuleNotFoundError:  # in the archive
    from request_body import read_body  # type: ignore[import-not-found,no-redef]

__all__ = ["EagerModel"]

_MAX_ROWS = 256  # of one run, to bound memory


class EagerModel:
    """The model on one device, with the threads and precision of Fount's workers.

    Args:
        folder: an unpacked archive.
        gpu_id: the CUDA device; None is the CPU.
    """

    def __init__(self, folder: Path, gpu_id: int | None = None) -> None:
        settings = settings_from_environment(os.environ, gpu_id)
        configure_torch(settings)
        card = load_card(folder)
        self._range = card.sample.value_range
        self._device = torch.device(settings.device)
        self._dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
        self._module = build_module(card, folder).eval().requires_grad_(False).to(self._device, self._dtype)

    def draw(self, bodies: Sequence[bytes]) -> list[bytes]:
        """Draw the samples of some requests together: raw uint8, row-major, one entry for each request."""
        requests = [read_body(body) for body in bodies]
        counts = [len(labels) for _, _, labels in requests]
        seeds = np.repeat(np.array([seed for seed, _, _ in requests], np.uint64), counts)
        indices = np.concatenate([np.arange(start, start + n, dtype=np.uint64)
                                  for (_, start, _), n in zip(requests, counts, strict=True)])  # fmt: skip
        labels = np.frombuffer(b"".join(each for _, _, each in requests), np.uint8).astype(np.int64)
        rows = range(0, len(labels), _MAX_ROWS)
        parts = [self._run(seeds[k : k + _MAX_ROWS], indices[k : k + _MAX_ROWS], labels[k : k + _MAX_ROWS])
                 for k in rows]  # fmt: skip
        images = np.concatenate(parts)
        ends = np.cumsum(counts)
        return [images[end - n : end].tobytes() for n, end in zip(counts, ends, strict=True)]

    @torch.inference_mode()
    def _run(self, seeds: np.ndarray, indices: np.ndarray, labels: np.ndarray) -> np.ndarray:
        noise = Noise(addresses=Addresses(seeds=seeds, indices=indices), device=self._device, dtype=self._dtype)
        images = self._module.sample(noise, torch.from_numpy(labels).to(self._device), Draw(), Deadline())
        floats = images.permute(0, 2, 3, 1).to("cpu", torch.float32).numpy()  # (B, C, H, W) -> (B, H, W, C)
        return floats_to_uint8(floats, self._range)
