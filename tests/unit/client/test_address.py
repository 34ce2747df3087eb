"""Sample addresses: what a row is must hang on (seed, index) and on nothing else."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from fount import address
from fount.address import MAX_INDEX, Addresses, Stream

EIGHTH_TURN = 2**29
QUARTER_TURN = 2**30


def latent(seed: int, start_index: int, count: int) -> np.ndarray:
    return Addresses.of_range(seed, start_index, count).normals(Stream.LATENT, 7)


def blocks_of(words: np.ndarray) -> set[bytes]:
    return {block.tobytes() for block in words.reshape(-1, 4)}


# --- A row belongs to its address -------------------------------------------------------------------------------------


def test_it_draws_a_row_independently_of_its_batch() -> None:
    together = latent(11, 0, 50)
    assert all(np.array_equal(together[i : i + 1], latent(11, i, 1)) for i in range(50))


@pytest.mark.parametrize("cuts", [[0, 50], [0, 1, 50], [0, 13, 26, 39, 50], list(range(51))], ids=len)
def test_it_draws_a_range_like_its_parts(cuts: list[int]) -> None:
    parts = [latent(11, low, high - low) for low, high in pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), latent(11, 0, 50))


@pytest.mark.parametrize("stream", [Stream.LABEL, Stream.ORDER], ids=["label", "order"])
def test_it_reads_a_single_uniform_like_those_of_a_batch(stream: Stream) -> None:
    for seed, start in ((0, 0), (11, 2**32 - 2), (2**64 - 1, MAX_INDEX - 3)):
        uniforms = Addresses.of_range(seed, start, 4).uniforms(stream, 1)[:, 0]
        assert [address.first_uniform(seed, start + k, stream) for k in range(4)] == uniforms.tolist()


def test_it_keeps_the_order_of_addresses() -> None:
    order = np.array([3, 0, 4, 1, 2])
    rows = Addresses.of_range(11, 0, 5).take(order).normals(Stream.LATENT, 7)
    assert np.array_equal(rows, latent(11, 0, 5)[order])


def test_it_accepts_several_seeds_in_one_batch() -> None:
    mixed = Addresses.concatenate([Addresses.of_range(1, 5, 2), Addresses.of_range(2, 9, 3)])
    assert np.array_equal(mixed.normals(Stream.LATENT, 7), np.concatenate([latent(1, 5, 2), latent(2, 9, 3)]))


def test_it_starts_a_row_alike_at_any_length() -> None:
    addresses = Addresses.of_range(11, 0, 5)
    assert np.array_equal(addresses.normals(Stream.LATENT, 64)[:, :7], addresses.normals(Stream.LATENT, 7))


def test_it_addresses_the_last_index() -> None:
    assert Addresses.of_range(1, MAX_INDEX - 2, 3).indices.tolist() == [2**64 - 3, 2**64 - 2, 2**64 - 1]


def test_it_draws_a_range_at_the_last_index_like_its_parts() -> None:
    singles = [latent(1, MAX_INDEX - 2 + i, 1) for i in range(3)]
    assert np.array_equal(latent(1, MAX_INDEX - 2, 3), np.concatenate(singles))


def test_it_returns_no_rows_for_an_empty_range() -> None:
    assert latent(1, 0, 0).shape == (0, 7)


def test_it_truncates_a_row_independently_of_its_batch() -> None:
    together = Addresses.of_range(11, 0, 20).normals(Stream.LATENT, 16, truncation=0.5)
    alone = [Addresses.of_range(11, i, 1).normals(Stream.LATENT, 16, truncation=0.5) for i in range(20)]
    assert np.array_equal(together, np.concatenate(alone))


# --- No two purposes share a number -----------------------------------------------------------------------------------


def test_it_shares_no_block_between_streams() -> None:
    addresses = Addresses.of_range(0, 0, 100)
    blocks = [blocks_of(addresses.words(stream, 400)) for stream in Stream]
    assert len(set.union(*blocks)) == len(Stream) * 100 * 100


def test_it_shares_no_block_between_seeds() -> None:
    blocks = [blocks_of(Addresses.of_range(seed, 0, 100).words(Stream.LATENT, 400)) for seed in (0, 1, 2**32, 2**63)]
    assert len(set.union(*blocks)) == 4 * 100 * 100


def test_it_shares_no_block_between_indices() -> None:
    starts = (0, 100, 2**32, 2**63)
    blocks = [blocks_of(Addresses.of_range(0, start, 100).words(Stream.LATENT, 400)) for start in starts]
    assert len(set.union(*blocks)) == 4 * 100 * 100


def test_it_shares_no_number_between_steps() -> None:
    addresses = Addresses.of_range(0, 0, 10)
    steps = np.concatenate([addresses.normals(Stream.STEP, 20, step=step) for step in (0, 1, 2, 999)])
    assert len(np.unique(steps)) == 4 * 10 * 20


def test_it_shares_no_number_between_redraws_and_steps() -> None:
    addresses = Addresses.of_range(0, 0, 10)
    steps = {float(z) for step in range(256) for z in addresses.normals(Stream.STEP, 4, step=step).ravel()}
    redrawn = addresses.normals(Stream.STEP, 4, step=0, truncation=0.1).ravel()
    first = addresses.normals(Stream.STEP, 4, step=0).ravel()
    assert not steps & {float(z) for z, drawn in zip(redrawn, first, strict=True) if z != drawn}


def test_it_treats_seed_0_like_any_other() -> None:
    assert not np.array_equal(latent(0, 0, 4), latent(1, 0, 4))


# --- Uniforms and truncation ------------------------------------------------------------------------------------------


def test_it_draws_uniforms_from_0_to_below_1() -> None:
    uniforms = Addresses.of_range(3, 0, 100_000).uniforms(Stream.LABEL, 1)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1


def test_it_draws_a_uniform_below_1_from_the_largest_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "philox4x32_10", lambda counter, key: np.full_like(counter, 2**32 - 1))
    assert Addresses.of_range(0, 0, 1).uniforms(Stream.LABEL, 1).item() == 1 - 2**-53


@pytest.mark.parametrize("bound", [0.1, 1.0, 4.0])
def test_it_keeps_truncated_normals_within_their_bound(bound: float) -> None:
    z = Addresses.of_range(3, 0, 100).normals(Stream.LATENT, 100, truncation=bound)
    assert np.abs(z).max() <= np.float32(bound)


def test_it_changes_only_normals_beyond_the_truncation() -> None:
    addresses = Addresses.of_range(3, 0, 100)
    free, bounded = addresses.normals(Stream.LATENT, 100), addresses.normals(Stream.LATENT, 100, truncation=1.0)
    assert np.array_equal(free == bounded, np.abs(free) <= 1)


def test_it_changes_nothing_when_no_normal_is_beyond_the_truncation() -> None:
    addresses = Addresses.of_range(3, 0, 10)
    free = addresses.normals(Stream.LATENT, 10)
    assert np.array_equal(addresses.normals(Stream.LATENT, 10, truncation=8.0), free)


# --- Errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first_block", [-1, 2**48])
def test_it_refuses_blocks_outside_48_bits(first_block: int) -> None:
    with pytest.raises(ValueError, match=r"outside 0 to 2\^48"):
        Addresses.of_range(0, 0, 1).words(Stream.LATENT, 1, first_block)


def test_it_reads_the_last_block() -> None:
    assert Addresses.of_range(0, 0, 1).words(Stream.LATENT, 4, 2**48 - 1).shape == (1, 4)


@pytest.mark.parametrize("truncation", [0.0, -1.0, math.nan])
def test_it_refuses_a_truncation_not_above_0(truncation: float) -> None:
    with pytest.raises(ValueError, match="truncation must be above 0"):
        Addresses.of_range(0, 0, 1).normals(Stream.LATENT, 1, truncation=truncation)


def test_it_refuses_truncation_where_redraws_would_overlap_steps() -> None:
    with pytest.raises(ValueError, match="of steps 0 to 255"):
        Addresses.of_range(0, 0, 1).normals(Stream.STEP, 1, step=256, truncation=1.0)


def test_it_refuses_a_truncation_that_redraws_do_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address, "_MAX_REDRAWS", 3)
    with pytest.raises(ValueError, match="was not reached in 3 redraws"):
        Addresses.of_range(0, 0, 1).normals(Stream.LATENT, 8, truncation=1e-6)


# --- Arithmetic that is the same on every processor -------------------------------------------------------------------


def uniforms_for_log() -> np.ndarray:
    words = np.random.Generator(np.random.Philox(1)).integers(0, 2**32, 20_000, np.uint64)
    edges = np.array([0, 1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, math.isqrt(2**63)], np.uint64)
    return (np.concatenate([words, edges]).astype(np.float64) + 0.5) * 2.0**-32


def test_it_computes_log_within_2_units_in_the_last_place() -> None:
    x = uniforms_for_log()
    expected = np.array([math.log(value) for value in x])
    assert (np.abs(address._log(x) - expected) / np.spacing(np.abs(expected))).max() <= 2


@pytest.mark.parametrize(("position", "function"), [(0, math.sin), (1, math.cos)], ids=["sine", "cosine"])
def test_it_computes_sine_and_cosine_within_2_units_in_the_last_place(
    position: int, function: Callable[[float], float]
) -> None:
    words = np.concatenate([np.arange(1, EIGHTH_TURN, 30_011), [EIGHTH_TURN - 1]]).astype(np.uint32)
    expected = np.array([function(word * (2 * math.pi * 2.0**-32)) for word in words.tolist()])
    drawn = address.sin_cos_of_turn(words)[position]
    assert (np.abs(drawn - expected) / np.spacing(expected)).max() <= 2


def test_it_computes_equal_sine_and_cosine_a_quarter_turn_apart() -> None:
    words = np.arange(0, 2**32, 100_003, dtype=np.uint64)
    sine, cosine = address.sin_cos_of_turn(words.astype(np.uint32))
    later_sine, later_cosine = address.sin_cos_of_turn(((words + QUARTER_TURN) % 2**32).astype(np.uint32))
    assert np.array_equal(later_sine, cosine)
    assert np.array_equal(later_cosine, -sine)


def test_it_computes_quarter_turns_exactly() -> None:
    sine, cosine = address.sin_cos_of_turn(np.array([0, 1, 2, 3], np.uint32) * np.uint32(QUARTER_TURN))
    assert sine.tolist() == [0, 1, 0, -1]
    assert cosine.tolist() == [1, 0, -1, 0]


def test_it_computes_equal_sine_and_cosine_at_an_eighth_of_a_turn() -> None:
    sine, cosine = address.sin_cos_of_turn(np.array([EIGHTH_TURN], np.uint32))
    assert abs(sine.item()) == pytest.approx(math.sqrt(0.5), abs=2e-16)
    assert abs(cosine.item()) == pytest.approx(math.sqrt(0.5), abs=2e-16)


def test_it_draws_no_normal_larger_than_the_smallest_word_allows() -> None:
    z = address._box_muller(np.zeros((1, 2), np.uint32))
    assert z[0].tolist() == pytest.approx([math.sqrt(2 * math.log(2**33)), 0.0])


def layouts(values: np.ndarray) -> list[np.ndarray]:
    """The same values: reversed twice, every third of a longer array, off its alignment, in a column."""
    spread = np.zeros(3 * len(values), values.dtype)
    spread[::3] = values
    shifted = np.frombuffer(b"\0" + values.tobytes(), np.uint8)[1:].view(values.dtype)
    column = np.zeros((len(values), 5), values.dtype)
    column[:, 2] = values
    return [values[::-1].copy()[::-1], spread[::3], shifted, column[:, 2]]


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 17, 64, 1001])
def test_it_computes_alike_at_any_array_length(length: int) -> None:
    x, words = uniforms_for_log()[:2000], np.arange(0, 2**32, 2147483, dtype=np.uint32)[:2000]
    assert address._log(x[:length]).tobytes() == address._log(x)[:length].tobytes()
    parts, whole = address.sin_cos_of_turn(words[:length]), address.sin_cos_of_turn(words)
    assert [part.tobytes() for part in parts] == [full[:length].tobytes() for full in whole]


@pytest.mark.parametrize("layout", range(4), ids=["reversed", "strided", "unaligned", "column"])
def test_it_computes_alike_in_any_array_layout(layout: int) -> None:
    x, words = uniforms_for_log()[:1001], np.arange(0, 2**32, 4294967, dtype=np.uint32)
    assert address._log(layouts(x)[layout]).tobytes() == address._log(x).tobytes()
    drawn, expected = address.sin_cos_of_turn(layouts(words)[layout]), address.sin_cos_of_turn(words)
    assert [part.tobytes() for part in drawn] == [part.tobytes() for part in expected]
