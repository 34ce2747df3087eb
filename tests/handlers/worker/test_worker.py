"""A worker's answers: values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fount.v1 import model_pb2
from fount.worker.v1 import worker_pb2
from handlers.worker.worker import Worker
from tests.handlers.toys import (
    ToySampler,
    image_item,
    indexed_item,
    load,
    request,
    sample_item,
    send,
    toy_images,
    with_seconds,
)

UINT8, FLOAT32 = model_pb2.DTYPE_UINT8, model_pb2.DTYPE_FLOAT32


def _data(reply: worker_pb2.WorkerReply) -> bytes:
    assert all(item.WhichOneof("outcome") == "value" for item in reply.items), reply
    return b"".join(item.value.data for item in reply.items)


def test_a_worker_is_ready(worker: Worker) -> None:
    assert worker.model.engine, worker.model.reason


def test_it_returns_uint8_rows_of_height_width_channels(worker: Worker) -> None:
    value = send(worker, request(sample_item(count=5, dtype=UINT8))).items[0].value
    assert (list(value.dims), value.dtype, len(value.data)) == ([5, 4, 4, 1], UINT8, 80)


def test_it_returns_float32_when_the_dtype_is_unset(worker: Worker) -> None:
    value = send(worker, request(sample_item(count=5, dtype=model_pb2.DTYPE_UNSPECIFIED))).items[0].value
    assert (list(value.dims), value.dtype, len(value.data)) == ([5, 4, 4, 1], FLOAT32, 320)


def test_uint8_is_float32_rounded_to_255_levels(worker: Worker) -> None:
    items = send(worker, request(sample_item(count=9), sample_item(count=9, dtype=UINT8))).items
    floats = np.frombuffer(items[0].value.data, "<f4")
    np.testing.assert_array_equal(np.frombuffer(items[1].value.data, np.uint8), np.rint(255 * floats))


def test_a_request_of_a_hundred_is_a_hundred_requests_of_one(worker: Worker) -> None:
    together = _data(send(worker, request(sample_item(count=100))))
    alone = b"".join(_data(send(worker, request(sample_item(start=i)))) for i in range(100))
    assert together == alone


def test_indices_one_by_one_are_the_rows_of_a_range(worker: Worker) -> None:
    together, chosen = send(worker, request(sample_item(count=100), indexed_item(*range(100)))).items
    assert chosen.value.data == together.value.data


def test_indices_are_returned_in_the_requested_order(worker: Worker) -> None:
    last = 2**64 - 1
    chosen = _data(send(worker, request(indexed_item(9, last, 3, 9))))
    alone = [_data(send(worker, request(sample_item(start=index)))) for index in (9, last, 3, 9)]
    assert chosen == b"".join(alone)


def test_indices_have_labels_of_their_own(worker: Worker) -> None:
    chosen = _data(send(worker, request(indexed_item(9, 3, labels=(2, 1)))))
    alone = [sample_item(start=9, labels=(2,)), sample_item(start=3, labels=(1,))]
    assert chosen == _data(send(worker, request(*alone)))


def test_co_batched_requests_change_no_byte(worker: Worker) -> None:
    alone = _data(send(worker, request(sample_item(count=100))))
    others = [
        sample_item(seed=9, start=5, count=3, labels=(2,)),
        sample_item(count=100),
        sample_item(seed=4, count=41, labels=(1,)),
    ]
    assert send(worker, request(*others)).items[1].value.data == alone


def test_one_label_applies_to_all_rows(worker: Worker) -> None:
    one, many = send(
        worker, request(sample_item(count=4, labels=(2,)), sample_item(count=4, labels=(2, 2, 2, 2)))
    ).items
    assert one.value.data == many.value.data


def test_the_label_changes_the_sample(worker: Worker) -> None:
    first, second = send(worker, request(sample_item(labels=(0,)), sample_item(labels=(1,)))).items
    assert first.value.data != second.value.data


def test_the_last_index_of_a_seed_can_be_drawn(worker: Worker) -> None:
    assert len(_data(send(worker, request(sample_item(start=2**64 - 1))))) == 64


def test_a_parameter_changes_the_sample(worker: Worker) -> None:
    plain, truncated = request(sample_item(count=8)), request(sample_item(count=8))
    truncated.parameters.truncation = 0.5
    assert _data(send(worker, plain)) != _data(send(worker, truncated))


def test_an_unconditional_model_takes_no_labels(unconditional: Worker) -> None:
    assert len(_data(send(unconditional, request(sample_item(count=3, labels=()))))) == 3 * 64


@pytest.mark.parametrize(
    ("seconds", "sizes"),
    [
        pytest.param({8: 0.9, 16: 1.0, 32: 1.1}, [32, 32, 8], id="the-largest-is-fastest"),
        pytest.param({8: 0.9, 16: 1.0, 32: 3.0}, [16, 16, 16, 16, 8], id="a-middle-one-is-fastest"),
        pytest.param({8: 0.1, 16: 1.0, 32: 3.0}, [8] * 9, id="the-smallest-is-fastest"),
    ],
)
def test_rows_are_split_into_the_fastest_sizes(worker: Worker, seconds: dict[int, float], sizes: list[int]) -> None:
    message = request(sample_item(count=40), sample_item(seed=2, count=29))
    reply = send(with_seconds(worker, seconds), message)
    assert list(reply.timings.batch_sizes) == sizes
    assert _data(reply) == _data(send(worker, message))


def test_a_worker_updates_the_times_of_its_batches(worker: Worker) -> None:
    slow = with_seconds(worker, {8: 100.0})
    send(slow, request(sample_item()))
    assert slow.model.engine is not None
    assert slow.model.engine.times["SAMPLE"].seconds[8] < 51


def test_timings_are_filled_in(worker: Worker) -> None:
    timings = send(worker, request(sample_item(count=32))).timings
    assert 0 < timings.queue_s < 1
    assert 0 < timings.compute_s < 1


def test_a_reply_names_numerics_and_digest(worker: Worker) -> None:
    reply = send(worker, request(sample_item()))
    assert reply.numerics.startswith("cpu-")
    assert reply.model_digest.startswith("sha256:")


def test_a_classifier_gives_probabilities(classifier: Worker) -> None:
    reply = send(classifier, request(image_item(toy_images(5)), operation=model_pb2.OPERATION_CLASSIFY))
    probabilities = np.frombuffer(_data(reply), "<f4").reshape(5, 3)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-6)


def test_a_classifier_gives_embeddings(classifier: Worker) -> None:
    reply = send(classifier, request(image_item(toy_images(5)), operation=model_pb2.OPERATION_EMBED))
    assert list(reply.items[0].value.dims) == [5, 6]


def test_float_images_read_like_their_uint8(classifier: Worker) -> None:
    images = toy_images(5)
    items = [image_item(images), image_item(images.astype(np.float32) / np.float32(255))]
    first, second = send(classifier, request(*items, operation=model_pb2.OPERATION_CLASSIFY)).items
    assert first.value.data == second.value.data


def test_a_classifiers_rows_do_not_depend_on_co_batched_rows(classifier: Worker) -> None:
    images = toy_images(45)
    together = _data(send(classifier, request(image_item(images), operation=model_pb2.OPERATION_CLASSIFY)))
    items = [image_item(images[i : i + 1]) for i in range(45)]
    assert together == b"".join(
        _data(send(classifier, request(item, operation=model_pb2.OPERATION_CLASSIFY))) for item in items
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_each_precision_draws_by_address(toy_folder: Path, precision: str) -> None:
    loaded = load(toy_folder, ToySampler, {"FOUNT_WORKER_PRECISION": precision})
    together = _data(send(loaded, request(sample_item(count=40))))
    assert together == b"".join(_data(send(loaded, request(sample_item(start=i)))) for i in range(40))


def test_bf16_has_numerics_of_its_own(toy_folder: Path) -> None:
    loaded = load(toy_folder, ToySampler, {"FOUNT_WORKER_PRECISION": "bf16"})
    assert "-bf16-nhwc-" in send(loaded, request(sample_item())).numerics
