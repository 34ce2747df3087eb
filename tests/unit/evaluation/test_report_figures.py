import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from service.evaluation.report.figures import FIGURES, LARGEST_TILE, figures_of, sheet, tile
from service.evaluation.results import Panel
from tests.unit.evaluation.report_values import evidence


def figure(name, seen):
    return next(each for each in FIGURES if each.name == name).compute(seen)


def picture(png):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def with_features(seen, samples, rows):
    drawn = replace(
        seen.samples,
        features=np.asarray(samples, np.float32),
        **{
            name: getattr(seen.samples, name)[: len(samples)]
            for name in ("indices", "images", "labels", "probabilities")
        },
    )
    real = replace(
        seen.held_out,
        features=np.asarray(rows, np.float32),
        **{name: getattr(seen.held_out, name)[: len(rows)] for name in ("images", "labels", "probabilities")},
    )
    return replace(seen, samples=drawn, held_out=real)


# --- Images ---------------------------------------------------------------------------------------------------------


def test_a_tile_holds_the_pixels_unchanged():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    made = tile(image)
    assert made["size"] == [4, 4]
    np.testing.assert_array_equal(picture(made["png"]), image)


def test_a_tile_of_a_large_image_is_averaged_down():
    image = np.zeros((256, 128, 1), np.uint8)
    image[:, ::2] = 100
    made = tile(image)
    assert made["size"] == [LARGEST_TILE, 32]
    assert set(picture(made["png"]).flat) == {50}


@pytest.mark.parametrize("channels", [2, 4])
def test_a_tile_of_neither_grey_nor_rgb_shows_the_first_channel(channels):
    image = np.zeros((3, 3, channels), np.uint8)
    image[..., 0] = 7
    assert set(picture(tile(image)["png"]).flat) == {7}


def test_a_sheet_has_tiles_in_rows_with_transparent_gaps():
    made = sheet(np.full((3, 2, 2, 1), 9, np.uint8), columns=2)
    grey, alpha = np.moveaxis(picture(made["png"]), -1, 0)
    assert (made["rows"], made["columns"], made["gap"]) == (2, 2, 1)
    assert grey[0].tolist() == [9, 9, 0, 9, 9]
    assert alpha[:, 0].tolist() == [255, 255, 0, 255, 255]
    assert alpha[3].tolist() == [255, 255, 0, 0, 0]


# --- All of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditional", [True, False], ids=["conditional", "unconditional"])
def test_every_figure_is_deterministic(conditional):
    panels = [each for each in Panel if conditional or each is not Panel.LABEL_FIDELITY]

    def drawn():
        seen = evidence(conditional=conditional)
        return json.dumps([each.compute(seen) for each in figures_of(panels)], allow_nan=False)

    assert drawn() == drawn()


def test_figures_are_those_of_the_requested_panels():
    assert [each.name for each in figures_of([Panel.MEMORISATION])] == [
        "samples-by-class",
        "feature-map",
        "distances",
        "nearest-training-rows",
    ]
    assert figures_of(list(Panel)) == FIGURES


def test_only_training_rows_are_restricted():
    assert [each.name for each in FIGURES if each.restricted] == ["nearest-training-rows"]


# --- One by one -------------------------------------------------------------------------------------------------------


def test_samples_by_class_shows_the_first_ten_of_the_requested_label():
    made = figure("samples-by-class", evidence(samples=60))
    assert made["by"] == "asked"
    assert [row["count"] for row in made["rows"]] == [20, 20, 20]
    assert made["rows"][1]["indices"] == [1, 4, 7, 10, 13, 16, 19, 22, 25, 28]


def test_samples_by_class_uses_predictions_without_labels():
    seen = evidence(conditional=False)
    probabilities = np.zeros_like(seen.samples.probabilities)
    probabilities[:, 2] = 1
    made = figure("samples-by-class", replace(seen, samples=replace(seen.samples, probabilities=probabilities)))
    assert made["by"] == "read"
    assert [row["count"] for row in made["rows"]] == [0, 0, 60]
    assert made["rows"][0]["sheet"] is None


def test_samples_by_class_shows_fifty_classes_and_counts_the_others():
    made = figure("samples-by-class", evidence(classes=[str(i) for i in range(120)]))
    assert (len(made["rows"]), made["classes_left_out"]) == (50, 70)


def test_best_and_worst_ranks_by_closeness_to_real_rows():
    rows = [[float(i), 0.0] for i in range(20)]
    made = figure("best-and-worst", with_features(evidence(), [[3.1, 0], [9.0, 80.0], *([[5.5, 0.4]] * 8)], rows))
    assert made["worst"][0]["index"] == 1
    assert made["best"][0]["index"] == 0
    assert made["best"][0]["realism"] > 1 > made["worst"][0]["realism"]


def test_best_and_worst_has_no_number_for_a_sample_equal_to_a_real_row():
    rows = [[float(i), 0.0] for i in range(20)]
    made = figure("best-and-worst", with_features(evidence(), [[3.0, 0], *([[5.5, 0.4]] * 8)], rows))
    assert (made["best"][0]["index"], made["best"][0]["realism"]) == (0, None)


