"""The environment of child processes, above all of those that run a model's own code.

A gateway's environment often holds passwords and cloud tokens, and its user's folders may hold modules with the names
of ours. So a child gets the variables that are listed here and those that its owner names, and imports from neither the
working folder (`python_command`) nor the user's PYTHONPATH.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

__all__ = ["ROOT", "child_environment", "python_command"]

ROOT = Path(__file__).resolve().parents[1]
"""The folder of the packages `fount`, `service` and `handlers`."""

_KEPT = (
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "LC_*", "TZ", "TMPDIR", "TMP", "TEMP", "XDG_*_HOME",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*", "JAVA_HOME", "JAVA_TOOL_OPTIONS", "VIRTUAL_ENV", "CONDA_PREFIX",
    "CC", "CXX", "CPATH", "LIBRARY_PATH", "PYTHON*", "NO_COLOR",
    "CUDA_*", "NVIDIA_*", "CUBLAS_*", "CUDNN_*", "NCCL_*", "HIP_*", "ROCR_*", "HSA_*",
    "OMP_*", "GOMP_*", "KMP_*", "MKL_*", "OPENBLAS_*", "NUMEXPR_*", "ATEN_*", "ONEDNN_*", "DNNL_*",
    "TORCH*", "PYTORCH_*", "TRITON_*", "MALLOC_*", "MIMALLOC_*", "TCMALLOC_*", "GLIBC_TUNABLES",
    "FOUNT_WORKER_*", "FOUNT_STATE_DIR", "FOUNT_DATA",
)  # fmt: skip


def child_environment(more: Iterable[str] = (), environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a child process.

    Args:
        more: names of further variables to pass on; * stands for any characters.
        environment: of this process.
    """
    kept = (*_KEPT, *more)
    child = {name: value for name, value in environment.items() if any(fnmatchcase(name, each) for each in kept)}
    places = filter(None, child.pop("PYTHONPATH", "").split(os.pathsep))
    if ROOT in {Path.cwd(), *(Path(place).resolve() for place in places)}:  # Fount may not be installed
        child["PYTHONPATH"] = str(ROOT)
    return child


def python_command(*arguments: str) -> tuple[str, ...]:
    """Return the command of a child that runs Python; -P keeps the working folder out of its imports."""
    return (sys.executable, "-P", *arguments)
