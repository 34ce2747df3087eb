"""Golden samples: results recorded when a model was trained, which a worker reproduces before it serves.

On the numerics they were recorded on, everything must be the same bytes. On other numerics images may differ by two
levels of 255. Where values are drawn one after the other from finitely many, rounding changes none or, rarely, the rest
of a sample, so one sample in 16 may differ, and the scores of the recorded ones must agree. The worker then stores a
digest of what it drew and compares byte for byte from then on. A worker whose comparison fails never becomes ready,
because it would serve another model under this one's name.

A golden file is safetensors. A sampler's holds seeds, indices, labels and images; a model's that only reads, the images
that it reads; a transformer's, originals, a table, seeds, indices and images. What a translator is given, where it is
not of the shape of images, is recorded as given, and if it does nothing else it has no images. The results of further
operations are added: probabilities and, of a classifier, labels; embeddings, latents, decoded and translated images,
scores. Each operation reads the recorded results of those before it, so that only its own difference is measured.
Images are floats where samples are vectors. Metadata hold the numerics it was recorded on, a digest of the float
results, and the fingerprint of `handlers.cards.digests`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from fount.address import Addresses, Stream
from fount.transform_columns import COLUMNS
from handlers.cards.card import Card
from handlers.cards.digests import FINGERPRINT_KEY, golden_fingerprint
from handlers.execution.batches import fitting_size
from handlers.execution.network import Network, Operation, build_network
from handlers.execution.numerics import Numerics, configure_torch, read_numerics
from handlers.execution.pixels import (
    Values,
    find_finite_rows,
    find_rows_within,
    floats_to_uint8,
    uint8_to_floats,
)
from handlers.execution.probes import make_manipulations, make_probe_rows
from handlers.execution.rows import GivenRows, ImageRows, ManipulationRows, Rows, SampleRows, pad_rows
from handlers.settings import Settings
from handlers.state import State
from handlers.verification.profile import measure_profile

__all__ = [
    "GOLDEN_COUNT", "GOLDEN_SEED", "MAX_LEVELS", "MEAN_LEVELS", "RESULTS", "GoldenError", "check_golden",
    "compare_outputs", "record_golden",
]  # fmt: skip

GOLDEN_COUNT, _MANY_STEP_COUNT = 64, 16
GOLDEN_SEED = 20260
MAX_LEVELS, MEAN_LEVELS = 2, 0.1  # of 255: the tolerance for images

RESULTS: Mapping[Operation, str] = {
    "SAMPLE": "images", "TRANSFORM": "images", "CLASSIFY": "probabilities", "EMBED": "embeddings",
    "ENCODE": "latents", "DECODE": "decoded", "TRANSLATE": "translated", "SCORE": "scores",
}  # fmt: skip
"""The name of each operation's results in a golden file."""

_KIND = "golden"
_GIVEN = "given"  # the name of what a translator is given, in a golden file
_MAX_DIFFERENCE = 0.02  # for probabilities, and for embeddings and latents as a share of the largest recorded
_MAX_DIFFERENT = 1 / 16  # of the samples of a model that draws from finitely many values
_MAX_SHARE = 1e-3  # for scores as a share of each, and for vectors as a share of the largest recorded
_ORDER: tuple[Operation, ...] = ("SAMPLE", "TRANSFORM", "CLASSIFY", "EMBED", "ENCODE", "DECODE", "TRANSLATE", "SCORE")
_DRAWN: tuple[Operation, ...] = ("SAMPLE", "DECODE", "TRANSLATE")
_IMAGES = tuple(RESULTS[operation] for operation in _DRAWN)

Arrays = Mapping[str, NDArray[Any]]


class GoldenError(Exception):
    """The model does not reproduce its golden samples. Train and pack it again, or repair the installation."""


def check_golden(
    file: Path, network: Network, sizes: tuple[int, ...], model_digest: str, numerics: Numerics, state: State
) -> str:
    """Draw the golden samples again and compare them with the recorded ones.

    Args:
        file: the golden file.
        network: the loaded model.
        sizes: its exec_batch_sizes.
        model_digest: of the loaded model.
        numerics: of this process.
        state: where digests drawn on other numerics are stored.

    Returns:
        The difference from the recorded ones, as text.

    Raises:
        GoldenError: the file cannot be read, or something differs; the message says what and by how much.
    """
    recorded, metadata = _read(file, network.card)
    outputs, found = _draw(network, sizes, recorded)
    difference, is_close = compare_outputs(recorded, outputs, is_discrete=network.is_discrete)
    if metadata.get("numerics") == numerics.id:
        equal = all(np.array_equal(values, recorded[name]) for name, values in outputs.items())
        if found != metadata["float_digest"] or not equal:
            raise GoldenError(f"golden samples are not the same bytes on known numerics {numerics.id}: {difference}")
    elif not is_close:
        raise GoldenError(f"golden samples differ on numerics {numerics.id}: {difference}")
    else:
        _compare_with_stored(found, model_digest, numerics, state)
    return difference


