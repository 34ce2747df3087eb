"""The copy filter: distances, ratios, thresholds."""

from __future__ import annotations

import math
from threading import Event

import numpy as np
import pytest

from fount.cancellation import WorkCancelled, cancelled_by
from fount.readers.dataset import DatasetSplit
from service.augmentation.copy_filter import CopyFilter, PixelCache, calibrate


class CountedPixels:
    """Pixels in memory that count how often they are read."""

    def __init__(self, images) -> None:
        self.images = images
        self.reads = 0

    def read(self, rows):
        self.reads += 1
        return self.images[rows]


def split(images, labels, name: str = "train") -> DatasetSplit:
    images = np.asarray(images, np.uint8)
    return DatasetSplit(
        name=name, labels=np.asarray(labels, np.uint32), shape=images.shape[1:], pixels=CountedPixels(images)
    )


def noise(count: int, shape=(4, 4, 1), seed: int = 0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def ratio_by_definition(image, rows) -> float:
    """Compute the ratio with integers of any size, and the mean added from near to far."""
    squares = sorted(sum((int(a) - int(b)) ** 2 for a, b in zip(image.flat, row.flat, strict=True)) for row in rows)
    far = [math.sqrt(each) for each in squares[:10]]
    total = 0.0
    for each in far[1:]:
        total += each
    return far[0] / (total / (len(far) - 1))


@pytest.mark.parametrize("shape", [(4, 4, 1), (32, 33, 1), (40, 40, 2)], ids=["one sum", "just beyond", "four sums"])
def test_it_equals_the_definition_to_the_last_bit(shape) -> None:
    rows, images = noise(30, shape), noise(3, shape, seed=1)
    ratios = CopyFilter(split(rows, [0] * 30)).ratios(images, np.zeros(3, np.uint32))
    assert ratios.tolist() == [ratio_by_definition(image, rows) for image in images]


def test_it_is_exact_where_all_pixels_differ_most() -> None:
    rows = np.zeros((3, 32, 32, 1), np.uint8)
    rows[1:, 0, 0, 0] = 1, 2  # rows that are the same count once
    image = np.full((1, 32, 32, 1), 255, np.uint8)
    ratios = CopyFilter(split(rows, [0] * 3)).ratios(image, np.zeros(1, np.uint32))
    assert ratios.tolist() == [ratio_by_definition(image[0], rows)]


def test_a_copy_has_the_ratio_0() -> None:
    rows = noise(20)
    assert CopyFilter(split(rows, [0] * 20)).ratios(rows[7:8], np.zeros(1, np.uint32)).tolist() == [0.0]


def test_a_copy_of_rows_that_are_all_the_same_has_the_ratio_0() -> None:
    rows = np.repeat(noise(1), 12, axis=0)
    assert CopyFilter(split(rows, [0] * 12)).ratios(rows[:1], np.zeros(1, np.uint32)).tolist() == [0.0]


def test_rows_that_are_all_the_same_say_nothing_of_other_images() -> None:
    rows = np.repeat(noise(1), 12, axis=0)
    assert np.isnan(CopyFilter(split(rows, [0] * 12)).ratios(noise(1, seed=1), np.zeros(1, np.uint32))).all()


@pytest.mark.parametrize("rows_at_once", [4096, 7], ids=["one block", "many blocks"])
def test_rows_that_are_there_several_times_count_once(monkeypatch, rows_at_once: int) -> None:
    monkeypatch.setattr("service.augmentation.copy_filter._MOST_ROWS", rows_at_once)
    rows, images, labels = noise(30), noise(8, seed=1), np.zeros(8, np.uint32)
    often = np.random.default_rng(2).permutation(np.repeat(rows, 20, axis=0))
    found = CopyFilter(split(often, [0] * 600)).ratios(images, labels)
    assert found.tolist() == CopyFilter(split(rows, [0] * 30)).ratios(images, labels).tolist()


def test_rows_of_other_classes_do_not_count() -> None:
    rows = noise(24)
    both = CopyFilter(split(rows, [0] * 12 + [1] * 12))
    ratios = both.ratios(rows[[0, 0]], np.array([0, 1], np.uint32))
    assert ratios[0] == 0.0
    assert ratios[1] == ratio_by_definition(rows[0], rows[12:])


def test_three_rows_are_enough() -> None:
    rows, image = noise(3), noise(1, seed=1)
    ratios = CopyFilter(split(rows, [0] * 3)).ratios(image, np.zeros(1, np.uint32))
    assert ratios.tolist() == [ratio_by_definition(image[0], rows)]


def test_two_rows_are_not_enough() -> None:
    assert np.isnan(CopyFilter(split(noise(2), [0] * 2)).ratios(noise(1), np.zeros(1, np.uint32))).all()


def test_other_images_change_no_ratio() -> None:
    compare, images = CopyFilter(split(noise(500), [0] * 500)), noise(300, seed=1)
    together = compare.ratios(images, np.zeros(300, np.uint32))
    alone = [compare.ratios(images[i : i + 1], np.zeros(1, np.uint32))[0] for i in range(0, 300, 50)]
    assert together[::50].tolist() == alone


def test_blocks_change_no_ratio(monkeypatch) -> None:
    rows, images, labels = noise(100), noise(20, seed=1), np.zeros(20, np.uint32)
    whole = CopyFilter(split(rows, [0] * 100)).ratios(images, labels)
    monkeypatch.setattr("service.augmentation.copy_filter._MOST_ROWS", 7)
    assert CopyFilter(split(rows, [0] * 100)).ratios(images, labels).tolist() == whole.tolist()


def test_rows_are_read_once_while_they_fit() -> None:
    train = split(noise(20), [0] * 20)
    compare = CopyFilter(train)
    for _ in range(3):
        compare.ratios(noise(2), np.zeros(2, np.uint32))
    assert train.pixels.reads == 1


def test_a_full_cache_drops_rows_and_changes_no_ratio() -> None:
    rows, labels = noise(40), [0, 1] * 20
    small = CopyFilter(split(rows, labels), PixelCache(most_bytes=20 * 16 * 4))
    images, of = noise(8, seed=1), np.array([0, 1] * 4, np.uint32)
    expected = CopyFilter(split(rows, labels)).ratios(images, of).tolist()
    assert [small.ratios(images, of).tolist() for _ in range(2)] == [expected, expected]


def test_the_threshold_is_passed_by_all_but_the_quantile() -> None:
    train, held_out = split(noise(200), [0] * 200), split(noise(400, seed=1), [0] * 400, "test")
    threshold = calibrate(train, held_out, 0.05, seed=3).threshold
    ratios = CopyFilter(train).ratios(held_out.images(np.arange(400)), held_out.labels)
    assert (ratios < threshold).sum() == 20


def test_near_copies_are_below_the_threshold() -> None:
    train = split(noise(300, (8, 8, 1)), [0] * 300)
    threshold = calibrate(train, split(noise(300, (8, 8, 1), seed=1), [0] * 300, "test"), 0.01, seed=3).threshold
    copies = train.images(np.arange(50)) ^ np.uint8(1)  # every pixel is off by one
    assert (CopyFilter(train).ratios(copies, np.zeros(50, np.uint32)) < threshold).all()


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_held_out_rows_that_are_training_rows_do_not_lower_the_threshold(share: float) -> None:
    train, held_out = split(noise(200), [0] * 200), noise(400, seed=1)
    leaked = np.sort(np.random.default_rng(2).choice(400, round(share * 400), replace=False))
    others = np.delete(held_out, leaked, axis=0)
    held_out[leaked] = train.images(np.arange(len(leaked)))
    found = calibrate(train, split(held_out, [0] * 400, "test"), 0.02, seed=3)
    assert found.threshold == calibrate(train, split(others, [0] * len(others), "test"), 0.02, seed=3).threshold
    assert (found.tried, found.leaked.tolist()) == (400, leaked.tolist())


def test_the_seed_chooses_which_rows_are_tried() -> None:
    train, held_out = split(noise(50), [0] * 50), split(noise(400, seed=1), [0] * 400, "test")
    thresholds = [calibrate(train, held_out, 0.1, seed=seed, most=40).threshold for seed in (1, 1, 2)]
    assert thresholds[0] == thresholds[1] != thresholds[2]


def test_the_threshold_is_0_without_rows_to_compare() -> None:
    assert calibrate(split(noise(2), [0, 0]), split(noise(5), [0] * 5, "test"), 0.01, seed=0).threshold == 0.0


@pytest.mark.parametrize("images", [1, 3])
def test_large_images_are_compared_in_small_batches_to_the_same_result(monkeypatch, images: int) -> None:
    train, held_out = split(noise(40), [0] * 40), split(noise(20, seed=1), [0] * 20, "test")
    whole = calibrate(train, held_out, 0.2, 3).threshold
    monkeypatch.setattr("service.augmentation.copy_filter._IMAGES_BYTES", images * 4 * 16)
    held_out.pixels.reads = 0
    assert calibrate(train, held_out, 0.2, 3).threshold == whole
    assert held_out.pixels.reads == -(-20 // images)


def test_the_rows_tried_do_not_depend_on_how_many_words_are_drawn_at_once(monkeypatch) -> None:
    train, held_out = split(noise(40), [0] * 40), split(noise(50, seed=1), [0] * 50, "test")
    whole = calibrate(train, held_out, 0.2, 3, 20).threshold
    monkeypatch.setattr("service.augmentation.copy_filter._DRAWN_AT_ONCE", 7)
    assert calibrate(train, held_out, 0.2, 3, 20).threshold == whole


def test_a_calibration_ends_when_nobody_waits_for_it() -> None:
    event = Event()
    event.set()
    train = split(noise(50), [0] * 50)
    with cancelled_by(event), pytest.raises(WorkCancelled):
        calibrate(train, split(noise(9, seed=1), [0] * 9, "test"), 0.01, seed=3)
    assert train.pixels.reads == 0
