"""`fount plan` against a real server."""

import json

import pytest

from tests.contract.commands import fount
from tests.contract.fake_gateway import DIGEST

PLAN = "dataset: digits\nseed: 1\nshards: 3\ntarget: {balance: largest}\n"


@pytest.fixture(autouse=True)
def a_plan_file(tmp_path):
    (tmp_path / "plan.yaml").write_text(PLAN)


def test_a_plan_is_a_table_of_classes_and_sources(gateway):
    assert fount("plan", "plan.yaml").stdout.splitlines()[:5] == [
        "CLASS     REAL  SYNTHESISED   ROWS  WEIGHT",
        "zero     1,001        1,004  2,005       1",
        "one/two  1,011        1,014  2,025     0.5",
        "../x     1,021        1,024  2,045       2",
        "all      3,033        3,042  6,075",
    ]


def test_every_source_has_a_column(gateway):
    gateway.planned_sources = (1, 2, 3, 4, 5, 6)
    assert fount("plan", "plan.yaml").stdout.split()[:9] == [
        "CLASS", "REAL", "RESAMPLED", "TRANSFORMED", "SYNTHESISED", "TRANSLATED", "RECONSTRUCTED", "ROWS", "WEIGHT",
    ]  # fmt: skip


def test_groups_have_their_own_lines(gateway):
    gateway.groups = ("clinic-a",)
    lines = fount("plan", "plan.yaml").stdout.splitlines()
    assert lines[1] == "zero     clinic-a  1,001        1,004  2,005       1"


def test_facts_about_a_plan_are_shown(gateway):
    text = fount("plan", "plan.yaml").stdout
    for line in (
        "Seed       1",
        "Weights    are for a loss on the data set as it is, instead of the rows of this plan",
        f"Data set   digits/train, {DIGEST}",
        "Rejected   about 3 rows, 1.5 samples drawn per row",
        "Copies     a sample whose ratio is below 0.25 is rejected",
        "           by transform: rotate 98.0%",
        "Time       about 1 min 30 s on idle workers",
        "Ticket     ends 2023-11-15 22:13:20 UTC",
        "Warning    zero has 3 rows. (FEW_ROWS)",
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize("command", ["plan", "pull"])
def test_a_number_that_is_the_name_of_another_class_is_noted(gateway, tmp_path, command):
    gateway.classes = ("0", "2", "cat")
    (tmp_path / "plan.yaml").write_text(PLAN.replace("{balance: largest}", "{counts: {0: 5, 2: 5, '#1': 7, cat: 1}}"))
    out = () if command == "plan" else ("--out", "rows")
    assert fount(command, "plan.yaml", *out).stderr.splitlines()[0] == (
        'note: "2" (index 1): taken as names of classes; write \'#2\', in quotes, for index 2, which is "cat"'
    )


def test_a_plan_can_be_json(gateway):
    plan = json.loads(fount("plan", "plan.yaml", "--json").stdout)
    assert (plan["rows"], plan["request"]["seed"], plan["slots"][0]["count"]) == ("40", "1", "1001")


def test_the_ticket_is_written(gateway, tmp_path):
    result = fount("plan", "plan.yaml", "--ticket-out", "plan.ticket")
    assert (tmp_path / "plan.ticket").read_bytes() == next(iter(gateway.plans.values())).ticket
    assert "written to plan.ticket" in result.stdout


def test_an_unwritable_ticket_path_is_reported(gateway):
    result = fount("plan", "plan.yaml", "--ticket-out", "nowhere/plan.ticket")
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: nowhere/plan.ticket cannot be written: there is no folder nowhere\n",
    )


def test_plans_are_listed(gateway):
    plan_id = json.loads(fount("plan", "plan.yaml", "--json").stdout)["id"]
    header, line = fount("plan", "--list").stdout.splitlines()
    assert header.startswith("PLAN              DATA SET      ROWS")
    assert line.split() == [plan_id, "digits/train", "40", "2023-11-14", "22:13:20", "2023-11-15", "22:13:20"]


def test_a_plan_can_be_shown_again_by_its_id(gateway):
    shown = fount("plan", "plan.yaml")
    (plan_id,) = gateway.plans
    assert fount("plan", "--id", plan_id).stdout == shown.stdout


def test_an_unknown_id_is_reported(gateway):
    result = fount("plan", "--id", "nobody")
    assert result.exit_code == 1
    assert 'no plan "nobody"' in result.stderr


def test_every_wrong_key_is_named_before_anything_is_requested(tmp_path):
    (tmp_path / "plan.yaml").write_text("dataset: digits\nsed: 1\ntarget: {balanc: largest}\n")
    result = fount("plan", "plan.yaml")
    assert result.exit_code == 1
    assert "sed: unknown key; did you mean 'seed'?" in result.stderr
    assert "target.balanc: unknown key" in result.stderr


@pytest.mark.parametrize(
    "arguments", [(), ("plan.yaml", "--list"), ("--id", "1", "--list")], ids=["none", "two", "both"]
)
def test_a_file_an_id_and_a_list_exclude_each_other(arguments):
    assert fount("plan", *arguments).exit_code == 2


def test_an_absent_server_is_named():
    result = fount("plan", "plan.yaml", "--server", "127.0.0.1:1", "--timeout", "2")
    assert result.exit_code == 1
    assert "No Fount server answers at 127.0.0.1:1" in result.stderr
