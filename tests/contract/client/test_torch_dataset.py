"""A plan in a plain DataLoader: split by rank and worker, interrupted, resumed."""

import json
import pickle
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fount import Client
from fount.adapters import Pull
from fount.errors import InvalidRequest, ServerUnavailable
from tests.contract.fake_plans import FakePlans, row_pixels, serving_plans

ROWS = 203
REJECTED = frozenset({0, 17, 18, 19, 100, 101, 202})
ACCEPTED = [row for row in range(ROWS) if row not in REJECTED]
TRACKED = ("row", "place")

# PyTorch warns when a thread runs while it forks; in a test the gateway's threads do.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),  # of more workers than cores
]


@contextmanager
def plan_of(**fields):
    with serving_plans(FakePlans(**{"rows": ROWS, "chunk": 8, "rejected": REJECTED, **fields})) as server:
        with Client(server) as client:
            plan = client.plan({"dataset": "digits", "seed": 1})
        yield plan, server


def loader(pull, workers=0, start="fork", **options):
    context = start if workers else None
    return DataLoader(pull, batch_size=5, num_workers=workers, multiprocessing_context=context, **options)


def rows_of(batches):
    return [row for batch in batches for row in batch[0].tolist()]


def interrupted(pull, workers, batches):
    """Read some batches; return their rows and the state after them, as it would be stored."""
    rows = []
    for number, (row, place) in enumerate(loader(pull, workers), start=1):
        rows += row.tolist()
        pull.track(place)
        if number == batches:
            break
    return rows, json.loads(json.dumps(pull.state_dict()))


# --- Rows -------------------------------------------------------------------------------------------------------------


def test_it_gives_images_channels_first_and_labels():
    with plan_of() as (plan, server):
        images, labels = next(iter(loader(Pull(plan, server))))
    assert (images.shape, images.dtype, labels.dtype) == ((5, 1, 4, 4), torch.uint8, torch.int64)
    assert np.array_equal(images[0, 0], row_pixels(1)[..., 0])
    assert labels.tolist() == [row % 3 for row in ACCEPTED[:5]]


def test_it_leaves_rejected_rows_out():
    with plan_of() as (plan, server):
        assert rows_of(loader(Pull(plan, server, columns=("row",)))) == ACCEPTED


def test_it_gives_each_image_to_the_transform():
    with plan_of() as (plan, server):
        pull = Pull(plan, server, columns=("image",), transform=lambda image: image.float() / 255)
        assert next(iter(pull))[0].dtype == torch.float32


def test_it_gives_every_column():
    columns = (
        "label",
        "group",
        "weight",
        "source",
        "source_row",
        "seed",
        "index",
        "attempt",
        "transforms",
        "confidence",
    )
    with plan_of() as (plan, server):
        batch = dict(zip(columns, next(iter(loader(Pull(plan, server, columns=columns)))), strict=True))
    assert batch["group"].tolist() == [-1] * 5
    assert batch["source_row"].tolist() == [101, 102, -1, 104, 105]
    assert batch["seed"].tolist() == [-2, -3, -4, -5, -6]  # the bits of 2^64 - 2 and so on
    assert batch["transforms"].shape == (5, 2)


@pytest.mark.parametrize(
    "query", [{"columns": ("imge",)}, {"columns": ()}, {"rank": 2, "world_size": 2}, {"rank": 0}], ids=str
)
def test_it_refuses_invalid_arguments(query):
    with pytest.raises(InvalidRequest):
        Pull(b"ticket", **query)


def test_it_reports_an_absent_server_in_the_main_process():
    with pytest.raises(ServerUnavailable, match="fount serve"):
        next(iter(loader(Pull(b"ticket", "127.0.0.1:1", timeout_s=5), 1)))


# --- Splitting --------------------------------------------------------------------------------------------------------


SPAWNED = pytest.param(2, "spawn", marks=pytest.mark.slow)


