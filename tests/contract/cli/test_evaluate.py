"""`fount evaluate` against a real server with faults."""

import json
import os
import re
import threading
import time

import pytest

from fount.cli import evaluation_watch
from fount.v1 import evaluation_pb2
from tests.contract.commands import fount, interrupted
from tests.contract.fake_evaluations import CANCELLED, FAILED, FakeEvaluations, serving_evaluations
from tests.contract.fake_gateway import DIGEST, error_info, invalid, overloaded, rich, unavailable

GATES = ("--gate", "fid < 5", "--gate", "copy_rate.upper95 < 0.01")


@pytest.fixture
def gateway(monkeypatch):
    gateway = FakeEvaluations()
    with serving_evaluations(gateway) as server:
        monkeypatch.setenv("FOUNT_SERVER", server)
        yield gateway


# --- The request ------------------------------------------------------------------------------------------------------


def test_a_model_alone_is_enough(gateway):
    assert fount("evaluate", "digits-cvae").exit_code == 0
    request = gateway.requests[0]
    assert (request.model.name, len(request.request_id)) == ("digits-cvae", 32)


@pytest.mark.parametrize(
    ("option", "value", "field", "sent"),
    [
        ("--reference", "digits:a:b", "reference", {"dataset": "digits", "training_split": "a", "held_out_split": "b"}),
        ("--count", "500", "count", 500),
        ("--seed", "0", "seed", 0),
        ("--panel", "memorisation", "panels", [3]),
        ("--gate", "fid < 5", "gates", ["fid < 5"]),
        ("--extractor", "a:2", "extractor", {"name": "a", "version": "2"}),
        ("--classifier", "b", "classifier", {"name": "b"}),
        ("--truncation", "0.5", "parameters", {"truncation": 0.5}),
        ("--temperature", "2", "parameters", {"temperature": 2}),
        ("--top-k", "3", "parameters", {"top_k": 3}),
        ("--top-p", "0.5", "parameters", {"top_p": 0.5}),
        ("--guidance-scale", "2", "parameters", {"guidance_scale": 2}),
        ("--steps", "8", "parameters", {"steps": 8}),
        ("--request-id", "release-3", "request_id", "release-3"),
    ],
)
def test_each_option_reaches_the_server(gateway, option, value, field, sent):
    assert fount("evaluate", "digits-cvae", "--detach", option, value).exit_code == 0
    (request,) = gateway.requests
    assert getattr(request, field) == getattr(evaluation_pb2.CreateEvaluationRequest(**{field: sent}), field)
    assert field != "seed" or request.HasField("seed")


def test_panels_and_gates_may_be_repeated(gateway):
    fount("evaluate", "digits-cvae", "--detach", "--panel", "diversity", "--panel", "realism", *GATES)
    (request,) = gateway.requests
    assert (list(request.panels), list(request.gates)) == ([2, 1], ["fid < 5", "copy_rate.upper95 < 0.01"])


def test_gates_in_the_environment_have_semicolons_between(gateway, monkeypatch):
    monkeypatch.setenv("FOUNT_EVALUATE_GATES", "fid < 5; kid < 1")
    fount("evaluate", "digits-cvae", "--detach")
    assert list(gateway.requests[0].gates) == ["fid < 5", "kid < 1"]


def test_a_gate_whose_class_is_a_name_and_an_index_is_noted(gateway):
    gateway.classes = ("0", "2", "cat")
    gates = ("--gate", "label_agreement[2] > 0.9", "--gate", "label_agreement[#1] > 0.9", "--gate", "fid < 5")
    assert fount("evaluate", "digits-cvae", "--detach", *gates).stderr.splitlines()[0] == (
        'note: "2" (index 1): taken as names of classes; write \'#2\', in quotes, for index 2, which is "cat"'
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--count", "3"), "count: is 3; it may be 50 or more"),
        (("--reference", "a:b"), 'reference: is "a:b"'),
        (("--panel", "beauty"), "'beauty' is not one of"),
        (("--report", "x.pdf"), "'x.pdf' has no supported suffix: let it end with .html or .json"),
        (("--detach", "--report", "x.html"), "--report is written at the end"),
        (("--request-id", "a b"), "request_id: is 'a b'"),
    ],
)
def test_an_invalid_request_is_a_usage_error(gateway, arguments, message):
    result = fount("evaluate", "digits-cvae", *arguments)
    assert (result.exit_code, gateway.requests) == (2, [])
    assert message in " ".join(result.stderr.split())