def record_golden(
    card: Card, module: nn.Module, file: Path, *, images: Values | None = None, folder: Path | None = None
) -> None:
    """Run a trained model on known rows and write its golden file; sets torch to one thread in this process.

    Args:
        card: the model's card; its golden entry is not read.
        module: the family's module with its trained weights; changed in place as `build_network` does.
        file: to write.
        images: (64, H, W, C) uint8, or (64, length) float32 vectors, for a model that only reads, ignored for others:
            SAMPLE draws seed 20260, indices 0 to 63, or 15 of a sampler of many steps, labels i mod classes; TRANSFORM
            uses images of noise at the same addresses. For one that only translates, of the shape that it takes.
        folder: the model folder, whose fingerprint is stored with the samples; None is the file's own folder.

    Raises:
        GoldenError: a model that does not sample got no images, or a result is not finite or beyond the card's value
            range.
        ProfileError: no batch size gives a row the same bytes twice.
    """
    settings = Settings()  # the defaults of workers: CPU, fp32, one thread
    configure_torch(settings)
    network = build_network(card, module, settings)
    inputs = _inputs(card, images, _MANY_STEP_COUNT if network.is_many_step else GOLDEN_COUNT)
    outputs, float_digest = _draw(network, measure_profile(network).exec_batch_sizes, inputs)
    metadata = {"numerics": read_numerics(settings).id, "float_digest": float_digest}
    if fingerprint := golden_fingerprint(card, folder or file.parent):
        metadata[FINGERPRINT_KEY] = fingerprint
    save_file({name: np.ascontiguousarray(array) for name, array in (inputs | outputs).items()}, file, metadata)


def compare_outputs(recorded: Arrays, outputs: Arrays, *, is_discrete: bool = False) -> tuple[str, bool]:
    """Compare results with the recorded ones.

    Args:
        recorded: arrays of a golden file, by name.
        outputs: the same of this process.
        is_discrete: whether samples are drawn from finitely many values.

    Returns:
        The difference as text, and whether it is within the tolerance.
    """
    texts, is_close = [], True
    for name in sorted(outputs, key=_place):
        compare = _compare_draws if is_discrete and name == RESULTS["SAMPLE"] else partial(_compare, name)
        text, close = compare(recorded[name], outputs[name])
        texts.append(text)
        is_close = is_close and close
    return ", ".join(texts), is_close


def _place(name: str) -> int:
    """Order outputs as operations are; labels come first."""
    return -1 if name == "labels" else list(RESULTS.values()).index(name)


def _compare_draws(recorded: NDArray[Any], found: NDArray[Any]) -> tuple[str, bool]:
    """Compare samples whose values are drawn from finitely many."""
    if found.shape != recorded.shape:
        return f"images have shape {found.shape} instead of {recorded.shape}", False
    different = int((found != recorded).reshape(len(found), -1).any(axis=1).sum())
    allowed = int(_MAX_DIFFERENT * len(found))
    return f"{different} of {len(found)} samples ({allowed} allowed)", different <= allowed


def _compare(name: str, recorded: NDArray[Any], found: NDArray[Any]) -> tuple[str, bool]:
    """Compare one output with what is recorded."""
    if found.shape != recorded.shape:
        return f"{name} have shape {found.shape} instead of {recorded.shape}", False
    if name == "labels":
        different = int((found != recorded).sum())
        return f"{different} labels", different == 0
    if found.dtype == np.uint8:
        levels = np.abs(found.astype(np.int64) - recorded)
        largest, mean = int(levels.max()), float(levels.mean())
        prefix = "" if name == "images" else f"{name} images by "
        text = f"{prefix}up to {largest} levels ({MAX_LEVELS} allowed), {mean:.3g} in the mean ({MEAN_LEVELS} allowed)"
        return text, largest <= MAX_LEVELS and mean <= MEAN_LEVELS
    differences, sizes = np.abs(found.astype(np.float64) - recorded), np.abs(recorded.astype(np.float64))
    if name == "scores":  # whose sizes differ by orders of magnitude
        allowed = _MAX_SHARE * np.maximum(1.0, sizes)
        largest_share = float((differences / allowed).max())
        return f"scores by up to {differences.max():.3g} ({largest_share:.3g} of what is allowed)", largest_share <= 1
    share = _MAX_SHARE if name in _IMAGES else _MAX_DIFFERENCE
    allowed_difference = share * (1.0 if name == "probabilities" else float(sizes.max()))
    difference = float(differences.max())
    return f"{name} by up to {difference:.3g} ({allowed_difference:.3g} allowed)", difference <= allowed_difference


