"""The environment of child processes: what they get, and what stays with the gateway."""

import os

import pytest

from fount.environment import ROOT, child_environment

SECRETS = {
    "DATABASE_URL": "postgresql://u:secret@db/x", "AWS_SECRET_ACCESS_KEY": "k", "FOUNT_GATEWAY_JOBS": "postgresql://u:p@db",
    "FOUNT_RUNNER_JOBS": "postgresql://u:p@db", "HF_TOKEN": "t", "PGPASSWORD": "p", "http_proxy": "http://u:p@proxy:1",
}  # fmt: skip
KEPT = (
    "PATH", "HOME", "LC_ALL", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TORCHINDUCTOR_CACHE_DIR", "JAVA_HOME",
    "LD_LIBRARY_PATH", "FOUNT_WORKER_THREADS", "PYTHONHASHSEED", "MALLOC_ARENA_MAX", "ATEN_CPU_CAPABILITY",
)  # fmt: skip


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """A working folder other than that of the repository, whose children import Fount from there."""
    monkeypatch.chdir(tmp_path)


def test_a_child_gets_what_python_and_torch_need_and_no_secret():
    assert child_environment((), SECRETS | dict.fromkeys(KEPT, "1")) == dict.fromkeys(KEPT, "1")


@pytest.mark.parametrize("named", ["HF_TOKEN", "HF_*"])
def test_a_child_gets_what_is_named(named):
    assert child_environment([named], SECRETS) == {"HF_TOKEN": "t"}


@pytest.mark.parametrize(
    ("given", "expected"), [("/their/modules", None), (f"/x{os.pathsep}{ROOT}{os.pathsep}", str(ROOT)), ("", None)]
)
def test_a_child_imports_nothing_from_pythonpath_but_fount(given, expected):
    assert child_environment((), {"PYTHONPATH": given}).get("PYTHONPATH") == expected