def test_a_request_that_the_server_finds_invalid_is_a_usage_error(gateway):
    refusal = invalid(gates="fid >> 5 does not parse", count="is above 50000")
    refusal.message = "gates: fid >> 5 does not parse; count: is abo …"  # as long as trailers may be
    gateway.refusals = [refusal]
    result = fount("evaluate", "digits-cvae")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-3:] == [
        "Error: The request is invalid:",
        "  gates: fid >> 5 does not parse",
        "  count: is above 50000",
    ]


@pytest.mark.parametrize(
    ("code", "message"), [(5, 'no model "ghost"'), (9, "ghost has no labels"), (3, "it cannot be evaluated")]
)
def test_a_request_that_the_server_refuses_is_a_usage_error(gateway, code, message):
    gateway.refusals = [rich(code, message, error_info("REFUSED"))]
    result = fount("evaluate", "ghost")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, f"Error: {message}")


def test_a_missing_grant_is_not_a_usage_error(gateway):
    gateway.refusals = [rich(7, "no grant", error_info("NOT_PERMITTED"))]
    result = fount("evaluate", "ghost")
    assert (result.exit_code, result.stderr) == (1, "Error: no grant\n")


# --- The result -------------------------------------------------------------------------------------------------------


def test_an_evaluation_is_a_table_next_to_real_data(gateway):
    gateway.failing = frozenset({"fid < 5"})
    result = fount("evaluate", "digits-cvae", "--seed", "7", "--truncation", "0.5", *GATES)
    assert result.stdout.splitlines() == [
        "Evaluation  ev-1, succeeded after 2 min",
        f"Model       digits-cvae:1.0@{DIGEST}, 10,000 samples, seed 7, truncation 0.5",
        "Reference   digits: held out test (359 rows), training train (1,438 rows)",
        "Extractor   digits-classifier:1.0",
        "Classifier  digits-classifier:1.0",
        "",
        "PANEL         METRIC     VALUE  95 % INTERVAL  REAL                 VERDICT",
        "realism       fid        12.5   [11, 14]       2 [1.5, 2.5]         (worse)",
        "realism       kid        -      -              -                    -",
        "memorisation  copy_rate  0.004  [0.001, 0.02]  0.01 [0.005, 0.015]  like real",
        "(in brackets: not used for the panel's verdict)",
        "",
        "kid: features are not finite",
        "",
        "realism       worse      Samples differ from real rows.",
        "memorisation  like real  No more copies than held-out rows.",
        "",
        "FAILED  fid < 5  (it is 0.02)",
        "passed  copy_rate.upper95 < 0.01  (it is 0.02)",
        "",
        "Overall     worse; 1 of 2 gates passed",
    ]


def test_notes_of_metrics_with_values_are_only_in_json(gateway):
    finish = gateway.finish

    def annotate(evaluation):
        finish(evaluation)
        evaluation.metrics[0].note = "of 359 rows"

    gateway.finish = annotate
    assert "of 359 rows" not in fount("evaluate", "digits-cvae").stdout
    assert "of 359 rows" in fount("evaluate", "digits-cvae", "--json").stdout


def test_an_evaluation_can_be_json(gateway):
    result = fount("evaluate", "digits-cvae", "--json", *GATES)
    message = json.loads(result.stdout)
    assert (result.exit_code, result.stderr, message["state"], message["gates_passed"]) == (0, "", "succeeded", True)
    assert message["metrics"][2]["interval"] == [0.001, 0.02]
    assert (message["envelope"]["panels"], message["reports"]) == (["realism", "memorisation"], [])


@pytest.mark.parametrize("no_color", ["", "1"], ids=["wanted", "not wanted"])
def test_verdicts_are_coloured_on_a_terminal_unless_no_color_is_set(gateway, monkeypatch, no_color):
    monkeypatch.setattr("fount.cli.evaluation_summary._is_terminal", lambda: True)
    monkeypatch.setenv("NO_COLOR", no_color)
    gateway.failing = frozenset({"fid < 5"})
    text = fount("evaluate", "digits-cvae", *GATES, color=True).stdout
    assert ("\x1b[31m(worse)\x1b[0m" in text) is not bool(no_color)
    assert ("\x1b[32mlike real\x1b[0m  No more" in text) is not bool(no_color)
    assert ("\x1b[31mFAILED\x1b[0m" in text) is not bool(no_color)
    assert ("\x1b" in text) is not bool(no_color)


