"""Run a custom source file and build its class, with errors that name the line in that file.

The file is in the model folder and self-contained: it may import what the worker's environment has installed, and no
other file of the folder. It runs with the rights of the worker, so only trusted files belong into a model folder. The
file, a class name and a configuration enter; the built module leaves, or a `CustomSourceError`.
"""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import nn

from fount.files import open_regular
from handlers.execution.errors import describe_error, is_out_of_memory, remedy_for

__all__ = ["CustomSourceError", "build_custom_class"]

_Result = TypeVar("_Result")


class CustomSourceError(Exception):
    """A custom source file cannot be used. Correct what the message names, in that file or in the card."""


def build_custom_class(file: Path, class_name: str, config: Mapping[str, Any]) -> nn.Module:
    """Run a file and build its class with untrained weights.

    Args:
        file: the Python file.
        class_name: a torch.nn.Module in it.
        config: its keyword arguments.

    Raises:
        CustomSourceError: the file cannot be run, has no such class, or the class cannot be built so.
        MemoryError: or torch's own error: there is not enough memory for it now.
    """
    kind = _find_class(_run_file(file), file, class_name)
    _check_arguments(kind, file, config)
    # The class may draw values that are not among its weights: make them the same in every worker.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return _guard(lambda: kind(**config), file, f"{class_name} cannot be built", "correct it, or family.config")


def _run_file(file: Path) -> ModuleType:
    """Run a file as a module of a private name, that finds no other file of its folder and writes none there."""
    try:
        with open_regular(file) as stream:
            text = stream.read()
    except OSError as error:
        raise CustomSourceError(f"{file.name} cannot be read ({error.strerror}); put it next to the card") from error
    module = ModuleType(f"_fount_own_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]}")
    # Without package and folder, so that relative imports fail: an archive has no other file of the model.
    module.__file__, module.__package__ = file.name, ""
    sys.modules[module.__name__] = module  # dataclasses and inspect look a class's module up there
    code = _guard(lambda: compile(text, str(file), "exec"), file, f"{file.name} is not Python", "correct it")
    try:
        # Code of the model's author; the model digest covers it.
        _guard(lambda: exec(code, module.__dict__), file, f"{file.name} cannot be imported", "correct it")  # noqa: S102
    except CustomSourceError:
        del sys.modules[module.__name__]
        raise
    return module


def _guard(run: Callable[[], _Result], file: Path, what: str, remedy: str) -> _Result:
    """Run custom code and translate any exception, except one for lack of memory."""
    try:
        return run()
    except (Exception, SystemExit) as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, ModuleNotFoundError) and error.name:
            raise CustomSourceError(_describe_missing(file, error.name)) from error
        if isinstance(error, ImportError) and "relative import" in str(error):
            remedy = "a custom model is one file: put what it imports into it"
        if isinstance(error, FileNotFoundError):
            remedy = "a custom model is one file: put what it reads into it, or into the weights, as buffers"
        if isinstance(error, SystemExit):
            remedy = 'put code for running the file as a script under if __name__ == "__main__":'
        raise CustomSourceError(f"{what}: {describe_error(error, file)}; {remedy_for(error, remedy)}") from error


def _describe_missing(file: Path, name: str) -> str:
    top = name.split(".")[0]
    if (file.parent / f"{top}.py").is_file() or (file.parent / top).is_dir():
        return f"{file.name} imports {top} from its own folder; a custom model is one file: put it into that"
    lacks = f"{file.name} imports {name}, which this worker lacks"
    return f"{lacks}; install it in the worker's environment, or remove the import"


def _find_class(module: ModuleType, file: Path, class_name: str) -> Callable[..., nn.Module]:
    kind = getattr(module, class_name, None)
    if isinstance(kind, type) and issubclass(kind, nn.Module):
        return kind
    own = [item for item in vars(module).values() if isinstance(item, type) and item.__module__ == module.__name__]
    there = ", ".join(item.__name__ for item in own if issubclass(item, nn.Module)) or "none"
    if kind is None:
        raise CustomSourceError(f"{file.name} has no {class_name}; set family.class_name to one of: {there}")
    if isinstance(kind, type):
        bases = ", ".join(base.__name__ for base in kind.__bases__)
        wrong, remedy = f"is a class of {bases} and no torch.nn.Module", f"derive {class_name} from torch.nn.Module"
    else:
        wrong, remedy = f"is a {type(kind).__name__} and no class", "name a class that is a torch.nn.Module"
    raise CustomSourceError(f"{class_name} in {file.name} {wrong}; {remedy} (modules there: {there})")


def _check_arguments(kind: Callable[..., nn.Module], file: Path, config: Mapping[str, Any]) -> None:
    signature = inspect.signature(kind)
    try:
        signature.bind(**config)
    except TypeError as error:
        name, given = getattr(kind, "__name__", "the class"), ", ".join(config) or "nothing"
        wrong = f"{name}{signature} in {file.name} cannot be built with family.config, which gives {given}: {error}"
        raise CustomSourceError(f"{wrong}; make the two match") from error
