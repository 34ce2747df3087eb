"""The state of one evaluation: what clients see of it, and what a runner has reported so far."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from service.evaluation.results import GateOutcome, Metric, PanelResult
from service.evaluation.specification import Specification

__all__ = ["ID_PATTERN", "Progress", "Record", "State", "Usage"]

ID_PATTERN = re.compile("[0-9a-f]{27}")
"""Ids of evaluations: the time of creation, so that they sort by age, then random digits."""


class State(StrEnum):
    """Where an evaluation is in its life; `service.evaluation.jobs` has the transitions."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Finished steps out of all steps (0: not known yet), and when the runner last reported."""

    stage: str = ""
    done: int = 0
    total: int = 0
    update_unix_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """One evaluation.

    Attributes:
        id: matches `ID_PATTERN`.
        subject: the caller who created it.
        request_id: of the request that created it; empty: it had none.
        request_digest: of that request without its request_id; distinguishes a repeated request from a different one.
        specification: what is evaluated.
        state: where it is in its life.
        reason: one sentence about the state, for users; empty: nothing to report.
        progress: how far its runner is.
        metrics, panels: those computed so far.
        gates: empty until it has succeeded.
        create_unix_s: when it was created.
        start_unix_s, end_unix_s, expire_unix_s: None until known.
        report_bytes: size of its report.
    """

    id: str
    subject: str
    request_id: str
    request_digest: str
    specification: Specification
    state: State
    reason: str = ""
    progress: Progress = Progress()
    metrics: tuple[Metric, ...] = ()
    panels: tuple[PanelResult, ...] = ()
    gates: tuple[GateOutcome, ...] = ()
    create_unix_s: float
    start_unix_s: float | None = None
    end_unix_s: float | None = None
    expire_unix_s: float | None = None
    report_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class Usage:
    """All evaluations together: the number in each state, bytes of reports, and the age of the oldest queued one."""

    states: Mapping[State, int]
    report_bytes: int
    oldest_queued_s: float
