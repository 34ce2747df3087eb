"""A stream of samples: what it accepts, refuses, and requests after a break."""

import numpy as np
import pytest

from fount.errors import BadReply, ServerUnavailable
from fount.retry import RetryPolicy, RetryState
from fount.sampling.request import sample_request
from fount.sampling.stream import SampleStream
from fount.v1 import model_pb2, sampling_pb2

DIGEST = "sha256:" + "a" * 64


def header(digest=DIGEST, seed=5, numerics="cpu", dims=(1, 2, 1), dtype=model_pb2.DTYPE_UINT8, encoding=1, layout=1):
    spec = model_pb2.SampleSpec(dtype=dtype, dims=dims, layout=layout, modality=1, encoding=encoding)
    model = model_pb2.ModelRef(name="digits", version="1.0", digest=digest)
    return sampling_pb2.SampleResponse(
        header=sampling_pb2.SampleHeader(model=model, seed=seed, numerics=numerics, sample_spec=spec)
    )


def chunk(start, data, count=None, **fields):
    count = len(data) // 2 if count is None else count
    return sampling_pb2.SampleResponse(
        chunk=sampling_pb2.SampleChunk(start_index=start, count=count, data=data, **fields)
    )


def opened(query):
    stream = SampleStream(sample_request("digits", query), RetryState(None, RetryPolicy()))
    stream.begin()
    return stream


def with_header(query, **fields):
    stream = opened(query)
    stream.receive(header(**fields))
    return stream


def failed(index):
    return sampling_pb2.SampleError(index=index, status={"code": 13, "message": "not finite"})


def test_it_returns_samples_with_provenance():
    stream = with_header({"count": 2, "start_index": 3})
    got = stream.receive(chunk(3, b"\1\2\3\4", labels=[7, 8]))
    assert got.samples.tolist() == [[[[1], [2]]], [[[3], [4]]]]
    assert (got.labels.tolist(), got.indices.tolist()) == ([7, 8], [3, 4])
    assert (got.seed, got.numerics, str(got.model)) == (5, "cpu", f"digits:1.0@{DIGEST}")


def test_it_reads_floats_as_little_endian():
    data = np.array([0.5, -1.0], "<f4").tobytes()
    stream = with_header({"encoding": "float32"}, dtype=model_pb2.DTYPE_FLOAT32, encoding=2)
    assert stream.receive(chunk(0, data, count=1)).samples.ravel().tolist() == [0.5, -1.0]


def test_it_reads_vectors():
    data = np.array([0.5, -1.0], "<f4").tobytes()
    stream = with_header({"encoding": "float32"}, dims=(2,), dtype=model_pb2.DTYPE_FLOAT32, encoding=2, layout=2)
    assert stream.receive(chunk(0, data, count=1)).samples.tolist() == [[0.5, -1.0]]


def test_it_refuses_a_layout_that_does_not_fit_its_dims():
    with pytest.raises(BadReply, match="cannot decode"):
        with_header({"encoding": "float32"}, dims=(2,), dtype=model_pb2.DTYPE_FLOAT32, encoding=2)


def test_it_requests_everything_at_first():
    stream = SampleStream(sample_request("digits", {"count": 4}), RetryState(None, RetryPolicy()))
    assert stream.begin() == sample_request("digits", {"count": 4})


def test_it_repeats_the_request_before_a_header():
    assert opened({"count": 4}).begin() == sample_request("digits", {"count": 4})


def test_it_requests_the_rest_with_everything_pinned_after_a_header():
    stream = with_header({"count": 4, "start_index": 10})
    stream.receive(chunk(10, b"\1\2\3\4"))
    resumed = stream.begin()
    assert (resumed.start_index, resumed.count, resumed.seed, resumed.numerics) == (12, 2, 5, "cpu")
    assert resumed.model == model_pb2.ModelRef(name="digits", version="1.0", digest=DIGEST)


def test_it_requests_the_labels_of_the_rest():
    stream = with_header({"labels": [7, 8, 9]})
    stream.receive(chunk(0, b"\1\2", labels=[7]))
    assert list(stream.begin().condition.labels.ids) == [8, 9]


@pytest.mark.parametrize("other", [{"digest": "sha256:b"}, {"seed": 6}, {"numerics": "gpu"}, {"dims": (2, 1, 1)}])
def test_it_refuses_a_resumed_stream_of_another_kind(other):
    stream = with_header({"count": 4})
    stream.begin()
    with pytest.raises(BadReply, match=r"changed|would not match"):
        stream.receive(header(**other))


@pytest.mark.parametrize("pinned", [{"digest": "sha256:b"}, {"seed": 6}, {"numerics": "gpu"}])
def test_it_refuses_a_header_that_ignores_what_was_pinned(pinned):
    with pytest.raises(BadReply, match="was pinned"):
        with_header(pinned)


