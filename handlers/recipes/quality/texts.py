"""The quality entries of models of text: likelihoods of held-out text, valid sentences, and passages that are copies.

A model and its data enter; entries for its card leave. Sentences of a known grammar are compared with their law. A
passage is found verbatim by comparing hashes of all passages of equal length, from one byte up.

Source: Karp and Rabin, "Efficient randomized pattern-matching algorithms", 1987 (the hash).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fount.address import Addresses
from fount.intervals import wilson_interval
from handlers.cards.card import Quality
from handlers.family import Deadline, Draw, Noise, Sampler, Scorer
from handlers.recipes.data.load import TrainingData
from handlers.recipes.data.text import GRAMMAR, to_text
from handlers.recipes.quality.measures import OPTIMISTIC, mean_entry, quality_entry

__all__ = ["copied_lengths", "draw_texts", "measure_texts", "whole_sentences"]

_SEED = 20265  # of the samples that are measured
_CHUNK = 64
_CPU = torch.device("cpu")
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no byte of a passage is lost modulo 2^64
_GRAMMAR = "grammar"


@torch.inference_mode()
def measure_texts(data: TrainingData, module: Scorer, sampler: Sampler, count: int) -> Iterator[Quality]:
    """Measure a model of text.

    Args:
        data: what it was trained on.
        module: on the CPU, in evaluation mode.
        sampler: the model as it is served.
        count: of samples.
    """
    yield _measure_likelihood(data, module)
    samples = draw_texts(sampler, _SEED, count)
    if data.name == _GRAMMAR:
        yield _measure_sentences(samples)
    yield _measure_copies(data, samples)


@torch.inference_mode()
def draw_texts(sampler: Sampler, seed: int, count: int, device: torch.device = _CPU) -> Tensor:
    """Draw samples 0 to count - 1 of a seed, (count, length) float32 bytes."""
    parts = []
    for start in range(0, count, _CHUNK):
        noise = Noise(addresses=Addresses.of_range(seed, start, min(_CHUNK, count - start)), device=device)
        parts.append(sampler.sample(noise, None, Draw(), Deadline()).float().cpu())
    return torch.cat(parts)


def whole_sentences(row: Tensor) -> list[str]:
    """Take the lines of a text, (length,), without the last, which may be cut."""
    return to_text(row).split("\n")[:-1]


def copied_lengths(rows: Tensor, text: bytes) -> Tensor:
    """Find the longest passage of each row that is in a text.

    Args:
        rows: (N, L) bytes.
        text: of any length.

    Returns:
        (N,) int64 lengths in bytes.
    """
    length = rows.shape[1]
    values = [rows.to(torch.uint8).numpy().reshape(-1), np.frombuffer(text, np.uint8)]
    starts = [np.arange(len(each)) for each in values]  # of the passages that both have
    ends = [starts[0] // length * length + length, np.full(len(values[1]), len(values[1]))]
    hashes = [np.zeros(len(each), np.uint64) for each in values]
    longest = np.zeros(len(rows), np.int64)
    for size in range(1, length + 1):
        for side in range(2):
            fits = starts[side] + size <= ends[side]
            starts[side], ends[side], hashes[side] = starts[side][fits], ends[side][fits], hashes[side][fits]
            added = values[side][starts[side] + size - 1].astype(np.uint64) + np.uint64(1)
            hashes[side] = hashes[side] * _BASE + added  # modulo 2^64
        known, numbers = np.unique(hashes[0], return_inverse=True)
        places = np.searchsorted(known, hashes[1]).clip(max=len(known) - 1)
        is_shared = known[places] == hashes[1] if len(known) else np.zeros(len(hashes[1]), bool)
        found = np.zeros(len(known), bool)
        found[places[is_shared]] = True
        for side, kept in enumerate((found[numbers], is_shared)):
            starts[side], ends[side], hashes[side] = starts[side][kept], ends[side][kept], hashes[side][kept]
        longest[starts[0] // length] = size
    return torch.from_numpy(longest)


def _measure_likelihood(data: TrainingData, module: Scorer) -> Quality:
    rows = data.test.images
    length, parts = rows.shape[1], []
    for part in torch.split(rows, _CHUNK):
        noise = Noise(addresses=Addresses.of_range(_SEED, 0, len(part)), device=_CPU)
        parts.append(-module.score(part, None, noise, Draw(), Deadline())[:, 0] / length)
    method = (
        f"mean of -log p(x), in nats per byte, of {len(rows)} held-out passages of {length} bytes that begin with a "
        "line, each scored without what is before it"
    )
    real: float | None = None
    if data.name == _GRAMMAR:
        exact = [-GRAMMAR.log_probability_of_beginning(to_text(row)) / length for row in rows]
        real = math.fsum(exact) / len(exact)
        method += (
            "; the real value is that of the law, for the same passages, below which only chance gets; its entropy "
            f"rate is {GRAMMAR.entropy_rate:.4f}"
        )
    else:
        method += f"; {OPTIMISTIC}"
    return mean_entry("test-nats-per-byte", torch.cat(parts), method, real=real)


def _measure_sentences(samples: Tensor) -> Quality:
    sentences = [sentence for row in samples for sentence in whole_sentences(row)]
    valid, count = sum(map(_is_valid, sentences)), len(sentences)
    method = (
        f"share of the {count} whole sentences of {len(samples)} samples that the grammar can derive; the last line "
        "of a sample, which may be cut, is left out; Wilson interval, as if sentences were independent"
    )
    share = valid / count if count else 0.0
    interval = wilson_interval(valid, count) if count else (0.0, 1.0)
    return quality_entry("valid-sentence-share", share, interval, 1.0, method)


def _is_valid(sentence: str) -> bool:
    return GRAMMAR.log_probability(sentence) > -math.inf


def _measure_copies(data: TrainingData, samples: Tensor) -> Quality:
    text, real = _join_lines(data.train.images), data.test.images[: len(samples)]
    lengths, known = copied_lengths(samples, text), copied_lengths(real, text)
    method = (
        f"mean length in bytes of the longest passage of a sample that is in the training text verbatim, over "
        f"{len(samples)} samples of {samples.shape[1]} bytes; the longest of all has {int(lengths.max())} bytes; the "
        f"real value is of {len(real)} held-out passages, whose longest has {int(known.max())} bytes"
    )
    return mean_entry("copied-passage-bytes", lengths, method, real=float(known.double().mean()))


def _join_lines(rows: Tensor) -> bytes:
    """Join the first lines of rows that each begin with another line of a text; longer ones are kept in part."""
    lines: Sequence[bytes] = [bytes(row.tolist()) for row in rows.to(torch.uint8)]
    return b"".join(line[: line.find(b"\n") + 1] or line + b"\0" for line in lines)
