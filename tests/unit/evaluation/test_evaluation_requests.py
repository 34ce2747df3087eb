"""Arguments become requests about evaluations; every wrong one is named before a call."""

import numpy as np
import pytest

from fount.errors import InvalidRequest
from fount.evaluation.request import REPORT_FORMATS, evaluation_request, list_request, report_request
from fount.evaluation.types import PANELS, STATES
from fount.v1 import evaluation_pb2


def refused(**query):
    with pytest.raises(InvalidRequest) as error:
        evaluation_request("digits-cvae", query)
    return error.value.fields


def test_a_model_alone_leaves_every_other_field_unset():
    request = evaluation_request("digits-cvae:1.0", {})
    request.request_id = ""
    assert request == evaluation_pb2.CreateEvaluationRequest(model={"name": "digits-cvae", "version": "1.0"})


def test_every_argument_has_its_field():
    query = {
        "reference": "digits:train:test", "count": np.int64(500), "seed": 0, "panels": ("memorisation", "realism"),
        "gates": ["fid < 5"], "extractor": "a:2", "classifier": "b", "request_id": "run-1", "truncation": 0.5,
        "temperature": 2, "top_k": 3, "top_p": 0.25, "guidance_scale": 4, "steps": 5,
    }  # fmt: skip
    assert evaluation_request("digits-cvae@sha256:a", query) == evaluation_pb2.CreateEvaluationRequest(
        model={"name": "digits-cvae", "digest": "sha256:a"},
        reference={"dataset": "digits", "training_split": "train", "held_out_split": "test"},
        count=500, seed=0, panels=[3, 1], gates=["fid < 5"], extractor={"name": "a", "version": "2"},
        classifier={"name": "b"}, request_id="run-1",
        parameters={"truncation": 0.5, "temperature": 2, "top_k": 3, "top_p": 0.25, "guidance_scale": 4, "steps": 5},
    )  # fmt: skip


def test_none_is_the_same_as_unset():
    query = {"reference": None, "count": None, "seed": None, "panels": None, "gates": None, "extractor": None}
    request = evaluation_request("digits-cvae", query)
    assert [field.name for field, _ in request.ListFields()] == ["model", "request_id"]


def test_every_call_has_a_request_id_of_its_own():
    first, second = (evaluation_request("digits-cvae", {}).request_id for _ in range(2))
    assert len(first) == 32
    assert first != second


def test_splits_may_be_left_to_the_server():
    reference = evaluation_request("digits-cvae", {"reference": "digits"}).reference
    assert (reference.dataset, reference.training_split, reference.held_out_split) == ("digits", "", "")


def test_one_split_may_be_left_to_the_server():
    reference = evaluation_request("digits-cvae", {"reference": "digits::valid"}).reference
    assert (reference.training_split, reference.held_out_split) == ("", "valid")


def test_all_problems_are_named_at_once():
    fields = refused(
        reference="digits:train", count=49, seed=-1, panels=["realism", "beauty", "realism"], gates=["fid < 5", " "],
        extractor=":1", request_id="run 1",
    )  # fmt: skip
    assert fields == [
        ("count", "is 49; it may be 50 or more"),
        ("panels", 'hold "realism" 2 times'),
        ("panels", 'hold "beauty"; there are realism, diversity, memorisation, label-fidelity'),
        ("gates", 'hold an empty one; give conditions as "copy_rate.upper95 < 0.01"'),
        ("request_id", "is 'run 1'; give 1 to 128 letters, digits, dots, dashes or underscores"),
        ("reference", 'is "digits:train"; give "DATASET" or "DATASET:TRAINING:HELD_OUT"'),
        ("seed", "is -1; it may be 0 to 18446744073709551615"),
        ("extractor", '":1" has no name; give "name" or "name:version"'),
    ]


@pytest.mark.parametrize("reference", ["", ":train:test", "digits:a", "digits:a:b:c"])
def test_an_invalid_reference_is_named(reference):
    assert [field for field, _ in refused(reference=reference)] == ["reference"]


def test_a_model_without_a_name_is_named():
    with pytest.raises(InvalidRequest, match="has no name"):
        evaluation_request(":1.0", {})


def test_too_many_gates_are_refused():
    assert evaluation_request("digits-cvae", {"gates": ["fid < 1"] * 64}).gates
    assert refused(gates=["fid < 1"] * 65) == [("gates", "are 65; there may be 64")]


@pytest.mark.parametrize("request_id", ["", "a" * 129, "a/b", "é"])
def test_a_request_id_that_the_contract_does_not_allow_is_refused(request_id):
    assert [field for field, _ in refused(request_id=request_id)] == ["request_id"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("count", "500"), ("count", True), ("seed", 1.5), ("gates", "fid < 5"), ("panels", "realism"), ("panels", 1),
        ("reference", 1), ("extractor", 1), ("classifier", b"b"), ("truncation", "1"), ("request_id", 1),
        ("gates", [1]),
    ],
)  # fmt: skip
def test_an_argument_of_another_type_is_a_type_error(name, value):
    with pytest.raises(TypeError, match=f"{name} must be"):
        evaluation_request("digits-cvae", {name: value})


def test_an_unknown_argument_is_a_type_error():
    with pytest.raises(TypeError, match=r"evaluate\(\) got an unexpected argument 'panel'"):
        evaluation_request("digits-cvae", {"panel": "realism"})


def test_a_list_is_of_states_and_a_model():
    request = list_request(["queued", "failed"], "digits-cvae")
    assert (list(request.states), request.model, request.page_size) == ([1, 4], "digits-cvae", 1000)


def test_an_unknown_state_is_named():
    with pytest.raises(InvalidRequest, match='hold "done"; there are queued, running, succeeded, failed, cancelled'):
        list_request(["done"], None)


def test_a_report_has_a_format():
    assert report_request("ev-1", "json") == evaluation_pb2.GetEvaluationReportRequest(id="ev-1", format=1)
    with pytest.raises(InvalidRequest, match='format: is "pdf"; it may be html, json'):
        report_request("ev-1", "pdf")


@pytest.mark.parametrize(
    ("names", "enum"),
    [
        (PANELS, evaluation_pb2.Panel),
        (STATES, evaluation_pb2.Evaluation.State),
        (REPORT_FORMATS, evaluation_pb2.GetEvaluationReportRequest.Format),
    ],
    ids=["panels", "states", "formats"],
)
def test_every_enum_value_has_a_name(names, enum):
    assert set(names.values()) == set(enum.values()) - {0}
