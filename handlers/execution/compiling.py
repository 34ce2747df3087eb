"""Compiling: a network's modules turned into machine code for exactly the shapes a worker runs.

torch's inductor fuses what lies between convolutions and writes C++, so a CPU worker needs a C++ compiler. Which
modules to compile is seen, not declared: those that a batch calls from outside. What was compiled has numerics of its
own, a profile and golden samples like any other. Enters: a network. Leaves: the same, whose first run at each size
compiles.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = [
    "CompileError",
    "Inductor",
    "compile_called",
    "compiler_name",
    "compiler_version",
    "find_compiler",
    "translate_compile_errors",
]


_SHAPES = 64  # versions of one piece of code: a size each, of each module that shares it
_CACHE = "TORCHINDUCTOR_CACHE_DIR"


class CompileError(Exception):
    """A network cannot be compiled. Install the compiler it names, or do without: compiled is 0."""


class Inductor:
    """torch's compiler of graphs, which counts them: torch runs what it cannot trace as it was, without a word.

    Attributes:
        graphs: how many were compiled, one a size and module at least.
    """

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        """Compile one graph for these inputs."""
        self.graphs += 1
        return torch._dynamo.lookup_backend("inductor")(graph, inputs)


def compile_called(module: nn.Module, run_once: Callable[[], object], cache: Path | None) -> Inductor:
    """Compile what one batch calls, for every shape it will meet; machine code is made at the first run of each.

    Args:
        module: the family's.
        run_once: runs one small batch through it.
        cache: where machine code is kept between starts; None keeps it as long as the process lives.

    Returns:
        What will compile; its graphs must be above 0 when the batch has run.

    Raises:
        CompileError: there is no compiler, or nothing that could be compiled.
    """
    if find_compiler() is None:
        raise CompileError(_no_compiler())
    with _watching(module) as called:
        run_once()
    if not called or any(isinstance(part, torch.jit.ScriptModule) for part in called):
        raise CompileError("the model runs in no module of Python that could be compiled; set compiled to 0")
    _configure(cache)
    inductor = Inductor()
    for part in called:
        part.forward = torch.compile(_inlined(part.forward), dynamic=False, backend=inductor)
    return inductor


def _inlined(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a forward in a function of our own: torch refuses to begin tracing in its own modules, like Sequential."""

    def run(*arguments: Any, **named: Any) -> Any:
        return forward(*arguments, **named)

    return run


@contextmanager
def translate_compile_errors() -> Iterator[None]:
    """Turn what torch raises while it compiles into a sentence.

    Raises:
        CompileError: compiling failed.
    """
    from torch._dynamo.exc import TorchDynamoException  # loaded with the compiler alone

    try:
        yield
    except (TorchDynamoException, subprocess.CalledProcessError) as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        told = f"the model cannot be compiled with {compiler_version()}: {said}"
        raise CompileError(f"{told}; set FOUNT_WORKER_COMPILED to 0, or mend the compiler") from error


@contextmanager
def _watching(module: nn.Module) -> Iterator[list[nn.Module]]:
    """Note the modules that are called while no other runs, each once, in order."""
    called: list[nn.Module] = []
    running: list[nn.Module] = []

    def enter(part: nn.Module, _inputs: object) -> None:
        if not running and not any(part is other for other in called):
            called.append(part)
        running.append(part)

    def leave(_part: nn.Module, _inputs: object, _outputs: object) -> None:
        running.pop()

    handles = [handle for part in module.modules() for handle in _hook(part, enter, leave)]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def _hook(
    part: nn.Module, enter: Callable[[nn.Module, object], None], leave: Callable[[nn.Module, object, object], None]
) -> Iterator[torch.utils.hooks.RemovableHandle]:
    yield part.register_forward_pre_hook(enter)
    yield part.register_forward_hook(leave)


def _configure(cache: Path | None) -> None:
    """Set inductor for a worker: no processes of its own, and no cache that would be unpickled."""
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
    tracing.recompile_limit = _SHAPES
    tracing.fail_on_recompile_limit_hit = True  # rather than run some sizes uncompiled, with other bytes


def _no_compiler() -> str:
    wanted = f"the C++ compiler {compiler_name()!r} is not there"
    return f"{wanted}, and the model is to be compiled; install it, name another with CXX, or set compiled to 0"


# FOLDED FROM handlers.execution.compiling:
# The C++ compiler that torch's inductor uses: where it is, and which. No torch here.


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
