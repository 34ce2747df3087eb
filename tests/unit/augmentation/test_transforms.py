"""Policies and the parameters drawn from them: reproducible, within range, as often as requested."""

from __future__ import annotations

import numpy as np
import pytest

from fount.address import Addresses
from fount.documents import DocumentError
from fount.transforms import (
    COLUMNS,
    IDENTITY,
    RANGES,
    Kind,
    Policy,
    Transform,
    draw,
    draw_provenance,
    gentle_policy,
    parse_policy,
    safe_policy,
    violations,
)
from fount.v1 import augmentation_pb2
from service.rpc.fields import policy_from_proto, policy_to_proto

MANY = Addresses.of_range(7, 0, 20_000)
EVERYTHING = Policy(
    transforms=tuple(Transform(kind=kind, probability=0.5, min=low, max=high) for kind, (low, high) in RANGES.items())
)


def of(kind: Kind, low: float = 0.0, high: float = 0.0, probability: float = 1.0) -> Policy:
    return Policy(transforms=(Transform(kind=kind, probability=probability, min=low, max=high),))


def column(table: np.ndarray, name: str) -> np.ndarray:
    return table[:, COLUMNS.index(name)]


def test_it_numbers_kinds_as_the_contract_does() -> None:
    assert {kind.value: f"KIND_{kind.name}" for kind in Kind} == {
        value: name for name, value in augmentation_pb2.Transform.Kind.items()
    }


def test_it_draws_the_same_values_in_every_version() -> None:
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


def test_it_draws_a_row_independently_of_the_others() -> None:
    whole = draw(EVERYTHING, MANY)
    assert draw(EVERYTHING, MANY.take(slice(77, 78))).tobytes() == whole[77:78].tobytes()


def test_it_draws_a_kind_independently_of_the_other_kinds() -> None:
    alone = draw_provenance(of(Kind.NOISE, 0.0, 1.0, probability=0.5), MANY)
    together = draw_provenance(EVERYTHING, MANY)
    assert column(alone, "noise_std").tobytes() == column(together, "noise_std").tobytes()


def test_it_ignores_the_order_of_a_policy() -> None:
    reversed_policy = Policy(transforms=EVERYTHING.transforms[::-1])
    assert draw(reversed_policy, MANY).tobytes() == draw(EVERYTHING, MANY).tobytes()


def test_it_reports_in_provenance_what_was_applied() -> None:
    table, provenance = draw(EVERYTHING, MANY), draw_provenance(EVERYTHING, MANY)
    applied = ~np.isnan(provenance)
    assert table[applied].tobytes() == provenance[applied].tobytes()
    assert (table == IDENTITY)[~applied].all()


def test_it_draws_finite_float32() -> None:
    table = draw(EVERYTHING, MANY)
    assert table.dtype == np.float32
    assert np.isfinite(table).all()


@pytest.mark.parametrize("probability", [0.0, 0.1, 0.5, 1.0])
def test_it_applies_a_transform_with_its_probability(probability: float) -> None:
    applied = ~np.isnan(column(draw_provenance(of(Kind.ROTATE, 0, 10, probability), MANY), "rotate_degrees"))
    assert applied.mean() == pytest.approx(probability, abs=0.01 if 0 < probability < 1 else 0)


def test_it_draws_either_sign_of_a_rotation() -> None:
    degrees = column(draw(of(Kind.ROTATE, 5, 15), MANY), "rotate_degrees")
    assert (np.abs(degrees).min(), np.abs(degrees).max()) == pytest.approx((5, 15), abs=0.01)
    assert (degrees > 0).mean() == pytest.approx(0.5, abs=0.01)


def test_it_draws_uniformly_from_a_range() -> None:
    factors = column(draw(of(Kind.CONTRAST, 0.5, 2.5), MANY), "contrast_factor")
    counts, _ = np.histogram(factors, bins=10, range=(0.5, 2.5))
    assert counts / len(factors) == pytest.approx(0.1, abs=0.01)


def test_it_draws_shifts_in_x_and_y_independently() -> None:
    table = draw(of(Kind.SHIFT, 0, 0.5), MANY)
    assert abs(np.corrcoef(column(table, "shift_x"), column(table, "shift_y"))[0, 1]) < 0.03


def test_it_erases_a_rectangle_of_the_area_within_the_image() -> None:
    table = draw(of(Kind.ERASE, 0.1, 0.3), MANY)
    x, y, width, height = (column(table, f"erase_{name}") for name in ("x", "y", "width", "height"))
    area = width.astype(np.float64) * height
    assert (area.min(), area.max(), area.mean()) == pytest.approx((0.1, 0.3, 0.2), abs=0.002)
    assert min(x.min(), y.min()) >= 0
    assert max((x + width).max(), (y + height).max()) <= 1 + 1e-6


def test_it_can_erase_a_whole_image() -> None:
    row = draw(of(Kind.ERASE, 1.0, 1.0), MANY.take(slice(0, 1)))[0]
    assert row[-4:].tolist() == [0, 0, 1, 1]


def test_it_can_erase_nothing() -> None:
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
def test_it_names_a_wrong_field_and_the_remedy(transform: Transform, path: str, remedy: str) -> None:
    good = Transform(kind=Kind.BRIGHTNESS, min=-1, max=1)
    [problem] = violations(Policy(transforms=(good, transform)))
    assert problem.key == f"transforms[1].{path}"
    assert remedy in problem.remedy


