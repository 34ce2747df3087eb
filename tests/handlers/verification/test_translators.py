"""Golden files and profiles of a model that only translates, pictures of another shape and in many steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from handlers.cards.card import Card, Input, load_card
from handlers.cards.digests import golden_fingerprint, model_digest
from handlers.execution.network import build_network
from handlers.execution.numerics import read_numerics
from handlers.settings import Settings
from handlers.state import State
from handlers.verification.golden import GoldenError, check_golden, record_golden
from handlers.verification.profile import measure_profile
from tests.handlers.given_toys import ToyPainter, painter_card
from tests.handlers.toys import SIDE
from tests.handlers.translating_toys import (
    EnlargerToy,
    enlarger_card,
    record_enlarger,
    small_images,
    write_enlarger_folder,
)

CARD = enlarger_card()


def check(file: Path, card: Card = CARD) -> str:
    network = build_network(card, EnlargerToy(), Settings())
    sizes = measure_profile(network).exec_batch_sizes
    return check_golden(file, network, sizes, "sha256:0", read_numerics(Settings()), State(folder=None))


def test_every_batch_size_translates_equally() -> None:
    profile = measure_profile(build_network(CARD, EnlargerToy(), Settings()))
    assert profile.exec_batch_sizes[-1] == 16
    assert profile.seconds_per_batch[16] > 0


def test_the_file_has_what_was_given_and_what_became_of_it(tmp_path: Path) -> None:
    record_enlarger(tmp_path / "golden")
    arrays = load_file(tmp_path / "golden")
    assert {name: array.shape for name, array in arrays.items()} == {
        "given": (16, 2, 2, 1), "translated": (16, SIDE, SIDE, 1),
    }  # fmt: skip
    assert np.array_equal(arrays["given"], small_images(16))


def test_it_is_reproduced(tmp_path: Path) -> None:
    record_enlarger(tmp_path / "golden")
    assert check(tmp_path / "golden").startswith("translated images by up to 0 levels")


def test_another_answer_is_found(tmp_path: Path) -> None:
    record_enlarger(tmp_path / "golden")
    arrays = load_file(tmp_path / "golden")
    spoilt = arrays | {"translated": arrays["translated"] ^ 64}
    save_file(spoilt, tmp_path / "spoilt", {"numerics": "other", "float_digest": "sha256:1"})
    with pytest.raises(GoldenError, match="translated images by up to 64 levels"):
        check(tmp_path / "spoilt")


def test_pictures_of_the_samples_shape_are_refused(tmp_path: Path) -> None:
    record_enlarger(tmp_path / "golden")
    larger = dataclasses.replace(CARD, input=None)
    with pytest.raises(GoldenError, match="lacks images"):
        check(tmp_path / "golden", larger)


def test_a_model_that_samples_too_records_both(tmp_path: Path) -> None:
    card = dataclasses.replace(painter_card(), input=Input(height=SIDE, width=SIDE, channels=1))
    record_golden(card, ToyPainter(), tmp_path / "golden")
    arrays = load_file(tmp_path / "golden")
    assert arrays.keys() == {"seeds", "indices", "images", "given", "translated"}
    assert not np.array_equal(arrays["given"], arrays["images"])


def test_the_shape_of_what_is_given_is_in_both_digests(tmp_path: Path) -> None:
    folder = write_enlarger_folder(tmp_path)
    card = load_card(folder)
    other = dataclasses.replace(card, input=Input(height=SIDE, width=SIDE, channels=1))
    assert golden_fingerprint(card, folder) != golden_fingerprint(other, folder)
    assert model_digest(card, folder, folder / "family.py") != model_digest(other, folder, folder / "family.py")
