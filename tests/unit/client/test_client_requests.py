"""A request built from Python arguments."""

import numpy as np
import pytest

from fount.errors import InvalidRequest
from fount.sampling.request import model_ref, refuse_files, sample_request
from fount.v1 import model_pb2, sampling_pb2

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("digits", ("digits", "", "")),
        ("digits:1.0", ("digits", "1.0", "")),
        (f"digits:1.0@{DIGEST}", ("digits", "1.0", DIGEST)),
        (f"digits@{DIGEST}", ("digits", "", DIGEST)),
    ],
    ids=["name", "version", "as replies name it", "name and digest"],
)
def test_it_parses_the_name_of_a_model(text, parts):
    ref = model_ref(text)
    assert (ref.name, ref.version, ref.digest) == parts


def test_it_accepts_a_separate_digest():
    assert model_ref("digits", DIGEST).digest == DIGEST


def test_it_refuses_two_digests_that_disagree():
    with pytest.raises(InvalidRequest, match="differs"):
        model_ref(f"digits@{DIGEST}", "sha256:b")


def test_it_refuses_a_model_without_a_name():
    with pytest.raises(InvalidRequest, match="no name"):
        model_ref(":1.0")


def test_it_requests_one_sample_by_default():
    request = sample_request("digits", {})
    assert request == sampling_pb2.SampleRequest(
        model=model_pb2.ModelRef(name="digits"), count=1, encoding=model_pb2.ENCODING_UINT8
    )


def test_it_distinguishes_seed_0_from_none():
    assert sample_request("digits", {"seed": 0}).HasField("seed")
    assert not sample_request("digits", {"seed": None}).HasField("seed")


def test_it_accepts_a_label_by_index_or_name():
    assert sample_request("digits", {"label": 7}).condition.label.id == 7
    assert sample_request("digits", {"label": "seven"}).condition.label.name == "seven"
    assert sample_request("digits", {"label": np.int64(0)}).condition.label.WhichOneof("kind") == "id"


class Tensor:
    """A tensor as other libraries have them: no sequence of int, but convertible."""

    def __init__(self, values, error=None):
        self.values, self.error = values, error

    def __len__(self):
        return len(self.values)

    def __getitem__(self, place):
        return Tensor(self.values[place])

    def __int__(self):
        return int(self.values)

    def __array__(self, dtype=None, copy=None):
        if self.error:
            raise self.error
        return np.asarray(self.values, dtype)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(Tensor([2, 0, 1]), id="tensor"),
        pytest.param([Tensor(2), Tensor(0), Tensor(1)], id="list of tensors"),
        pytest.param([np.int64(2), np.uint8(0), 1], id="list of NumPy scalars"),
        pytest.param(np.array([2, 0, 1], np.int16), id="array"),
        pytest.param((2, 0, 1), id="tuple"),
        pytest.param(range(2, -1, -1), id="range"),
    ],
)
def test_it_takes_labels_of_any_library(labels):
    ids = list(sample_request("digits", {"labels": labels}).condition.labels.ids)
    assert ids == ([2, 1, 0] if isinstance(labels, range) else [2, 0, 1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        pytest.param(Tensor([1], TypeError("can't convert cuda:0, use .cpu()")), r"labels .* use \.cpu\(\)", id="GPU"),
        pytest.param(Tensor([1], RuntimeError("use .detach()")), r"labels .* use \.detach\(\)", id="gradients"),
        pytest.param([[1], [1, 2]], "labels cannot be converted to an array of class indices", id="ragged"),
        pytest.param(Tensor([1.0]), "labels must be a flat sequence of class indices", id="floats"),
        pytest.param(Tensor([[1]]), r"of shape \(1, 1\)", id="two dimensions"),
        pytest.param({1, 2}, "labels must be a sequence, an array or a tensor of class indices, got set", id="set"),
    ],
)
def test_it_names_labels_that_are_no_indices(labels, message):
    with pytest.raises(TypeError, match=message):
        sample_request("digits", {"labels": labels})


