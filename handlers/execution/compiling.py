"""Compile a network's modules into machine code for exactly the shapes a worker runs.

torch's inductor fuses the operations between convolutions and writes C++, so a CPU worker needs a C++ compiler. The
modules to compile are observed, not declared: those that a batch calls directly. A compiled network has numerics of its
own, with a profile and golden samples. A network enters; the same network leaves, compiling at its first run of each
size.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from handlers.execution.errors import describe_error

__all__ = [
    "CompileError", "Inductor", "compile_called", "compiler_name", "compiler_version", "find_compiler",
    "record_calls", "translate_compile_errors",
]  # fmt: skip

_MAX_VERSIONS = 64  # of one piece of code: one for each size and each module that shares it
_CACHE = "TORCHINDUCTOR_CACHE_DIR"
_TIMEOUT_S = 20.0


class CompileError(Exception):
    """A network cannot be compiled. Install the compiler that the message names, or set compiled to 0."""


class Inductor:
    """torch's graph compiler, counting graphs: torch silently runs uncompiled what it cannot trace.

    Attributes:
        graphs: compiled so far, at least one for each size and module.
    """

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        """Compile one graph for these inputs."""
        self.graphs += 1
        return torch._dynamo.lookup_backend("inductor")(graph, inputs)


def compile_called(module: nn.Module, run_once: Callable[[], object], cache: Path | None) -> Inductor:
    """Set up the compilation of the modules that one batch calls; each shape is compiled at its first run.

    Args:
        module: the family's.
        run_once: runs one small batch through it.
        cache: where machine code is stored between starts; None keeps it for the life of the process.

    Returns:
        The compiler; its graphs must be above 0 after the first batch.

    Raises:
        CompileError: there is no compiler, or nothing that could be compiled.
    """
    if find_compiler() is None:
        raise CompileError(
            f"the model is to be compiled, but there is no C++ compiler {compiler_name()!r}; install it, name another "
            "with CXX, or set compiled to 0"
        )
    with record_calls(module) as called:
        run_once()
    if not called or any(isinstance(part, torch.jit.ScriptModule) for part in called):
        raise CompileError("the model runs no Python module that could be compiled; set compiled to 0")
    _configure(cache)
    inductor = Inductor()
    for part in called:
        part.forward = torch.compile(_wrap(part.forward), dynamic=False, backend=inductor)
    return inductor


@contextmanager
def translate_compile_errors() -> Iterator[None]:
    """Turn what torch raises while it compiles into a CompileError.

    Raises:
        CompileError: compiling failed.
    """
    from torch._dynamo.exc import TorchDynamoException  # imported only by workers that compile

    try:
        yield
    except (TorchDynamoException, subprocess.CalledProcessError) as error:
        raise CompileError(
            f"the model cannot be compiled with {compiler_version()}: {_find_cause(error)}; "
            "set FOUNT_WORKER_COMPILED to 0, or repair the compiler"
        ) from error


def _find_cause(error: Exception) -> str:
    """Describe the error that torch wraps; of a compiler's output, its first error among warnings."""
    inner = getattr(error, "inner_exception", error)
    found = next((line.strip() for line in str(inner).splitlines() if "error: " in line), "")
    return found or describe_error(inner)


def compiler_name() -> str:
    """Name the C++ compiler that inductor uses: CXX, or the platform's default."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def find_compiler() -> str | None:
    """Find the path of the compiler; None when it is not installed."""
    return shutil.which(compiler_name())


def compiler_version() -> str:
    """Return the compiler's version line, which the bytes of compiled networks depend on; "none" without a compiler."""
    if (found := find_compiler()) is None:
        return "none"
    try:
        done = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.partition("\n")[0].strip()


def _wrap(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a forward in a function of this package: torch does not trace its own modules, like Sequential, directly."""

    def run(*arguments: Any, **named: Any) -> Any:
        return forward(*arguments, **named)

    return run


@contextmanager
def record_calls(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Record the modules that are called while no other runs, each once, in order."""
    called: list[nn.Module] = []
    running: list[nn.Module] = []

    def enter(part: nn.Module, _inputs: object) -> None:
        if not running and not any(part is other for other in called):
            called.append(part)
        running.append(part)

    def leave(_part: nn.Module, _inputs: object, _outputs: object) -> None:
        running.pop()

    with ExitStack() as hooks:
        for part in module.modules():
            hooks.callback(part.register_forward_pre_hook(enter).remove)
            hooks.callback(part.register_forward_hook(leave).remove)
        yield called


def _configure(cache: Path | None) -> None:
    """Configure inductor for a worker: no processes of its own, and no cache that would be unpickled."""
    import torch._dynamo.config as tracing
    import torch._functorch.config as differentiating
    import torch._inductor.config as inductor

    folder = cache or Path(tempfile.mkdtemp(prefix="fount-compiled-"))
    if cache is None:
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.environ[_CACHE] = str(folder)
    inductor.cpp.cxx = (None, compiler_name())
    inductor.compile_threads = 1
    inductor.fx_graph_cache = False
    differentiating.enable_autograd_cache = False
    tracing.recompile_limit = _MAX_VERSIONS
    tracing.fail_on_recompile_limit_hit = True  # rather than run some sizes uncompiled, with other bytes
