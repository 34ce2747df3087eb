"""The check `notebook`: for the same z and labels, a worker returns what the module returned in its notebook.

The module is built once more and called directly, as a notebook does, and must return the same floats as through the
worker's code, but for the rounding of folded batch normalisation. That cannot show whether the weights are the
notebook's; pictures saved there in `example.safetensors` can.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fount.address import Addresses, Stream
from handlers.checks.report import Finding, failed, join_first, passed
from handlers.checks.subject import CHECK_SEED, SEVERAL, Subject, largest_difference, seed_globals
from handlers.checks.value_range import PixelStatistics, describe_range
from handlers.execution.pixels import Float32s, find_finite_rows, floats_to_uint8
from handlers.family import Deadline, Noise, Sampler
from handlers.loading.build import build_unwrapped
from handlers.verification.golden import MAX_LEVELS, MEAN_LEVELS

__all__ = ["EXAMPLE_FILE", "check_notebook"]

EXAMPLE_FILE = "example.safetensors"
"""File in the model's folder: z, labels if there are classes, and the images that the author's module returned."""

CHECK = "notebook"
_MAX_ROWS = 256
_MAX_NAMED = 3
_FOLDED_TOLERANCE = 1e-4  # of the value range
_CAUSES = (
    "likely causes: the notebook's module was in training mode (call eval() before saving the example); the weights"
    " differ (a later step, or an average of weights such as EMA); pictures were scaled after the module returned them;"
    " if `rows` or `deterministic` below fail too, correct those first"
)


class ExampleError(Exception):
    """The example cannot be compared. Save it again as the message says."""


@dataclass(frozen=True, kw_only=True)
class _GivenNoise(Noise):
    """Noise with a given z instead of a drawn one."""

    z: Tensor

    def normal(
        self, stream: Stream, shape: tuple[int, ...], *, step: int = 0, truncation: float | None = None
    ) -> Tensor:
        """Return z for the stream LATENT; draw other streams by address."""
        if stream is not Stream.LATENT:
            return super().normal(stream, shape, step=step, truncation=truncation)
        if tuple(self.z.shape[1:]) != shape:
            raise ExampleError(f"z has rows of shape {tuple(self.z.shape[1:])}, the model takes {shape}")
        return self.z.to(self.device, self.dtype)


def check_notebook(subject: Subject) -> Finding:
    """Compare the worker's results with a direct call of the module, and with the example if there is one."""
    difference, folded = _compare_with_direct_call(subject), subject.network.folded
    if difference > (_FOLDED_TOLERANCE * subject.scale if folded else 0.0):
        seen = f"called directly the module gives other values, by up to {subject.describe_difference(difference)}"
        return failed(CHECK, seen, "look for what changes between calls or depends on how the module was loaded")
    seen = "called directly, the module gives the same floats"
    if difference:
        seen += f" up to {subject.describe_difference(difference)}, by folding {join_first(folded, _MAX_NAMED)}"
    if not subject.samples:
        return passed(CHECK, seen)
    file = subject.folder / EXAMPLE_FILE
    if not file.exists():
        return passed(CHECK, seen, change=_how_to_save(subject))
    try:
        return _compare_with_example(subject, *_read_example(subject, file), seen)
    except ExampleError as error:
        return failed(CHECK, f"{EXAMPLE_FILE}: {error}", _how_to_save(subject))


def _compare_with_direct_call(subject: Subject) -> float:
    """Compute the largest difference between a worker's result and a direct call, for the same addresses."""
    fresh = build_unwrapped(subject.card, subject.folder).to(subject.network.device).eval()
    rows = subject.rows(subject.batch(SEVERAL))
    seed_globals(1)
    known = subject.run(rows)
    seed_globals(1)
    direct = subject.call_module(fresh, rows)
    return largest_difference(known, _to_rows(direct.cpu()) if isinstance(direct, Tensor) else np.asarray(direct))