@pytest.mark.parametrize(("workers", "start"), [(1, "fork"), (2, "fork"), SPAWNED])
def test_its_workers_share_the_rows(workers, start):
    with plan_of() as (plan, server):
        rows = rows_of(loader(Pull(plan, server, columns=("row",)), workers, start))
    assert sorted(rows) == ACCEPTED


def test_its_ranks_share_the_rows():
    with plan_of() as (plan, server):
        pulls = [Pull(plan, server, columns=("row",), rank=rank, world_size=3) for rank in range(3)]
        rows = [rows_of(loader(pull, 2)) for pull in pulls]
    assert sorted(row for each in rows for row in each) == ACCEPTED
    assert all(60 <= len(each) <= 68 for each in rows)


def test_it_reads_rank_and_world_size_from_the_environment(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with plan_of() as (plan, server):
        assert rows_of(loader(Pull(plan, server, columns=("row",)))) == [row for row in ACCEPTED if row >= ROWS // 2]


def test_it_needs_only_a_ticket():
    with plan_of() as (plan, server):
        pull = pickle.loads(pickle.dumps(Pull(plan.ticket, server, columns=("row",))))
        assert sorted(rows_of(loader(pull, 2))) == ACCEPTED


# --- Epochs -----------------------------------------------------------------------------------------------------------


def test_every_epoch_has_the_same_rows_in_another_order():
    with plan_of() as (plan, server):
        pull = Pull(plan, server, columns=("row",))
        epochs = []
        for epoch in range(3):
            pull.set_epoch(epoch)
            epochs.append(rows_of(loader(pull)))
    assert [sorted(rows) for rows in epochs] == [ACCEPTED] * 3
    assert len({tuple(rows) for rows in epochs}) == 3


def test_an_epoch_can_be_repeated():
    with plan_of() as (plan, server):
        pull = Pull(plan, server, columns=("row",))
        assert rows_of(loader(pull)) == rows_of(loader(pull)) == ACCEPTED


def test_persistent_workers_see_the_next_epoch():
    with plan_of() as (plan, server):
        pull = Pull(plan, server, columns=("row",))
        persistent = loader(pull, 2, persistent_workers=True)
        first = rows_of(persistent)
        pull.set_epoch(1)
        second = rows_of(persistent)
    assert sorted(first) == sorted(second) == ACCEPTED
    assert first != second


# --- Resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 1])
@pytest.mark.parametrize("batches", [1, 7, 38])
@pytest.mark.parametrize(("before", "after"), [(0, 0), (2, 2), (2, 0), (0, 2), (2, 3)])
def test_a_resumed_epoch_gives_exactly_the_remaining_rows(before, after, batches, epoch):
    with plan_of() as (plan, server):
        pull = Pull(plan, server, columns=TRACKED)
        pull.set_epoch(epoch)
        taken, state = interrupted(pull, before, batches)
        resumed = Pull(plan, server, columns=TRACKED)
        resumed.load_state_dict(state)
        rest = rows_of(loader(resumed, after))
    assert sorted(taken + rest) == ACCEPTED


def test_an_epoch_can_be_interrupted_repeatedly():
    with plan_of() as (plan, server):
        pull, rows, state = Pull(plan, server, columns=TRACKED), [], None
        for workers in (2, 1, 3, 0):
            if state is not None:
                pull = Pull(plan, server, columns=TRACKED)
                pull.load_state_dict(state)
            taken, state = interrupted(pull, workers, 8)
            rows += taken
        pull.load_state_dict(state)
        rows += rows_of(loader(pull))
    assert sorted(rows) == ACCEPTED


def test_it_resumes_in_order_without_workers():
    with plan_of() as (plan, server):
        pull = Pull(plan, server, columns=("row",))
        started = iter(loader(pull))
        taken = rows_of([next(started), next(started)])
        pull.load_state_dict(pull.state_dict())
        assert taken + rows_of(loader(pull)) == ACCEPTED


def test_its_state_needs_no_tracking_without_workers():
    with plan_of() as (plan, server):
        pull = Pull(plan, server, columns=("row",))
        next(iter(loader(pull)))
        assert pull.state_dict()["left"] == [[6, ROWS]]


def test_the_epoch_after_a_resumed_one_is_whole():
    with plan_of() as (plan, server):
        pull = Pull(plan, server, columns=TRACKED)
        _, state = interrupted(pull, 2, 9)
        resumed = Pull(plan, server, columns=TRACKED)
        resumed.load_state_dict(state)
        resumed.set_epoch(0)  # as in a loop over epochs
        for _, places in loader(resumed, 2):
            resumed.track(places)
        resumed.set_epoch(1)
        assert sorted(rows_of(loader(resumed, 2))) == ACCEPTED


@pytest.mark.parametrize("workers", [0, 2])
def test_an_iteration_after_a_resumed_one_is_whole_in_the_same_epoch(workers):
    with plan_of() as (plan, server):
        pull = Pull(plan, server, columns=TRACKED)
        taken, state = interrupted(pull, 2, 6)
        resumed = Pull(plan, server, columns=TRACKED)
        resumed.load_state_dict(state)
        assert sorted(taken + rows_of(loader(resumed, workers))) == ACCEPTED
        assert sorted(rows_of(loader(resumed, workers))) == ACCEPTED


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_of_a_second_iteration_is_independent(workers):
    with plan_of() as (plan, server):
        pull = Pull(plan, server, columns=TRACKED)
        for _, places in loader(pull, workers):
            pull.track(places)
        taken, state = interrupted(pull, workers, 3)
        resumed = Pull(plan, server, columns=TRACKED)
        resumed.load_state_dict(state)
        assert sorted(taken + rows_of(loader(resumed, workers))) == ACCEPTED


def test_ranks_resume_their_own_states():
    rows = []
    with plan_of() as (plan, server):
        for rank in range(2):
            pull = Pull(plan, server, columns=TRACKED, rank=rank, world_size=2)
            taken, state = interrupted(pull, 2, 6)
            resumed = Pull(plan, server, columns=TRACKED, rank=rank, world_size=2)
            resumed.load_state_dict(state)
            rows += taken + rows_of(loader(resumed, 2))
    assert sorted(rows) == ACCEPTED


class Stateful(torch.utils.data.IterableDataset):
    """Gives each row with the state of its worker after it, and begins with a worker's state."""

    def __init__(self, pull, states=None):
        self.pull, self.states = pull, states or {}

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        if worker.id in self.states:
            self.pull.load_state_dict(self.states[worker.id])
        for (row,) in self.pull:
            yield row, worker.id, self.pull.state_dict()


def test_it_resumes_by_the_states_of_its_workers():
    with plan_of() as (plan, server):
        started = Stateful(Pull(plan, server, columns=("row",)))
        taken, states = [], {}
        for number, (row, worker, state) in enumerate(DataLoader(started, batch_size=None, num_workers=2)):
            taken.append(row)
            states[worker] = state
            if number == 50:
                break
        resumed = Stateful(Pull(plan, server, columns=("row",)), states)
        rest = [row for row, _, _ in DataLoader(resumed, batch_size=None, num_workers=2)]
    assert sorted(taken + rest) == ACCEPTED


@pytest.mark.parametrize("changed", [{"version": 2}, {"plan": "other"}, {"rank": [0, 2]}], ids=str)
def test_it_refuses_the_state_of_another_plan_or_world(changed):
    with plan_of() as (plan, server):
        pull = Pull(plan, server)
        with pytest.raises(InvalidRequest, match=f"{next(iter(changed))}: is"):
            pull.load_state_dict({**pull.state_dict(), **changed})


def test_it_refuses_the_state_of_another_worker():
    with plan_of() as (plan, server):
        pull = Pull(plan, server)
        pull.load_state_dict({**pull.state_dict(), "worker": [1, 2]})
        with pytest.raises(InvalidRequest, match=r"worker \[1, 2\]; this is worker \[0, 1\]"):
            next(iter(pull))
