"""Plans, pulls and variants through both clients, against a gateway whose rows can be checked by hand."""

import re
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass, field

import numpy as np
import pytest
from google.rpc import code_pb2

from fount import Client
from fount.errors import DeadlineExceeded, FountError, InvalidRequest, NotFound, ServerUnavailable
from fount.v1 import augmentation_pb2
from tests.contract.fake_gateway import error_info, rich
from tests.contract.fake_plans import FakePlans, abort, row_pixels

SPEC = {"dataset": "digits", "seed": 1, "shards": 3}


@dataclass
class BreakingPlans(FakePlans):
    """Attributes:
    breaks: the number of messages after which each stream of variants breaks; later streams do not break.
    configs: the first message of every stream of variants.
    received_rows: rows received from clients in total.
    """

    breaks: list[int] = field(default_factory=list)
    configs: list[augmentation_pb2.AugmentConfig] = field(default_factory=list)
    received_rows: int = 0

    def Augment(self, requests, context) -> Iterator[augmentation_pb2.AugmentResponse]:
        last = self.breaks.pop(0) if self.breaks else None
        for sent, response in enumerate(super().Augment(self.recorded(requests), context)):
            if sent - 1 == last:
                abort(context, rich(code_pb2.UNAVAILABLE, "draining", error_info("DRAINING")))
            yield response

    def recorded(self, requests):
        for request in requests:
            if request.HasField("config"):
                self.configs.append(request.config)
            self.received_rows += request.rows.count
            yield request


def expected(first, end):
    return np.stack([row_pixels(index) for index in range(first, end)])


def images_of(batches):
    return np.concatenate([batch.images for batch in batches])


def random_images(count, side=4):
    return np.random.default_rng(0).integers(0, 200, (count, side, side, 1), dtype=np.uint8)


# --- Plans ------------------------------------------------------------------------------------------------------------


def test_it_plans_and_looks_up_plans(client_of):
    with client_of(FakePlans()) as client:
        plan = client.plan(SPEC)
        assert client.get_plan(plan.id) == plan
        assert client.plans() == [plan]
    assert (plan.rows, plan.shards, plan.seed, plan.dataset, plan.split) == (40, 3, 1, "digits", "train")


def test_it_reports_what_the_gateway_refuses(client_of):
    with client_of(FakePlans()) as client, pytest.raises(NotFound, match='no data set "ghosts"'):
        client.plan({"dataset": "ghosts"})


def test_it_names_wrong_keys_before_anything_is_sent():
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest, match="did you mean 'dataset'"):
        client.plan({"dataste": "digits"})


# --- Pulls ------------------------------------------------------------------------------------------------------------


def test_it_pulls_shards_that_make_up_the_plan(client_of):
    with client_of(FakePlans()) as client:
        plan = client.plan(SPEC)
        batches = [batch for shard in range(3) for batch in client.pull(plan, shard=shard, shards=3)]
    assert np.array_equal(images_of(batches), expected(0, 40))
    assert np.concatenate([batch.rows for batch in batches]).tolist() == list(range(40))


def test_it_pulls_by_a_ticket_alone(client_of):
    with client_of(FakePlans()) as client:
        ticket = client.plan(SPEC).ticket
        assert len(images_of(client.pull(ticket, shards=1))) == 40


def test_it_starts_at_a_row(client_of):
    with client_of(FakePlans()) as client:
        batches = list(client.pull(client.plan(SPEC), shards=1, start_index=33))
    assert np.array_equal(images_of(batches), expected(33, 40))


def test_it_returns_nothing_from_the_end_of_a_shard(client_of):
    with client_of(FakePlans()) as client:
        assert list(client.pull(client.plan(SPEC), shards=1, start_index=40)) == []


def test_it_resumes_a_pull_where_it_broke(client_of):
    plans = FakePlans(break_at=9)
    with client_of(plans) as client:
        batches = list(client.pull(client.plan(SPEC), shards=1))
    assert np.array_equal(images_of(batches), expected(0, 40))
    assert [pull.start_index for pull in plans.pulls] == [0, 12]


def test_it_returns_provenance(client_of):
    with client_of(FakePlans()) as client:
        batch = next(client.pull(client.plan(SPEC), shards=1, provenance="full"))
    assert batch.sources.tolist() == [1, 2, 3, 4]
    assert batch.source_rows.tolist() == [100, 101, 102, -1]
    assert batch.transform_columns == ("rotate_degrees", "shift_x")
    assert batch.transforms[2, 0] == 1.0
    assert np.isnan(batch.transforms[[0, 1, 3]]).all()