def test_verdicts_are_not_coloured_in_a_file(gateway):
    assert "\x1b" not in fount("evaluate", "digits-cvae", *GATES, color=True).stdout


def test_text_of_a_server_cannot_move_the_cursor(gateway):
    gateway.end, gateway.end_reason = FAILED, "no\x1b[2J\nway"
    result = fount("evaluate", "digits-cvae")
    assert "no [2J way" in result.stderr
    assert "\x1b" not in result.output


# --- Exit codes -------------------------------------------------------------------------------------------------------


def test_every_gate_passed_is_exit_code_0(gateway):
    result = fount("evaluate", "digits-cvae", *GATES)
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "Overall     worse; 2 of 2 gates passed")


def test_a_verdict_alone_does_not_fail(gateway):
    result = fount("evaluate", "digits-cvae")
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "Overall     worse")


@pytest.mark.parametrize("as_json", [(), ("--json",)], ids=["words", "json"])
def test_a_gate_that_failed_is_exit_code_1_and_named(gateway, as_json):
    gateway.failing = frozenset({"fid < 5"})
    result = fount("evaluate", "digits-cvae", *GATES, *as_json)
    assert result.exit_code == 1
    assert result.stderr.endswith("Error: 1 of 2 gates failed:\n  fid < 5  (it is 0.02)\n")


def test_a_gate_without_an_outcome_does_not_pass(gateway, monkeypatch):
    finish = gateway.finish

    def forget(evaluation):
        finish(evaluation)
        del evaluation.gates[0]

    gateway.finish = forget
    result = fount("evaluate", "digits-cvae", *GATES)
    assert result.exit_code == 1
    assert "does not report that every gate passed: 1 outcomes of 2 gates" in result.stderr


@pytest.mark.parametrize(
    ("end", "message"), [(FAILED, "Evaluation ev-1 failed: disk full"), (CANCELLED, "Evaluation ev-1 was cancelled")]
)
def test_an_evaluation_that_did_not_succeed_is_exit_code_1(gateway, end, message):
    gateway.end, gateway.end_reason = end, "disk full"
    result = fount("evaluate", "digits-cvae", "--report", "x.html")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (1, f"Error: {message}")


