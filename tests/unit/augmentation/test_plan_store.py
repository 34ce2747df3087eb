"""Plans are kept for their callers until they expire."""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path

import pytest

from fount.v1.augmentation_pb2 import Plan
from service.errors import SetupError
from service.rpc.plan_store import FolderPlanStore, PlanStore, page_of_plans, plan_store_at


def plan(plan_id: str, age_s: int = 0, left_s: int = 60) -> Plan:
    now_s, made = int(time.time()), Plan(id=plan_id, rows=3)
    made.create_time.FromSeconds(now_s - age_s)
    made.expire_time.FromSeconds(now_s + left_s)
    return made


@pytest.fixture(params=["memory", "folder"])
def few(request: pytest.FixtureRequest, tmp_path: Path) -> PlanStore:
    """A store of two plans a caller and three in all."""
    return PlanStore(2, 3) if request.param == "memory" else FolderPlanStore(tmp_path / "plans", 2, 3)


def ids(plans: list[Plan]) -> list[str]:
    return [each.id for each in plans]


def test_it_returns_what_it_keeps(few: PlanStore) -> None:
    kept = plan("a1")
    few.put("ada", kept)
    assert few.get("ada", "a1") == kept


def test_plans_of_another_caller_are_not_returned(few: PlanStore) -> None:
    few.put("ada", plan("a1"))
    assert few.get("bob", "a1") is None
    assert few.plans_of("bob") == []


def test_it_lists_newest_first(few: PlanStore) -> None:
    few.put("ada", plan("a1", age_s=50))
    few.put("ada", plan("a2", age_s=20))
    assert ids(few.plans_of("ada")) == ["a2", "a1"]


def test_a_plan_replaces_one_of_the_same_id(few: PlanStore) -> None:
    few.put("ada", plan("a1", age_s=50))
    few.put("ada", plan("a1"))
    assert len(few.plans_of("ada")) == 1


def test_expired_plans_are_not_returned(few: PlanStore) -> None:
    few.put("ada", plan("a1", left_s=-1))
    assert few.get("ada", "a1") is None
    assert few.plans_of("ada") == []


def test_the_oldest_plan_of_a_caller_is_dropped(few: PlanStore) -> None:
    for number in range(3):
        few.put("ada", plan(f"a{number}", age_s=50 - number))
    assert ids(few.plans_of("ada")) == ["a2", "a1"]


def test_the_oldest_plan_of_all_is_dropped(few: PlanStore) -> None:
    for number, subject in enumerate(("ada", "bob", "cy", "di")):
        few.put(subject, plan(f"p{number}", age_s=50 - number))
    assert few.plans_of("ada") == []
    assert ids(few.plans_of("di")) == ["p3"]


def test_a_folder_outlives_its_process(tmp_path: Path) -> None:
    FolderPlanStore(tmp_path).put("ada", plan("a1"))
    assert FolderPlanStore(tmp_path).get("ada", "a1").id == "a1"


def test_a_folder_is_shared(tmp_path: Path) -> None:
    first, second = FolderPlanStore(tmp_path), FolderPlanStore(tmp_path)
    first.put("ada", plan("a1", age_s=9))
    assert ids(second.plans_of("ada")) == ["a1"]
    first.put("ada", plan("a2"))
    assert ids(second.plans_of("ada")) == ["a2", "a1"]


def test_a_damaged_file_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    FolderPlanStore(tmp_path).put("ada", plan("a1"))
    file = next(tmp_path.glob("*/*.plan"))
    file.write_bytes(file.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert FolderPlanStore(tmp_path).plans_of("ada") == []
    assert "a1.plan is not a plan" in caplog.text


@pytest.mark.parametrize("place", [0, 40, 50], ids=["digest", "start", "end"])
def test_a_changed_byte_is_detected(tmp_path: Path, place: int) -> None:
    FolderPlanStore(tmp_path).put("ada", plan("a1"))
    file = next(tmp_path.glob("*/*.plan"))
    content = bytearray(file.read_bytes())
    content[place - 1] ^= 1
    file.write_bytes(content)
    assert FolderPlanStore(tmp_path).get("ada", "a1") is None


def test_a_file_is_a_digest_and_the_serialized_plan(tmp_path: Path) -> None:
    """Releases share folders, so this must not change."""
    kept = plan("a1")
    FolderPlanStore(tmp_path).put("ada", kept)
    content = kept.SerializeToString(deterministic=True)
    assert next(tmp_path.glob("*/a1.plan")).read_bytes() == hashlib.sha256(content).digest() + content


def test_a_file_that_holds_no_plan_is_left_out(tmp_path: Path) -> None:
    FolderPlanStore(tmp_path).put("ada", plan("a1"))
    file, content = next(tmp_path.glob("*/*.plan")), b"\xff not a message"
    file.write_bytes(hashlib.sha256(content).digest() + content)
    assert FolderPlanStore(tmp_path).get("ada", "a1") is None


def test_an_id_reaches_no_other_path(tmp_path: Path) -> None:
    assert FolderPlanStore(tmp_path).get("ada", "../../etc/passwd") is None


def test_no_temporary_file_remains(tmp_path: Path) -> None:
    FolderPlanStore(tmp_path).put("ada", plan("a1"))
    assert [each.name for each in tmp_path.glob("*/*")] == ["a1.plan"]


def test_a_folder_that_cannot_be_made_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="--plans"):
        plan_store_at(tmp_path / "file" / "plans")


def test_pages_cover_all_once() -> None:
    plans, seen, token = PlanStore(), [], ""
    for number in range(5):
        plans.put("ada", plan(f"a{number}", age_s=number))
    for _ in range(3):
        found, token = page_of_plans(plans.plans_of("ada"), 2, token)
        seen += ids(found)
    assert seen == ["a0", "a1", "a2", "a3", "a4"]
    assert token == ""


def test_pages_continue_when_plans_are_added_in_between() -> None:
    plans = PlanStore()
    for number in range(3):
        plans.put("ada", plan(f"a{number}", age_s=10 + number))
    _, token = page_of_plans(plans.plans_of("ada"), 1, "")
    plans.put("ada", plan("new"))
    assert ids(page_of_plans(plans.plans_of("ada"), 9, token)[0]) == ["a1", "a2"]


@pytest.mark.parametrize("token", ["?", "YWJj", "bm90IGE=", "LS01IGE="], ids=["base64", "word", "words", "number"])
def test_a_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="not one this gateway gave"):
        page_of_plans([], 1, token)


def test_a_page_fits_one_message() -> None:
    plans = [plan(f"a{k}", age_s=k) for k in range(5)]
    size = plans[0].ByteSize()
    first, token = page_of_plans(plans, 5, "", most_bytes=2 * size)
    second, token = page_of_plans(plans, 5, token, most_bytes=2 * size)
    last, end = page_of_plans(plans, 5, token, most_bytes=2 * size)
    assert [ids(first), ids(second), ids(last), end] == [["a0", "a1"], ["a2", "a3"], ["a4"], ""]


def test_a_page_holds_one_plan_however_large() -> None:
    first, token = page_of_plans([plan("a1"), plan("a2", age_s=9)], 5, "", most_bytes=1)
    assert ids(first) == ["a1"]
    assert ids(page_of_plans([plan("a1"), plan("a2", age_s=9)], 5, token)[0]) == ["a2"]
