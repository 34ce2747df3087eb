"""How one worker process is to run: precision, threads, device and where it keeps its own state.

Enters: the process environment (`FOUNT_` names) and the device TorchServe assigned. Leaves: a `Settings` value, the one
thing the rest of the worker reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Precision", "Settings", "SettingsError", "settings_from_environment"]

Precision = Literal["fp32", "bf16"]

_MAX_THREADS = 1024


class SettingsError(Exception):
    """A worker setting cannot be read. Mend the environment variable it names."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How this process runs its model.

    Attributes:
        device: a torch device, like "cpu" or "cuda:0".
        precision: what weights and activations are kept in.
        threads: threads of one operation on a CPU.
        state_dir: the worker's own folder for what it measured; None keeps nothing.
    """

    device: str = "cpu"
    precision: Precision = "fp32"
    threads: int = 1
    state_dir: Path | None = None


def settings_from_environment(environment: Mapping[str, str], gpu_id: int | None = None) -> Settings:
    """Read settings.

    Args:
        environment: FOUNT_WORKER_THREADS (default 1), FOUNT_WORKER_PRECISION (fp32 or bf16, default fp32) and
            FOUNT_STATE_DIR (default: nothing is kept).
        gpu_id: the CUDA device TorchServe assigned; None is the CPU.

    Raises:
        SettingsError: one of them cannot be read; the message names it.
    """
    threads = environment.get("FOUNT_WORKER_THREADS") or "1"
    if not threads.isascii() or not threads.isdigit() or not 1 <= int(threads) <= _MAX_THREADS:
        raise SettingsError(f"FOUNT_WORKER_THREADS is {threads!r}; set it to a whole number from 1 to {_MAX_THREADS}")
    state_dir = environment.get("FOUNT_STATE_DIR")
    return Settings(
        device="cpu" if gpu_id is None else f"cuda:{gpu_id}",
        precision=_read_precision(environment.get("FOUNT_WORKER_PRECISION") or "fp32"),
        threads=int(threads),
        state_dir=Path(state_dir) if state_dir else None,
    )


def _read_precision(text: str) -> Precision:
    match text:
        case "fp32" | "bf16":
            return text
    raise SettingsError(f"FOUNT_WORKER_PRECISION is {text!r}; set it to fp32 or bf16")
