"""Data sets of text: closed forms of grammars, rows that begin with lines, and passages that are copies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from handlers.recipes.data.load import load_data
from handlers.recipes.data.text import (
    GRAMMAR,
    VERSE_FILE,
    DataError,
    Grammar,
    draw_sentences,
    rows_of_lines,
    split_text,
    to_text,
)
from handlers.recipes.quality.texts import copied_lengths, whole_sentences

NESTED = Grammar(rules={"S": ((0.5, ("a",)), (0.5, ("b", "S", "c")))})  # a, bac, bbacc, ...
GOOD, WRONG = "the cat that the dogs see sleeps.", "the cat that the dogs see sleep."


def derivation(symbol: str, uniforms: Iterator[float]) -> tuple[str, float]:
    """Derive a sentence, and the log probability of the choices made."""
    if symbol not in GRAMMAR.rules:
        return symbol, 0.0
    rules = GRAMMAR.rules[symbol]
    ends = list(itertools.accumulate(p for p, _ in rules))
    chosen = min(int(np.searchsorted(ends, next(uniforms), side="right")), len(rules) - 1)
    parts = [derivation(part, uniforms) for part in rules[chosen][1]]
    return "".join(text for text, _ in parts), math.log(rules[chosen][0]) + sum(p for _, p in parts)


# --- Grammars ---------------------------------------------------------------------------------------------------------


def test_closed_forms_of_nested_brackets_are_those_of_a_geometric_law() -> None:
    assert NESTED.entropy == pytest.approx(2 * math.log(2))
    assert NESTED.mean_length == pytest.approx(3 + 1)
    assert NESTED.entropy_rate == pytest.approx(math.log(2) / 2)
    assert NESTED.log_probability("bbacc") == pytest.approx(3 * math.log(0.5))


@pytest.mark.parametrize("text", ["bbac", "baca", "c", ""])
def test_a_text_that_is_no_whole_sentence_has_no_probability(text: str) -> None:
    assert NESTED.log_probability(text) == -math.inf


@pytest.mark.parametrize(
    ("text", "halvings"), [("", 0), ("b", 1), ("bb", 2), ("bba", 3), ("a\n", 1), ("a\nb", 2), ("bac\nbba", 5)]
)
def test_the_beginning_of_a_text_has_the_probability_of_all_that_begin_so(text: str, halvings: int) -> None:
    assert NESTED.log_probability_of_beginning(text) == pytest.approx(halvings * math.log(0.5))


def test_each_sentence_of_the_grammar_has_one_derivation() -> None:
    generator = np.random.default_rng(0)
    for _ in range(150):
        text, expected = derivation("TEXT", iter(lambda: float(generator.random()), None))
        assert GRAMMAR.log_probability(text) == pytest.approx(expected)


def test_probabilities_of_replacements_add_up_to_1() -> None:
    assert [math.fsum(p for p, _ in rules) for rules in GRAMMAR.rules.values()] == pytest.approx([1.0] * 17)


def test_sentences_have_the_entropy_and_length_of_the_closed_forms() -> None:
    sentences = draw_sentences(0, 2000)
    surprise = -np.array([GRAMMAR.log_probability(sentence) for sentence in sentences[:500]])
    assert surprise.mean() == pytest.approx(GRAMMAR.entropy, abs=4 * surprise.std() / math.sqrt(500))
    lengths = np.array([len(sentence) + 1 for sentence in sentences])
    assert lengths.mean() == pytest.approx(GRAMMAR.mean_length, abs=4 * lengths.std() / math.sqrt(2000))


def test_a_sentence_is_the_same_wherever_drawing_starts() -> None:
    assert draw_sentences(0, 40)[25:] == draw_sentences(25, 15)


def test_verbs_agree_with_subjects_beyond_the_clause_between_them() -> None:
    assert GRAMMAR.log_probability(GOOD) > -math.inf
    assert GRAMMAR.log_probability(WRONG) == -math.inf


# --- Rows -------------------------------------------------------------------------------------------------------------


def test_every_row_begins_with_a_line() -> None:
    text = b"ab\ncdef\ng\nhijk\n"
    overlapping, apart = (rows_of_lines(text, 5, overlapping=each) for each in (True, False))
    assert [to_text(row) for row in overlapping] == ["ab\ncd", "cdef\n", "g\nhij", "hijk\n"]
    assert [to_text(row) for row in apart] == ["ab\ncd", "g\nhij"]


def test_a_text_is_split_at_a_line() -> None:
    text = b"".join(b"line %d\n" % number for number in range(100))
    train, test = split_text(text)
    assert train + test == text
    assert test.startswith(b"line ")
    assert 85 <= train.count(b"\n") <= 95


def test_the_plays_are_found_next_to_other_data(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / VERSE_FILE).write_bytes(b"A line of verse.\n" * 1000)
    for folder in (tmp_path, tmp_path / "text"):
        data = load_data("verse", folder)
        assert data.train.images.shape[1:] == (192,)
        assert data.train.images.dtype == torch.float32


@pytest.mark.parametrize("folder", [None, Path("nowhere")])
def test_missing_plays_are_reported_with_their_source(folder: Path | None) -> None:
    with pytest.raises(DataError, match="char-rnn"):
        load_data("verse", folder)


@pytest.mark.parametrize("content", [b"one line\n", b"\0" * 1000 + b"\n" * 1000])
def test_a_file_that_is_no_text_of_plays_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / VERSE_FILE).write_bytes(content)
    with pytest.raises(DataError, match="get it again"):
        load_data("verse", tmp_path)


# --- Measures ---------------------------------------------------------------------------------------------------------


def test_the_longest_copied_passage_is_found() -> None:
    rows = [b"xxabcdexx", b"zzzzzzzzz", b"edcbaedcb", b"cdefabxxx"]
    found = copied_lengths(torch.tensor([list(row) for row in rows]).float(), b"abcdef edc")
    assert found.tolist() == [5, 0, 3, 4]


def test_a_whole_copy_has_the_length_of_its_row() -> None:
    text = bytes(range(97, 117))
    assert copied_lengths(torch.tensor([list(text)]).float(), b"..." + text).tolist() == [20]


def test_the_last_line_of_a_sample_is_no_whole_sentence() -> None:
    row = torch.tensor(list(f"{GOOD}\n{WRONG}\nthe ca".encode())).float()
    assert whole_sentences(row) == [GOOD, WRONG]
