"""The C++ compiler that torch's inductor uses: where it is, and which. No torch here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

__all__ = ["compiler_name", "compiler_version", "find_compiler"]

_TIMEOUT_S = 20.0


def compiler_name(environment: Mapping[str, str] = os.environ) -> str:
    """Name the compiler as inductor does: CXX, or the platform's own."""
    return environment.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def find_compiler(environment: Mapping[str, str] = os.environ) -> str | None:
    """Find it; None when it is not there."""
    return shutil.which(compiler_name(environment), path=environment.get("PATH"))


def compiler_version(environment: Mapping[str, str] = os.environ) -> str:
    """Name it with its version, which the bytes of compiled networks depend on; "none" without one."""
    found = find_compiler(environment)
    if found is None:
        return "none"
    try:
        done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.partition("\n")[0].strip()
