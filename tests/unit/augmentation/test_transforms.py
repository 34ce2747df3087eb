"""Policies and what is drawn from them: the same everywhere, within range, as often as asked for."""

from __future__ import annotations

import numpy as np
import pytest

from fount.address import Addresses
from fount.transforms import (
    COLUMNS,
    IDENTITY,
    RANGES,
    Kind,
    Policy,
    Transform,
    draw,
    gentle_policy,
    policy_from_proto,
    policy_to_proto,
    safe_policy,
    told,
    violations,
)
from fount.v1 import augmentation_pb2

MANY = Addresses.of_range(7, 0, 20_000)
EVERYTHING = Policy(
    transforms=tuple(Transform(kind=kind, probability=0.5, min=low, max=high) for kind, (low, high) in RANGES.items())
)


def of(kind: Kind, low: float = 0.0, high: float = 0.0, probability: float = 1.0) -> Policy:
    return Policy(transforms=(Transform(kind=kind, probability=probability, min=low, max=high),))


def column(table: np.ndarray, name: str) -> np.ndarray:
    return table[:, COLUMNS.index(name)]


def test_kinds_are_numbered_as_in_the_contract() -> None:
    assert {kind.value: f"KIND_{kind.name}" for kind in Kind} == {
        value: name for name, value in augmentation_pb2.Transform.Kind.items()
    }


def test_a_row_is_the_same_values_for_ever() -> None:
    policy = Policy(
        transforms=(
            Transform(kind=Kind.FLIP_HORIZONTAL, probability=0.5),
            Transform(kind=Kind.ROTATE, min=5, max=15),
            Transform(kind=Kind.SHIFT, max=0.1),
            Transform(kind=Kind.ERASE, max=1.0),
        )
    )
    row = draw(policy, Addresses.of_range(7, 1, 1))[0].tolist()
    assert row == pytest.approx(
        [1, 0, -13.797817, 0, 1, 0.053094707, 0.0355480202, 0, 1, 0, 0.0620990656, 0.269689173, 0.3056297, 0.195332348],
        rel=1e-7,
    )


def test_a_row_does_not_depend_on_the_others() -> None:
    whole = draw(EVERYTHING, MANY)
    assert draw(EVERYTHING, MANY.take(slice(77, 78))).tobytes() == whole[77:78].tobytes()


def test_what_is_drawn_for_a_kind_does_not_depend_on_which_others_are_there() -> None:
    alone = told(of(Kind.NOISE, 0.0, 1.0, probability=0.5), MANY)
    together = told(EVERYTHING, MANY)
    assert column(alone, "noise_std").tobytes() == column(together, "noise_std").tobytes()


def test_the_order_of_a_policy_changes_nothing() -> None:
    turned = Policy(transforms=EVERYTHING.transforms[::-1])
    assert draw(turned, MANY).tobytes() == draw(EVERYTHING, MANY).tobytes()


def test_what_is_told_is_what_is_drawn_where_it_was_applied() -> None:
    table, provenance = draw(EVERYTHING, MANY), told(EVERYTHING, MANY)
    applied = ~np.isnan(provenance)
    assert table[applied].tobytes() == provenance[applied].tobytes()
    assert (table == IDENTITY)[~applied].all()


def test_every_value_is_finite_and_float32() -> None:
    table = draw(EVERYTHING, MANY)
    assert table.dtype == np.float32
    assert np.isfinite(table).all()


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_a_transform_is_applied_as_often_as_asked(probability: float) -> None:
    applied = ~np.isnan(column(told(of(Kind.ROTATE, 0, 10, probability), MANY), "rotate_degrees"))
    assert applied.mean() == pytest.approx(probability, abs=0.01 if 0 < probability < 1 else 0)


def test_a_range_goes_either_way_where_there_are_two() -> None:
    degrees = column(draw(of(Kind.ROTATE, 5, 15), MANY), "rotate_degrees")
    assert (np.abs(degrees).min(), np.abs(degrees).max()) == pytest.approx((5, 15), abs=0.01)
    assert (degrees > 0).mean() == pytest.approx(0.5, abs=0.01)


def test_a_range_is_filled_evenly() -> None:
    factors = column(draw(of(Kind.CONTRAST, 0.5, 2.5), MANY), "contrast_factor")
    counts, _ = np.histogram(factors, bins=10, range=(0.5, 2.5))
    assert counts / len(factors) == pytest.approx(0.1, abs=0.01)


def test_shifts_in_x_and_y_are_drawn_apart() -> None:
    table = draw(of(Kind.SHIFT, 0, 0.5), MANY)
    assert abs(np.corrcoef(column(table, "shift_x"), column(table, "shift_y"))[0, 1]) < 0.03


