"""Numerics: equal names for equal conditions, other names for others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from handlers.execution.numerics import _read_driver, read_numerics
from handlers.settings import Layout, Precision, Settings

_ASK = "from handlers.execution.numerics import *; from handlers.settings import *; print(read_numerics(Settings()).id)"


def _ask_another_process(environment: Mapping[str, str]) -> str:
    command = [sys.executable, "-c", _ASK]
    done = subprocess.run(command, env=dict(os.environ) | dict(environment), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_an_id_names_kind_precision_layout_threads_and_torch() -> None:
    assert re.fullmatch(
        r"cpu-[a-z0-9_]+-fp32-nchw-folded-t1-torch[0-9.]+-[0-9a-f]{8}", read_numerics(Settings(), {}).id
    )


def test_another_process_has_the_same_id() -> None:
    assert _ask_another_process({}) == read_numerics(Settings()).id


@pytest.mark.parametrize(
    "cap",
    [
        {"ATEN_CPU_CAPABILITY": "default"},
        {"ONEDNN_MAX_CPU_ISA": "SSE41"},
        {"MKL_CBWR": "COMPATIBLE"},
        {"OPENBLAS_CORETYPE": "none of this machine"},
        {"DISABLE_ADDMM_CUDA_LT": "1"},
    ],
    ids=["aten", "onednn", "mkl", "openblas", "cublaslt"],
)
@pytest.mark.slow
def test_a_capped_instruction_set_has_another_id(cap: Mapping[str, str]) -> None:
    assert _ask_another_process(cap) != read_numerics(Settings()).id


def test_a_cap_shows_in_the_id() -> None:
    assert "_onednn_sse41-" in read_numerics(Settings(), {"ONEDNN_MAX_CPU_ISA": "SSE41"}).id


@pytest.mark.parametrize(
    "settings",
    [
        Settings(threads=2),
        Settings(precision="bf16"),
        Settings(chosen_layout="nhwc"),
        Settings(folded=False),
        Settings(compiled=True),
    ],
    ids=["threads", "precision", "layout", "folded", "compiled"],
)
def test_other_settings_have_another_id(settings: Settings) -> None:
    assert read_numerics(settings).id != read_numerics(Settings()).id


@pytest.mark.parametrize(("precision", "layout"), [("fp32", "nchw"), ("bf16", "nhwc")])
def test_a_layout_that_is_a_precisions_own_changes_no_id(precision: Precision, layout: Layout) -> None:
    chosen = Settings(precision=precision, chosen_layout=layout)
    assert read_numerics(chosen).id == read_numerics(Settings(precision=precision)).id


@pytest.mark.parametrize(
    ("settings", "layout"),
    [
        pytest.param(Settings(), "nhwc", id="cpu"),
        pytest.param(Settings(chosen_layout="nchw"), "nchw", id="chosen"),
        pytest.param(Settings(device="cuda:0"), "nchw", id="cuda"),
        pytest.param(Settings(device="cuda:0", precision="bf16"), "nhwc", id="cuda-bf16"),
    ],
)
def test_a_family_runs_in_the_layout_of_its_device(settings: Settings, layout: Layout) -> None:
    assert settings.with_family_layout().layout == layout


def test_the_compiler_shows_in_the_details_of_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = read_numerics(Settings(compiled=True))
    assert "-fp32-nchw-folded-compiled-t1-" in found.id
    assert "compiled by: none" in found.details


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC 11.4.0\n",
            "550.54.15",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build  (dvs@b)\n",
            "580.95.05",
        ),
        ("nothing of use", "unknown"),
    ],
    ids=["closed", "open", "other"],
)
def test_the_driver_is_named_by_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, version: str
) -> None:
    (tmp_path / "version").write_text(text)
    monkeypatch.setattr("handlers.execution.numerics._DRIVER", tmp_path / "version")
    assert _read_driver() == version


def test_an_unreadable_driver_version_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handlers.execution.numerics._DRIVER", tmp_path / "version")
    assert _read_driver() == "unknown"


def test_details_are_readable_lines() -> None:
    assert "threads: 1" in read_numerics(Settings()).details
