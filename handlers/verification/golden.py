"""Golden samples: what known addresses, or known images, gave when the model was trained.

At load a worker draws them again. On the numerics they were recorded on, everything must be the same bytes; on others,
pictures may differ by two levels of 255, and the worker then keeps what it drew, to compare byte for byte from then on.
A worker that fails never becomes ready: it would serve another model under this one's name.

A golden file is safetensors. A sampler's holds seeds, indices, labels and images; a classifier's holds images, labels,
probabilities and embeddings; a transformer's holds originals, a table, seeds, indices and images. Its metadata hold the
numerics it was recorded on, the digest of the results, and what the model was made of
(`handlers.verification.golden`).
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from fount.address import Addresses
from fount.archive import digest_of_ingredients
from fount.transform_columns import COLUMNS
from handlers.cards.card import Card, file_digest, source_of
from handlers.execution.batches import fitting_size
from handlers.execution.network import Network, Operation, build_network
from handlers.execution.numerics import Numerics, configure_torch, read_numerics
from handlers.execution.pixels import (
    Uint8s,
    Values,
    find_finite_rows,
    find_rows_within,
    floats_to_uint8,
    uint8_to_floats,
)
from handlers.execution.rows import ImageRows, ManipulationRows, Rows, SampleRows, pad_rows
from handlers.models import OWN_FAMILY
from handlers.settings import Settings
from handlers.state import State
from handlers.verification.profile import measure_profile
from handlers.worker.items import made_up_manipulations

__all__ = [
    "GOLDEN_COUNT",
    "GOLDEN_SEED",
    "MADE_OF",
    "MEAN_LEVELS",
    "MOST_LEVELS",
    "GoldenError",
    "check_golden",
    "compare_outputs",
    "is_golden_stale",
    "made_of",
    "record_golden",
]


GOLDEN_COUNT = 64
GOLDEN_SEED = 20260

_KIND = "golden"
MOST_LEVELS, MEAN_LEVELS = 2, 0.1  # of 255, for pictures
_MOST_APART = 0.02  # for probabilities, and for embeddings as a share of the largest recorded

Arrays = Mapping[str, NDArray[Any]]


class GoldenError(Exception):
    """The model does not give what it gave when it was trained. Train and pack it again, or repair the installation."""


@dataclass(frozen=True, kw_only=True)
class _Golden:
    numerics: str
    float_digest: str
    arrays: Arrays


def check_golden(
    file: Path, network: Network, sizes: tuple[int, ...], model_digest: str, numerics: Numerics, state: State
) -> str:
    """Draw the golden samples again and compare.

    Args:
        file: the golden file.
        network: the loaded model.
        sizes: its exec_batch_sizes.
        model_digest: what was loaded.
        numerics: what it runs on.
        state: where floats of other numerics are kept.

    Returns:
        How far they are from the recorded ones, in words.

    Raises:
        GoldenError: the file cannot be read, or something differs; one sentence says what and by how much.
    """
    golden = _read(file, network.card)
    floats = _run(network, sizes, _rows_of(golden.arrays, network.card))
    found = _digest(floats)
    outputs = _outputs(floats, network.card)
    difference, close = compare_outputs(golden.arrays, outputs)
    if golden.numerics == numerics.id:
        equal = all(np.array_equal(values, golden.arrays[name]) for name, values in outputs.items())
        if found != golden.float_digest or not equal:
            raise GoldenError(f"golden samples are not the same bytes on known numerics {numerics.id}: {difference}")
    elif not close:
        raise GoldenError(f"golden samples differ on numerics {numerics.id}: {difference}")
    else:
        _compare_with_kept(found, model_digest, numerics, state)
    return difference


def record_golden(
    card: Card, module: nn.Module, file: Path, *, images: Uint8s | None = None, folder: Path | None = None
) -> None:
    """Run a trained model on 64 known rows and write its golden file; the process is left with one torch thread.

    Args:
        card: the model's card; its golden entry is not read.
        module: the family's module with its trained weights; left on the CPU, in evaluation mode.
        file: what to write.
        images: (64, H, W, C) uint8 for CLASSIFY and EMBED. Not read for others: SAMPLE draws seed 20260, indices 0 to
            63, labels i mod classes; TRANSFORM makes images up at the same addresses.
        folder: where the weights lie, whose digest is kept with the samples; None is the file's own folder.

    Raises:
        GoldenError: a classifier was given no images, or a row's result is not finite or beyond the card's value range.
        ProfileError: no batch size gives a row the same bytes twice.
    """
    settings = Settings()  # as workers run when nothing else is said: CPU, fp32, one thread
    configure_torch(settings)
    network = build_network(card, module, settings)
    inputs = _inputs(card, images)
    floats = _run(network, measure_profile(network).exec_batch_sizes, _rows_of(inputs, card))
    arrays = dict(inputs) | _outputs(floats, card)
    metadata = {"numerics": read_numerics(settings).id, "float_digest": _digest(floats)}
    if digest := made_of(card, folder or file.parent):
        metadata[MADE_OF] = digest
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, file, metadata)


def _compare_with_kept(found: str, model_digest: str, numerics: Numerics, state: State) -> None:
    """Compare with what this model gave here before, byte for byte; the first time, keep it."""
    kept = state.read(_KIND, model_digest, numerics.id)
    if kept is None:
        state.write(_KIND, model_digest, numerics.id, {"float_digest": found})
    elif kept.get("float_digest") != found:
        file = state.file(_KIND, model_digest, numerics.id)
        raise GoldenError(
            f"golden samples are within tolerance, but not the same bytes that {file} says this model gave before on"
            f" numerics {numerics.id}; if the installation was changed on purpose, delete that file"
        )


def _read(file: Path, card: Card) -> _Golden:
    try:
        with safe_open(file, framework="np") as stream:
            metadata = stream.metadata() or {}
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise GoldenError(f"{file.name} cannot be read as safetensors ({error}); record it again") from error
    expected = _expected_arrays(card)
    wrong = [name for name, (dtype, row) in expected.items() if not _fits(arrays.get(name), dtype, row)]
    if wrong or not metadata.get("float_digest") or len({len(arrays[name]) for name in expected}) != 1:
        wanted = ", ".join(wrong or ["float_digest or rows of one count"])
        raise GoldenError(f"{file.name} lacks {wanted} of the shapes the card says; record it again")
    return _Golden(numerics=metadata.get("numerics", ""), float_digest=metadata["float_digest"], arrays=arrays)


def _expected_arrays(card: Card) -> dict[str, tuple[type[np.generic], tuple[int | None, ...]]]:
    """Name the arrays of a golden file, with element type and the shape of a row; None is any extent."""
    image = (card.sample.height, card.sample.width, card.sample.channels)
    expected: dict[str, tuple[type[np.generic], tuple[int | None, ...]]] = {"images": (np.uint8, image)}
    if "SAMPLE" in card.operations:
        expected |= {"seeds": (np.int64, ()), "indices": (np.int64, ())}
        return expected | ({"labels": (np.int64, ())} if card.classes else {})
    if "TRANSFORM" in card.operations:
        expected |= {"originals": (np.uint8, image), "table": (np.float32, (len(COLUMNS),))}
        return expected | {"seeds": (np.int64, ()), "indices": (np.int64, ())}
    if "CLASSIFY" in card.operations:
        expected |= {"labels": (np.int64, ()), "probabilities": (np.float32, (len(card.classes),))}
    return expected | ({"embeddings": (np.float32, (None,))} if "EMBED" in card.operations else {})


def _fits(array: NDArray[Any] | None, dtype: type[np.generic], row: tuple[int | None, ...]) -> bool:
    if array is None or array.dtype != dtype or array.ndim != 1 + len(row) or not len(array):
        return False
    return all(wanted in (None, found) for wanted, found in zip(row, array.shape[1:], strict=True))


def _inputs(card: Card, images: Uint8s | None) -> dict[str, NDArray[Any]]:
    indices = np.arange(GOLDEN_COUNT, dtype=np.int64)
    inputs: dict[str, NDArray[Any]] = {"seeds": np.full(GOLDEN_COUNT, GOLDEN_SEED, np.int64), "indices": indices}
    if "TRANSFORM" in card.operations:
        addresses = Addresses.of_range(GOLDEN_SEED, 0, GOLDEN_COUNT)
        rows = made_up_manipulations(addresses, (card.sample.height, card.sample.width, card.sample.channels))
        return inputs | {"originals": rows.images, "table": rows.table}
    if "SAMPLE" not in card.operations:
        if images is None:
            raise GoldenError("a classifier's golden file is made of images; give 64 of them")
        return {"images": images}
    return inputs | ({"labels": indices % len(card.classes)} if card.classes else {})


def _outputs(floats: Mapping[Operation, Values], card: Card) -> dict[str, NDArray[Any]]:
    if "SAMPLE" in floats:
        return {"images": floats_to_uint8(np.asarray(floats["SAMPLE"], np.float32), card.sample.value_range)}
    if "TRANSFORM" in floats:
        return {"images": floats["TRANSFORM"]}
    names: dict[Operation, str] = {"CLASSIFY": "probabilities", "EMBED": "embeddings"}
    outputs: dict[str, NDArray[Any]] = {names[operation]: values for operation, values in floats.items()}
    if "CLASSIFY" in floats:
        outputs["labels"] = floats["CLASSIFY"].argmax(axis=1).astype(np.int64)
    return outputs


def _rows_of(arrays: Arrays, card: Card) -> dict[Operation, Rows]:
    if "SAMPLE" not in card.operations and "TRANSFORM" not in card.operations:
        rows = ImageRows(images=uint8_to_floats(np.asarray(arrays["images"], np.uint8), card.sample.value_range))
        return {operation: rows for operation in ("CLASSIFY", "EMBED") if operation in card.operations}
    addresses = Addresses(seeds=arrays["seeds"].view(np.uint64), indices=arrays["indices"].view(np.uint64))
    if "TRANSFORM" in card.operations:
        images, table = np.asarray(arrays["originals"], np.uint8), np.asarray(arrays["table"], np.float32)
        return {"TRANSFORM": ManipulationRows(images=images, table=table, addresses=addresses)}
    return {"SAMPLE": SampleRows(addresses=addresses, labels=arrays["labels"] if card.classes else None)}


def _run(network: Network, sizes: tuple[int, ...], rows: Mapping[Operation, Rows]) -> dict[Operation, Values]:
    return {operation: _run_operation(network, sizes, operation, part) for operation, part in rows.items()}


def _run_operation(network: Network, sizes: tuple[int, ...], operation: Operation, rows: Rows) -> Values:
    """Run rows as a call would: in executed sizes, padded."""
    values: list[Values] = []
    for start in range(0, len(rows), sizes[-1]):
        part = rows.take(slice(start, start + sizes[-1]))
        values.append(network.run(operation, pad_rows(part, fitting_size(sizes, len(part))))[: len(part)])
    floats = cast("Values", np.concatenate(values))
    if not find_finite_rows(floats).all():
        raise GoldenError("golden samples hold NaN or infinite values; train the model again")
    value_range = network.card.sample.value_range
    if operation == "SAMPLE" and not find_rows_within(floats, value_range).all():
        span = f"{floats.min():g} to {floats.max():g}, the card's value_range is {list(value_range)}"
        raise GoldenError(f"golden samples reach from {span}; mend the family or the card")
    return floats


def _digest(floats: Mapping[Operation, Values]) -> str:
    digest = hashlib.sha256()
    for operation in ("SAMPLE", "CLASSIFY", "EMBED", "TRANSFORM"):
        if operation in floats:
            digest.update(floats[operation].astype("<f4").tobytes())
    return "sha256:" + digest.hexdigest()


def compare_outputs(arrays: Arrays, outputs: Arrays) -> tuple[str, bool]:
    """Say how far results are from the recorded ones, and whether that is within tolerance."""
    if "images" in outputs:
        levels = np.abs(outputs["images"].astype(np.int64) - arrays["images"])
        top, mean = int(levels.max()), float(levels.mean())
        sentence = f"up to {top} levels ({MOST_LEVELS} allowed), {mean:.3g} in the mean ({MEAN_LEVELS} allowed)"
        return sentence, top <= MOST_LEVELS and mean <= MEAN_LEVELS
    other = int((outputs["labels"] != arrays["labels"]).sum()) if "labels" in outputs else 0
    sentences, close = [f"{other} labels"], other == 0
    for name in sorted(outputs.keys() - {"labels"}, reverse=True):
        if outputs[name].shape != arrays[name].shape:
            return f"{name} have shape {outputs[name].shape} instead of {arrays[name].shape}", False
        scale = float(np.abs(arrays[name]).max()) if name == "embeddings" else 1.0
        apart, most = float(np.abs(outputs[name] - arrays[name]).max()), _MOST_APART * scale
        sentences.append(f"{name} by up to {apart:.3g} ({most:.3g} allowed)")
        close = close and apart <= most
    return ", ".join(sentences), close


# FOLDED FROM handlers.verification.golden:
# What golden samples were made of, so that those of other weights or other code are not packed by mistake. A
# golden file's metadata hold one digest over weights, family and, for a model of one's own, its source. Files
# without it are older, and are believed. No torch here: packing asks, too.


MADE_OF = "made_of"
"""The key of a golden file's metadata."""


def made_of(card: Card, folder: Path) -> str | None:
    """Name what samples of a model come from; None when its weights or its source are not there.

    Args:
        card: the card.
        folder: where its weights, and a source of its own, lie.

    Returns:
        "sha256:" and 64 hexadecimal digits.
    """
    weights = folder / card.weights.file
    source = source_of(card, folder) if card.family.name == OWN_FAMILY else None
    if not weights.is_file() or (source is not None and not source.is_file()):
        return None
    return digest_of_ingredients(
        {
            "weights": file_digest(weights),
            "family": [card.family.name, card.family.config, card.family.class_name],
            "source": file_digest(source) if source else None,
            "latent": list(card.latent.shape) if card.latent else None,
            "sample": dataclasses.asdict(card.sample),
            "classes": len(card.classes),
        }
    )


def is_golden_stale(card: Card, folder: Path) -> bool:
    """Whether a model's golden samples do not say that they are of what its folder holds now."""
    try:
        with safe_open(folder / card.golden.file, framework="np") as stream:
            recorded = (stream.metadata() or {}).get(MADE_OF)
    except (OSError, SafetensorError, ValueError):
        return False  # whoever reads the file says what is wrong with it
    return recorded != made_of(card, folder)
