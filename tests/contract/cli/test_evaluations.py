"""`fount evaluations`, `fount evaluation`, and reports, against a real server with faults."""

import json
import time

import pytest

from fount.cli.evaluation_summary import age
from fount.evaluation.types import STATES, evaluation_info
from fount.v1 import evaluation_pb2
from tests.contract.commands import fount
from tests.contract.fake_evaluations import SUCCEEDED, FakeEvaluations, serving_evaluations

GATES = ("--gate", "fid < 5", "--gate", "copy_rate.upper95 < 0.01")


@pytest.fixture
def gateway(monkeypatch):
    gateway = FakeEvaluations()
    with serving_evaluations(gateway) as server:
        monkeypatch.setenv("FOUNT_SERVER", server)
        yield gateway


# --- Reports ----------------------------------------------------------------------------------------------------------


def test_a_report_has_the_format_of_its_suffix(gateway, tmp_path):
    result = fount("evaluate", "digits-cvae", "--report", "a.html", "--report", "b.json")
    assert (tmp_path / "a.html").read_bytes() == b"<html>report</html>"
    assert (tmp_path / "b.json").read_bytes() == b'{"report": 1}'
    assert result.stdout.splitlines()[-2:] == ["Written     a.html", "Written     b.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.json"]


def test_a_report_replaces_an_earlier_one(gateway, tmp_path):
    (tmp_path / "a.html").write_text("earlier")
    assert fount("evaluate", "digits-cvae", "--report", "a.html").exit_code == 0
    assert (tmp_path / "a.html").read_bytes() == b"<html>report</html>"


def test_a_report_of_a_failed_gate_is_written_too(gateway, tmp_path):
    gateway.failing = frozenset({"fid < 5"})
    assert fount("evaluate", "digits-cvae", *GATES, "--report", "a.html").exit_code == 1
    assert (tmp_path / "a.html").exists()


def test_a_broken_report_leaves_the_earlier_one(gateway, tmp_path, monkeypatch):
    monkeypatch.setattr("fount.retry.RetryPolicy.delay_s", lambda self, failures: 0.001)
    (tmp_path / "a.html").write_text("earlier")
    gateway.report_breaks = [2] * 20
    result = fount("evaluate", "digits-cvae", "--report", "a.html")
    assert result.exit_code == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.html": "earlier"}


def test_a_redacted_report_is_reported(gateway):
    gateway.redacted = True
    result = fount("evaluate", "digits-cvae", "--report", "a.html", "--json")
    assert json.loads(result.stdout)["reports"] == [{"path": "a.html", "bytes": 19, "redacted": True}]
    assert "they need the grant view-training-neighbours" in fount("evaluation", "ev-1", "--report", "a.html").stdout


@pytest.mark.parametrize(
    ("path", "message"), [("no/a.html", "there is no folder no"), ("folder.html", "it is a folder")]
)
def test_an_unwritable_path_is_reported_before_anything_is_requested(gateway, tmp_path, path, message):
    (tmp_path / "folder.html").mkdir()
    result = fount("evaluate", "digits-cvae", "--report", path)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"Error: {path} cannot be written: {message}")
    assert gateway.requests == []


# --- Lists ------------------------------------------------------------------------------------------------------------


def test_evaluations_are_listed_in_a_table(gateway, monkeypatch):
    monkeypatch.setattr("fount.cli.evaluations.age", lambda moment: "3 h")
    gateway.failing = frozenset({"fid < 5"})
    fount("evaluate", "digits-cvae", "--count", "500", *GATES)
    gateway.make("digits-cgan")
    assert fount("evaluations").stdout.splitlines() == [
        "EVALUATION  MODEL            REFERENCE  COUNT   STATE      PROGRESS  AGE  VERDICTS",
        "ev-2        digits-cgan:1.0  digits     10,000  queued     -         3 h  -",
        "ev-1        digits-cvae:1.0  digits     500     succeeded  100 %     3 h  "
        "realism worse, memorisation like real, gates FAILED",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [((), "none yet: fount evaluate MODEL\n"), (("--state", "failed"), "none: fount evaluations lists all\n")],
)
def test_an_empty_list_names_the_next_command(gateway, options, message):
    result = fount("evaluations", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", message)


def test_an_evaluation_that_succeeded_is_at_100_percent(gateway):
    progress = gateway.make(end=SUCCEEDED).progress
    progress.done, progress.total = 99, 100
    assert " 100 % " in fount("evaluations").stdout


def test_a_list_can_be_filtered_by_state_and_model(gateway):
    fount("evaluations", "--state", "queued", "--state", "running", "--model", "digits-cvae")
    (request,) = gateway.listed
    assert (list(request.states), request.model) == ([1, 2], "digits-cvae")


def test_a_list_can_be_json(gateway):
    gateway.make()
    assert [each["id"] for each in json.loads(fount("evaluations", "--json").stdout)] == ["ev-1"]


def test_an_unknown_state_is_a_usage_error():
    result = fount("evaluations", "--state", "done")
    assert result.exit_code == 2
    assert all(state in result.stderr for state in STATES)


@pytest.mark.parametrize(
    ("seconds", "message"), [(0, "0 s"), (59, "59 s"), (119, "1 min"), (7200, "2 h"), (200_000, "2 d"), (-5, "0 s")]
)
def test_an_age_has_its_largest_unit(seconds, message):
    evaluation = evaluation_pb2.Evaluation()
    evaluation.create_time.FromSeconds(1000)
    evaluation.end_time.FromSeconds(1000 + seconds)
    info = evaluation_info(evaluation)
    assert age(info.created, info.ended) == message


# --- One evaluation ---------------------------------------------------------------------------------------------------


def test_a_queued_evaluation_is_shown_without_waiting(gateway):
    gateway.make().create_time.FromSeconds(int(time.time()) - 200)
    result = fount("evaluation", "ev-1")
    assert (result.exit_code, gateway.watched) == (0, 0)
    assert result.stdout.splitlines()[0] == "Evaluation  ev-1, queued for 3 min: waits for a runner"
    assert "  fount evaluation ev-1 --watch   to watch it again" in result.stdout.splitlines()


def test_a_running_evaluation_is_shown_with_its_progress(gateway):
    made = gateway.make()
    made.state, made.state_reason = evaluation_pb2.Evaluation.STATE_RUNNING, ""
    made.start_time.FromSeconds(int(time.time()) - 200)
    made.progress.stage, made.progress.done, made.progress.total = "drawing samples", 3, 11
    lines = fount("evaluation", "ev-1").stdout.splitlines()
    assert lines[0] == "Evaluation  ev-1, running for 3 min, drawing samples, 27 %"
    assert lines[-2:] == [
        "  fount evaluation ev-1 --watch   to watch it again",
        "  fount evaluation ev-1 --cancel  to cancel it",
    ]


def test_an_evaluation_that_has_ended_has_no_commands_to_continue(gateway):
    gateway.make(end=SUCCEEDED)
    assert "--watch" not in fount("evaluation", "ev-1").stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Evaluation  ev-1, queued"),
        (("--watch",), "Evaluation  ev-1, succeeded"),
        (("--cancel",), "Evaluation  ev-1, was cancelled"),
        (("--delete",), "Evaluation ev-1 is deleted."),
    ],
)
def test_a_unique_prefix_of_an_id_is_enough(gateway, monkeypatch, options, message):
    gateway.make()
    gateway.made["0199e2c4b-1"] = gateway.made.pop("ev-1")
    gateway.made["0199e2c4b-1"].id = "0199e2c4b-1"
    result = fount("evaluation", "0199e", *options)
    assert (result.exit_code, result.stdout.replace("0199e2c4b-1", "ev-1").startswith(message)) == (0, True)