def test_it_returns_no_provenance_that_was_not_requested(client_of):
    with client_of(FakePlans()) as client:
        batch = next(client.pull(client.plan(SPEC), shards=1, provenance="none"))
    assert (batch.sources, batch.seeds, batch.transforms) == (None, None, None)


def test_it_marks_slots_without_a_sample(client_of):
    with client_of(FakePlans(rejected=frozenset({1, 7}))) as client:
        batches = list(client.pull(client.plan(SPEC), shards=1))
    assert np.flatnonzero(np.concatenate([batch.rejected for batch in batches])).tolist() == [1, 7]
    assert sum(len(batch.accepted()) for batch in batches) == 38


def test_it_describes_a_pull_without_pulling_rows(client_of):
    with client_of(FakePlans(groups=("a", "b"))) as client:
        info = client.pull_info(client.plan(SPEC), shard=1, shards=4, provenance="full")
    assert (info.rows, info.first_index, info.end_index, info.shape) == (40, 10, 20, (4, 4, 1))
    assert (info.groups, info.transform_columns) == (("a", "b"), ("rotate_degrees", "shift_x"))


def test_it_reports_an_expired_ticket(client_of):
    plans = FakePlans()
    with client_of(plans) as client:
        plan = client.plan(SPEC)
        plans.void_tickets.add(plan.ticket)
        with pytest.raises(InvalidRequest, match="ticket: has expired"):
            next(client.pull(plan))


def test_it_gives_up_on_a_stream_that_stops_sending(client_of):
    plans = FakePlans(hold_from=0)
    with client_of(plans, timeout_s=0.2) as client:
        plan = client.plan(SPEC)
        with pytest.raises(DeadlineExceeded):
            next(client.pull(plan))
        plans.released.set()


def test_it_reports_that_no_server_answers(quick):
    with (
        Client("127.0.0.1:1", timeout_s=5, retry=quick) as client,
        pytest.raises(ServerUnavailable, match="fount serve"),
    ):
        next(client.pull(b"ticket"))


# --- Variants ---------------------------------------------------------------------------------------------------------


def brightened(images, variants):
    return np.concatenate([np.stack([image + np.uint8(v + 1) for v in range(variants)]) for image in images])


def test_it_returns_variants_of_an_array_in_order(client_of):
    with client_of(FakePlans()) as client:
        batches = list(client.augment(random_images(5), variants=3, seed=2))
    assert np.array_equal(images_of(batches), brightened(random_images(5), 3))
    assert np.concatenate([batch.rows for batch in batches]).tolist() == list(range(15))


class Tensor:
    """A tensor as other libraries have them: its rows are tensors."""

    def __init__(self, values):
        self.values = values

    def __iter__(self):
        return map(Tensor, self.values)

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_it_takes_a_tensor_as_one_array(client_of):
    with client_of(FakePlans()) as client:
        batches = list(client.augment(Tensor(random_images(5)), Tensor(np.arange(5)), variants=3, seed=2))
    assert np.array_equal(images_of(batches), brightened(random_images(5), 3))


def test_it_reads_pairs_from_an_iterable(client_of):
    images = random_images(5)
    with client_of(BreakingPlans()) as client:
        batches = list(client.augment((images[i : i + 2], [1] * len(images[i : i + 2])) for i in range(0, 5, 2)))
    assert np.array_equal(images_of(batches), brightened(images, 1))


def test_it_sends_nothing_without_rows(client_of):
    plans = BreakingPlans()
    with client_of(plans) as client:
        assert list(client.augment([])) == []
        assert list(client.augment(random_images(0))) == []
    assert plans.configs == []


def test_it_accepts_grey_images_without_channels(client_of):
    plans = BreakingPlans()
    with client_of(plans) as client:
        assert next(client.augment(random_images(2)[..., 0])).images.shape == (2, 4, 4, 1)
    assert (plans.configs[0].height, plans.configs[0].channels) == (4, 1)


def test_it_splits_large_arrays_into_messages(client_of):
    images = random_images(40, side=256)  # 16 of them are a MiB
    with client_of(FakePlans()) as client:
        batches = list(client.augment(images))
    assert [len(batch) for batch in batches] == [16, 16, 8]
    assert np.array_equal(images_of(batches), images + np.uint8(1))


def test_it_resumes_a_stream_of_variants_with_the_seed_it_was_given(client_of):
    plans = BreakingPlans(breaks=[2, 1])
    images = random_images(9)
    with client_of(plans) as client:
        batches = list(client.augment((image[None] for image in images), variants=2))
    assert np.array_equal(images_of(batches), brightened(images, 2))
    assert [config.start_index for config in plans.configs] == [0, 2, 3]
    assert [config.HasField("seed") for config in plans.configs] == [False, True, True]
    assert plans.configs[1].model.digest


