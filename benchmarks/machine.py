"""Facts of the machine and its software, for the header of results."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.child import ROOT

__all__ = ["cores", "machine_facts"]

_PACKAGES = ("torch", "torchserve", "grpcio", "protobuf", "numpy")
_MATRIX_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "sve", "bf16")


def cores() -> int:
    """Count the cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_facts() -> dict[str, Any]:
    """Collect processor, cores, memory, instruction set, versions, commit and date."""
    processor = _processor()
    flags = (processor.get("flags") or processor.get("Features") or "").split()
    return {
        "cpu": processor.get("model name") or platform.processor() or platform.machine(),
        "cores": cores(),
        "gpu": ", ".join(_gpus()),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "instructions": " ".join(flag for flag in _MATRIX_FLAGS if flag in flags),
        "system": f"{platform.system()} {platform.release()}",
        "versions": {"Python": platform.python_version()} | _versions() | {"Java": _java()},
        "commit": _commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _processor() -> dict[str, str]:
    """Read the description of the first processor on Linux; empty elsewhere."""
    with suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
        return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    return {}


def _gpus() -> Iterator[str]:
    """Read the names of NVIDIA GPUs from its kernel module."""
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        yield file.read_text(encoding="utf-8").partition("Model:")[2].partition("\n")[0].strip()


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def _java() -> str:
    from service.workers.torchserve.launch import find_java

    done = subprocess.run([str(find_java()), "-version"], capture_output=True, text=True, check=False)
    return done.stderr.partition('"')[2].partition('"')[0]


def _commit() -> str:
    """Describe the commit, and whether files differ from it."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
