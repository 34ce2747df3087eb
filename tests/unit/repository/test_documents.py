"""Documents: YAML into records, every problem at once."""

from dataclasses import field
from typing import Annotated, Any, Literal

import pytest

from fount.documents import DocumentError, Problem, check, parse, record
from fount.plain_yaml import load_yaml
from fount.transforms import PolicyDocument, parse_policy


@record
class Inner:
    x: int
    flag: bool = False
    kind: Literal["one", "other"] = "one"


@record
class Outer:
    inner: Inner
    models: dict[str, Inner] = field(default_factory=dict)
    size: Annotated[tuple[int, int], check(lambda s: min(s) > 0, "must be 1 or more")] | None = None
    share: float = 0.5
    free: dict[str, Any] = field(default_factory=dict)


UNKNOWN = "inner.y: unknown key; known keys: x, flag, kind"
QUOTE = 'models.3: has the key 3; put it in quotes, like "3"'


def problems(value: object) -> list[str]:
    with pytest.raises(DocumentError) as caught:
        parse(Outer, value)
    return [str(problem) for problem in caught.value.problems]


def test_a_document_becomes_its_record():
    parsed = parse(Outer, {"inner": {"x": 1}, "models": {"a": {"x": 2}}, "size": [3, 4], "share": 1})
    assert parsed == Outer(inner=Inner(x=1), models={"a": Inner(x=2)}, size=(3, 4), share=1.0)


def test_every_problem_is_named_with_its_path():
    assert problems(
        {"inner": {"x": "1", "kind": "ohter"}, "models": {"a": {"x": True}}, "size": [0, 1], "share": "much"}
    ) == [
        "inner.x: is '1'; must be a whole number",
        "inner.kind: is 'ohter'; must be one of one, other; did you mean other?",
        "models.a.x: is True; must be a whole number",
        "size: is [0, 1]; must be 1 or more",
        "share: is 'much'; must be a finite number",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({"iner": {"x": 1}}, ["iner: unknown key; did you mean 'inner'?"], id="misspelt and required"),
        pytest.param({"inner": {"y": 1}}, [UNKNOWN, "inner.x: missing; add this key"], id="unknown"),
        pytest.param({}, ["inner: missing; add this key"], id="missing"),
        pytest.param([1], ["is [1]; must be a mapping"], id="no mapping"),
        pytest.param({"inner": {"x": 1}, "share": float("nan")}, ["share: is nan; must be a finite number"], id="nan"),
        pytest.param({"inner": {"x": 1}, "models": {3: {"x": 1}}}, [QUOTE], id="key"),
        pytest.param({"inner": {"x": 1}, "size": [1]}, ["size[1]: missing; add this item"], id="short list"),
    ],
)  # fmt: skip
def test_it_says_what_to_do(value: object, expected: list[str]):
    assert problems(value) == expected


def test_rules_between_fields_are_checked_last():
    with pytest.raises(DocumentError, match=r"share: is 1\.0; must be below x"):
        parse(
            Outer,
            {"inner": {"x": 1}, "share": 1.0},
            lambda o: iter([Problem(key="share", wrong="is 1.0", remedy="must be below x")]),
        )


@record
class WithPolicy:
    policy: PolicyDocument | None = None


def test_a_field_with_its_own_parser_reports_its_problems_with_paths():
    with pytest.raises(DocumentError) as caught:
        parse(WithPolicy, {"policy": [{"rotate": 1}, {"zom": [1, 1]}], "polcy": 1})
    assert sorted(problem.key for problem in caught.value.problems) == ["polcy", "policy[0].rotate", "policy[1].zom"]
    assert parse(WithPolicy, {"policy": [{"rotate": [0, 1]}]}).policy == parse_policy([{"rotate": [0, 1]}])


@pytest.mark.parametrize("text", ["x: 0x" + "f" * 5000, "0x" + "f" * 5000 + ": 1"], ids=["value", "key"])
def test_a_number_of_thousands_of_digits_is_a_problem(text: str):
    with pytest.raises(DocumentError):
        parse(Inner, load_yaml(text))


@record
class Named:
    name: str
    number: float = 0
    names: tuple[str, ...] = ()
    more: dict[str, "Named"] = field(default_factory=dict)


def test_numbers_of_a_file_are_text_where_text_is_expected():
    text = "name: 1.10\nnumber: 1.10\nnames: [0x10, a, true]\nmore: {010: {name: 1e3, number: 1e3}}"
    more = {"010": Named(name="1e3", number=1000.0)}
    assert parse(Named, load_yaml(text)) == Named(name="1.10", number=1.1, names=("0x10", "a", "true"), more=more)


def test_null_is_no_text():
    with pytest.raises(DocumentError, match='name: is None; must be text: put it in quotes, like "null"'):
        parse(Named, load_yaml("name: null"))


def test_the_first_hundred_problems_are_reported():
    with pytest.raises(DocumentError) as caught:
        parse(Named, {"name": "a"} | {f"k{n}": 1 for n in range(500)})
    assert len(caught.value.problems) == 101
    assert str(caught.value.problems[-1]) == "has more problems; correct these first"
