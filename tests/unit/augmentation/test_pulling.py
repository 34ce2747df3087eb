"""A pull: what it requests, accepts and refuses."""

import numpy as np
import pytest
from google.rpc import code_pb2, status_pb2

from fount.augmentation.pull import PullStream, pull_request
from fount.errors import BadReply, InvalidRequest, SampleFailed, ServerUnavailable
from fount.retry import RetryPolicy, RetryState
from fount.v1 import augmentation_pb2, model_pb2, sampling_pb2

SPEC = model_pb2.SampleSpec(
    modality=model_pb2.SampleSpec.MODALITY_IMAGE,
    dtype=model_pb2.DTYPE_UINT8,
    dims=[2, 2, 1],
    layout=model_pb2.SampleSpec.LAYOUT_HWC,
    encoding=model_pb2.ENCODING_UINT8,
)


def opened(**query):
    policy = RetryPolicy(base_s=0, jitter=lambda: 1)
    pull = PullStream(pull_request(b"ticket", query), RetryState(10, policy, between_messages=True))
    pull.begin()
    return pull


def header(**fields):
    given = {"plan_id": "p", "rows": 20, "first_index": 5, "end_index": 10, "sample_spec": SPEC, "classes": "abcde"}
    given |= fields
    return augmentation_pb2.PullDatasetResponse(header=augmentation_pb2.PullHeader(**given))


def chunk(start, count, **fields):
    samples = sampling_pb2.SampleChunk(
        start_index=start,
        count=count,
        labels=range(count),
        data=bytes(np.repeat(range(start, start + count), 4).tolist()),
    )
    for name in ("errors", "labels", "data", "lengths", "part_offset", "part_total"):
        if name in fields:
            samples.ClearField(name)
            samples.MergeFrom(sampling_pb2.SampleChunk(**{name: fields.pop(name)}))
    return augmentation_pb2.PullDatasetResponse(chunk=augmentation_pb2.RowChunk(samples=samples, **fields))


def failed(index, code):
    return sampling_pb2.SampleError(index=index, status=status_pb2.Status(code=code, message="no"))


def test_it_requests_what_its_arguments_say():
    request = pull_request(
        b"t", {"shard": 2, "shards": 4, "start_index": 7, "end_index": 9, "provenance": "full", "part": "out-of-bag"}
    )
    assert request == augmentation_pb2.PullDatasetRequest(
        ticket=b"t", shard=2, shards=4, start_index=7, end_index=9, provenance=3, part=2
    )


def test_it_leaves_start_and_shards_to_the_plan():
    request = pull_request(b"t", {})
    assert not request.HasField("start_index")
    assert (request.shards, request.provenance) == (0, augmentation_pb2.PROVENANCE_LEVEL_IDS)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"shard": -1}, "shard"),
        ({"shard": 4, "shards": 4}, "shard"),
        ({"shards": 0}, "shards"),
        ({"start_index": 2**64}, "start_index"),
        ({"provenance": "all"}, "provenance"),
        ({"part": "bag"}, "part"),
    ],
)
def test_it_names_a_value_out_of_range(query, field):
    with pytest.raises(InvalidRequest) as error:
        pull_request(b"t", query)
    assert [name for name, _ in error.value.fields] == [field]


def test_it_refuses_an_argument_it_does_not_know():
    with pytest.raises(TypeError, match="unexpected argument 'shrad'"):
        pull_request(b"t", {"shrad": 1})


def test_it_returns_rows_with_their_indices_in_the_plan():
    pull = opened()
    assert pull.receive(header(groups=["a", "b"])) is None
    batch = pull.receive(chunk(5, 2, groups=[1, 2], weights=[3, 0]))
    assert (batch.start_index, batch.end_index, batch.rows.tolist()) == (5, 7, [5, 6])
    assert batch.images.shape == (2, 2, 2, 1)
    assert (batch.labels.tolist(), batch.groups.tolist(), batch.weights.tolist()) == ([0, 1], [1, -1], [3, 0])
    assert batch.sources is None


def test_it_fills_provenance_that_is_omitted():
    pull = opened(provenance="full")
    pull.receive(header(transform_columns=["rotate_degrees", "shift_x"]))
    provenance = augmentation_pb2.RowProvenance(sources=[4, 4], seeds=[2**64 - 1, 0], indices=[5, 6])
    batch = pull.receive(chunk(5, 2, provenance=provenance))
    assert (batch.source_rows.tolist(), batch.attempts.tolist()) == ([-1, -1], [0, 0])
    assert batch.transforms.shape == (2, 2)
    assert np.isnan(batch.transforms).all()
    assert batch.seeds.tolist() == [2**64 - 1, 0]
    assert batch.confidences is None


def test_it_reads_transform_parameters_row_by_row():
    pull = opened(provenance="full")
    pull.receive(header(transform_columns=["rotate_degrees", "shift_x"]))
    provenance = augmentation_pb2.RowProvenance(
        sources=[3, 1], source_rows=[8, 9], seeds=[1, 1], indices=[5, 6], transforms=[1, 2, 3, 4], copy_ratios=[0.5, 1]
    )
    batch = pull.receive(chunk(5, 2, provenance=provenance))
    assert batch.transforms.tolist() == [[1, 2], [3, 4]]
    assert batch.copy_ratios.tolist() == [0.5, 1]
    assert batch.source_rows.tolist() == [8, 9]


