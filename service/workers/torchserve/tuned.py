"""What was found to run fastest on this machine, model by model: the file that `fount tune` writes.

Workers read all of it, from the file named in their environment; this side needs the number of workers and of threads.

    models:
      mnist-cgan: {workers: 2, threads: 1, precision: bf16, layout: nhwc, compiled: false}
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from service.errors import SetupError

__all__ = ["Tuned", "read_tuned"]

_MOST_WORKERS, _MOST_THREADS = 64, 256
_WORDS = {"precision": ("fp32", "bf16"), "layout": ("nchw", "nhwc")}
_NUMBERS = {"workers": _MOST_WORKERS, "threads": _MOST_THREADS}
_KEYS = (*_NUMBERS, *_WORDS, "compiled")


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """How the workers of one model run; None is as the command line says.

    Attributes:
        workers: processes a version.
        threads: torch threads a process.
    """

    workers: int | None = None
    threads: int | None = None


def read_tuned(file: Path) -> dict[str, Tuned]:
    """Read the file.

    Returns:
        An entry for each model named.

    Raises:
        SetupError: it cannot be read, or says what nobody understands; names every such place.
    """
    try:
        told = yaml.safe_load(file.read_text())
    except OSError as error:
        raise SetupError(f"{file} cannot be read: {error.strerror}; `fount tune NAME` writes one") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SetupError(f"{file} is not YAML: {error}") from error
    if told is None:
        return {}
    wrong = (
        _unknown(told, ("models",), "") if isinstance(told, dict) else ["it must be a mapping with the key 'models'"]
    )
    models = told.get("models") if isinstance(told, dict) else None
    if not isinstance(models, dict | None):
        wrong.append("models must be a mapping of names")
    elif models:
        wrong += [problem for name, entry in models.items() for problem in _problems(f"models.{name}", entry)]
    if wrong:
        raise SetupError(f"{file}: {'; '.join(wrong)}")
    return {
        str(name): Tuned(workers=(entry or {}).get("workers"), threads=(entry or {}).get("threads"))
        for name, entry in (models or {}).items()
    }


def _problems(place: str, entry: Any) -> list[str]:
    if entry is None:
        return []
    if not isinstance(entry, dict):
        return [f"{place} must be a mapping"]
    wrong = _unknown(entry, _KEYS, f"{place}.")
    for key, most in _NUMBERS.items():
        value = entry.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            wrong.append(f"{place}.{key} must be a whole number from 1 to {most}, not {value!r}")
    for key, words in _WORDS.items():
        if entry.get(key, words[0]) not in words:
            wrong.append(f"{place}.{key} must be {' or '.join(words)}, not {entry[key]!r}")
    if not isinstance(entry.get("compiled", False), bool):
        wrong.append(f"{place}.compiled must be true or false, not {entry['compiled']!r}")
    return wrong


def _unknown(entry: Mapping[object, Any], known: Collection[str], place: str) -> list[str]:
    wrong = []
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            wrong.append(f"{place}{key} is unknown; {hint}")
    return wrong