@pytest.mark.parametrize(
    "response",
    [
        chunk(1, b"\1\2"),
        chunk(0, b"\1\2\3\4\5\6"),
        chunk(0, b"", count=0),
        chunk(0, b"\1\2\3"),
        chunk(0, b"\1\2\3\4\5", count=2),
        chunk(0, b"\1\2", labels=[1, 2]),
        chunk(0, b"\1\2", errors=[failed(1)]),
        chunk(0, b"\1\2", errors=[sampling_pb2.SampleError(index=0)]),
        chunk(0, b"\1\2", lengths=[1]),
        header(),
        sampling_pb2.SampleResponse(),
    ],
    ids=[
        "gap", "more than requested", "no samples", "odd bytes", "too many bytes", "other number of labels",
        "error outside", "error that is OK", "lengths that do not sum", "second header", "no kind",
    ],
)  # fmt: skip
def test_it_refuses_a_message_that_contradicts_the_request(response):
    with pytest.raises(BadReply):
        with_header({"count": 2}).receive(response)


def test_it_refuses_an_overlap():
    stream = with_header({"count": 4})
    stream.receive(chunk(0, b"\1\2\3\4"))
    with pytest.raises(BadReply, match="Samples 2 to 3 are due, but samples 1 to 2 arrived"):
        stream.receive(chunk(1, b"\1\2\3\4"))


def test_it_refuses_a_chunk_before_the_header():
    with pytest.raises(BadReply, match="a chunk out of order"):
        opened({}).receive(chunk(0, b"\1\2"))


def test_it_refuses_a_short_stream():
    stream = with_header({"count": 3})
    stream.receive(chunk(0, b"\1\2"))
    with pytest.raises(BadReply, match="ended before sample 1; 2 are missing"):
        stream.finish()


@pytest.mark.parametrize("query", [{"label": 7, "count": 2}, {"labels": [7, 7]}], ids=["label", "labels"])
def test_it_refuses_a_label_that_was_not_requested(query):
    with pytest.raises(BadReply, match="other labels"):
        with_header(query).receive(chunk(0, b"\1\2\3\4", labels=[7, 3]))


@pytest.mark.parametrize(
    "fields", [{"dims": (-1, 2, 1)}, {"dims": (2,)}, {"dims": (2**20, 2**20, 1)}, {"encoding": 2}, {"dtype": 2}]
)
def test_it_refuses_a_form_it_cannot_decode(fields):
    with pytest.raises(BadReply, match="cannot decode"):
        with_header({"count": 1}, **fields)


def test_it_joins_the_parts_of_a_large_sample():
    stream = with_header({"count": 2})
    assert stream.receive(chunk(0, b"\1", count=1, part_total=2)) is None
    whole = stream.receive(chunk(0, b"\2", count=1, part_offset=1, part_total=2))
    assert (whole.samples.ravel().tolist(), stream.next_index) == ([1, 2], 1)


def test_it_requests_a_sample_again_after_a_break_between_its_parts():
    stream = with_header({"count": 1})
    stream.receive(chunk(0, b"\1", count=1, part_total=2))
    assert stream.begin().start_index == 0
    stream.receive(header())
    stream.receive(chunk(0, b"\1", count=1, part_total=2))
    assert stream.receive(chunk(0, b"\2", count=1, part_offset=1, part_total=2)) is not None


@pytest.mark.parametrize(
    "second",
    [
        chunk(0, b"\2", count=1, part_offset=0, part_total=2),
        chunk(0, b"\2", count=1, part_offset=1, part_total=3),
        chunk(0, b"\2\3", count=1, part_offset=1, part_total=2),
        chunk(1, b"\2", count=1, part_offset=1, part_total=2),
        chunk(0, b"", count=1, part_offset=1, part_total=2),
        chunk(1, b"\1\2"),
    ],
    ids=["again", "other total", "too long", "other sample", "empty", "whole sample"],
)
def test_it_refuses_parts_that_do_not_fit(second):
    stream = with_header({"count": 2})
    stream.receive(chunk(0, b"\1", count=1, part_total=2))
    with pytest.raises(BadReply, match="After 1 bytes of sample 0, samples"):
        stream.receive(second)


def test_it_refuses_a_sample_above_the_size_limit():
    with pytest.raises(BadReply, match="larger than 1073741824 bytes"):
        with_header({"count": 1}).receive(chunk(0, b"\1", count=1, part_total=2**40))


def test_it_returns_a_failed_sample_as_zeros_with_its_error():
    got = with_header({"count": 2}).receive(chunk(0, b"\0\0\3\4", errors=[failed(0)]))
    assert [(error.index, error.code, error.message) for error in got.errors] == [(0, "INTERNAL", "not finite")]


def test_it_fills_a_failed_sample_without_bytes_with_zeros():
    got = with_header({"count": 2}).receive(chunk(0, b"\3\4", count=2, lengths=[0, 2], errors=[failed(0)]))
    assert got.samples.ravel().tolist() == [0, 0, 3, 4]


def test_it_splits_files_by_their_lengths():
    got = with_header({"count": 3, "encoding": "png"}, encoding=3).receive(
        chunk(0, b"abcde", count=3, lengths=[2, 0, 3], errors=[failed(1)])
    )
    assert (got.files, got.samples) == ((b"ab", b"", b"cde"), None)


def test_it_refuses_an_empty_file_without_an_error():
    with pytest.raises(BadReply, match="empty sample"):
        with_header({"count": 2, "encoding": "png"}, encoding=3).receive(chunk(0, b"ab", count=2, lengths=[2, 0]))