def test_a_prefix_of_several_ids_is_a_usage_error(gateway):
    for _ in range(12):
        gateway.make()
    result = fount("evaluation", "ev-1", "--json")
    assert json.loads(result.stdout)["id"] == "ev-1"  # a whole id takes precedence
    for number in range(1, 13):
        gateway.made[f"0199e-{number}"] = gateway.made.pop(f"ev-{number}")
        gateway.made[f"0199e-{number}"].id = f"0199e-{number}"
    result = fount("evaluation", "0199", "--delete")
    assert (result.exit_code, len(gateway.made)) == (2, 12)
    assert (
        "Error: 12 evaluations begin with '0199'; give more characters of one:\n  0199e-12\n  0199e-11" in result.stderr
    )
    assert result.stderr.endswith("  0199e-3\n  and 2 more\n")


def test_fewer_than_4_characters_are_no_prefix(gateway):
    gateway.make()
    result = fount("evaluation", "ev-")
    assert (result.exit_code, gateway.listed) == (1, [])


def test_showing_an_evaluation_with_a_failed_gate_succeeds(gateway):
    gateway.failing = frozenset({"fid < 5"})
    fount("evaluate", "digits-cvae", *GATES)
    result = fount("evaluation", "ev-1")
    assert result.exit_code == 0
    assert "FAILED  fid < 5  (it is 0.02)" in result.stdout.splitlines()


def test_watching_has_the_exit_codes_of_evaluate(gateway):
    gateway.failing = frozenset({"fid < 5"})
    fount("evaluate", "digits-cvae", "--detach", *GATES)
    result = fount("evaluation", "ev-1", "--watch", "--report", "a.json")
    assert result.exit_code == 1
    assert "1 of 2 gates failed" in result.stderr
    assert "Written     a.json" in result.stdout


def test_an_evaluation_is_cancelled(gateway):
    gateway.make()
    result = fount("evaluation", "ev-1", "--cancel")
    assert result.stdout.splitlines()[0] == "Evaluation  ev-1, was cancelled"
    assert gateway.cancelled == ["ev-1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [((), "Evaluation ev-1 is deleted.\n"), (("--json",), '{\n  "id": "ev-1",\n  "deleted": true\n}\n')],
)
def test_an_evaluation_is_deleted(gateway, options, message):
    gateway.make()
    assert fount("evaluation", "ev-1", "--delete", *options).stdout == message
    assert gateway.made == {}


def test_the_report_of_an_earlier_evaluation_is_written(gateway, tmp_path):
    gateway.make(end=SUCCEEDED)
    result = fount("evaluation", "ev-1", "--report", "a.html")
    assert (tmp_path / "a.html").read_bytes() == b"<html>report</html>"
    assert result.stdout.splitlines()[-1] == "Written     a.html"


def test_a_missing_report_is_reported(gateway, tmp_path):
    gateway.make()
    result = fount("evaluation", "ev-1", "--report", "a.html")
    assert (result.exit_code, result.stderr) == (1, "Error: it has no report yet\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "options",
    [
        ("--watch", "--cancel"),
        ("--cancel", "--delete"),
        ("--delete", "--report", "a.html"),
        ("--cancel", "--report", "a.html"),
    ],
)
def test_actions_exclude_each_other(gateway, options):
    gateway.make()
    assert fount("evaluation", "ev-1", *options).exit_code == 2
    assert (gateway.cancelled, list(gateway.made)) == ([], ["ev-1"])


@pytest.mark.parametrize("option", ["--watch", "--cancel", "--delete", "--json"])
def test_an_unknown_evaluation_is_reported(gateway, option):
    result = fount("evaluation", "ghost", option)
    assert (result.exit_code, result.stderr) == (1, 'Error: no evaluation "ghost"\n')
