import json
import math
import zlib

import pytest

from service.evaluation.report.bundle import read_bundle, to_report_json
from service.evaluation.results import Panel, Verdict
from tests.unit.evaluation.report_values import bundle, metric, panel, record

NEIGHBOURS = {"pairs": [{"training_row": 7654321, "distance": 1.5}]}


def report(packed, redacted=False, **changes):
    return json.loads(to_report_json(packed, redacted=redacted, record=record(**changes)))


def test_equal_results_give_equal_bytes():
    assert bundle() == bundle()
    assert bundle() != bundle(failed=1)


def test_a_bundle_reads_back_what_was_packed():
    content = read_bundle(bundle())
    assert content["metrics"][0]["value"] == 0.71234567
    assert content["specification"]["model"]["digest"] == "sha256:generator"
    assert content["gates"] == [{"gate": "precision.lower95 > 0.5", "passed": True, "actual": 0.65, "note": ""}]


def test_an_open_end_of_an_interval_is_null():
    content = read_bundle(bundle(metrics=[metric(value=math.nan, interval=(3.0, math.inf))]))
    assert (content["metrics"][0]["value"], content["metrics"][0]["interval"]) == (None, [3.0, None])


@pytest.mark.parametrize(
    "damaged",
    [b"", b"nonsense", bundle()[:-9], zlib.compress(b"[1]"), zlib.compress(b'{"format": 99}'), zlib.compress(b"{")],
    ids=["empty", "not zlib", "truncated", "not an object", "another format", "not JSON"],
)
def test_a_bundle_that_cannot_be_read_is_refused_with_the_reason(damaged):
    with pytest.raises(ValueError, match=r"it is damaged|it is not of format 1"):
        read_bundle(damaged)


def test_the_json_report_has_times_and_the_id_in_one_place():
    first, second = report(bundle()), report(bundle(), id="e2", create_unix_s=5.0, start_unix_s=6.0, end_unix_s=0.0)
    assert first.pop("job") == {
        "id": "e1",
        "created": "2023-11-14T22:13:20Z",
        "started": "2023-11-14T22:13:21Z",
        "ended": "2023-11-14T22:14:20Z",
    }
    assert second.pop("job") == {
        "id": "e2",
        "created": "1970-01-01T00:00:05Z",
        "started": "1970-01-01T00:00:06Z",
        "ended": None,
    }
    assert first == second


def test_the_json_report_has_the_envelope_with_counts():
    envelope = report(bundle(failed=3, compared=50))["envelope"]
    assert (envelope["count"], envelope["failed"], envelope["compared"], envelope["seed"]) == (60, 3, 50, 5)
    assert envelope["code_version"] == "0.1.0"


def test_a_redacted_report_has_no_training_rows():
    packed = bundle(figures={"nearest-training-rows": NEIGHBOURS, "distances": {"spaces": {}}})
    text = to_report_json(packed, redacted=True, record=record())
    assert b'training_row"' not in text
    assert b"7654321" not in text
    assert json.loads(text)["figures"] == {"distances": {"spaces": {}}}
    assert json.loads(text)["left_out"] == [{"figure": "nearest-training-rows", "grant": "view-training-neighbours"}]


def test_a_whole_report_has_training_rows():
    whole = report(bundle(figures={"nearest-training-rows": NEIGHBOURS}))
    assert whole["figures"]["nearest-training-rows"] == NEIGHBOURS
    assert (whole["redacted"], whole["left_out"]) == (False, [])


def test_gates_pass_when_every_gate_does():
    gate = {"gate": "fid < 1", "passed": True, "actual": 0.5, "note": ""}
    content = read_bundle(bundle())
    passed = content | {"gates": [gate, gate]}
    failed = content | {"gates": [gate, gate | {"passed": False}]}
    assert [report(zlib.compress(json.dumps(each).encode()))["gates_passed"] for each in (passed, failed)] == [
        True,
        False,
    ]


def test_the_report_has_the_worst_verdict_and_a_sentence():
    panels = [panel(verdict=Verdict.LIKE_REAL), panel(Panel.DIVERSITY, Verdict.WORSE), panel(verdict=Verdict.NEAR_REAL)]
    whole = report(bundle(panels=panels))
    assert (whole["verdict"], "diversity" in whole["sentence"]) == ("worse", True)
    assert report(bundle(panels=[]))["verdict"] == "none"


@pytest.mark.parametrize(
    ("verdicts", "worst", "sentence"),
    [
        (
            (Verdict.NEAR_REAL, Verdict.NOT_MEASURABLE),
            "not-measurable",
            "Samples cannot be compared with real rows in memorisation.",
        ),
        (
            (Verdict.WORSE, Verdict.NOT_MEASURABLE),
            "worse",
            "Samples are worse than real rows in realism. They cannot be compared in memorisation.",
        ),
    ],
    ids=["near", "worse"],
)
def test_what_is_not_measurable_counts_for_more_than_being_near(verdicts, worst, sentence):
    panels = [panel(each, verdict) for each, verdict in zip((Panel.REALISM, Panel.MEMORISATION), verdicts, strict=True)]
    whole = report(bundle(panels=panels))
    assert (whole["verdict"], whole["sentence"]) == (worst, sentence)


def test_a_bundle_of_an_earlier_version_has_no_facts_about_real_rows():
    content = read_bundle(bundle())
    del content["real_rows"], content["panels"][0]["note"]
    whole = report(zlib.compress(json.dumps(content).encode()))
    assert (whole["real_rows"], whole["panels"][0]["note"]) == ({}, "")
