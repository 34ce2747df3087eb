"""What several parts need of the same evidence, computed once: kept as long as the evidence is, and never beyond."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from service.evaluation.evidence import Evidence

__all__ = ["remember"]

_Value = TypeVar("_Value")
_KEPT: WeakKeyDictionary[Evidence, dict[str, Any]] = WeakKeyDictionary()


def remember(evidence: Evidence, name: str, compute: Callable[[], _Value]) -> _Value:
    """Compute something of the evidence, or give what was computed before.

    Two threads that come at once both compute it, to the same value.
    """
    kept = _KEPT.setdefault(evidence, {})
    if name not in kept:
        kept[name] = compute()
    return cast(_Value, kept[name])