def _compare_with_stored(found: str, model_digest: str, numerics: Numerics, state: State) -> None:
    """Compare with the digest this model gave here before; store it the first time."""
    stored = state.read(_KIND, model_digest, numerics.id)
    if stored is None:
        state.write(_KIND, model_digest, numerics.id, {"float_digest": found})
    elif stored.get("float_digest") != found:
        file = state.file(_KIND, model_digest, numerics.id)
        raise GoldenError(
            f"golden samples are within tolerance, but not the same bytes that {file} recorded for this model on"
            f" numerics {numerics.id}; if the installation was changed on purpose, delete that file"
        )


def _read(file: Path, card: Card) -> tuple[Arrays, Mapping[str, str]]:
    """Read the arrays and the metadata of a golden file."""
    try:
        with safe_open(file, framework="np") as stream:
            metadata = stream.metadata() or {}
            arrays = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, ValueError) as error:
        raise GoldenError(f"{file.name} cannot be read as safetensors ({error}); record it again") from error
    expected = _expected_arrays(card)
    wrong = [name for name, (dtype, row) in expected.items() if not _fits(arrays.get(name), dtype, row)]
    if wrong or not metadata.get("float_digest") or len({len(arrays[name]) for name in expected}) != 1:
        missing = ", ".join(wrong or ["float_digest or rows of one count"])
        raise GoldenError(f"{file.name} lacks {missing} in the shapes of the card; record it again")
    return arrays, metadata


def _expected_arrays(card: Card) -> dict[str, tuple[type[np.generic], tuple[int | None, ...]]]:
    """List the arrays of a golden file, with element type and the shape of a row; None is any extent."""
    image, operations = card.sample.shape, card.operations
    pixel = np.float32 if card.sample.modality == "vector" else np.uint8
    expected: dict[str, tuple[type[np.generic], tuple[int | None, ...]]] = {}
    if _reads_images(card):
        expected["images"] = (pixel, image)
    if card.input:
        expected[_GIVEN] = (np.uint8, card.input_shape)
    if "SAMPLE" in operations or "TRANSFORM" in operations:
        expected |= {"seeds": (np.int64, ()), "indices": (np.int64, ())}
    if "TRANSFORM" in operations:
        expected |= {"originals": (np.uint8, image), "table": (np.float32, (len(COLUMNS),))}
    if card.classes and ("SAMPLE" in operations or "CLASSIFY" in operations):
        expected["labels"] = (np.int64, ())
    if "CLASSIFY" in operations:
        expected["probabilities"] = (np.float32, (len(card.classes),))
    if "EMBED" in operations:
        expected["embeddings"] = (np.float32, (None,))
    if "ENCODE" in operations:
        expected["latents"] = (np.float32, (2, card.latent_dim))
    expected |= {RESULTS[each]: (pixel, image) for each in ("DECODE", "TRANSLATE") if each in operations}
    if "SCORE" in operations:
        expected["scores"] = (np.float32, (len(card.score_columns),))
    return expected


def _fits(array: NDArray[Any] | None, dtype: type[np.generic], row: tuple[int | None, ...]) -> bool:
    if array is None or array.dtype != dtype or array.ndim != 1 + len(row) or not len(array):
        return False
    return all(expected in (None, found) for expected, found in zip(row, array.shape[1:], strict=True))


def _inputs(card: Card, images: Values | None, count: int) -> dict[str, NDArray[Any]]:
    indices = np.arange(count, dtype=np.int64)
    inputs: dict[str, NDArray[Any]] = {"seeds": np.full(count, GOLDEN_SEED, np.int64), "indices": indices}
    if "TRANSFORM" in card.operations:
        addresses = Addresses.of_range(GOLDEN_SEED, 0, count)
        rows = make_manipulations(addresses, card.sample.shape)
        return inputs | {"originals": rows.images, "table": rows.table}
    if "SAMPLE" not in card.operations:
        if images is None:
            raise GoldenError("the golden file of a model that does not sample is made of images; give 64 of them")
        inputs = {"images" if _reads_images(card) else _GIVEN: images[:count]}
    elif card.classes:
        inputs["labels"] = indices % len(card.classes)
    if card.input and _reads_images(card):
        given = make_probe_rows(card, "TRANSLATE", Addresses.of_range(GOLDEN_SEED, 0, count))
        assert isinstance(given, GivenRows)
        inputs[_GIVEN] = floats_to_uint8(given.values, card.sample.value_range)
    return inputs