def test_an_absent_server_is_reported_at_once():
    result = fount("evaluate", "digits-cvae", "--server", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "retrying" not in result.stderr
    assert "No Fount server answers at 127.0.0.1:1" in result.stderr


# --- Progress and faults ----------------------------------------------------------------------------------------------


def test_a_log_gets_a_line_per_stage(gateway):
    lines = fount("evaluate", "digits-cvae").stderr.splitlines()
    assert lines[0] == f"Evaluation ev-1 of digits-cvae:1.0@{DIGEST}"
    assert [line.rpartition(",")[0] for line in lines[1:]] == [
        "queued: waits for a runner",
        "drawing samples, 3 of 10 steps",
        "writing the report, 10 of 10 steps",
    ]


def test_a_log_gets_a_line_when_no_runner_works(gateway):
    gateway.waits = ["no runner works: the last one ended with status 1 (no module)"]
    lines = fount("evaluate", "digits-cvae").stderr.splitlines()
    assert lines[1].startswith("queued: waits for a runner, ")
    assert lines[2].startswith("queued: no runner works: the last one ended with status 1 (no module), ")


def test_a_log_gets_lines_at_intervals(gateway, monkeypatch):
    monkeypatch.setattr(evaluation_watch, "_LINE_INTERVAL_S", 0.05)
    monkeypatch.setattr(evaluation_watch, "_REFRESH_INTERVAL_S", 0.01)
    gateway.hold = threading.Event()
    threading.Timer(0.8, gateway.hold.set).start()
    lines = fount("evaluate", "digits-cvae").stderr.splitlines()
    assert sum(line.startswith("drawing samples, 3 of 10 steps, ") for line in lines) > 3


def test_a_log_gets_lines_before_the_server_answers(gateway, monkeypatch):
    monkeypatch.setattr(evaluation_watch, "_LINE_INTERVAL_S", 0.05)
    monkeypatch.setattr(evaluation_watch, "_REFRESH_INTERVAL_S", 0.01)
    gateway.refusals = [overloaded(0.5)]
    assert fount("evaluate", "digits-cvae").stderr.startswith("waiting for an answer, 0 s\n")


def test_lines_are_at_most_5_s_apart():
    assert evaluation_watch._LINE_INTERVAL_S + evaluation_watch._REFRESH_INTERVAL_S <= 5


def test_a_terminal_gets_a_bar_and_new_metrics(gateway, monkeypatch):
    monkeypatch.setattr(evaluation_watch, "error_is_terminal", lambda: True)
    monkeypatch.setattr(evaluation_watch, "_REFRESH_INTERVAL_S", 0.01)
    gateway.states += [(3, 10, "drawing samples")] * 2
    gateway.hold = threading.Event()
    threading.Timer(0.2, gateway.hold.set).start()
    result = fount("evaluate", "digits-cvae")
    assert "drawing samples:  30%|" in result.stderr
    assert result.stderr.count("so far  fid 12.5 [11, 14]") == 1
    assert "so far" not in result.stdout
    assert "of 10 steps" not in result.stderr


def test_a_bar_is_refreshed_between_snapshots(gateway, monkeypatch):
    monkeypatch.setattr(evaluation_watch, "error_is_terminal", lambda: True)
    monkeypatch.setattr(evaluation_watch, "_REFRESH_INTERVAL_S", 0.01)
    gateway.hold = threading.Event()
    threading.Timer(0.3, gateway.hold.set).start()
    assert fount("evaluate", "digits-cvae").stderr.count("drawing samples:  30%|") > 5


def test_a_broken_watch_is_resumed(gateway):
    gateway.breaks = [1, 2]
    assert fount("evaluate", "digits-cvae").exit_code == 0
    assert gateway.watched == 3


def test_a_restarted_server_is_waited_for(gateway, monkeypatch):
    monkeypatch.setattr("fount.retry.RetryPolicy.delay_s", lambda self, failures: 0.001)
    monkeypatch.setattr(evaluation_watch, "_RETRY_INTERVAL_S", 0.001)
    gateway.breaks = [1] + [0] * 20
    assert fount("evaluate", "digits-cvae").exit_code == 0
    assert gateway.watched == 22


def test_a_server_that_is_not_ready_is_waited_for(gateway, monkeypatch):
    monkeypatch.setattr("fount.retry.RetryPolicy.delay_s", lambda self, failures: 0.001)
    monkeypatch.setattr(evaluation_watch, "_RETRY_INTERVAL_S", 0.001)
    gateway.refusals = [unavailable("the gateway is draining")] * 10
    result = fount("evaluate", "digits-cvae")
    assert (result.exit_code, len({request.request_id for request in gateway.requests})) == (0, 1)
    assert result.stderr.splitlines().count("the gateway is draining; retrying for up to 120 s") == 1


def test_a_server_that_is_never_ready_is_reported(gateway, monkeypatch):
    monkeypatch.setattr("fount.retry.RetryPolicy.delay_s", lambda self, failures: 0.001)
    monkeypatch.setattr(evaluation_watch, "_RETRY_INTERVAL_S", 0.001)
    monkeypatch.setattr(evaluation_watch, "_MAX_OUTAGE_S", 0.05)
    gateway.refusals = [unavailable("the gateway is draining")] * 1000
    result = fount("evaluate", "digits-cvae")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "Error: the gateway is draining"


def test_loading_workers_are_waited_for_within_the_timeout(gateway, monkeypatch):
    monkeypatch.setattr("fount.retry._LOADING_S", 0.01)
    gateway.refusals = [unavailable("digits-cvae 1 is not ready: workers are loading", "LOADING")] * 10
    result = fount("evaluate", "digits-cvae", "--timeout", "20")
    assert result.exit_code == 0
    message = "digits-cvae 1 is not ready: workers are loading; waiting for up to 20 s"
    assert result.stderr.splitlines().count(message) == 1


def test_workers_that_do_not_load_in_time_are_reported(gateway, monkeypatch):
    monkeypatch.setattr("fount.retry._LOADING_S", 0.01)
    gateway.refusals = [unavailable("digits-cvae 1 is not ready: workers are loading", "LOADING")] * 1000
    result = fount("evaluate", "digits-cvae", "--timeout", "0.1")
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        "Error: digits-cvae 1 is not ready: workers are loading. That did not change within 0.1 s; "
        "wait longer with timeout_s (--timeout).",
    )


