"""`fount evaluations`, `fount evaluation`, and reports, against a real server that breaks when told."""

import json
import time

import pytest
from click.testing import CliRunner

from fount.cli.evaluation_table import age
from fount.cli.main import main
from fount.evaluation.types import STATES, evaluation_info
from fount.v1 import evaluation_pb2
from tests.contract.fake_evaluations import SUCCEEDED, FakeEvaluations, serving_evaluations

GATES = ("--gate", "fid < 5", "--gate", "copy_rate.upper95 < 0.01")


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def gateway(monkeypatch):
    gateway = FakeEvaluations()
    with serving_evaluations(gateway) as server:
        monkeypatch.setenv("FOUNT_SERVER", server)
        yield gateway


def fount(*arguments):
    return CliRunner().invoke(main, arguments)


# --- Reports ----------------------------------------------------------------------------------------------------------


def test_reports_are_written_in_the_formats_their_names_say(gateway, tmp_path):
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


def test_a_report_that_breaks_leaves_the_earlier_one(gateway, tmp_path, monkeypatch):
    monkeypatch.setattr("fount.retry.RetryPolicy.delay_s", lambda self, failures: 0.001)
    (tmp_path / "a.html").write_text("earlier")
    gateway.cut = [2] * 20
    result = fount("evaluate", "digits-cvae", "--report", "a.html")
    assert result.exit_code == 1
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.html": "earlier"}


def test_a_redacted_report_is_told(gateway):
    gateway.redacted = True
    result = fount("evaluate", "digits-cvae", "--report", "a.html", "--json")
    assert json.loads(result.stdout)["reports"] == [{"path": "a.html", "bytes": 19, "redacted": True}]
    assert "they need the grant view-training-neighbours" in fount("evaluation", "ev-1", "--report", "a.html").stdout


@pytest.mark.parametrize(("place", "told"), [("no/a.html", "there is no folder no"), ("folder.html", "it is a folder")])
def test_a_place_that_cannot_be_written_is_told_before_anything_is_asked(gateway, tmp_path, place, told):
    (tmp_path / "folder.html").mkdir()
    result = fount("evaluate", "digits-cvae", "--report", place)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"Error: {place} cannot be written: {told}")
    assert gateway.requests == []


# --- The evaluations there are ----------------------------------------------------------------------------------------


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
    ("options", "told"),
    [((), "none yet: fount evaluate MODEL\n"), (("--state", "failed"), "none: fount evaluations lists all\n")],
)
def test_an_empty_list_says_what_to_do(gateway, options, told):
    result = fount("evaluations", *options)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", told)


def test_one_that_succeeded_is_done_whatever_its_steps_say(gateway):
    progress = gateway.make(end=SUCCEEDED).progress
    progress.done, progress.total = 99, 100
    assert " 100 % " in fount("evaluations").stdout


def test_a_list_may_be_of_states_and_of_a_model(gateway):
    fount("evaluations", "--state", "queued", "--state", "running", "--model", "digits-cvae")
    (request,) = gateway.listed
    assert (list(request.states), request.model) == ([1, 2], "digits-cvae")


def test_a_list_can_be_read_by_a_program(gateway):
    gateway.make()
    assert [each["id"] for each in json.loads(fount("evaluations", "--json").stdout)] == ["ev-1"]


def test_a_state_that_there_is_not_is_a_mistake_of_usage():
    result = fount("evaluations", "--state", "done")
    assert result.exit_code == 2
    assert all(state in result.stderr for state in STATES)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (59, "59 s"), (119, "1 min"), (7200, "2 h"), (200_000, "2 d"), (-5, "0 s")]
)
def test_an_age_is_told_in_its_largest_unit(seconds, told):
    evaluation = evaluation_pb2.Evaluation()
    evaluation.create_time.FromSeconds(1000)
    evaluation.end_time.FromSeconds(1000 + seconds)
    info = evaluation_info(evaluation)
    assert age(info.created, info.ended) == told


# --- One evaluation ---------------------------------------------------------------------------------------------------


def test_an_evaluation_that_waits_is_shown_as_it_is(gateway):
    gateway.make().create_time.FromSeconds(int(time.time()) - 200)
    result = fount("evaluation", "ev-1")
    assert (result.exit_code, gateway.watched) == (0, 0)
    assert result.stdout.splitlines()[0] == "Evaluation  ev-1, queued for 3 min: waits for a runner"
    assert "  fount evaluation ev-1 --watch   to go on watching" in result.stdout.splitlines()