def test_it_does_not_turn_files_into_an_array():
    got = with_header({"encoding": "png"}, encoding=3).receive(chunk(0, b"ab", count=1, lengths=[2]))
    with pytest.raises(TypeError, match="files"):
        np.asarray(got)


# --- Texts ------------------------------------------------------------------------------------------------------------


def of_texts(query, **fields):
    return with_header(query, **({"dims": (-1,), "layout": model_pb2.SampleSpec.LAYOUT_T} | fields))


def test_it_reads_texts_and_empty_ones():
    got = of_texts({"count": 3}).receive(chunk(0, "roséok".encode(), count=3, lengths=[5, 0, 2]))
    assert (got.texts, got.samples, got.files) == (("rosé", "", "ok"), None, ())


def test_a_chunk_of_texts_is_no_array():
    got = of_texts({"count": 1}).receive(chunk(0, b"a", count=1, lengths=[1]))
    with pytest.raises(TypeError, match=r"read its \.texts"):
        np.asarray(got)


def test_a_text_that_failed_is_empty():
    got = of_texts({"count": 2}).receive(chunk(0, b"a", count=2, lengths=[1, 0], errors=[failed(1)]))
    assert (got.texts, [error.index for error in got.errors]) == (("a", ""), [1])


@pytest.mark.parametrize(
    ("data", "lengths", "text"),
    [(b"ab", [], "do not add up"), (b"ab", [1, 2], "do not add up"), (b"\xff", [1, 0], "not UTF-8")],
    ids=["no lengths", "wrong lengths", "no text"],
)
def test_it_refuses_bytes_that_are_no_texts(data, lengths, text):
    with pytest.raises(BadReply, match=text):
        of_texts({"count": 2}).receive(chunk(0, data, count=2, lengths=lengths))


@pytest.mark.parametrize(
    "fields", [{"dims": (5,)}, {"dtype": model_pb2.DTYPE_FLOAT32}, {"encoding": 3}], ids=["size", "floats", "files"]
)
def test_it_refuses_texts_of_another_form(fields):
    with pytest.raises(BadReply, match="cannot decode"):
        of_texts({}, **fields)


def test_it_joins_the_parts_of_a_long_text():
    stream = of_texts({"count": 1})
    assert stream.receive(chunk(0, "é".encode()[:1], count=1, part_total=3)) is None
    assert stream.receive(chunk(0, "é".encode()[1:] + b"a", count=1, part_total=3, part_offset=1)).texts == ("éa",)


def test_it_requests_missing_samples_with_their_own_pictures_and_masks():
    images = np.arange(8, dtype=np.uint8).reshape(4, 1, 2, 1)
    masks = (images % 2).astype(bool)
    stream = with_header({"image": images, "mask": masks, "prefix": None})
    stream.receive(chunk(0, b"\0" * 6))
    condition = stream.begin().condition
    assert (condition.image.count, condition.image.data) == (1, b"\6\7")
    assert (condition.mask.count, condition.mask.data) == (1, b"\0\1")


def test_it_requests_missing_texts_with_the_same_prefix_and_stop():
    stream = of_texts({"count": 2, "prefix": "a", "stop": "."})
    stream.receive(chunk(0, b"ab", count=1, lengths=[2]))
    request = stream.begin()
    assert (request.start_index, request.condition.prefix, request.stop) == (1, b"a", ".")


def progress(done, total):
    return sampling_pb2.SampleResponse(progress=sampling_pb2.SampleProgress(steps_done=done, steps_total=total))


def test_it_reports_progress_of_all_attempts():
    seen = []
    query = {"count": 4, "progress": lambda done, total: seen.append((done, total))}
    stream = SampleStream(sample_request("digits", query), RetryState(None, RetryPolicy()), query["progress"])
    assert stream.begin().progress
    assert not stream.fits_unary
    for message in (header(), progress(10, 32), chunk(0, b"\1\2")):
        stream.receive(message)
    assert stream.begin().count == 3  # after a break
    assert stream.receive(header()) is None
    assert stream.receive(progress(3, 24)) is None
    assert seen == [(10, 32), (8 + 3, 32)]


def test_it_refuses_progress_that_was_not_requested():
    with pytest.raises(BadReply, match="progress"):
        with_header({"count": 4}).receive(progress(1, 4))


def test_progress_must_be_callable():
    with pytest.raises(TypeError, match="progress must be callable, got int"):
        sample_request("digits", {"count": 4, "progress": 3})


def test_only_steps_beyond_those_of_earlier_attempts_are_progress():
    retry, reported = RetryState(None, RetryPolicy(first_attempts=3, attempts=4)), []
    stream = SampleStream(sample_request("digits", {"count": 2}), retry, lambda *done: reported.append(done))

    def attempt():
        stream.begin()
        stream.receive(header())
        stream.receive(progress(8, 16))
        stream.recover(ServerUnavailable("gone"))

    for _ in range(3):
        attempt()
    with pytest.raises(ServerUnavailable):
        attempt()
    assert reported == [(8, 16)] * 4