def test_it_does_not_read_ahead(client_of):
    plans = BreakingPlans()
    taken = []

    def source():
        for i in range(1000):
            taken.append(i)
            yield random_images(1)

    with client_of(plans) as client:
        variants = client.augment(source())
        for _ in range(3):
            next(variants)
        variants.close()
    assert len(taken) < 10


def test_it_raises_the_error_of_the_source(client_of):
    def source():
        yield random_images(1)
        raise OSError("the disk is gone")

    with client_of(FakePlans()) as client, pytest.raises(OSError, match="the disk is gone"):
        list(client.augment(source()))


def objects(*shapes):
    """An array of arrays, as numpy makes it from pictures that are loaded one by one."""
    array = np.empty(len(shapes), object)
    array[:] = [np.zeros(shape, np.uint8) for shape in shapes]
    return array


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        pytest.param(np.full((2, 4, 4, 1), np.nan, np.float32), None, "float32 of shape", id="dtype"),
        pytest.param(np.zeros((4, 4), np.uint8), None, "give uint8 of", id="rank"),
        pytest.param(np.zeros((2, 0, 4, 1), np.uint8), None, "give uint8 of", id="empty images"),
        pytest.param(np.zeros((2, 4, 4, 1), np.uint8), [1], "one class id", id="a label is missing"),
        pytest.param(np.zeros((2, 4, 4, 1), np.uint8), [1, -1], "one class id", id="a negative label"),
        pytest.param([np.zeros((1, 4, 4, 1), np.uint8), np.zeros((1, 5, 4, 1), np.uint8)], None, "row 1", id="shapes"),
        pytest.param(objects((5, 5), (5, 5)), None, "each of shape (5, 5); give np.stack(images)", id="objects"),
        pytest.param(objects((5, 5), (5, 5), (6, 5)), None, "row 0 is (5, 5), row 2 is (6, 5)", id="ragged objects"),
        pytest.param([[*objects((5, 5), (6, 5))]], None, "row 1 is (6, 5); resize them to one", id="a ragged list"),
        pytest.param(np.array([None, None]), None, "each of shape (); give np.stack", id="no images"),
        pytest.param([np.zeros((1, 4, 4, 1), np.uint8)], [1], "goes with one array", id="stray labels"),
    ],
)
def test_it_refuses_invalid_rows(client_of, images, labels, text):
    with client_of(FakePlans()) as client, pytest.raises(InvalidRequest, match=re.escape(text)):
        list(client.augment(images, labels))


@pytest.mark.parametrize(
    "query", [{"variants": 0}, {"seed": -1}, {"provenance": "all"}, {"policy": [{"rotat": [0, 1]}]}]
)
def test_it_refuses_invalid_options(query):
    with Client("127.0.0.1:1") as client, pytest.raises(InvalidRequest):
        client.augment(random_images(1), **query)


def test_it_refuses_an_option_it_does_not_know():
    with Client("127.0.0.1:1") as client, pytest.raises(TypeError, match="unexpected argument 'variant'"):
        client.augment(random_images(1), variant=2)


# --- asyncio ----------------------------------------------------------------------------------------------------------


async def test_it_plans_and_pulls_within_an_event_loop(aio_client_of):
    async with aio_client_of(FakePlans(break_at=9)) as client:
        plan = await client.plan(SPEC)
        assert (await client.pull_info(plan, shards=1)).rows == 40
        batches = [batch async for batch in client.pull(plan, shards=1)]
        assert (await client.plans(), await client.get_plan(plan.id)) == ([plan], plan)
    assert np.array_equal(images_of(batches), expected(0, 40))


async def test_it_resumes_variants_within_an_event_loop(aio_client_of):
    async def source():
        for image in random_images(9):
            yield image[None]

    plans = BreakingPlans(breaks=[2, 1])
    async with aio_client_of(plans) as client:
        batches = [batch async for batch in client.augment(source(), variants=2)]
    assert np.array_equal(images_of(batches), brightened(random_images(9), 2))
    assert [config.start_index for config in plans.configs] == [0, 2, 3]


async def test_it_does_not_read_ahead_within_an_event_loop(aio_client_of):
    plans = BreakingPlans()
    async with (
        aio_client_of(plans) as client,
        aclosing(client.augment(random_images(1) for _ in range(1000))) as variants,
    ):
        await anext(variants)
    assert plans.received_rows < 10


async def test_it_splits_an_array_within_an_event_loop(aio_client_of):
    async with aio_client_of(FakePlans()) as client:
        with pytest.raises(FountError, match="one class id"):
            await anext(client.augment(random_images(2), [1]))
        assert len([batch async for batch in client.augment(random_images(40, side=256))]) == 3
