"""Plain values from YAML text, and back."""

import datetime
import math
import time

import pytest
import yaml

from fount.documents import DocumentError
from fount.plain_yaml import dump_yaml, load_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8", 8), ("-8", -8), ("+8", 8), ("0", 0), ("0x1F", 31), ("0o17", 15),
        ("1.10", 1.1), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-1.5E-3", -0.0015),
        ("true", True), ("True", True), ("FALSE", False), ("null", None), ("~", None), ("", None),
    ],
)  # fmt: skip
def test_it_reads_numbers_truth_values_and_null(text, value):
    found = load_yaml(f"[{text}]" if text else "[null]")[0]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text",
    ["010", "00014", "1:30", "1_000", "0b11", "yes", "no", "on", "off", "y", "tRue", "2024-01-01", "<<", "=", ".inf",
     ".nan", "1e999", "0x", "08.5", "1.2.3", "9" * 300],
)  # fmt: skip
def test_it_reads_everything_else_as_text(text):
    assert load_yaml(f"- {text}") == [text]


@pytest.mark.parametrize("text", ["8", "1.10", "true", "null", ""])
def test_it_reads_what_is_in_quotes_as_text(text):
    assert load_yaml(f"['{text}', \"{text}\"]") == [text, text]


def test_it_reads_keys_as_text():
    assert load_yaml("{8: a, 010: b, true: c, null: d, 1.10: e, <<: f}") == {
        "8": "a", "010": "b", "true": "c", "null": "d", "1.10": "e", "<<": "f",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", "# a comment", "---"])
def test_it_reads_an_empty_document_as_none(text):
    assert load_yaml(text) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("a: 1\nb: ]", "is not YAML at line 2: ", id="broken"),
        pytest.param(b"a: \xff", "is not YAML: ", id="no text"),
        pytest.param("a: 1\nb: {c: 1, c: 2}\n", "b.c: occurs twice on line 2; keep one of them", id="repeated"),
        pytest.param("a: 1\nb: 2\n'a': 3\n", "a: occurs on lines 1 and 3; keep one of them", id="repeated in quotes"),
        pytest.param('8: 1\n"8": 2', "8: occurs on lines 1 and 2; keep one of them", id="number and text"),
        pytest.param("[{a: 1}, {a: 1, a: 2}]", "[1].a: occurs twice on line 1; keep one of them", id="in a list"),
        pytest.param("a: &x 1", "has a YAML anchor (&) on line 1; leave it out", id="anchor"),
        pytest.param("a: 1\nb: *x", "has a YAML alias (*) on line 2; write the value out", id="alias"),
        pytest.param("a: !!str 1", "has a YAML tag (!) on line 1; leave it out", id="tag"),
        pytest.param("a: !!python/object:os.system 1", "has a YAML tag (!) on line 1; leave it out", id="code"),
        pytest.param("[a, b]: 1", "has a key on line 1 that is a list or a mapping; ", id="no key"),
        pytest.param("a: 1\n---\nb: 2", "has a second document on line 2; keep one", id="two documents"),
    ],
)
def test_it_says_what_it_does_not_read_and_on_which_line(text, message):
    with pytest.raises(DocumentError) as caught:
        load_yaml(text)
    assert str(caught.value).startswith(message)


def test_it_reads_no_more_of_a_file_than_it_may(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 123456789")
    with pytest.raises(DocumentError, match="is larger than 10 bytes"):
        read_yaml(tmp_path / "a.yaml", 10)


@pytest.mark.parametrize("opening", ["[", "{", "- ", "? ", "{a: ", "&a ", "!a ", "- - ? "])
def test_it_refuses_a_mebibyte_that_only_opens_in_a_moment(opening):
    started = time.process_time()
    with pytest.raises(DocumentError):
        load_yaml(opening * (2**20 // len(opening)))
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "text", ["[" + "1," * 2**19 + "]", "{" + "a," * 2**19 + "}", "- {a: b}\n" * 2**17], ids=["list", "keys", "mappings"]
)
def test_it_refuses_too_many_values_before_it_keeps_them(text):
    with pytest.raises(DocumentError, match="has more than 262144 keys and values by line"):
        load_yaml(text)


def test_it_reads_64_levels():
    assert load_yaml("[" * 64 + "]" * 64) == load_yaml("[" * 64 + "]" * 64)
    with pytest.raises(DocumentError, match="is nested more than 64 deep on line 1"):
        load_yaml("[" * 65 + "]" * 65)


TEXTS = [
    "010", "1e3", "1.10", "0o7", "0x10", "1_000", "1:30", "true", "No", "on", "null", "~", "", "2024-01-01", "<<", "=",
    "8", " a ", "#2", "a: b", "*x", "ä\n", "- a", "1e999", ".inf",
]  # fmt: skip


@pytest.mark.parametrize("flow", [True, False, None])
def test_it_writes_text_that_every_reader_reads_as_the_same_text(flow):
    value = {"texts": TEXTS, "keys": dict.fromkeys(TEXTS, 1)}
    assert load_yaml(dump_yaml(value, flow=flow)) == value
    assert yaml.safe_load(dump_yaml(value, flow=flow)) == value


def test_it_writes_numbers_that_are_read_back_equal():
    values = [0, -1, 2**64, 0.1, 1e-05, 1e16, math.pi, -0.5, True, None]
    assert load_yaml(dump_yaml(values)) == values


def test_it_writes_repeated_values_out():
    ends = [0.0, 1.0]
    assert load_yaml(dump_yaml([ends, ends])) == [ends, ends]


def test_it_does_not_write_what_it_cannot_read():
    with pytest.raises(yaml.YAMLError):
        dump_yaml({"a": datetime.date(2024, 1, 1), "b": object()})