def test_it_takes_the_count_from_labels():
    request = sample_request("digits", {"labels": np.array([1, 2, 3])})
    assert (request.count, list(request.condition.labels.ids)) == (3, [1, 2, 3])


def test_it_accepts_a_mixture_by_index_or_name():
    mixture = sample_request("digits", {"mixture": {7: 0.9, "one": 0.1}}).condition.mixture
    assert [(c.label.id, c.label.name, c.weight) for c in mixture.components] == [(7, "", 0.9), (0, "one", 0.1)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("truncation", 1.5),
        ("temperature", 0.5),
        ("top_k", 3),
        ("top_p", 0.25),
        ("guidance_scale", 2.0),
        ("steps", 10),
    ],
)
def test_it_sends_each_parameter(name, value):
    parameters = sample_request("digits", {name: value}).parameters
    assert [(field.name, sent) for field, sent in parameters.ListFields()] == [(name, value)]


@pytest.mark.parametrize(
    ("name", "value", "sent"),
    [
        ("encoding", "png", model_pb2.ENCODING_PNG),
        ("priority", "interactive", sampling_pb2.PRIORITY_INTERACTIVE),
        ("numerics", "cpu-1", "cpu-1"),
        ("start_index", 2**63, 2**63),
        ("count", 5, 5),
    ],
)
def test_it_sends_each_plain_field(name, value, sent):
    assert getattr(sample_request("digits", {name: value}), name) == sent


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"count": 0}, "count"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"start_index": 2**64 - 1, "count": 2}, "count"),
        ({"label": 1, "mixture": {1: 1.0}}, "mixture"),
        ({"labels": [1, 2], "count": 3}, "labels"),
        ({"labels": []}, "labels"),
        ({"labels": [-1]}, "labels"),
        ({"label": 2**32}, "label"),
        ({"mixture": {}}, "mixture"),
        ({"encoding": "jpeg"}, "encoding"),
        ({"priority": "urgent"}, "priority"),
        ({"steps": -1}, "steps"),
    ],
)
def test_it_names_a_value_out_of_range(query, field):
    with pytest.raises(InvalidRequest) as refused:
        sample_request("digits", query)
    assert [name for name, _ in refused.value.fields] == [field]


def test_it_names_every_wrong_value_at_once():
    with pytest.raises(InvalidRequest) as refused:
        sample_request("digits", {"count": 0, "seed": -1, "encoding": "jpeg"})
    assert [name for name, _ in refused.value.fields] == ["seed", "encoding", "count"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"count": 1.5}, "count must be a whole number, got float"),
        ({"count": True}, "count must be a whole number, got bool"),
        ({"label": 7.0}, r"label must be a class index \(int\) or a class name \(str\), got float"),
        ({"labels": "123"}, "labels must be a sequence, an array or a tensor of class indices, got str"),
        ({"labels": ["seven"]}, "labels must be a flat sequence of class indices"),
        ({"mixture": [0.5, 0.5]}, "mixture must map labels to weights, got list"),
        ({"mixture": {7: "much"}}, r"mixture\[7\] must be a number, got str"),
        ({"truncation": "2"}, "truncation must be a number, got str"),
        ({"encoding": 1}, "encoding must be one of uint8, float32, png, got int"),
        ({"numerics": 1}, "numerics must be a str, got int"),
        ({"lable": 7}, "unexpected argument 'lable'"),
    ],
)
def test_it_names_an_argument_of_the_wrong_type(query, message):
    with pytest.raises(TypeError, match=message):
        sample_request("digits", query)


def test_it_refuses_files_where_an_array_is_returned():
    with pytest.raises(InvalidRequest, match="use stream"):
        refuse_files({"encoding": "png"})


# --- Prefixes, pictures and masks -------------------------------------------------------------------------------------

PICTURE = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)


def test_it_sends_a_prefix_as_bytes_and_stop_as_text():
    request = sample_request("verse", {"prefix": "à", "stop": "é"})
    assert (request.condition.prefix, request.stop) == ("à".encode(), "é")
    assert sample_request("digits", {"prefix": b"\xff\0"}).condition.prefix == b"\xff\0"