def test_it_names_every_wrong_field() -> None:
    policy = Policy(transforms=(Transform(kind=Kind.ZOOM), Transform(kind=Kind.ZOOM, probability=2, min=1, max=1)))
    assert [problem.key for problem in violations(policy)] == [
        "transforms[0].min",
        "transforms[0].max",
        "transforms[1].probability",
        "transforms[1].kind",
    ]


def test_it_refuses_an_empty_policy() -> None:
    [problem] = violations(Policy(transforms=()))
    assert str(problem) == "transforms: is empty; name at least one transform"


@pytest.mark.parametrize("policy", [gentle_policy(), safe_policy("mnist", (28, 28, 1)), EVERYTHING])
def test_it_ships_valid_policies(policy: Policy) -> None:
    assert violations(policy) == []


@pytest.mark.parametrize("name", ["digits", "mnist", "my-MNIST-rare-8"])
def test_it_keeps_the_labels_of_digits(name: str) -> None:
    transforms = {each.kind: each for each in safe_policy(name, (28, 28, 1)).transforms}
    assert Kind.FLIP_HORIZONTAL not in transforms
    assert Kind.FLIP_VERTICAL not in transforms
    assert transforms[Kind.ROTATE].max == 15
    assert transforms[Kind.SHIFT].max * 28 <= 2


def test_it_uses_the_gentle_policy_for_other_images() -> None:
    assert safe_policy("flowers", (64, 64, 3)) == gentle_policy()


def test_it_parses_a_policy() -> None:
    value = [{"rotate": [0, 15], "probability": 0.5}, {"flip-horizontal": True}, {"zoom": (0.9, 1.1)}]
    assert parse_policy(value) == Policy(
        transforms=(
            Transform(kind=Kind.ROTATE, probability=0.5, max=15.0),
            Transform(kind=Kind.FLIP_HORIZONTAL),
            Transform(kind=Kind.ZOOM, min=0.9, max=1.1),
        )
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"rotate": [0, 1]}, "policy: is {'rotate': [0, 1]}; must be a list", id="mapping"),
        pytest.param([], "policy: is empty; name at least one transform", id="empty"),
        pytest.param(["rotate"], "policy[0]: is 'rotate'; must be a mapping", id="word"),
        pytest.param([{"rotat": [0, 1]}], "policy[0].rotat: unknown key; did you mean 'rotate'?", id="misspelt"),
        pytest.param([{"probability": 1}], "policy[0]: names no transform; name one of flip-hor", id="no kind"),
        pytest.param([{"rotate": [0, 1], "zoom": [1, 1]}], "policy[0]: names rotate and zoom; name", id="two kinds"),
        pytest.param([{"rotate": 15}], "policy[0].rotate: is 15; must be a range, [min, max]", id="no range"),
        pytest.param([{"rotate": [0, "1"]}], "policy[0].rotate[1]: is '1'; must be a finite number", id="text"),
        pytest.param([{"rotate": [0, float("nan")]}], "policy[0].rotate[1]: is nan; must be a finite", id="nan"),
        pytest.param([{"rotate": [0, 181]}], "policy[0].rotate: is 181, outside the range of ROTATE; give 0", id="max"),
        pytest.param([{"erase": [0, 1], "probability": 2}], "policy[0].probability: is 2; give 0", id="probability"),
        pytest.param([{"erase": [0, 1], "probability": True}], "policy[0].probability: is True; must be", id="flag"),
        pytest.param([{"flip-vertical": [0, 1]}], "policy[0].flip-vertical: is [0, 1]; has no range: write", id="flip"),
        pytest.param(2 * [{"zoom": [1, 1]}], "policy[1]: names ZOOM a second time; name each kind once", id="twice"),
    ],
)
def test_it_names_what_is_wrong_with_a_policy_document(value: object, expected: str) -> None:
    with pytest.raises(DocumentError) as error:
        parse_policy(value, "policy")
    [problem] = error.value.problems
    assert str(problem).startswith(expected)


def test_it_names_everything_wrong_with_a_policy_document() -> None:
    with pytest.raises(DocumentError) as error:
        parse_policy([{"rotate": 1}, {"zom": [1, 1], "shift": [0, None]}])
    assert [problem.key for problem in error.value.problems] == ["[0].rotate", "[1].zom", "[1].shift[1]"]


def test_it_converts_a_policy_to_its_message_and_back() -> None:
    assert policy_from_proto(policy_to_proto(EVERYTHING)) == EVERYTHING


def test_it_reads_an_unset_probability_as_one() -> None:
    message = augmentation_pb2.TransformPolicy(transforms=[augmentation_pb2.Transform(kind=3, max=5)])
    assert policy_from_proto(message).transforms == (Transform(kind=Kind.ROTATE, probability=1.0, max=5),)


def test_it_keeps_a_probability_of_zero() -> None:
    message = augmentation_pb2.TransformPolicy(transforms=[augmentation_pb2.Transform(kind=3, probability=0, max=5)])
    assert policy_from_proto(message).transforms[0].probability == 0


def test_it_refuses_a_kind_of_another_version() -> None:
    message = augmentation_pb2.TransformPolicy(transforms=[augmentation_pb2.Transform(kind=99)])  # type: ignore[arg-type]
    assert [problem.key for problem in violations(policy_from_proto(message))] == ["transforms[0].kind"]
