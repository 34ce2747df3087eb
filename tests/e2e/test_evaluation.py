"""`fount evaluate` and related commands against the real stack: gates, reports, lists, cancelling."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from fount import Client
from fount.errors import FailedPrecondition, NotFound
from tests.e2e.evaluations import GENERATOR, content, report_of, retry, until, wait_for_success
from tests.e2e.processes import Served

Fount = Callable[..., CompletedProcess[str]]

QUICK = ("--count", "100", "--seed", "3", "--panel", "label-fidelity")
"""Takes a few seconds."""

LONG = {"count": 20_000, "seed": 3}
"""Does not end before it is cancelled."""


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def client(served: Served):
    with Client(served.server) as client:
        client.sample(GENERATOR, count=1)
        retry(lambda: client.sample("digits-vae", count=1))
        yield client


@pytest.fixture(scope="module")
def passed(client: Client, served: Served, home: Path, reports: Path) -> CompletedProcess[str]:
    """An evaluation that passes its gate, with both reports."""
    from tests.e2e.processes import run_fount

    files = ("--report", str(reports / "a.html"), "--report", str(reports / "a.json"))
    gate = ("--gate", "label_agreement.lower95 > 0.5", "--request-id", "release-1")
    return run_fount("evaluate", GENERATOR, *QUICK, *gate, *files, "--json", "--server", served.server, home=home)


def test_a_passed_gate_exits_with_0(passed: CompletedProcess[str]) -> None:
    assert passed.returncode == 0, passed.stderr
    printed = json.loads(passed.stdout)
    assert (printed["state"], [gate["passed"] for gate in printed["gates"]]) == ("succeeded", [True])


def test_reports_are_written_as_a_page_and_as_json(passed: CompletedProcess[str], reports: Path) -> None:
    page, report = (reports / "a.html").read_text(), content(reports / "a.json")
    assert page.startswith("<!doctype html>")
    assert "label_agreement" in page
    assert [metric["name"] for metric in report["metrics"]] == [
        metric["name"] for metric in json.loads(passed.stdout)["metrics"]
    ]
    assert report["envelope"]["seed"] == 3


def test_a_failed_gate_exits_with_1_and_still_writes_the_report(
    passed: CompletedProcess[str], fount: Fount, reports: Path
) -> None:
    """The numbers equal those of the same evaluation before."""
    result = fount("evaluate", GENERATOR, *QUICK, "--gate", "label_agreement > 1", "--report", str(reports / "b.json"))
    assert result.returncode == 1
    assert "1 of 1 gates failed:\n  label_agreement > 1" in result.stderr
    assert "label_agreement" in result.stdout
    first, second = content(reports / "a.json"), content(reports / "b.json")
    differing = {key for key in first if first[key] != second[key]}
    assert differing == {"gates", "gates_passed", "envelope"}


def test_an_equal_evaluation_has_an_equal_report(passed: CompletedProcess[str], client: Client, reports: Path) -> None:
    gates = ["label_agreement.lower95 > 0.5"]
    again = client.evaluate(GENERATOR, count=100, seed=3, panels=["label-fidelity"], gates=gates)
    assert again.id != json.loads(passed.stdout)["id"]
    wait_for_success(client, again.id)
    assert report_of(client, again.id) == content(reports / "a.json")


def test_a_request_id_finds_the_earlier_evaluation(passed: CompletedProcess[str], fount: Fount) -> None:
    gate = ("--gate", "label_agreement.lower95 > 0.5", "--request-id", "release-1")
    again = fount("evaluate", GENERATOR, *QUICK, *gate, "--json")
    assert json.loads(again.stdout)["id"] == json.loads(passed.stdout)["id"]
    other = fount("evaluate", GENERATOR, *QUICK, "--request-id", "release-1")
    assert other.returncode == 2
    assert "request_id" in other.stderr


def test_evaluations_are_listed(passed: CompletedProcess[str], fount: Fount) -> None:
    id = json.loads(passed.stdout)["id"]
    (line,) = [line for line in fount("evaluations").stdout.splitlines() if line.startswith(id)]
    assert "succeeded" in line
    assert "gates passed" in line
    assert id not in fount("evaluations", "--state", "failed").stdout
    assert id not in fount("evaluations", "--model", "digits-vae").stdout


def test_a_running_evaluation_is_cancelled_and_deleted(client: Client, fount: Fount) -> None:
    created = client.evaluate(GENERATOR, **LONG)
    until(client, created.id, lambda info: info.state == "running" and info.progress.done > 0)
    cancelled = fount("evaluation", created.id, "--cancel", "--json")
    assert json.loads(cancelled.stdout)["state"] == "cancelled"
    with pytest.raises(FailedPrecondition):
        client.evaluation_report(created.id)
    assert fount("evaluation", created.id, "--watch").returncode == 1
    assert fount("evaluation", created.id, "--delete").returncode == 0
    with pytest.raises(NotFound):
        client.evaluation(created.id)


def test_the_next_evaluation_starts_after_a_cancelled_one(client: Client) -> None:
    first = client.evaluate(GENERATOR, **LONG)
    second = client.evaluate("digits-vae", count=50, seed=1, panels=["memorisation"])
    until(client, first.id, lambda info: info.state == "running")
    assert client.evaluation(second.id).state == "queued"
    client.cancel_evaluation(first.id)
    assert {panel.panel for panel in wait_for_success(client, second.id).panels} == {"memorisation"}


def test_wrong_requests_are_refused_with_every_field(client: Client, fount: Fount) -> None:
    result = fount("evaluate", "digits-vae", "--count", "60", "--panel", "label-fidelity", "--gate", "beauty > 1")
    assert result.returncode == 2
    assert "panels" in result.stderr
    assert "gates" in result.stderr
