"""Data sets of text, as rows of bytes: Shakespeare's plays, and sentences of a known grammar.

A folder or nothing enters; training and test rows of a fixed length leave, each beginning at the beginning of a line.
Sentences are drawn by address, so that they are the same on every machine, and every probability of theirs is known.

Sources: the file of Karpathy, github.com/karpathy/char-rnn, data/tinyshakespeare; Booth and Thompson, "Applying
probability measures to abstract languages", 1973 (expected numbers and entropy of derivations); Jelinek and Lafferty,
"Computation of the probability of initial substring generation by stochastic context-free grammars", 1991.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fount.address import Addresses, Stream
from fount.readers.dataset import DataError

__all__ = [
    "GRAMMAR", "GRAMMAR_LENGTH", "GRAMMAR_LICENCE", "VERSE_FILE", "VERSE_LENGTH", "VERSE_LICENCE", "Grammar",
    "draw_sentences", "read_verse", "rows_of_lines", "split_text", "to_text",
]  # fmt: skip

VERSE_FILE, VERSE_LENGTH = "tinyshakespeare.txt", 192
VERSE_LICENCE = "public domain: plays of William Shakespeare, as in github.com/karpathy/char-rnn"
GRAMMAR_LENGTH = 96
GRAMMAR_LICENCE = "none: the sentences are drawn from a known grammar by address"

_TRAINED_SHARE = 0.9  # of the text; the rest is for tests
_SEED, _BLOCK = 20264, 32  # uniforms of a sentence that are read together
_END = "\n"

_Symbols = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Grammar:
    """A probabilistic context-free grammar without left recursion and without empty rules, in which every text has at
    most one derivation; all closed forms need that.

    Attributes:
        rules: by symbol, starting with the start symbol: probabilities and replacements, sequences of symbols and text.
    """  # noqa: D205

    rules: Mapping[str, Sequence[tuple[float, _Symbols]]]

    @cached_property
    def start(self) -> str:
        """The symbol of a whole sentence."""
        return next(iter(self.rules))

    @cached_property
    def _uses(self) -> NDArray[np.float64]:
        """Compute how often each symbol is replaced in a sentence, on average, in the order of the rules.

        Source: Booth and Thompson 1973: n = e + Mᵀn, where M counts the symbols in the replacements of each.
        """
        names = list(self.rules)
        means = np.array(
            [[sum(p * right.count(name) for p, right in self.rules[left]) for name in names] for left in names]
        )
        return np.linalg.solve(np.eye(len(names)) - means.T, np.eye(len(names))[0])

    @property
    def entropy(self) -> float:
        """Entropy of a sentence in nats: that of each choice, as often as it is made."""
        choices = [-sum(p * math.log(p) for p, _ in rules) for rules in self.rules.values()]
        return float(self._uses @ np.array(choices))

    @property
    def mean_length(self) -> float:
        """Mean length of a sentence in bytes, with the end of its line."""
        written = [
            sum(p * len("".join(part for part in right if part not in self.rules)) for p, right in rules)
            for rules in self.rules.values()
        ]
        return float(self._uses @ np.array(written)) + len(_END)

    @property
    def entropy_rate(self) -> float:
        """Entropy of a long text of sentences, in nats per byte."""
        return self.entropy / self.mean_length

    def draw(self, uniforms: Iterator[float]) -> str:
        """Draw a sentence; each replacement takes one uniform."""
        text, stack = "", [self.start]
        while stack:
            if (symbol := stack.pop()) not in self.rules:
                text += symbol
                continue
            remaining = next(uniforms)
            right: _Symbols = ()
            for probability, right in self.rules[symbol]:  # noqa: B007 - the last rule, if rounding left a rest
                remaining -= probability
                if remaining < 0:
                    break
            stack += reversed(right)
        return text

    def log_probability(self, sentence: str) -> float:
        """Compute log p of a whole sentence without the end of its line, in nats; -inf for one that is not valid."""
        return _log(self._read({(self.start,): 1.0}, sentence).get((), 0.0))

    def log_probability_of_beginning(self, text: str) -> float:
        """Compute log p that a text of sentences, one in each line, begins like this, in nats.

        The last line may be part of a sentence: its probability is that of all sentences that begin so.
        """
        *sentences, part = text.split(_END)
        begun = sum(self._read({(self.start,): 1.0}, part).values()) if part else 1.0
        return math.fsum([*map(self.log_probability, sentences), _log(begun)])

    def _read(self, stacks: dict[_Symbols, float], text: str) -> dict[_Symbols, float]:
        """Read a text by all leftmost derivations at once.

        Args:
            stacks: what is still to be written, the next first, with its probability.
            text: what is written.

        Returns:
            The same after the text; what cannot have written it is left out.
        """
        for character in text:
            after: dict[_Symbols, float] = {}
            waiting = list(stacks.items())
            while waiting:
                stack, probability = waiting.pop()
                if not stack:
                    continue
                if (first := stack[0]) in self.rules:
                    waiting += [((*right, *stack[1:]), probability * share) for share, right in self.rules[first]]
                elif first[0] == character:
                    rest = (first[1:], *stack[1:]) if len(first) > 1 else stack[1:]
                    after[rest] = after.get(rest, 0.0) + probability
            stacks = after
        return stacks


def _either(*words: str) -> tuple[tuple[float, _Symbols], ...]:
    return tuple((1 / len(words), (word,)) for word in words)


GRAMMAR = Grammar(
    rules=MappingProxyType(
        {
            "TEXT": (
                (0.7, ("CLAUSE", ".")),
                (0.2, ("CLAUSE", " and ", "CLAUSE", ".")),
                (0.1, ("if ", "CLAUSE", ", then ", "CLAUSE", ".")),
            ),
            "CLAUSE": ((0.6, ("ONE", " ", "ONE_ACTS")), (0.4, ("MANY", " ", "MANY_ACT"))),
            "ONE": ((0.85, ("ONE_PLAIN",)), (0.15, ("ONE_PLAIN", " that ", "RELATIVE"))),
            "MANY": ((0.85, ("MANY_PLAIN",)), (0.15, ("MANY_PLAIN", " that ", "RELATIVE"))),
            "ONE_PLAIN": ((0.5, ("the ", "CAT")), (0.3, ("a ", "CAT")), (0.2, ("the ", "SMALL", " ", "CAT"))),
            "MANY_PLAIN": ((0.6, ("the ", "CATS")), (0.4, ("SMALL", " ", "CATS"))),
            "RELATIVE": ((0.6, ("ONE", " ", "SEES")), (0.4, ("MANY", " ", "SEE"))),
            "ONE_ACTS": ((0.5, ("SLEEPS",)), (0.5, ("SEES", " ", "OTHER"))),
            "MANY_ACT": ((0.5, ("SLEEP",)), (0.5, ("SEE", " ", "OTHER"))),
            "OTHER": ((0.6, ("ONE",)), (0.4, ("MANY",))),
            "CAT": _either("cat", "dog", "bird", "fox"),
            "CATS": _either("cats", "dogs", "birds", "foxes"),
            "SMALL": _either("small", "old", "red"),
            "SLEEPS": _either("sleeps", "runs"),
            "SLEEP": _either("sleep", "run"),
            "SEES": _either("sees", "hears"),
            "SEE": _either("see", "hear"),
        }
    )
)
"""English of a few words: verbs agree with their subjects, also after clauses put between both."""


def draw_sentences(first: int, count: int) -> list[str]:
    """Draw sentences of `GRAMMAR` by address."""
    addresses = Addresses.of_range(_SEED, first, count)
    blocks = addresses.uniforms(Stream.LATENT, _BLOCK)  # (count, block)
    return [GRAMMAR.draw(_go_on(block, addresses.take(slice(row, row + 1)))) for row, block in enumerate(blocks)]


def _go_on(block: NDArray[np.float64], address: Addresses) -> Iterator[float]:
    """Yield the uniforms of one sentence; those after the first ones are read when they are needed."""
    step = 0
    while True:
        yield from block.tolist()
        step += 1
        block = address.uniforms(Stream.LATENT, _BLOCK, step=step)[0]


def read_verse(folder: Path | None) -> bytes:
    """Read the plays from a folder, or from `text` in it.

    Raises:
        DataError: the file is missing or damaged.
    """
    places = [] if folder is None else [folder, folder / "text", folder.parent / "text"]
    for place in places:
        if (file := place / VERSE_FILE).is_file():
            text = file.read_bytes()
            if text.count(b"\n") < VERSE_LENGTH or 0 in text:
                raise DataError(f"{file} is not the text of plays; get it again")
            return text
    searched = f" (looked in {', '.join(map(str, places))})" if places else ""
    raise DataError(
        f"the text {VERSE_FILE} is missing{searched}; get it from data/tinyshakespeare of github.com/karpathy/"
        "char-rnn, and name its folder with --data DIR or FOUNT_DATA"
    )


def split_text(text: bytes) -> tuple[bytes, bytes]:
    """Split a text at the beginning of a line into the part to train on, and the part for tests."""
    at = text.index(b"\n", int(_TRAINED_SHARE * len(text))) + 1
    return text[:at], text[at:]


def rows_of_lines(text: bytes, length: int, *, overlapping: bool) -> Tensor:
    """Take the rows that begin at the beginning of a line.

    Args:
        text: lines.
        length: of a row; the end of the text is left out where it is shorter.
        overlapping: every line begins a row; else those that begin after the end of the row before.

    Returns:
        (N, length) float32.
    """
    values = np.frombuffer(text, np.uint8)
    starts = np.concatenate([[0], np.flatnonzero(values == ord(_END)) + 1])
    starts = starts[starts <= len(values) - length]
    if not overlapping:
        kept, end = [], 0
        for start in starts.tolist():
            if start >= end:
                kept.append(start)
                end = start + length
        starts = np.array(kept)
    return torch.from_numpy(np.lib.stride_tricks.sliding_window_view(values, length)[starts].astype(np.float32))


def to_text(row: Tensor) -> str:
    """Decode a row of bytes without the zeros at its end; what is not UTF-8 is shown as a mark."""
    return bytes(row.to(torch.uint8).tolist()).rstrip(b"\0").decode(errors="replace")


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf
