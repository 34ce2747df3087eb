"""What is configured for one data set, and what is always there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fount.readers import DatasetSource
from fount.transforms import Policy

__all__ = ["BUILT_IN", "DatasetSettings", "why_no_name"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """One data set, as configured.

    Attributes:
        source: where it lies and how it is read.
        classifier: the model that checks its labels unless a request names another; empty: none.
        policy: how its rows are transformed unless a request says otherwise; None: the safe policy.
    """

    source: DatasetSource
    classifier: str = ""
    policy: Policy | None = None

    @property
    def name(self) -> str:
        """What requests call it."""
        return self.source.name


BUILT_IN = DatasetSettings(source=DatasetSource(name="digits"), classifier="digits-classifier")
"""Digits need no configuration."""


def why_no_name(name: str) -> str:
    """Say what is wrong with a data set's name; empty when nothing is."""
    if name == BUILT_IN.name:
        return f"{name!r} is built in; give the data set another name"
    if not _NAME.fullmatch(name):
        return f"{name[:80]!r} is no name; use up to 64 letters, digits, dots, dashes and underscores"
    return ""