@pytest.mark.parametrize("is_terminal", [True, False], ids=["bar", "log"])
def test_elapsed_time_counts_from_the_start_of_the_evaluation(gateway, monkeypatch, is_terminal):
    monkeypatch.setattr(evaluation_watch, "error_is_terminal", lambda: is_terminal)
    monkeypatch.setattr(evaluation_watch, "_REFRESH_INTERVAL_S", 0.01)
    gateway.make().start_time.FromSeconds(int(time.time()) - 600)
    gateway.hold = threading.Event()
    threading.Timer(0.2, gateway.hold.set).start()
    message = fount("evaluation", "ev-1", "--watch").stderr
    assert re.search(r"30%\|.*\[10:0\d<" if is_terminal else r"3 of 10 steps, 60\d s", message)


def test_a_bar_without_a_total_has_no_question_marks(gateway, monkeypatch):
    monkeypatch.setattr(evaluation_watch, "error_is_terminal", lambda: True)
    monkeypatch.setattr(evaluation_watch, "_REFRESH_INTERVAL_S", 0.01)
    gateway.states, gateway.hold = [(0, 0, "")], threading.Event()
    threading.Timer(0.2, gateway.hold.set).start()
    message = fount("evaluate", "digits-cvae").stderr
    assert "\rqueued: waits for a runner, 00:00" in message
    assert "?" not in message.partition("writing the report")[0]


def test_a_server_that_stays_away_is_reported_with_the_commands_to_continue(gateway, monkeypatch):
    monkeypatch.setattr("fount.retry.RetryPolicy.delay_s", lambda self, failures: 0.001)
    monkeypatch.setattr(evaluation_watch, "_MAX_OUTAGE_S", 0.0)
    gateway.breaks = [1] + [0] * 20
    result = fount("evaluate", "digits-cvae")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-4:] == [
        "Error: draining",
        "The evaluation continues without this command:",
        "  fount evaluation ev-1 --watch   to watch it again",
        "  fount evaluation ev-1 --cancel  to cancel it",
    ]


def test_ctrl_c_detaches_and_prints_the_commands_to_continue(gateway):
    gateway.hold = threading.Event()
    code, message = interrupted("evaluate", "digits-cvae", when=lambda: gateway.watched)
    assert code == 130
    assert message.splitlines()[-3:] == [
        "Detached; evaluation ev-1 continues.",
        "  fount evaluation ev-1 --watch   to watch it again",
        "  fount evaluation ev-1 --cancel  to cancel it",
    ]
    assert (gateway.cancelled, list(gateway.made)) == ([], ["ev-1"])


def test_ctrl_c_ends_a_watch_but_not_the_evaluation(gateway):
    gateway.make()
    gateway.hold = threading.Event()
    code, message = interrupted("evaluation", "ev-1", "--watch", "--json", when=lambda: gateway.watched)
    assert (code, message.splitlines()[0]) == (130, "Detached; evaluation ev-1 continues.")
    assert gateway.cancelled == []


def test_a_detached_evaluation_is_only_created(gateway):
    result = fount("evaluate", "digits-cvae", "--detach")
    assert (result.exit_code, result.stdout) == (
        0,
        "Evaluation ev-1, queued\n"
        "  fount evaluation ev-1 --watch   to watch it again\n"
        "  fount evaluation ev-1 --cancel  to cancel it\n",
    )
    assert gateway.watched == 0


def test_the_commands_to_continue_name_a_server_other_than_the_default(gateway, monkeypatch):
    server = os.environ["FOUNT_SERVER"]
    monkeypatch.delenv("FOUNT_SERVER")
    message = fount("evaluate", "digits-cvae", "--detach", "--server", server).stdout
    assert f"fount evaluation ev-1 --server {server} --watch" in message


def test_a_detached_evaluation_can_be_json(gateway):
    message = json.loads(fount("evaluate", "digits-cvae", "--detach", "--json").stdout)
    assert (message["id"], message["state"]) == ("ev-1", "queued")


def test_the_same_request_id_waits_for_the_same_evaluation(gateway):
    for _ in range(2):
        assert fount("evaluate", "digits-cvae", "--request-id", "release-3").exit_code == 0
    assert list(gateway.made) == ["ev-1"]


def test_a_retried_request_makes_one_evaluation(gateway):
    gateway.refusals = [unavailable()]
    assert fount("evaluate", "digits-cvae").exit_code == 0
    assert list(gateway.made) == ["ev-1"]
