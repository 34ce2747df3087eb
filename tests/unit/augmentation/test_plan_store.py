"""Plans are kept for their callers until they expire."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from fount.v1 import augmentation_pb2
from service.augmentation.plan_store import FolderPlans, MemoryPlans, Plans, page, plans_at
from service.errors import SetupError


def plan(plan_id: str, age_s: int = 0, left_s: int = 60) -> augmentation_pb2.Plan:
    made = augmentation_pb2.Plan(id=plan_id, rows=3)
    made.create_time.FromSeconds(int(time.time()) - age_s)
    made.expire_time.FromSeconds(int(time.time()) + left_s)
    return made


@pytest.fixture(params=["memory", "folder"])
def few(request: pytest.FixtureRequest, tmp_path: Path) -> Plans:
    """A store of two plans a caller and three in all."""
    return MemoryPlans(2, 3) if request.param == "memory" else FolderPlans(tmp_path / "plans", 2, 3)


def ids(plans: list[augmentation_pb2.Plan]) -> list[str]:
    return [each.id for each in plans]


def test_it_returns_what_it_keeps(few: Plans) -> None:
    few.put("ada", plan("a1"))
    assert few.get("ada", "a1").rows == 3


def test_it_is_each_caller_s_own(few: Plans) -> None:
    few.put("ada", plan("a1"))
    assert few.get("bob", "a1") is None
    assert few.list("bob") == []


def test_it_lists_newest_first(few: Plans) -> None:
    few.put("ada", plan("a1", age_s=50))
    few.put("ada", plan("a2", age_s=20))
    assert ids(few.list("ada")) == ["a2", "a1"]


def test_it_keeps_one_of_an_id(few: Plans) -> None:
    few.put("ada", plan("a1", age_s=50))
    few.put("ada", plan("a1"))
    assert len(few.list("ada")) == 1


def test_expired_plans_are_gone(few: Plans) -> None:
    few.put("ada", plan("a1", left_s=-1))
    assert few.get("ada", "a1") is None
    assert few.list("ada") == []


def test_a_caller_s_oldest_goes(few: Plans) -> None:
    for number in range(3):
        few.put("ada", plan(f"a{number}", age_s=50 - number))
    assert ids(few.list("ada")) == ["a2", "a1"]


def test_the_oldest_of_all_goes(few: Plans) -> None:
    for number, subject in enumerate(("ada", "bob", "cy", "di")):
        few.put(subject, plan(f"p{number}", age_s=50 - number))
    assert few.list("ada") == []
    assert ids(few.list("di")) == ["p3"]


def test_a_folder_outlives_its_process(tmp_path: Path) -> None:
    FolderPlans(tmp_path).put("ada", plan("a1"))
    assert FolderPlans(tmp_path).get("ada", "a1").id == "a1"


def test_a_folder_is_shared(tmp_path: Path) -> None:
    first, second = FolderPlans(tmp_path), FolderPlans(tmp_path)
    first.put("ada", plan("a1", age_s=9))
    assert ids(second.list("ada")) == ["a1"]
    first.put("ada", plan("a2"))
    assert ids(second.list("ada")) == ["a2", "a1"]


def test_a_damaged_file_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    FolderPlans(tmp_path).put("ada", plan("a1"))
    file = next(tmp_path.glob("*/*.plan"))
    file.write_bytes(file.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        assert FolderPlans(tmp_path).list("ada") == []
    assert "a1.plan is not a plan" in caplog.text


def test_an_id_reaches_no_other_path(tmp_path: Path) -> None:
    assert FolderPlans(tmp_path).get("ada", "../../etc/passwd") is None


def test_nothing_half_written_lies_about(tmp_path: Path) -> None:
    FolderPlans(tmp_path).put("ada", plan("a1"))
    assert [each.name for each in tmp_path.glob("*/*")] == ["a1.plan"]


def test_a_folder_that_cannot_be_made_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SetupError, match="--plans"):
        plans_at(tmp_path / "file" / "plans")


def test_pages_cover_all_once() -> None:
    plans, seen, token = MemoryPlans(), [], ""
    for number in range(5):
        plans.put("ada", plan(f"a{number}", age_s=number))
    for _ in range(3):
        found, token = page(plans.list("ada"), 2, token)
        seen += ids(found)
    assert seen == ["a0", "a1", "a2", "a3", "a4"]
    assert token == ""


def test_pages_go_on_though_plans_were_made_between() -> None:
    plans = MemoryPlans()
    for number in range(3):
        plans.put("ada", plan(f"a{number}", age_s=10 + number))
    _, token = page(plans.list("ada"), 1, "")
    plans.put("ada", plan("new"))
    assert ids(page(plans.list("ada"), 9, token)[0]) == ["a1", "a2"]


@pytest.mark.parametrize("token", ["?", "YWJj", "bm90IGE="])
def test_a_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="not one this gateway gave"):
        page([], 1, token)


def test_a_page_ends_before_it_is_too_large_for_a_message() -> None:
    plans = [plan(f"a{k}", age_s=k) for k in range(5)]
    size = plans[0].ByteSize()
    first, token = page(plans, 5, "", most_bytes=2 * size)
    second, token = page(plans, 5, token, most_bytes=2 * size)
    last, end = page(plans, 5, token, most_bytes=2 * size)
    assert [ids(first), ids(second), ids(last), end] == [["a0", "a1"], ["a2", "a3"], ["a4"], ""]


def test_a_page_holds_one_plan_however_large() -> None:
    first, token = page([plan("a1"), plan("a2", age_s=9)], 5, "", most_bytes=1)
    assert ids(first) == ["a1"]
    assert ids(page([plan("a1"), plan("a2", age_s=9)], 5, token)[0]) == ["a2"]
