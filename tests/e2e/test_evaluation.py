"""`fount evaluate` and its kin against the real stack: gates, reports, the list, and ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from fount import Client
from fount.errors import FailedPrecondition, NotFound
from tests.e2e.evaluating import GENERATOR, content, patiently, report_of, until, whole
from tests.e2e.processes import Served

Fount = Callable[..., CompletedProcess[str]]

QUICK = ("--count", "100", "--seed", "3", "--panel", "label-fidelity")
"""A question that takes a few seconds."""

LONG = {"count": 20_000, "seed": 3}
"""One that is not answered before it is cancelled."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def client(served: Served):
    with Client(served.server) as client:
        client.sample(GENERATOR, count=1)
        patiently(lambda: client.sample("digits-vae", count=1))
        yield client


@pytest.fixture(scope="module")
def passed(client: Client, served: Served, home: Path, reports: Path) -> CompletedProcess[str]:
    """One that holds its gate, with both reports."""
    from tests.e2e.processes import run_fount

    files = ("--report", str(reports / "a.html"), "--report", str(reports / "a.json"))
    gate = ("--gate", "label_agreement.lower95 > 0.5", "--request-id", "release-1")
    return run_fount("evaluate", GENERATOR, *QUICK, *gate, *files, "--json", "--server", served.server, home=home)


def test_a_gate_that_holds_exits_with_0(passed: CompletedProcess[str]) -> None:
    assert passed.returncode == 0, passed.stderr
    told = json.loads(passed.stdout)
    assert (told["state"], [gate["passed"] for gate in told["gates"]]) == ("succeeded", [True])


def test_reports_are_written_as_a_page_and_as_json(passed: CompletedProcess[str], reports: Path) -> None:
    page, told = (reports / "a.html").read_text(), content(reports / "a.json")
    assert page.startswith("<!doctype html>")
    assert "label_agreement" in page
    assert [metric["name"] for metric in told["metrics"]] == [
        metric["name"] for metric in json.loads(passed.stdout)["metrics"]
    ]
    assert told["envelope"]["seed"] == 3


def test_a_gate_that_fails_exits_with_1_and_writes_the_report_all_the_same(
    passed: CompletedProcess[str], fount: Fount, reports: Path
) -> None:
    """And its numbers are those of the same question asked before."""
    told = fount("evaluate", GENERATOR, *QUICK, "--gate", "label_agreement > 1", "--report", str(reports / "b.json"))
    assert told.returncode == 1
    assert "1 of 1 gates failed:\n  label_agreement > 1" in told.stderr
    assert "label_agreement" in told.stdout
    first, second = content(reports / "a.json"), content(reports / "b.json")
    differing = {key for key in first if first[key] != second[key]}
    assert differing == {"gates", "gates_passed", "envelope"}


def test_the_same_question_has_the_same_report(passed: CompletedProcess[str], client: Client, reports: Path) -> None:
    gates = ["label_agreement.lower95 > 0.5"]
    again = client.evaluate(GENERATOR, count=100, seed=3, panels=["label-fidelity"], gates=gates)
    assert again.id != json.loads(passed.stdout)["id"]
    whole(client, again.id)
    assert report_of(client, again.id) == content(reports / "a.json")


def test_a_request_id_finds_the_evaluation_asked_for_before(passed: CompletedProcess[str], fount: Fount) -> None:
    gate = ("--gate", "label_agreement.lower95 > 0.5", "--request-id", "release-1")
    again = fount("evaluate", GENERATOR, *QUICK, *gate, "--json")
    assert json.loads(again.stdout)["id"] == json.loads(passed.stdout)["id"]
    other = fount("evaluate", GENERATOR, *QUICK, "--request-id", "release-1")
    assert other.returncode == 2
    assert "request_id" in other.stderr


def test_those_there_are_are_listed(passed: CompletedProcess[str], fount: Fount) -> None:
    id = json.loads(passed.stdout)["id"]
    (line,) = [line for line in fount("evaluations").stdout.splitlines() if line.startswith(id)]
    assert "succeeded" in line
    assert "gates passed" in line
    assert id not in fount("evaluations", "--state", "failed").stdout
    assert id not in fount("evaluations", "--model", "digits-vae").stdout


def test_one_that_runs_is_cancelled_and_deleted(client: Client, fount: Fount) -> None:
    asked = client.evaluate(GENERATOR, **LONG)
    until(client, asked.id, lambda info: info.state == "running" and info.progress.done > 0)
    cancelled = fount("evaluation", asked.id, "--cancel", "--json")
    assert json.loads(cancelled.stdout)["state"] == "cancelled"
    with pytest.raises(FailedPrecondition):
        client.evaluation_report(asked.id)
    assert fount("evaluation", asked.id, "--watch").returncode == 1
    assert fount("evaluation", asked.id, "--delete").returncode == 0
    with pytest.raises(NotFound):
        client.evaluation(asked.id)


def test_what_waits_behind_one_that_was_cancelled_is_begun(client: Client) -> None:
    first = client.evaluate(GENERATOR, **LONG)
    second = client.evaluate("digits-vae", count=50, seed=1, panels=["memorisation"])
    until(client, first.id, lambda info: info.state == "running")
    assert client.evaluation(second.id).state == "queued"
    client.cancel_evaluation(first.id)
    assert {panel.panel for panel in whole(client, second.id).panels} == {"memorisation"}


def test_wrong_questions_are_refused_with_every_field(client: Client, fount: Fount) -> None:
    told = fount("evaluate", "digits-vae", "--count", "60", "--panel", "label-fidelity", "--gate", "beauty > 1")
    assert told.returncode == 2
    assert "panels" in told.stderr
    assert "gates" in told.stderr