def test_an_evaluation_that_runs_says_how_far_it_is(gateway):
    made = gateway.make()
    made.state, made.state_reason = evaluation_pb2.Evaluation.STATE_RUNNING, ""
    made.start_time.FromSeconds(int(time.time()) - 200)
    made.progress.stage, made.progress.done, made.progress.total = "drawing samples", 3, 11
    lines = fount("evaluation", "ev-1").stdout.splitlines()
    assert lines[0] == "Evaluation  ev-1, running for 3 min, drawing samples, 27 %"
    assert lines[-2:] == [
        "  fount evaluation ev-1 --watch   to go on watching",
        "  fount evaluation ev-1 --cancel  to end it",
    ]


def test_an_evaluation_that_has_ended_is_not_to_be_watched(gateway):
    gateway.make(end=SUCCEEDED)
    assert "--watch" not in fount("evaluation", "ev-1").stdout


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "Evaluation  ev-1, queued"),
        (("--watch",), "Evaluation  ev-1, succeeded"),
        (("--cancel",), "Evaluation  ev-1, was cancelled"),
        (("--delete",), "Evaluation ev-1 is deleted."),
    ],
)
def test_the_beginning_of_an_id_is_enough(gateway, monkeypatch, options, told):
    gateway.make()
    gateway.made["0199e2c4b-1"] = gateway.made.pop("ev-1")
    gateway.made["0199e2c4b-1"].id = "0199e2c4b-1"
    result = fount("evaluation", "0199e", *options)
    assert (result.exit_code, result.stdout.replace("0199e2c4b-1", "ev-1").startswith(told)) == (0, True)


def test_the_beginning_of_several_names_them(gateway):
    for _ in range(12):
        gateway.make()
    result = fount("evaluation", "ev-1", "--json")
    assert json.loads(result.stdout)["id"] == "ev-1"  # one that is named whole is meant
    for number in range(1, 13):
        gateway.made[f"0199e-{number}"] = gateway.made.pop(f"ev-{number}")
        gateway.made[f"0199e-{number}"].id = f"0199e-{number}"
    result = fount("evaluation", "0199", "--delete")
    assert (result.exit_code, len(gateway.made)) == (2, 12)
    assert "Error: 12 evaluations begin with '0199'; give more of one:\n  0199e-12\n  0199e-11" in result.stderr
    assert result.stderr.endswith("  0199e-3\n  and 2 more\n")


def test_fewer_than_4_characters_begin_nothing(gateway):
    gateway.make()
    result = fount("evaluation", "ev-")
    assert (result.exit_code, gateway.listed) == (1, [])


def test_showing_one_whose_gate_failed_is_no_failure(gateway):
    gateway.failing = frozenset({"fid < 5"})
    fount("evaluate", "digits-cvae", *GATES)
    result = fount("evaluation", "ev-1")
    assert result.exit_code == 0
    assert "FAILED  fid < 5  (it is 0.02)" in result.stdout.splitlines()


def test_watching_one_has_the_exit_codes_of_evaluate(gateway):
    gateway.failing = frozenset({"fid < 5"})
    fount("evaluate", "digits-cvae", "--detach", *GATES)
    result = fount("evaluation", "ev-1", "--watch", "--report", "a.json")
    assert result.exit_code == 1
    assert "1 of 2 gates failed" in result.stderr
    assert "Written     a.json" in result.stdout


def test_one_is_cancelled(gateway):
    gateway.make()
    result = fount("evaluation", "ev-1", "--cancel")
    assert result.stdout.splitlines()[0] == "Evaluation  ev-1, was cancelled"
    assert gateway.cancelled == ["ev-1"]


@pytest.mark.parametrize(
    ("options", "told"),
    [((), "Evaluation ev-1 is deleted.\n"), (("--json",), '{\n  "id": "ev-1",\n  "deleted": true\n}\n')],
)
def test_one_is_deleted(gateway, options, told):
    gateway.make()
    assert fount("evaluation", "ev-1", "--delete", *options).stdout == told
    assert gateway.made == {}


def test_the_report_of_an_earlier_one_is_written(gateway, tmp_path):
    gateway.make(end=SUCCEEDED)
    result = fount("evaluation", "ev-1", "--report", "a.html")
    assert (tmp_path / "a.html").read_bytes() == b"<html>report</html>"
    assert result.stdout.splitlines()[-1] == "Written     a.html"


def test_one_without_a_report_yet_is_told(gateway, tmp_path):
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
def test_one_thing_is_done_at_a_time(gateway, options):
    gateway.make()
    assert fount("evaluation", "ev-1", *options).exit_code == 2
    assert (gateway.cancelled, list(gateway.made)) == ([], ["ev-1"])


@pytest.mark.parametrize("option", ["--watch", "--cancel", "--delete", "--json"])
def test_an_unknown_one_is_told(gateway, option):
    result = fount("evaluation", "ghost", option)
    assert (result.exit_code, result.stderr) == (1, 'Error: no evaluation "ghost"\n')
