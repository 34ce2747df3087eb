"""Golden results of models that encode, decode, score and translate, and of models of vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import nn

from handlers.cards.card import Card
from handlers.execution.network import build_network
from handlers.execution.numerics import read_numerics
from handlers.settings import Settings
from handlers.state import State
from handlers.verification.golden import GoldenError, check_golden, record_golden
from handlers.verification.profile import measure_profile
from tests.handlers.given_toys import (
    ToyAutoencoder,
    ToyPainter,
    ToyPoints,
    autoencoder_card,
    painter_card,
    points_card,
    reader_of_points_card,
)

Arrays = Mapping[str, NDArray[Any]]
MODELS: Mapping[str, tuple[Card, Callable[[], nn.Module]]] = {
    "autoencoder": (autoencoder_card(), lambda: ToyAutoencoder(3)),
    "points": (points_card(), ToyPoints),
    "painter": (painter_card(), ToyPainter),
}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    for name, (card, build) in MODELS.items():
        record_golden(card, build(), folder / name)
    return folder


def _read(file: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    with safe_open(file, framework="np") as stream:
        return {name: stream.get_tensor(name) for name in stream.keys()}, stream.metadata()  # noqa: SIM118


def _copy(recorded: Path, name: str, folder: Path, change: Callable[[Arrays], Arrays], numerics: str = "") -> Path:
    """Copy a golden file, changed."""
    arrays, metadata = _read(recorded / name)
    save_file(dict(change(arrays)), folder / name, metadata | ({"numerics": numerics} if numerics else {}))
    return folder / name


def _check(file: Path, card: Card, module: nn.Module, sizes: tuple[int, ...] = (8, 32)) -> str:
    settings = Settings()
    network = build_network(card, module, settings)
    return check_golden(file, network, sizes, "", read_numerics(settings), State(folder=None))


def _scale(array: str, factor: float) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, array: (arrays[array] * factor).astype(arrays[array].dtype)}


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        (
            "autoencoder",
            {"decoded": (64, 4, 4, 1), "images": (64, 4, 4, 1), "indices": (64,), "labels": (64,),
             "latents": (64, 2, 3), "scores": (64, 2), "seeds": (64,)},
        ),
        (
            "points",
            {"decoded": (64, 2), "images": (64, 2), "indices": (64,), "latents": (64, 2, 2), "scores": (64, 1),
             "seeds": (64,)},
        ),
        ("painter", {"images": (64, 4, 4, 1), "indices": (64,), "seeds": (64,), "translated": (64, 4, 4, 1)}),
    ],
)  # fmt: skip
def test_a_file_holds_the_result_of_every_operation(
    recorded: Path, name: str, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    arrays, _ = _read(recorded / name)
    assert {key: array.shape for key, array in sorted(arrays.items())} == shapes
    pixels = {arrays[key].dtype for key in ("images", "decoded", "translated") if key in arrays}
    assert pixels == {np.dtype(np.float32 if name == "points" else np.uint8)}


@pytest.mark.parametrize("name", MODELS)
def test_what_is_recorded_is_reproduced(recorded: Path, name: str) -> None:
    card, build = MODELS[name]
    sizes = measure_profile(build_network(card, build(), Settings())).exec_batch_sizes
    _check(recorded / name, card, build(), sizes)


def test_latents_are_read_from_the_recorded_samples_and_decoded(recorded: Path) -> None:
    arrays, _ = _read(recorded / "autoencoder")
    images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2) / 255
    labels = torch.from_numpy(arrays["labels"])
    module = ToyAutoencoder(3)
    with torch.no_grad():
        mean, logvar = module.encode(images, labels)
        decoded = module.decode(torch.from_numpy(arrays["latents"][:, 0].copy()), labels)
    np.testing.assert_allclose(arrays["latents"], torch.stack([mean, (0.5 * logvar).exp()], dim=1), atol=1e-6)
    levels = np.rint(255 * decoded.permute(0, 2, 3, 1).numpy())
    assert np.abs(levels - arrays["decoded"]).max() <= 1


@pytest.mark.parametrize(
    ("name", "weight", "found"),
    [
        ("autoencoder", "encoder.weight", "latents by up to"),
        ("autoencoder", "decoder.weight", "decoded images by up to"),
        ("points", "scale", "scores by up to"),
        ("painter", "level", "translated images by up to"),
    ],
)
def test_one_changed_weight_fails(recorded: Path, tmp_path: Path, name: str, weight: str, found: str) -> None:
    card, build = MODELS[name]
    module = build()
    parameter = module.get_parameter(weight).data.view(-1)
    parameter[0] -= 0.125
    file = _copy(recorded, name, tmp_path, lambda arrays: arrays, "elsewhere")
    with pytest.raises(GoldenError, match=found):
        _check(file, card, module)


def test_a_weight_of_the_encoder_alone_leaves_samples_and_decoded_images(recorded: Path, tmp_path: Path) -> None:
    module = ToyAutoencoder(3)
    module.encoder.weight.data[0, 0] += 0.5
    file = _copy(recorded, "autoencoder", tmp_path, lambda arrays: arrays, "elsewhere")
    with pytest.raises(GoldenError, match=r": up to 0 levels .* latents by .* images by up to 0 levels"):
        _check(file, autoencoder_card(), module)


@pytest.mark.parametrize(
    ("name", "array", "factor", "is_close"),
    [
        ("autoencoder", "latents", 1.01, True),
        ("autoencoder", "latents", 1.05, False),
        ("autoencoder", "scores", 1.0005, True),
        ("autoencoder", "scores", 1.01, False),
        ("points", "images", 1.0005, True),
        ("points", "images", 1.01, False),
        ("points", "decoded", 1.01, False),
        ("painter", "translated", 0.9, False),
    ],
)
def test_results_are_compared_within_a_tolerance_on_unknown_numerics(
    recorded: Path, tmp_path: Path, name: str, array: str, factor: float, is_close: bool
) -> None:
    card, build = MODELS[name]
    file = _copy(recorded, name, tmp_path, _scale(array, factor), "elsewhere")
    if is_close:
        _check(file, card, build())
    else:
        with pytest.raises(GoldenError, match="golden samples differ on numerics"):
            _check(file, card, build())


@pytest.mark.parametrize("missing", ["latents", "decoded", "scores"])
def test_a_file_without_the_result_of_an_operation_is_refused(recorded: Path, tmp_path: Path, missing: str) -> None:
    without = lambda arrays: {name: array for name, array in arrays.items() if name != missing}  # noqa: E731
    file = _copy(recorded, "autoencoder", tmp_path, without)
    with pytest.raises(GoldenError, match=f"lacks {missing}"):
        _check(file, autoencoder_card(), ToyAutoencoder(3))


def test_a_model_that_only_reads_vectors_is_recorded_with_floats(tmp_path: Path) -> None:
    points = np.linspace(-1, 1, 128, dtype=np.float32).reshape(64, 2)
    card = reader_of_points_card()
    record_golden(card, ToyPoints(), tmp_path / "golden", images=points)
    arrays, _ = _read(tmp_path / "golden")
    assert arrays["images"].tolist() == points.tolist()
    assert arrays["labels"].tolist() == [1] * 64