def _read_example(subject: Subject, file: Path) -> tuple[Tensor, Tensor | None, Float32s]:
    """Read z (N, *latent) float32, labels (N,) int64 if there are classes, and images (N, H, W, C) float32."""
    sample, classes = subject.card.sample, len(subject.card.classes)
    try:
        with safe_open(file, framework="pt") as stream:
            names = set(stream.keys())
            tensors = {name: stream.get_tensor(name)[:_MAX_ROWS] for name in names}
    except (OSError, SafetensorError, ValueError, TypeError, IndexError) as error:  # the last for a single number
        raise ExampleError(f"cannot be read as safetensors ({error})") from error
    expected = {"z", "images"} | ({"labels"} if classes else set())
    if names != expected:
        found = ", ".join(sorted(names)) or "nothing"
        raise ExampleError(f"contains {found}; it must contain {', '.join(sorted(expected))}")
    z, images = tensors["z"], tensors["images"]
    shape = sample.tensor_shape
    if tuple(images.shape[1:]) != shape or not len(images) or not images.is_floating_point():
        found = f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
        raise ExampleError(f"images are {found}; they must be floats (N, {', '.join(map(str, shape))})")
    if len(z) != len(images) or not z.is_floating_point():
        raise ExampleError(
            f"z has {len(z)} rows of {z.dtype}, images has {len(images)}; both must have equally many rows"
        )
    labels = _check_labels(tensors["labels"], len(z), classes) if classes else None
    return z.float(), labels, _to_rows(images)


def _check_labels(labels: Tensor, count: int, classes: int) -> Tensor:
    if labels.is_floating_point() or tuple(labels.shape) != (count,):
        raise ExampleError(f"labels are {labels.dtype} {tuple(labels.shape)}; they must be whole numbers ({count},)")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ExampleError(
            f"labels reach from {int(labels.min())} to {int(labels.max())}; the card has {classes} classes"
        )
    return labels.to(torch.int64)


def _to_rows(images: Tensor) -> Float32s:
    rows = images.permute(0, 2, 3, 1) if images.ndim == 4 else images  # (N, C, H, W) -> (N, H, W, C)
    return np.ascontiguousarray(rows.float().numpy())


def _compare_with_example(subject: Subject, z: Tensor, labels: Tensor | None, images: Float32s, seen: str) -> Finding:
    value_range = subject.card.sample.value_range
    if not find_finite_rows(images).all():
        raise ExampleError("images contain NaN or infinite values")
    found = PixelStatistics(value_range=value_range)
    found.add(images)
    if not found.suits(value_range):  # values slightly beyond were perhaps saved before the module clamped them
        raise ExampleError(f"{describe_range(found)}; save them as the module returns them, before other scaling")
    drawn = floats_to_uint8(np.nan_to_num(_draw_example(subject, z, labels)), value_range)
    levels = np.abs(drawn.astype(np.int16) - floats_to_uint8(images, value_range))
    most, mean = int(levels.max()), float(levels.mean())
    compared = f"{len(levels)} pictures of {EXAMPLE_FILE} up to {most} levels apart, {mean:.3g} on average"
    if most <= MAX_LEVELS and mean <= MEAN_LEVELS:
        return passed(CHECK, f"{seen}; {compared}", numbers={"example_levels": most, "example_mean_levels": mean})
    return failed(CHECK, f"{compared} ({MAX_LEVELS} and {MEAN_LEVELS} allowed)", _CAUSES)


@torch.inference_mode()
def _draw_example(subject: Subject, z: Tensor, labels: Tensor | None) -> Float32s:
    """Sample the example's z with the worker's code, in batches."""
    network, size = subject.network, subject.batch(32)
    assert isinstance(network.module, Sampler)
    parts: list[Float32s] = []
    for start in range(0, len(z), size):
        part = z[start : start + size]
        addresses = Addresses.of_range(CHECK_SEED, start, len(part))
        noise = _GivenNoise(addresses=addresses, device=network.device, dtype=network.dtype, z=part)
        part_labels = None if labels is None else labels[start : start + size].to(network.device)
        images = network.module.sample(noise, part_labels, subject.draw, Deadline())
        parts.append(_to_rows(images.cpu()))
    return np.concatenate(parts)


def _how_to_save(subject: Subject) -> str:
    labels = '"labels": labels, ' if subject.card.classes else ""
    return (
        "to compare with your notebook, save there what its module returned, and put the file into the model's folder: "
        f'safetensors.torch.save_file({{"z": z, {labels}"images": images}}, "{EXAMPLE_FILE}")'
    )
