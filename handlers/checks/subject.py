"""The model under check: its card, network and batch-size profile, and the rows that checks run it with.

Checks add what they load, so that later checks use it. Rows are drawn at fixed addresses or made from the images of a
golden file; the size of a batch is bounded in bytes, whatever the size of a picture.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from fount.address import Addresses, Stream
from fount.v1 import sampling_pb2
from handlers.cards.card import Card
from handlers.cards.digests import source_of
from handlers.execution.network import Network, Operation
from handlers.execution.pixels import Float32s, Values, uint8_to_floats
from handlers.execution.probes import make_manipulations, make_probe_rows
from handlers.execution.rows import GivenRows, ImageRows, Rows, SampleRows
from handlers.family import Deadline, Draw, Noise, Sampler
from handlers.loading.build import is_custom, wrap_module
from handlers.models import CUSTOM_FAMILY, PROGRAM_FAMILIES
from handlers.models.custom import call_module, values_by_name
from handlers.settings import Settings
from handlers.verification.profile import Profile
from handlers.worker.requests import read_draw

__all__ = ["CHECK_SEED", "SEVERAL", "Subject", "largest_difference", "seed_globals"]

CHECK_SEED = 0x434845434B
"""Seed of the addresses that checks draw."""

SEVERAL = 7
"""Rows of a batch of several; a prime, so that another dimension is hardly ever taken for the batch dimension."""

_MAX_PICTURE_BYTES = 64 * 2**20  # pictures held at a time
_RUN_ROWS = 32  # rows of one batch in `run_in_batches`


@dataclass(kw_only=True)
class Subject:
    """A model under check.

    Attributes:
        folder: the model's folder.
        settings: device, threads and precision to run it with.
        picture: file that the check `picture` writes.
        record: whether golden samples may be written.
        time_limit_s: limit of one check.
        modes: whether the check `speed` compares ways of running.
        resident_before: bytes of memory the process used before the model was loaded.
        card: the model card, set by the check `card`.
        network: the loaded model, set by the check `weights`.
        profile: the batch sizes that may run, set by the check `batch-size`.
    """

    folder: Path
    settings: Settings
    picture: Path
    record: bool = True
    time_limit_s: float = 300.0
    modes: bool = False
    resident_before: int = 0
    card: Card = field(init=False, repr=False)
    network: Network = field(init=False, repr=False)
    profile: Profile = field(init=False, repr=False)

    @property
    def samples(self) -> bool:
        """Whether the model generates pictures instead of reading them."""
        return "SAMPLE" in self.card.operations

    @property
    def transforms(self) -> bool:
        """Whether the model manipulates pictures."""
        return "TRANSFORM" in self.card.operations

    @property
    def translates(self) -> bool:
        """Whether the model makes pictures of pictures, and draws none without."""
        return self.operations == ("TRANSLATE",)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations whose results most checks compare: SAMPLE, or CLASSIFY and EMBED, or the card's first."""
        listed = self.card.operations
        if self.samples:
            return ("SAMPLE",)
        return tuple(name for name in listed if name in ("CLASSIFY", "EMBED")) or listed[:1]

    @property
    def scale(self) -> float:
        """The unit of differences: the width of the value range for pictures, 1 for other results."""
        low, high = self.card.sample.value_range
        return high - low if self.samples else 1.0

    @property
    def draw(self) -> Draw:
        """Sampling parameters of a request that sets none: the card's defaults."""
        return read_draw(sampling_pb2.Parameters(), self.card)

    @property
    def module(self) -> nn.Module:
        """The module whose layers are named: the user's own inside its wrapper, else the family's."""
        module = self.network.module
        inner = getattr(module, "module", None) if is_custom(self.card) else module
        return inner if isinstance(inner, nn.Module) else module

    @property
    def entry(self) -> str:
        """The method of the module that a worker calls."""
        if self.transforms:
            return "transform"
        if not self.samples:
            return self.operations[0].lower()
        return "sample" if callable(getattr(self.module, "sample", None)) else "forward"

    @property
    def source_file(self) -> Path | None:
        """The user's source file; None when the model is a program or of this package."""
        return source_of(self.card, self.folder) if self.card.family.name == CUSTOM_FAMILY else None

    @property
    def export_advice(self) -> str:
        """What follows a change of the code: a program must be saved again; "" for other models."""
        is_program = self.card.family.name in PROGRAM_FAMILIES
        return "; then save the program again, after module.eval()" if is_program else ""

    def batch(self, count: int) -> int:
        """Limit a batch of `count` rows to the card's largest batch and to 64 MiB of pictures."""
        return min(self.held_rows(count), self.card.limits.max_exec_batch)

    def held_rows(self, count: int) -> int:
        """Limit how many rows' results are held at a time to 64 MiB of pictures; at least one."""
        sample = self.card.sample
        return max(1, min(count, _MAX_PICTURE_BYTES // (4 * math.prod(sample.shape))))

    def rows(self, count: int, *, start: int = 0, labels: list[int] | None = None) -> Rows:
        """Create `count` rows from the index `start` on; labels of None cycle through all classes."""
        if self.transforms:
            sample, addresses = self.card.sample, Addresses.of_range(CHECK_SEED, start, count)
            return make_manipulations(addresses, sample.shape)
        if not self.samples:
            read = self._rows_to_read(count, start)
            if labels and self.translates and isinstance(read, GivenRows):
                read = dataclasses.replace(read, labels=np.array(labels, np.int64))
            return read
        row_labels = None
        if classes := len(self.card.classes):
            row_labels = np.array(labels or [(start + i) % classes for i in range(count)], np.int64)
        return SampleRows(addresses=Addresses.of_range(CHECK_SEED, start, count), labels=row_labels)

    def run(self, rows: Rows, network: Network | None = None, draw: Draw | None = None) -> Float32s:
        """Run one batch of exactly these rows; by default with the loaded network and the card's parameters.

        Returns:
            (B, H, W, C) float32 for samplers, of vectors (B, length); (B, F) for others: probabilities before
            embeddings, or pixels in [0, 1], or the results of the card's first operation.
        """
        network = network or self.network
        if self.samples:
            return np.asarray(network.run("SAMPLE", rows, draw=draw or self.draw), np.float32)
        if self.transforms:
            levels = np.asarray(network.run("TRANSFORM", rows), np.uint8)
            return uint8_to_floats(levels.reshape(len(rows), -1), (0.0, 1.0))  # (B, H, W, C) -> (B, H·W·C)
        draw = draw or self.draw
        results = [np.asarray(network.run(each, rows, draw=draw), np.float32) for each in self.operations]
        return np.concatenate([values.reshape(len(rows), -1) for values in results], axis=1)  # (B, ...) -> (B, F)

    def probe(self, rows: Rows) -> Float32s:
        """Run one batch of a sampler of many steps through those of its probe: (B, H, W, C) float32."""
        return np.asarray(self.network.probe("SAMPLE", rows), np.float32)

    def run_in_batches(self, rows: Rows, network: Network | None = None) -> Float32s:
        """Run any number of rows in batches of bounded size."""
        size = self.batch(_RUN_ROWS)
        parts = [self.run(rows.take(slice(i, i + size)), network) for i in range(0, len(rows), size)]
        return np.concatenate(parts)

    @torch.inference_mode()
    def call_module(self, module: nn.Module, rows: Rows) -> object:
        """Pass the z and labels of some rows directly to a module like `Subject.module`, as a notebook does.

        Returns:
            The module's unchecked result: (B, C, H, W) floats when it is correct. For pictures, as in `run`.
        """
        network = self.network
        if not isinstance(rows, SampleRows):
            own = wrap_module(self.card, module) if is_custom(self.card) else module
            return self.run(rows, dataclasses.replace(network, module=own))
        noise = Noise(addresses=rows.addresses, device=network.device, dtype=network.dtype)
        labels = None if rows.labels is None else torch.from_numpy(rows.labels).to(network.device)
        draw, latent = self.draw, self.card.latent
        if latent is None or not is_custom(self.card):
            assert isinstance(module, Sampler)
            return module.sample(noise, labels, draw, Deadline())
        z = noise.normal(Stream.LATENT, latent.shape, truncation=draw.truncation)
        return call_module(module, z, labels, values_by_name(noise, draw, Deadline(), latent.shape))

    def describe_difference(self, difference: float) -> str:
        """Format a difference: in levels of 255 for pictures, unscaled for other results."""
        if not self.samples:
            return f"{difference:.3g}"
        return f"{255 * difference / self.scale:.3g} levels of 255"

    def golden_images(self) -> Values | None:
        """Read the images or vectors of an existing golden file; None when there are none that fit the card."""
        sample, name = self.card.sample, "images" if self._read_shape == self.card.sample.shape else "given"
        with contextlib.suppress(OSError, SafetensorError, ValueError):
            with safe_open(self.folder / self.card.golden.file, framework="np") as stream:
                images: Values = stream.get_tensor(name)
            kind = np.float32 if sample.modality == "vector" else np.uint8
            if images.dtype == kind and images.shape[1:] == self._read_shape:
                return images
        return None

    def noise_images(self, count: int, start: int = 0) -> Values:
        """Draw images of uniform noise, (count, H, W, C) uint8, or vectors, (count, length) float32, to read."""
        sample, shape = self.card.sample, self._read_shape
        uniforms = Addresses.of_range(CHECK_SEED, start, count).uniforms(Stream.LATENT, math.prod(shape))
        levels = (uniforms * 256).astype(np.uint8).reshape(count, *shape)  # (count, H W C) -> (count, H, W, C)
        return uint8_to_floats(levels, sample.value_range) if sample.modality == "vector" else levels

    @property
    def _read_shape(self) -> tuple[int, ...]:
        """The shape of an image or vector that the model reads."""
        return self.card.input_shape if self.operations == ("TRANSLATE",) else self.card.sample.shape

    def _rows_to_read(self, count: int, start: int) -> Rows:
        operation, addresses = self.operations[0], Addresses.of_range(CHECK_SEED, start, count)
        rows = make_probe_rows(self.card, operation, addresses)
        if isinstance(rows, ImageRows):
            return dataclasses.replace(rows, images=self._images(count, start))
        if isinstance(rows, GivenRows) and operation != "DECODE":
            return dataclasses.replace(rows, values=self._images(count, start))
        return rows

    def _images(self, count: int, start: int) -> Float32s:
        known = self.golden_images()
        if known is None or not len(known):
            chosen = self.noise_images(count, start)
        else:
            chosen = known[np.arange(start, start + count) % len(known)]
        if chosen.dtype == np.float32:
            return np.asarray(chosen, np.float32)
        return uint8_to_floats(np.asarray(chosen, np.uint8), self.card.sample.value_range)


def seed_globals(seed: int) -> None:
    """Seed every global random generator, so that a model which reads one can be detected."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def largest_difference(first: Float32s, second: Float32s) -> float:
    """Compute the largest absolute difference; infinite where only one of both values is not finite."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(first - second)
    differences[(first == second) | (np.isnan(first) & np.isnan(second))] = 0
    return float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))