def test_it_sends_a_picture_with_a_mask_of_its_shape():
    condition = sample_request("digits", {"image": PICTURE, "mask": [[True, False], [False, True]]}).condition
    assert (condition.image.count, condition.image.data) == (1, PICTURE.tobytes())
    assert (condition.mask.dtype, list(condition.mask.data)) == (
        model_pb2.DTYPE_UINT8,
        [1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1],
    )


def test_it_draws_as_many_samples_as_pictures_or_masks():
    masks = np.ones((3, 2, 2, 3), np.int64)
    assert sample_request("digits", {"image": PICTURE, "mask": masks}).count == 3
    assert sample_request("digits", {"image": np.stack([PICTURE] * 4), "mask": masks[0]}).count == 4


@pytest.mark.parametrize(
    "picture", [np.zeros((2, 3), np.uint8), np.zeros((2, 3, 1), np.float32)], ids=["grey", "floats"]
)
def test_it_accepts_pictures_without_channels_and_floats(picture):
    condition = sample_request("digits", {"image": picture, "mask": np.ones((2, 3), bool)}).condition
    assert (condition.image.count, len(condition.mask.data)) == (1, 6)


@pytest.mark.parametrize(
    ("query", "field", "text"),
    [
        ({"prefix": ""}, "prefix", "is empty; leave it out"),
        ({"prefix": b""}, "prefix", "is empty; leave it out"),
        ({"prefix": "a\ud800"}, "prefix", "which is no character; give valid Unicode"),
        ({"stop": ""}, "stop", "is empty; leave it out"),
        ({"stop": "\ud800"}, "stop", "which is no character; give valid Unicode"),
        ({"mask": PICTURE}, "mask", "needs image"),
        ({"image": PICTURE, "mask": np.ones((2, 2)), "prefix": b"a"}, "image", "cannot go with prefix"),
        ({"image": PICTURE, "mask": np.full((2, 2), 255, np.uint8)}, "mask", "hold 255; give 1 where a value is given"),
        ({"image": PICTURE, "mask": np.array([[1, 0], [-3, 7]])}, "mask", "hold -3; give 1 where a value is given"),
        ({"image": PICTURE, "mask": np.ones((0, 2, 2), bool)}, "mask", "of shape (0, 2, 2, 1); give (rows, 2, 2, 3)"),
        ({"label": "a\ud800"}, "label", "which is no character; give valid Unicode"),
        ({"image": PICTURE, "mask": np.ones((3, 2), bool)}, "mask", "of shape (3, 2); give (rows, 2, 2, 3)"),
        ({"image": PICTURE, "mask": np.full((2, 2), 0.5)}, "mask", "are float64 of shape"),
        ({"image": [PICTURE] * 2, "mask": np.ones((2, 2), bool), "count": 3}, "image", "holds 2 pictures for 3"),
        ({"image": np.zeros((2, 1024, 1025), np.uint8), "mask": PICTURE}, "image", "at most 1 of 1024×1025"),
    ],
    ids=[
        "no text", "no bytes", "half a pair", "no stop", "half a pair to stop", "no image", "both", "white",
        "negative", "no mask rows", "half a pair in a label", "another shape", "floats", "count", "too large",
    ],
)  # fmt: skip
def test_it_names_what_is_wrong_with_what_is_given(query, field, text):
    with pytest.raises(InvalidRequest) as refused:
        sample_request("digits", query)
    assert text in dict(refused.value.fields)[field]


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ({"prefix": 7}, "prefix must be a str, or the bytes of pixels, got int"),
        ({"stop": b"a"}, "stop must be a str, got bytes"),
        ({"image": "a.png", "mask": "b.png"}, "image must be a sequence, an array or a tensor of pictures or vectors"),
    ],
    ids=["prefix", "stop", "image"],
)
def test_it_names_a_wrong_type_of_what_is_given(query, text):
    with pytest.raises(TypeError, match=text):
        sample_request("digits", query)
