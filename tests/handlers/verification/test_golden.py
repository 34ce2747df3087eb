"""Golden samples: byte for byte where numerics are known, within a tolerance where they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fount.address import Addresses
from handlers.cards.card import Card
from handlers.execution.network import build_network
from handlers.execution.numerics import read_numerics
from handlers.execution.pixels import floats_to_uint8
from handlers.execution.rows import SampleRows
from handlers.settings import Settings
from handlers.state import State
from handlers.verification.golden import GoldenError, check_golden, record_golden
from tests.handlers.toys import BrightSampler, ToyClassifier, ToySampler, classifier_card, toy_card, toy_images

DIGEST = "sha256:" + "5" * 64
Arrays = dict[str, NDArray[Any]]


def _check(file: Path, card: Card, state_dir: Path | None = None) -> None:
    module = ToySampler(3) if "SAMPLE" in card.operations else ToyClassifier(3)
    network = build_network(card, module, Settings())
    check_golden(file, network, (1, 8, 16, 32), DIGEST, read_numerics(Settings()), State(folder=state_dir))


def _metadata(file: Path) -> dict[str, str]:
    with safe_open(file, framework="np") as stream:
        return dict(stream.metadata())


def _change(file: Path, change: Callable[[Arrays], Arrays], numerics: str | None = None) -> None:
    metadata = _metadata(file)
    if numerics is not None:
        metadata = {"numerics": numerics, "float_digest": "sha256:" + "0" * 64}
    save_file(change(load_file(file)), file, metadata)


@pytest.fixture
def sampled(tmp_path: Path) -> Path:
    record_golden(toy_card(), ToySampler(3), tmp_path / "golden.safetensors")
    return tmp_path / "golden.safetensors"


@pytest.fixture
def classified(tmp_path: Path) -> Path:
    record_golden(classifier_card(), ToyClassifier(3), tmp_path / "golden.safetensors", images=toy_images(64))
    return tmp_path / "golden.safetensors"


def test_a_recorded_file_passes(sampled: Path) -> None:
    _check(sampled, toy_card())


def test_a_recorded_classifier_passes(classified: Path) -> None:
    _check(classified, classifier_card())


def test_a_sampler_is_recorded_at_known_addresses(sampled: Path) -> None:
    arrays = load_file(sampled)
    assert arrays["seeds"].tolist() == [20260] * 64
    assert arrays["indices"].tolist() == list(range(64))
    assert arrays["labels"].tolist()[:4] == [0, 1, 2, 0]
    assert arrays["images"].shape == (64, 4, 4, 1)


def test_an_unconditional_sampler_is_recorded_without_labels(tmp_path: Path) -> None:
    record_golden(toy_card(classes=0), ToySampler(0), tmp_path / "golden.safetensors")
    assert "labels" not in load_file(tmp_path / "golden.safetensors")


def test_a_classifier_is_recorded_with_its_answers(classified: Path) -> None:
    shapes = {name: array.shape for name, array in load_file(classified).items()}
    assert shapes == {"images": (64, 4, 4, 1), "labels": (64,), "probabilities": (64, 3), "embeddings": (64, 6)}


def test_the_numerics_it_was_recorded_on_are_named(sampled: Path) -> None:
    assert _metadata(sampled)["numerics"] == read_numerics(Settings()).id


def test_recorded_images_are_what_the_model_draws(sampled: Path) -> None:
    network = build_network(toy_card(), ToySampler(3), Settings())
    rows = SampleRows(addresses=Addresses.of_range(20260, 1, 1), labels=np.array([1]))
    expected = floats_to_uint8(network.run("SAMPLE", rows), (0.0, 1.0))
    np.testing.assert_array_equal(load_file(sampled)["images"][1:2], expected)


def test_a_changed_bit_fails_on_known_numerics(sampled: Path) -> None:
    _change(sampled, lambda arrays: arrays, read_numerics(Settings()).id)
    with pytest.raises(GoldenError, match="not the same bytes on known numerics"):
        _check(sampled, toy_card())


def test_other_images_fail_on_known_numerics_even_if_the_digest_matches(sampled: Path) -> None:
    _change(sampled, _brighter(1, 1))
    with pytest.raises(GoldenError, match=r"not the same bytes on known numerics .* up to 1 levels"):
        _check(sampled, toy_card())


def _brighter(levels: int, pixels: int) -> Callable[[Arrays], Arrays]:
    def change(arrays: Arrays) -> Arrays:
        images = arrays["images"].copy()
        images.reshape(-1)[:pixels] += np.uint8(levels)
        return arrays | {"images": images}

    return change


def test_two_levels_pass_on_unknown_numerics(sampled: Path) -> None:
    _change(sampled, _brighter(2, 10), numerics="")
    _check(sampled, toy_card())


@pytest.mark.parametrize(("levels", "pixels"), [(3, 1), (1, 200)], ids=["one-pixel-by-three", "many-pixels-by-one"])
def test_more_than_the_tolerance_fails_on_unknown_numerics(sampled: Path, levels: int, pixels: int) -> None:
    _change(sampled, _brighter(levels, pixels), numerics="elsewhere")
    with pytest.raises(GoldenError, match=f"up to {levels} levels"):
        _check(sampled, toy_card())


def test_other_labels_fail_on_unknown_numerics(classified: Path) -> None:
    _change(classified, lambda arrays: arrays | {"labels": (arrays["labels"] + 1) % 3}, numerics="elsewhere")
    with pytest.raises(GoldenError, match="64 labels"):
        _check(classified, classifier_card())


def test_other_probabilities_fail_on_unknown_numerics(classified: Path) -> None:
    change = lambda arrays: arrays | {"probabilities": arrays["probabilities"] + np.float32(0.05)}  # noqa: E731
    _change(classified, change, numerics="elsewhere")
    with pytest.raises(GoldenError, match=r"probabilities by up to 0\.05"):
        _check(classified, classifier_card())


def test_embeddings_a_hundredth_apart_pass_on_unknown_numerics(classified: Path) -> None:
    change = lambda arrays: arrays | {"embeddings": arrays["embeddings"] * np.float32(1.01)}  # noqa: E731
    _change(classified, change, numerics="elsewhere")
    _check(classified, classifier_card())


@pytest.mark.parametrize("scale", [0.9, 1.1, 100.0])
def test_other_embeddings_fail_on_unknown_numerics(classified: Path, scale: float) -> None:
    change = lambda arrays: arrays | {"embeddings": arrays["embeddings"] * np.float32(scale)}  # noqa: E731
    _change(classified, change, numerics="elsewhere")
    with pytest.raises(GoldenError, match="embeddings by up to"):
        _check(classified, classifier_card())


def test_embeddings_of_another_length_fail_on_unknown_numerics(classified: Path) -> None:
    change = lambda arrays: arrays | {"embeddings": arrays["embeddings"][:, 1:].copy()}  # noqa: E731
    _change(classified, change, numerics="elsewhere")
    with pytest.raises(GoldenError, match=r"embeddings have shape \(64, 6\) instead of \(64, 5\)"):
        _check(classified, classifier_card())


def test_unknown_numerics_become_known_by_passing(sampled: Path, tmp_path: Path) -> None:
    _change(sampled, _brighter(1, 10), numerics="elsewhere")
    _check(sampled, toy_card(), tmp_path / "state")
    document = json.loads(next((tmp_path / "state").rglob("*.json")).read_text())
    assert document["float_digest"].startswith("sha256:")


def test_numerics_known_from_before_are_compared_byte_for_byte(sampled: Path, tmp_path: Path) -> None:
    _change(sampled, lambda arrays: arrays, numerics="elsewhere")
    _check(sampled, toy_card(), tmp_path / "state")
    file = next((tmp_path / "state").rglob("*.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"float_digest": "sha256:" + "0" * 64}))
    with pytest.raises(GoldenError, match=f"not the same bytes that {file} recorded .* delete that file"):
        _check(sampled, toy_card(), tmp_path / "state")


def test_a_stored_digest_does_not_excuse_images_beyond_the_tolerance(sampled: Path, tmp_path: Path) -> None:
    _change(sampled, lambda arrays: arrays, numerics="elsewhere")
    _check(sampled, toy_card(), tmp_path / "state")
    _change(sampled, _brighter(3, 1), numerics="elsewhere")
    with pytest.raises(GoldenError, match="up to 3 levels"):
        _check(sampled, toy_card(), tmp_path / "state")


def test_recording_refuses_images_beyond_the_cards_range(tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match=r"is \[0\.0, 1\.0\]; end the module with .clamp\(0\.0, 1\.0\), or"):
        record_golden(toy_card(), BrightSampler(3), tmp_path / "golden.safetensors")


@pytest.mark.parametrize("missing", ["images", "seeds", "labels"])
def test_a_file_without_an_array_is_refused(sampled: Path, missing: str) -> None:
    _change(sampled, lambda arrays: {name: array for name, array in arrays.items() if name != missing})
    with pytest.raises(GoldenError, match=f"lacks {missing}"):
        _check(sampled, toy_card())


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "golden.safetensors").write_bytes(b"no")
    with pytest.raises(GoldenError, match="cannot be read as safetensors"):
        _check(tmp_path / "golden.safetensors", toy_card())


def test_recording_a_classifier_needs_images(tmp_path: Path) -> None:
    with pytest.raises(GoldenError, match="give 64 of them"):
        record_golden(classifier_card(), ToyClassifier(3), tmp_path / "golden.safetensors")