def _reads_images(card: Card) -> bool:
    """Whether the golden file has images of the shape of samples: not of a model that only translates others."""
    return card.input is None or card.operations != ("TRANSLATE",)


def _outputs(operation: Operation, values: Values, card: Card) -> dict[str, NDArray[Any]]:
    """Convert the results of an operation to the arrays that are recorded."""
    name = RESULTS[operation]
    if operation in _DRAWN and values.dtype != np.uint8 and card.sample.modality != "vector":
        return {name: floats_to_uint8(np.asarray(values, np.float32), card.sample.value_range)}
    if operation == "CLASSIFY" and "SAMPLE" not in card.operations:  # whose labels are given
        return {name: values, "labels": values.argmax(axis=1).astype(np.int64)}
    return {name: values}


def _rows_of(operation: Operation, arrays: Arrays, card: Card) -> Rows:
    """Make the rows of an operation from recorded arrays, or from the results of the operations before it."""
    count = len(next(arrays[name] for name in ("seeds", "images", _GIVEN) if name in arrays))
    if "seeds" in arrays:
        addresses = Addresses(seeds=arrays["seeds"].view(np.uint64), indices=arrays["indices"].view(np.uint64))
    else:
        addresses = Addresses.of_range(GOLDEN_SEED, 0, count)
    labels = np.arange(count, dtype=np.int64) % len(card.classes) if card.classes else None
    if card.classes and "SAMPLE" in card.operations:
        labels = arrays["labels"]
    if operation == "SAMPLE":
        return SampleRows(addresses=addresses, labels=labels)
    if operation == "TRANSFORM":
        originals, table = np.asarray(arrays["originals"], np.uint8), np.asarray(arrays["table"], np.float32)
        return ManipulationRows(images=originals, table=table, addresses=addresses)
    if operation == "DECODE":
        if "latents" in arrays:
            z = np.ascontiguousarray(arrays["latents"][:, 0], np.float32)  # (n, 2, latent_dim) -> (n, latent_dim)
        else:
            z = addresses.normals(Stream.LATENT, card.latent_dim or 0)
        return GivenRows(values=z, labels=labels, addresses=addresses)
    values = arrays[_GIVEN if operation == "TRANSLATE" and card.input else "images"]
    if values.dtype == np.uint8:
        values = uint8_to_floats(np.asarray(values), card.sample.value_range)
    if operation in ("CLASSIFY", "EMBED"):
        return ImageRows(images=values)
    return GivenRows(values=values, labels=None if operation == "SCORE" else labels, addresses=addresses)


def _draw(network: Network, sizes: tuple[int, ...], inputs: Arrays) -> tuple[dict[str, NDArray[Any]], str]:
    """Run the rows of a golden file's inputs; return the arrays to compare, and a digest of the float results."""
    card, arrays, digest = network.card, dict(inputs), hashlib.sha256()
    outputs: dict[str, NDArray[Any]] = {}
    for operation in (each for each in _ORDER if each in card.operations):
        values = _run_operation(network, sizes, operation, _rows_of(operation, arrays, card))
        digest.update(values.astype("<f4").tobytes())
        found = _outputs(operation, values, card)
        outputs |= found
        arrays = found | arrays  # what is recorded is read, not what was found
    return outputs, f"sha256:{digest.hexdigest()}"


def _run_operation(network: Network, sizes: tuple[int, ...], operation: Operation, rows: Rows) -> Values:
    """Run rows like a call: in executed sizes, padded."""
    values: list[Values] = []
    for start in range(0, len(rows), sizes[-1]):
        part = rows.take(slice(start, start + sizes[-1]))
        padded = pad_rows(part, fitting_size(sizes, len(part)))
        # scores of many steps take long, and those of a few compute the same network
        run = network.run if operation in _DRAWN else network.probe
        values.append(run(operation, padded)[: len(part)])
    floats = cast("Values", np.concatenate(values))
    if not find_finite_rows(floats).all():
        raise GoldenError("golden samples hold NaN or infinite values; train the model again")
    value_range = network.card.sample.value_range
    if operation in _DRAWN and not find_rows_within(floats, value_range).all():
        span = f"{floats.min()} to {floats.max()}, the card's value_range is {list(value_range)}"
        remedy = f"end the module with .clamp({value_range[0]}, {value_range[1]}), or correct sample.value_range"
        raise GoldenError(f"golden samples reach from {span}; {remedy}")
    return floats