def test_an_erased_rectangle_has_the_area_and_lies_within_the_picture() -> None:
    table = draw(of(Kind.ERASE, 0.1, 0.3), MANY)
    x, y, width, height = (column(table, f"erase_{name}") for name in ("x", "y", "width", "height"))
    area = width.astype(np.float64) * height
    assert (area.min(), area.max(), area.mean()) == pytest.approx((0.1, 0.3, 0.2), abs=0.002)
    assert min(x.min(), y.min()) >= 0
    assert max((x + width).max(), (y + height).max()) <= 1 + 1e-6


def test_all_of_a_picture_can_be_erased() -> None:
    row = draw(of(Kind.ERASE, 1.0, 1.0), MANY.take(slice(0, 1)))[0]
    assert row[-4:].tolist() == [0, 0, 1, 1]


def test_nothing_of_a_picture_can_be_erased() -> None:
    assert draw(of(Kind.ERASE), MANY.take(slice(0, 5)))[:, -1].tolist() == [0] * 5


@pytest.mark.parametrize(
    ("transform", "path", "remedy"),
    [
        (Transform(kind=Kind.UNSPECIFIED), "kind", "FLIP_HORIZONTAL, FLIP_VERTICAL"),
        (Transform(kind=Kind.ROTATE, max=181), "max", "give 0 to 180"),
        (Transform(kind=Kind.ROTATE, min=-1, max=10), "min", "give 0 to 180"),
        (Transform(kind=Kind.SHIFT, min=float("nan"), max=0.5), "min", "give 0 to 1"),
        (Transform(kind=Kind.ROTATE, min=9, max=3), "max", "give min or more"),
        (Transform(kind=Kind.FLIP_VERTICAL, max=1), "max", "no range"),
        (Transform(kind=Kind.FLIP_VERTICAL, probability=1.5), "probability", "give 0 to 1"),
        (Transform(kind=Kind.FLIP_VERTICAL, probability=float("nan")), "probability", "give 0 to 1"),
    ],
)
def test_a_wrong_field_is_named_with_what_is_right(transform: Transform, path: str, remedy: str) -> None:
    good = Transform(kind=Kind.BRIGHTNESS, min=-1, max=1)
    [(field, wrong)] = violations(Policy(transforms=(good, transform)))
    assert field == f"transforms[1].{path}"
    assert remedy in wrong


def test_every_wrong_field_is_named() -> None:
    policy = Policy(transforms=(Transform(kind=Kind.ZOOM), Transform(kind=Kind.ZOOM, probability=2, min=1, max=1)))
    fields = [field for field, _ in violations(policy)]
    assert fields == ["transforms[0].min", "transforms[0].max", "transforms[1].probability", "transforms[1].kind"]


def test_an_empty_policy_is_wrong() -> None:
    assert violations(Policy(transforms=())) == [("transforms", "is empty; name at least one transform")]


@pytest.mark.parametrize("policy", [gentle_policy(), safe_policy("mnist", (28, 28, 1)), EVERYTHING])
def test_a_shipped_policy_is_sound(policy: Policy) -> None:
    assert violations(policy) == []


@pytest.mark.parametrize("name", ["digits", "mnist", "my-MNIST-rare-8"])
def test_the_safe_policy_of_digits_keeps_their_labels(name: str) -> None:
    transforms = {each.kind: each for each in safe_policy(name, (28, 28, 1)).transforms}
    assert Kind.FLIP_HORIZONTAL not in transforms
    assert Kind.FLIP_VERTICAL not in transforms
    assert transforms[Kind.ROTATE].max == 15
    assert transforms[Kind.SHIFT].max * 28 <= 2


def test_the_safe_policy_of_other_pictures_is_the_gentle_one() -> None:
    assert safe_policy("flowers", (64, 64, 3)) == gentle_policy()


def test_a_policy_comes_back_from_the_contract_as_it_went() -> None:
    assert policy_from_proto(policy_to_proto(EVERYTHING)) == EVERYTHING


def test_a_probability_left_out_is_one() -> None:
    message = augmentation_pb2.TransformPolicy(transforms=[augmentation_pb2.Transform(kind=3, max=5)])
    assert policy_from_proto(message).transforms == (Transform(kind=Kind.ROTATE, probability=1.0, max=5),)


def test_a_probability_of_zero_is_kept() -> None:
    message = augmentation_pb2.TransformPolicy(transforms=[augmentation_pb2.Transform(kind=3, probability=0, max=5)])
    assert policy_from_proto(message).transforms[0].probability == 0


def test_a_kind_of_another_version_is_refused() -> None:
    message = augmentation_pb2.TransformPolicy(transforms=[augmentation_pb2.Transform(kind=99)])  # type: ignore[arg-type]
    assert [field for field, _ in violations(policy_from_proto(message))] == ["transforms[0].kind"]
