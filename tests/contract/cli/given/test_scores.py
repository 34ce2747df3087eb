"""`fount score` and `fount classify`: their tables, files and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.workers.memory import MemoryPool
from tests.contract.cli.given.files import arrays, draw, error_of, fount, saved
from tests.contract.given.streams import pixels

IMAGES = pixels(4)
SUMS = IMAGES.reshape(4, 6).sum(axis=1) / 255  # an in-memory score is the column's number less the sum of the row


@pytest.fixture(autouse=True)
def folder() -> None:
    for row, image in enumerate(IMAGES):
        draw(f"flat/{row}.png", image)
        draw(f"sorted/{('one', 'two')[row // 2]}/{row}.png", image)


def test_it_shows_means_with_their_intervals() -> None:
    mean, half = -SUMS.mean(), 1.959964 * SUMS.std(ddof=1) / 2
    table = [
        "SCORE  UNIT   MEAN  ± 95 %",
        f"a      nats  {mean:.2f}    {half:.2f}",
        f"b      nats  {1 + mean:.2f}    {half:.2f}",
        "",
        "Rows      4",
        "Model     plain:1",
    ]
    assert fount("score plain flat --seed 3").stdout.splitlines()[:6] == table


def test_one_row_has_no_interval() -> None:
    line = fount("score plain flat --rows 1").stdout.splitlines()[1]
    assert line.split() == ["a", "nats", f"{-SUMS[0]:.2f}", "-"]


def test_it_reports_scores_as_json() -> None:
    found = json.loads(fount("score plain flat --seed 3 --json").stdout)
    assert [(each["name"], each["unit"]) for each in found["scores"]] == [("a", "nats"), ("b", "nats")]
    assert found["scores"][0]["mean"] == pytest.approx(-SUMS.mean(), abs=1e-6)
    assert found["scores"][0]["half_width"] == pytest.approx(1.959964 * SUMS.std(ddof=1) / 2, abs=1e-6)
    assert (found["rows"], found["seed"], found["start_index"], found["out"]) == (4, 3, 0, None)


def test_it_writes_a_row_each() -> None:
    fount("score plain flat --out s.csv")
    header, *rows = csv.reader(io.StringIO(Path("s.csv").read_text()))
    assert header == ["row", "a", "b"]
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    np.testing.assert_allclose([float(row[1]) for row in rows], -SUMS, atol=1e-6)
    fount("score plain flat --out s.npz")
    assert arrays("s.npz")["columns"].tolist() == ["a", "b"]
    np.testing.assert_allclose(arrays("s.npz")["scores"], np.stack([-SUMS, 1 - SUMS], axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("option", "labels"),
    [
        ("", [0, 0, 0, 0]),
        ("--own-labels", [1, 1, 2, 2]),
        ("--label two", [2, 2, 2, 2]),
        ("--labels 0,1,2,0", [0, 1, 2, 0]),
    ],
)
def test_it_scores_rows_of_classes(option: str, labels: list[int]) -> None:
    fount(f"score classes sorted {option} --out s.npz")
    np.testing.assert_allclose(arrays("s.npz")["scores"][:, 0], 100 * np.array(labels) - SUMS, atol=1e-4)
    assert ("labels" in arrays("s.npz")) == bool(option)


def test_it_asks_for_importance_samples_of_models_that_take_them(pool: MemoryPool) -> None:
    fount("score bounds flat --importance-samples 5 --background plain")
    assert [call.parameters.importance_samples for call in pool.calls] == [5, None]


def test_a_background_is_subtracted() -> None:
    fount("score classes flat --label two --background plain --out s.npz")
    found = arrays("s.npz")
    assert found["columns"].tolist() == ["a", "b", "a - plain"]
    np.testing.assert_allclose(found["scores"][:, 2], 200, atol=1e-4)


def test_complexity_is_the_size_of_a_png_file() -> None:
    fount("score plain flat --complexity --out s.npz")
    found = arrays("s.npz")
    sizes = []
    for image in IMAGES[..., 0]:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=9)
        sizes.append(8 * math.log(2) * len(file.getvalue()))
    assert found["columns"].tolist() == ["a", "b", "complexity", "a + complexity"]
    np.testing.assert_allclose(found["scores"][:, 2], sizes, rtol=1e-6)
    np.testing.assert_allclose(found["scores"][:, 3], sizes - SUMS, rtol=1e-6)


def test_it_scores_rows_of_a_data_set() -> None:
    fount("score classes --dataset small --rows 6 --own-labels --out s.csv")
    rows = list(csv.reader(io.StringIO(Path("s.csv").read_text())))
    assert [row[0] for row in rows] == ["row", "0", "1", "2", "3", "4", "5"]


def test_it_shows_the_top_class_of_each_row() -> None:
    images = IMAGES.copy()
    images[:, 0, 0, 0] = [1, 2, 2, 0]  # an in-memory classifier reads the class in the first pixel
    saved(images=images, labels=[1, 2, 0, 0])
    expected = [
        "ROW  CLASS  PROBABILITY  KNOWN", "0    one    0.900        one", "1    two    0.900        two",
        "2    two    0.900        zero", "3    zero   0.900        zero", "",
        "Accuracy  0.750, 95 % interval 0.301 to 0.954", "Model     classes:1",
    ]  # fmt: skip
    assert fount("classify classes in.npz").stdout.splitlines()[:8] == expected
    found = json.loads(fount("classify classes in.npz --json").stdout)
    assert found["accuracy"]["value"] == 0.75
    assert found["rows"][2] | {"probability": 0} == {"row": "2", "class": "two", "probability": 0, "known": "zero"}
    assert "seed" not in found


def test_it_shows_no_accuracy_where_classes_are_unknown() -> None:
    result = fount("classify classes flat").stdout
    assert "Accuracy" not in result
    assert "KNOWN" not in result
    assert json.loads(fount("classify classes flat --json").stdout)["accuracy"] is None


def test_it_writes_all_probabilities() -> None:
    fount("classify classes sorted --out c.npz")
    assert arrays("c.npz")["probabilities"].shape == (4, 3)
    assert arrays("c.npz")["classes"].tolist() == ["zero", "one", "two"]
    assert arrays("c.npz")["labels"].tolist() == [1, 1, 2, 2]
    fount("classify classes flat --rows 2 --out c.csv")
    assert len(Path("c.csv").read_text().splitlines()) == 3


def test_a_prior_changes_the_probabilities() -> None:
    fount("classify classes flat --prior one=3,#2=1 --out c.npz")
    np.testing.assert_allclose(arrays("c.npz")["probabilities"], [[0, 0.75, 0.25]] * 4, atol=1e-6)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("score plain flat --out s.txt", "s.txt has no supported suffix: write to a .npz file or a .csv file"),
        ("score plain flat --importance-samples 5", "importance_samples: plain does not take it; it takes steps"),
        ("score plain flat --own-labels", "plain is unconditional; leave --own-labels out"),
        ("score classes flat --own-labels", "classes is conditional; name the class of the rows with --label"),
        ("score classes flat --own-labels --label 1", "Give --own-labels, --label or --labels, and only one of them"),
        ("score plain flat --background nobody", "'nobody' is not served"),
        ("score plain flat --background large", "large scores rows of 4 × 4 × 1, and plain of 2 × 3 × 1; name another"),
        ("score plain flat --background sampler", "sampler cannot score; it can sample"),
        ("score points points.npz --complexity", "--complexity is of images of uint8; give image files"),
        ("score sampler flat", "sampler cannot score; it can sample"),
        ("score verse flat", "verse is of text. Name a .txt file, in which each line is a text."),
        ("classify plain flat", "plain cannot classify; it can sample, encode, decode, score"),
        ("classify classes flat --prior one", "'one' is not LABEL=WEIGHT, as in 7=0.9,1=0.1"),
        ("classify classes flat --prior one=1,#1=2", "names a class twice"),
        ("classify classes flat --prior cat=1", "classes has no class 'cat'; `fount model classes` lists its classes."),
        ("classify classes flat --prior one=-1", "prior"),
    ],
)
def test_it_says_what_is_wrong_and_the_remedy(pool: MemoryPool, line: str, message: str) -> None:
    np.savez("points.npz", points=np.zeros((2, 2)))
    assert message in error_of(line)


def test_each_line_of_a_text_file_is_scored() -> None:
    Path("lines.txt").write_text("ab\n\nGrüße\n", encoding="utf-8")
    fount("score verse lines.txt --out s.csv")
    _, *rows = csv.reader(io.StringIO(Path("s.csv").read_text()))
    expected = [-sum(text.encode()) / 255 for text in ("ab", "Grüße")]
    assert [float(row[1]) for row in rows] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("score verse flat", "Name a .txt file"),
        ("score plain lines.txt", "not of text"),
        ("score verse empty.txt", "one text a line"),
        ("encode verse lines.txt --out z.npz", "cannot encode"),
    ],
)
def test_texts_and_pictures_are_not_confused(command: str, words: str) -> None:
    Path("lines.txt").write_text("ab\n", encoding="utf-8")
    Path("empty.txt").write_text("\n", encoding="utf-8")
    assert words in error_of(command)