def test_it_marks_rejected_rows_and_can_leave_them_out():
    pull = opened()
    pull.receive(header())
    batch = pull.receive(chunk(5, 3, errors=[failed(6, code_pb2.ABORTED)]))
    assert batch.rejected.tolist() == [False, True, False]
    assert batch.errors[0].index == 6
    accepted = batch.accepted()
    assert (accepted.rows.tolist(), accepted.labels.tolist(), accepted.errors) == ([5, 7], [0, 2], ())
    assert (accepted.start_index, accepted.end_index, len(accepted)) == (5, 8, 2)


def test_it_does_not_take_another_failure_for_a_rejection():
    pull = opened()
    pull.receive(header())
    with pytest.raises(SampleFailed, match="sample 6: INTERNAL"):
        pull.receive(chunk(5, 3, errors=[failed(6, code_pb2.INTERNAL)]))


def test_it_joins_a_row_larger_than_a_chunk():
    pull = opened()
    pull.receive(header(groups=["a"]))
    first = chunk(5, 1, data=b"\1\2\3", part_total=4, groups=[0])
    assert pull.receive(first) is None
    batch = pull.receive(chunk(5, 1, data=b"\4", part_total=4, part_offset=3))
    assert batch.images.ravel().tolist() == [1, 2, 3, 4]
    assert batch.groups.tolist() == [0]


def test_it_resumes_with_the_first_missing_row():
    pull = opened(shard=1, shards=4)
    pull.receive(header())
    pull.receive(chunk(5, 2))
    assert pull.recover(ServerUnavailable("gone")) == 0
    request = pull.begin()
    assert (request.shard, request.shards, request.start_index) == (1, 4, 7)
    pull.receive(header())
    assert pull.receive(chunk(7, 3)).rows.tolist() == [7, 8, 9]
    pull.finish()


def test_it_is_complete_when_a_stream_breaks_after_its_last_row():
    pull = opened(start_index=8)
    pull.receive(header())
    pull.receive(chunk(8, 2))
    assert pull.recover(ServerUnavailable("gone")) is None


def test_it_reports_how_much_was_received_when_it_gives_up():
    policy = RetryPolicy(attempts=1, base_s=0)
    pull = PullStream(pull_request(b"t", {}), RetryState(10, policy, between_messages=True))
    pull.receive(header())
    pull.receive(chunk(5, 2))
    with pytest.raises(ServerUnavailable, match="broke after 2 of 5 samples; index 7 was next"):
        pull.recover(ServerUnavailable("gone"))


@pytest.mark.parametrize(
    "changed",
    [
        {"plan_id": "q"},
        {"rows": 21},
        {"first_index": 4},
        {"dataset_digest": "sha256:b"},
        {"classes": ["z"]},
        {"models": [augmentation_pb2.PinnedModel(role="generator", numerics="gpu")]},
    ],
    ids=lambda value: next(iter(value)),
)
def test_it_refuses_another_plan_after_a_break(changed):
    pull = opened()
    pull.receive(header())
    pull.begin()
    with pytest.raises(BadReply, match=f"another {next(iter(changed))} after a break"):
        pull.receive(header(**changed))


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(chunk(6, 2), id="a row is left out"),
        pytest.param(chunk(4, 2), id="a row is repeated"),
        pytest.param(chunk(5, 6), id="beyond the shard"),
        pytest.param(chunk(5, 0), id="nothing"),
        pytest.param(chunk(5, 2, labels=[1]), id="a label is missing"),
        pytest.param(chunk(5, 2, data=b"123"), id="pixels are missing"),
        pytest.param(chunk(5, 2, groups=[1]), id="a group is missing"),
        pytest.param(chunk(5, 2, provenance={"sources": [1, 1], "seeds": [1]}), id="a seed is missing"),
        pytest.param(header(), id="a second header"),
        pytest.param(augmentation_pb2.PullDatasetResponse(), id="an empty message"),
    ],
)
def test_it_refuses_a_message_that_contradicts_the_request(reply):
    pull = opened()
    pull.receive(header())
    with pytest.raises(BadReply):
        pull.receive(reply)


def test_it_refuses_rows_without_a_header():
    with pytest.raises(BadReply, match="a chunk out of order"):
        opened().receive(chunk(5, 2))


def test_it_refuses_images_it_cannot_decode():
    spec = model_pb2.SampleSpec()
    spec.CopyFrom(SPEC)
    spec.dtype = model_pb2.DTYPE_FLOAT32
    with pytest.raises(BadReply, match="cannot decode"):
        opened().receive(header(sample_spec=spec))


@pytest.mark.parametrize("labels", [[0, 5], []], ids=["unknown", "none"])
def test_it_refuses_labels_that_are_no_class(labels):
    pull = opened()
    pull.receive(header())
    with pytest.raises(BadReply, match="samples 5 to 6 has labels that are none of the 5 classes"):
        pull.receive(chunk(5, 2, labels=labels))


def test_it_refuses_a_stream_that_ends_early():
    pull = opened()
    pull.receive(header())
    pull.receive(chunk(5, 2))
    with pytest.raises(BadReply, match="ended before row 7; 3 are missing"):
        pull.finish()


def test_it_refuses_a_stream_without_a_header():
    with pytest.raises(BadReply, match="without a header"):
        opened().finish()


def test_it_refuses_a_shard_that_does_not_hold_the_start():
    with pytest.raises(BadReply, match="from row 3"):
        opened(start_index=3).receive(header())