def test_best_and_worst_ranks_identical_samples_by_index():
    rows = [[float(i), 0.0] for i in range(20)]
    made = figure("best-and-worst", with_features(evidence(), np.ones((9, 2)), rows))
    assert [each["index"] for each in made["worst"]] == [8, 7, 6, 5, 4, 3, 2, 1]


def test_best_and_worst_reports_why_there_is_no_ranking():
    made = figure("best-and-worst", with_features(evidence(), np.ones((9, 2)), np.ones((20, 2))))
    assert made["best"] == []
    assert "radius 0" in made["note"]


def test_closest_pairs_begins_with_the_smallest_distance():
    spread = [[2.0**i, 0] for i in range(12)]
    made = figure("closest-pairs", with_features(evidence(), [*spread, [2.0**7, 0.25]], [[0, 0], [0, 3], [9, 9]]))
    assert [each["index"] for each in made["pairs"][0]["samples"]] == [7, 12]
    assert made["pairs"][0]["distance"] == 0.25
    assert len(made["pairs"]) == 8
    assert made["held_out_distance"] == 3.0


def test_the_histogram_counts_predicted_classes():
    seen = evidence(samples=30, rows=12)
    made = figure("class-histogram", seen)
    assert made["generated"] == np.bincount(seen.samples.probabilities.argmax(1), minlength=3).tolist()
    assert made["real_labels"] == [4, 4, 4]


def test_confusion_counts_requested_labels_and_predicted_classes():
    seen = evidence(samples=6)
    read = np.eye(3, dtype=np.float32)[[0, 1, 0, 0, 2, 0]]  # requested: 0 1 2 0 1 2
    made = figure("confusion", replace(seen, samples=replace(seen.samples, probabilities=read)))
    assert made["counts"] == [[2, 0, 0], [0, 1, 1], [2, 0, 0]]
    assert made["confusions"] == [[2, 0, 2], [1, 2, 1]]


def test_confusion_of_many_classes_keeps_the_most_frequent_alone():
    made = figure("confusion", evidence(classes=[str(i) for i in range(60)], samples=600))
    assert made["counts"] is None
    assert len(made["confusions"]) <= 20


def test_distances_share_their_bins_and_count_all_rows():
    made = figure("distances", evidence(samples=60, rows=50))
    assert list(made["spaces"]) == ["pixels", "features"]
    pixels = made["spaces"]["pixels"]
    assert (sum(pixels["generated"]), sum(pixels["real"]), len(pixels["edges"])) == (60, 50, 41)


def test_distances_that_are_all_equal_still_have_bins():
    seen = evidence(samples=60, rows=50)
    flat = {
        space: replace(near, sample_distances=np.ones_like(near.sample_distances), held_out_distances=np.ones((50, 10)))
        for space, near in seen.nearest.items()
    }
    pixels = figure("distances", replace(seen, nearest=flat))["spaces"]["pixels"]
    assert (pixels["generated"][0], pixels["real"][0]) == (60, 50)


def test_distances_without_a_finite_one_are_left_out():
    seen = evidence()
    none = {"pixels": replace(seen.nearest["pixels"], sample_distances=np.full((60, 10), np.inf))}
    assert figure("distances", replace(seen, nearest=none)) == {"spaces": {"pixels": None}}


def test_the_map_uses_the_directions_of_the_largest_variance():
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(50, 4)) * [0.1, 30, 0.1, 5]
    made = figure("feature-map", with_features(evidence(), rows[:40], rows))
    assert sum(made["explained"]) > 0.99
    np.testing.assert_allclose(made["real"]["points"], (rows - rows.mean(0))[:, [1, 3]], atol=2.0)


def test_the_map_draws_a_thousand_points_at_most():
    made = figure("feature-map", evidence(samples=1500, rows=1200))
    assert (len(made["generated"]["points"]), made["generated"]["of"]) == (1000, 1500)
    assert made["generated"]["classes"][:30] != [0, 1, 2] * 10  # not the first thousand
    assert np.bincount(made["generated"]["classes"]).min() > 250  # a choice in step with the classes would miss some


@pytest.mark.parametrize("dims", [1, 3])
def test_the_map_of_constant_features_is_a_single_point(dims):
    made = figure("feature-map", with_features(evidence(), np.ones((20, dims)), np.ones((20, dims))))
    assert made["explained"] == [0.0, 0.0]
    assert {tuple(point) for point in made["real"]["points"]} == {(0.0, 0.0)}


def test_same_noise_shows_six_noises_under_every_label():
    made = figure("same-noise", evidence())
    assert (made["rows"], made["classes"], len(made["predicted"])) == (6, [0, 1, 2], 6)
    assert made["sheet"]["columns"] == 3


def test_nearest_training_rows_are_sorted_by_ratio():
    seen = evidence()
    near = seen.nearest["pixels"]
    distances = np.full((60, 10), 2.0)
    distances[9, 0], distances[4, 0] = 0.0, 0.5
    seen = replace(seen, nearest={"pixels": replace(near, sample_distances=distances)})
    pairs = figure("nearest-training-rows", seen)["pairs"]
    assert [(each["sample"]["index"], each["ratio"]) for each in pairs[:2]] == [(9, 0.0), (4, 0.25)]
    assert pairs[0]["training_row"] == near.sample_rows[9]
