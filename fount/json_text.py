"""Parse JSON of files that are not trusted.

Text enters; plain values leave, or a ValueError. Python's parser alone also accepts NaN, and raises a RecursionError
for deep nesting, which handlers of ValueError miss.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

__all__ = ["parse_json"]


def parse_json(text: bytes | str) -> Any:
    """Parse one JSON value.

    Raises:
        ValueError: the text is not UTF-8, not JSON, nested too deeply, or has NaN or Infinity, which are not JSON.
    """
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
