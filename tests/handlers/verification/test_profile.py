"""Profiles: which batch sizes give a row the same bits."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from fount.address import Addresses
from handlers.cards.card import load_card
from handlers.execution.batch_plan import BatchTimes
from handlers.execution.batches import BatchRunner, Work
from handlers.execution.network import build_network
from handlers.execution.numerics import configure_torch, read_numerics
from handlers.execution.probes import make_probe_rows
from handlers.family import Deadline
from handlers.loading.build import build_module
from handlers.settings import Settings
from handlers.state import State
from handlers.verification.profile import Profile, ProfileError, choose_sizes, load_or_measure_profile, measure_profile
from tests.handlers.toys import (
    BatchCoupledSampler,
    FunctionalSampler,
    RandomSampler,
    RoundingSampler,
    SizeCoupledSampler,
    ToyClassifier,
    ToySampler,
    classifier_card,
    toy_card,
)

DIGEST = "sha256:" + "5" * 64


def _measure(module: nn.Module) -> tuple[int, ...]:
    return measure_profile(build_network(toy_card(), module, Settings())).exec_batch_sizes


def _load(state_dir: Path, max_exec_batch: int = 32) -> Profile:
    network = build_network(toy_card(max_exec_batch=max_exec_batch), ToySampler(3), Settings())
    return load_or_measure_profile(network, DIGEST, read_numerics(Settings()), State(folder=state_dir))


def test_the_largest_group_of_equal_sizes_is_chosen() -> None:
    assert choose_sizes({1: (b"a",), 8: (b"b",), 16: (b"b",), 32: (b"c",)}) == (8, 16)


def test_of_equally_large_groups_the_one_with_the_largest_size_is_chosen() -> None:
    assert choose_sizes({1: (b"a",), 8: (b"b",), 16: (b"a",), 32: (b"b",)}) == (8, 32)


def test_a_size_that_disagrees_with_itself_is_dropped() -> None:
    assert choose_sizes({1: (b"a",), 8: None, 16: None}) == (1,)


def test_no_size_is_chosen_when_all_disagree_with_themselves() -> None:
    assert choose_sizes({1: None, 8: None}) == ()


def test_small_sizes_never_decide_between_groups() -> None:
    assert choose_sizes({1: (b"a",), 2: (b"a",), 4: (b"a",), 8: (b"b",), 16: (b"b",)}) == (8, 16)


def test_small_sizes_join_the_chosen_group() -> None:
    assert choose_sizes({1: (b"a",), 2: (b"b",), 4: (b"a",), 8: (b"b",), 16: (b"b",)}) == (2, 8, 16)


def test_sizes_agree_in_the_rows_that_both_ran() -> None:
    assert choose_sizes({1: (b"a",), 8: (b"a", b"b"), 16: (b"a", b"c"), 32: (b"a", b"c")}) == (1, 16, 32)


def test_a_layer_that_depends_on_the_batch_is_padded_so_that_any_size_runs() -> None:
    profile = measure_profile(build_network(toy_card(), RoundingSampler(3), Settings()))
    assert profile.exec_batch_sizes == (1, 2, 4, 8, 16, 32)
    assert profile.padding == {"decode.2": {1: 4, 2: 4}}


def test_rows_have_the_bytes_that_they_had_in_large_batches() -> None:
    network = build_network(toy_card(), RoundingSampler(3), Settings())
    rows = make_probe_rows(network.card, "SAMPLE", Addresses.of_range(1, 0, 8))
    unpadded = network.run("SAMPLE", rows)
    measure_profile(network)
    alone = [network.run("SAMPLE", rows.take(slice(row, row + 1))) for row in range(8)]
    assert np.concatenate(alone).tobytes() == unpadded.tobytes()


def test_the_whole_network_runs_padded_where_no_layer_explains_a_difference(caplog: pytest.LogCaptureFixture) -> None:
    network = build_network(toy_card(), FunctionalSampler(3), Settings())
    with caplog.at_level("INFO"):
        profile = measure_profile(network)
    assert (profile.exec_batch_sizes, profile.padding) == ((4, 8, 16, 32), {})
    assert "batches of [1, 2] run padded: no single layer explains" in caplog.text


def test_a_stored_profile_pads_the_same_layers_again(tmp_path: Path) -> None:
    def load_rounding() -> Profile:
        network = build_network(toy_card(), RoundingSampler(3), Settings())
        return load_or_measure_profile(network, DIGEST, read_numerics(Settings()), State(folder=tmp_path))

    first = load_rounding()
    assert load_rounding() == first
    _edit(tmp_path, padding={})
    assert load_rounding().padding == {"decode.2": {1: 4, 2: 4}}


@pytest.mark.parametrize("padding", [None, {"decode": 4}, {"decode": {"x": 4}}, {"decode": {"4": 2}}], ids=str)
def test_malformed_stored_padding_is_measured_again(tmp_path: Path, padding: object) -> None:
    _load(tmp_path)
    _edit(tmp_path, padding=padding, seconds_per_batch={str(size): 777.0 for size in (1, 2, 4, 8, 16, 32)})
    assert 777.0 not in _load(tmp_path).seconds_per_batch.values()


def test_calls_of_any_size_give_the_shipped_gan_the_same_bytes() -> None:
    folder = Path("model_store/mnist-cgan")
    card = load_card(folder)
    card = dataclasses.replace(card, limits=dataclasses.replace(card.limits, max_exec_batch=64))
    configure_torch(Settings())
    network = build_network(card, build_module(card, folder), Settings())
    times = BatchTimes(measured=_known(measure_profile(network)))
    rows = make_probe_rows(card, "SAMPLE", Addresses.of_range(1, 0, 85))

    def run(*counts: int) -> bytes:
        """Run one call after another."""
        values, start = b"", 0
        for count in counts:
            work = Work(rows=rows.take(slice(start, start + count)), encode=lambda floats: floats)
            BatchRunner(
                compute=partial(network.run, "SAMPLE"),
                times=times,
                deadline=Deadline(),
                request_id="r",
                on_device_lost=lambda: None,
            ).run([work])
            values, start = values + work.values.tobytes(), start + count
        return values

    assert run(1, 2, 3, 7, 8, 64) == run(85) == run(64, 8, 7, 3, 2, 1)


def _known(profile: Profile) -> dict[int, float]:
    return {size: profile.seconds_per_batch[size] for size in profile.exec_batch_sizes}


def test_a_family_that_depends_on_the_size_keeps_one_group() -> None:
    assert _measure(SizeCoupledSampler(3)) == (16, 32)


def test_a_family_that_couples_rows_runs_them_alone() -> None:
    assert _measure(BatchCoupledSampler(3)) == (1,)


def test_a_random_family_has_no_profile() -> None:
    with pytest.raises(ProfileError, match="look for randomness or state in the family"):
        _measure(RandomSampler(3))


def test_sizes_stay_within_the_cards_limit() -> None:
    assert max(_measure(ToySampler(3))) <= 32


def test_a_classifier_has_a_profile() -> None:
    network = build_network(classifier_card(), ToyClassifier(3), Settings())
    assert max(measure_profile(network).exec_batch_sizes) == 32


def test_seconds_are_measured_for_every_candidate(tmp_path: Path) -> None:
    seconds = _load(tmp_path).seconds_per_batch
    assert list(seconds) == [1, 2, 4, 8, 16, 32]
    assert all(value > 0 for value in seconds.values())


def test_a_smaller_batch_never_costs_more_than_a_larger_one(tmp_path: Path) -> None:
    seconds = list(_load(tmp_path).seconds_per_batch.values())
    assert seconds == sorted(seconds)


def test_a_stored_profile_without_the_time_of_a_size_is_measured_again(tmp_path: Path) -> None:
    _load(tmp_path)
    _edit(tmp_path, seconds_per_batch={"1": 777.0})
    assert 777.0 not in _load(tmp_path).seconds_per_batch.values()


def test_a_compiled_model_runs_no_large_batches() -> None:
    network = build_network(toy_card(max_exec_batch=256), ToySampler(3), Settings(compiled=True))
    assert max(measure_profile(network).seconds_per_batch) == 64


def test_a_profile_is_stored_by_digest_and_numerics(tmp_path: Path) -> None:
    _load(tmp_path)
    assert (tmp_path / "profiles" / "5555555555555555" / f"{read_numerics(Settings()).id}.json").is_file()


def test_a_stored_profile_is_not_measured_again(tmp_path: Path) -> None:
    assert _load(tmp_path).seconds_per_batch == _load(tmp_path).seconds_per_batch


def test_a_profile_stored_under_another_limit_is_measured_again(tmp_path: Path) -> None:
    _load(tmp_path)
    assert max(_load(tmp_path, max_exec_batch=8).exec_batch_sizes) <= 8


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model_digest": 1}', "\x00" * 9])
def test_a_corrupt_profile_is_measured_again(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = _load(tmp_path).exec_batch_sizes
    next(tmp_path.rglob("*.json")).write_text(text)
    assert _load(tmp_path).exec_batch_sizes == expected
    assert "measuring again" in caplog.text


def test_sizes_that_were_never_candidates_are_measured_again(tmp_path: Path) -> None:
    _load(tmp_path)
    file = next(tmp_path.rglob("*.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"exec_batch_sizes": [7]}))
    assert _load(tmp_path).exec_batch_sizes[-1] == 32


def _edit(state_dir: Path, **entries: object) -> None:
    file = next(state_dir.rglob("*.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def _load_coupled(state_dir: Path) -> Profile:
    network = build_network(toy_card(), SizeCoupledSampler(3), Settings())
    return load_or_measure_profile(network, DIGEST, read_numerics(Settings()), State(folder=state_dir))


def test_a_stored_profile_whose_rows_differ_is_measured_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _load_coupled(tmp_path)
    _edit(tmp_path, exec_batch_sizes=[1, 8, 16, 32])
    assert _load_coupled(tmp_path).exec_batch_sizes == (16, 32)
    assert "rows are not equal at the stored sizes (1, 8, 16, 32); measuring again" in caplog.text


def test_a_profile_measured_again_replaces_the_wrong_one(tmp_path: Path) -> None:
    _load_coupled(tmp_path)
    _edit(tmp_path, exec_batch_sizes=[1, 8, 16, 32])
    _load_coupled(tmp_path)
    assert json.loads(next(tmp_path.rglob("*.json")).read_text())["exec_batch_sizes"] == [16, 32]


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param({"version": 0}, id="another version"),
        pytest.param({"exec_batch_sizes": [8, 1]}, id="descending"),
        pytest.param({"exec_batch_sizes": [1, 64]}, id="beyond the card's limit"),
        pytest.param({"exec_batch_sizes": []}, id="none"),
    ],
)
def test_an_impossible_stored_profile_is_measured_again(tmp_path: Path, entries: dict[str, object]) -> None:
    expected = _load(tmp_path).exec_batch_sizes
    _edit(tmp_path, **entries, seconds_per_batch={"1": 777.0})
    loaded = _load(tmp_path)
    assert loaded.exec_batch_sizes == expected
    assert loaded.seconds_per_batch[1] != 777.0


def test_state_that_cannot_be_written_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file where a folder should be")
    assert _load(tmp_path / "state").exec_batch_sizes[-1] == 32
    assert "cannot be written" in caplog.text
