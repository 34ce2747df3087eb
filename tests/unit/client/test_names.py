"""The class that a text stands for."""

import pytest

from fount.names import class_index, indices_of, numbers_read_as_names

NAMES = ("0", "1", "10", "11", "2", "cat", "#5", "caf\u00e9")


@pytest.mark.parametrize(
    ("text", "index"),
    [
        pytest.param("2", 4, id="the name of a class"),
        pytest.param("#2", 2, id="an index"),
        pytest.param("3", 3, id="a number that names no class"),
        pytest.param("cat", 5, id="text"),
        pytest.param("#5", 6, id="a name that begins with #"),
        pytest.param("cafe\u0301", 7, id="decomposed"),
        pytest.param("7", 7, id="the last index"),
        pytest.param("8", None, id="an index too large"),
        pytest.param("#8", None, id="an index too large after #"),
        pytest.param("03", None, id="leading zeros"),
        pytest.param("#03", None, id="leading zeros after #"),
        pytest.param("-1", None, id="negative"),
        pytest.param("\u0663", None, id="digits of another script"),
        pytest.param("9" * 5000, None, id="thousands of digits"),
        pytest.param("dog", None, id="no class"),
        pytest.param("", None, id="empty"),
    ],
)
def test_it_is_a_name_first_and_then_an_index(text, index):
    assert class_index(text, NAMES) == index
    assert class_index(text, NAMES, indices_of(NAMES)) == index


def test_it_finds_nothing_without_classes():
    assert class_index("0", ()) is None


def test_numbers_are_ambiguous_that_name_one_class_and_number_another():
    assert numbers_read_as_names(["0", "1", "10", "2", "3", "cat", "#5", "#2"], NAMES) == ["2"]


def test_a_name_that_occurs_twice_has_its_first_index():
    assert indices_of(("cat", "dog", "cat")) == {"cat": 0, "dog": 1}
