"""Programs a test needs: run where they are found, said when not, and required where FOUNT_REQUIRE names them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest


def need_program(name: str) -> Path:
    """The program, or a skipped test; a failed one when FOUNT_REQUIRE (comma-separated) names it."""
    found = shutil.which(name)
    if found:
        return Path(found)
    message = f"{name} is not on PATH; install it to run this test"
    if name in os.environ.get("FOUNT_REQUIRE", "").replace(" ", "").split(","):
        pytest.fail(f"{message} (FOUNT_REQUIRE names it)")
    pytest.skip(message)
