"""Log lines that repeat."""

from __future__ import annotations

import logging

import pytest

from service.telemetry.logs import RepeatLimit


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("service.telemetry.logs.time.monotonic", lambda: now[0])
    return now


def written(limit: RepeatLimit, template: str, *values: object, level: int = logging.ERROR) -> str | None:
    """Return the line that a record becomes; None: it is left out."""
    record = logging.LogRecord("accept", level, __file__, 1, template, values, None)
    return record.getMessage() if limit.filter(record) else None


def test_a_line_that_repeats_is_left_out(clock: list[float]) -> None:
    limit = RepeatLimit(most=2, period_s=60)
    assert [written(limit, "no socket %d", k) for k in range(4)] == ["no socket 0", "no socket 1", None, None]


def test_the_next_period_says_how_many_were_left_out(clock: list[float]) -> None:
    limit = RepeatLimit(most=1, period_s=60)
    for k in range(1000):
        written(limit, "no socket %d", k)
    clock[0] = 61.0
    assert written(limit, "no socket %d", 7) == "no socket 7 (999 lines like this were left out before)"
    assert written(limit, "no socket %d", 8) is None


def test_other_lines_and_levels_are_written(clock: list[float]) -> None:
    limit = RepeatLimit(most=1, period_s=60)
    lines = [written(limit, "a"), written(limit, "b"), written(limit, "a", level=logging.INFO)]
    assert lines == ["a", "b", "a"]
