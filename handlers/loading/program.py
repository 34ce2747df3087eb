"""Load programs safely: check that nothing in the file is unpickled or opens files, then let torch read it.

A program's file and its kind enter; a module leaves, or an error with the reason and the remedy.

TorchScript: torch's reader runs no Python, but TorchScript has operators that write and read any file, and a class may
call them as soon as it is read (`__setstate__`). Its code is stored as text with Python's syntax, so those operators
are found by name before anything runs; a name that is computed is refused, too.

Exported programs: torch's loader unpickles some members, evaluates shape expressions as Python, and looks operators up
by any name below `torch`. Therefore every member must be one that plain programs have, nothing may be stored as a
pickle but the example inputs (which must be tensors and plain values), every operator must be on the list below, and
every expression must be arithmetic. What remains can only compute.

Sources: torch/csrc/jit/serialization/import.cpp (which members are code), the schemas of aten (which operators take a
file name); torch.export.pt2_archive (members), torch._export.serde.serialize (what is evaluated).
"""

from __future__ import annotations

import ast
import io
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fount.json_text import parse_json
from handlers.execution.errors import describe_error, is_out_of_memory, remedy_for
from handlers.loading.file_kinds import describe_wrong_kind
from handlers.models.program import load_exported, load_torchscript

__all__ = ["FILE_OPERATORS", "load_program"]

FILE_OPERATORS = ("save", "from_file")
"""Operators of aten that open a file."""

# TorchScript.
_LEGACY = "model.json"  # of torch before 1.4: its code may be any member
_LITERAL_NAME = re.compile(r"""(["'])[\w.]*\1""")

# Exported programs: members.
_MODEL, _EXAMPLE = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_KNOWN_MEMBER = re.compile(
    r"models/model\.json|data/sample_inputs/model\.pt|data/(weights|constants)/model_\w+_config\.json"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id|alignment)|\.format_version|\.storage_alignment"
)
# Exported programs: operators, and texts that are evaluated.
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims)\.[A-Za-z_]\w*(\.\w+)?"
    # Of those that call what they are given, the ones that torch.export itself writes.
    r"|torch\.ops\.higher_order\.(cond|while_loop|map_impl|scan|associative_scan|flex_attention"
    r"|wrap_with_(autocast|set_grad_enabled))"
    r"|torch\._?sym_\w+"
    r"|math\.(ceil|floor|sqrt|trunc)"
    r"|_operator\.(abs|add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pos|pow|sub|truediv)"
)
_EXPORTED_FILE_OPERATORS = tuple(f"torch.ops.aten.{name}" for name in FILE_OPERATORS)
_WORD = re.compile(r"[\w.+:-]*")
_SPEC_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict")
_ARITHMETIC = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Compare,
    ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
_FUNCTION = re.compile(
    "Symbol|Integer|Float|Rational|Add|Mul|Pow|Abs|Min|Max|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|floor|ceiling"
    "|Equality|Unequality|LessThan|StrictLessThan|GreaterThan|StrictGreaterThan|FloorDiv|ModularIndexing|Where"
    "|PythonMod|Mod|CleanDiv|CeilToInt|FloorToInt|CeilDiv|LShift|RShift|PowByNatural|FloatPow|FloatTrueDiv"
    "|IntTrueDiv|IsNonOverlappingAndDenseIndicator|TruncToFloat|TruncToInt|RoundToInt|RoundDecimal|ToFloat|Identity"
)
_SYMBOL = re.compile(r"[a-z]\d+")

_REMEDIES = {
    "torchscript": "save a program that only computes, or serve it as family module with its weights",
    "exported": "export the plain module with torch.export.save, or serve it as family module with its weights",
}


def load_program(file: Path, kind: str, *, most_rows: int) -> nn.Module:
    """Load a program with its weights, on the CPU.

    Args:
        file: the program.
        kind: "torchscript" or "exported".
        most_rows: the number of rows it must accept at once.

    Returns:
        A module whose `forward`, or `sample`, is the program's.

    Raises:
        ValueError: it is another kind of file, is damaged, contains something unsafe, or accepts only some numbers of
            rows; the message says what to do.
        MemoryError: or torch's own error: there is not enough memory for it now.
    """
    try:
        if wrong := describe_wrong_kind(file, "torchscript" if kind == "torchscript" else "exported"):
            raise ValueError(wrong)
        if kind == "torchscript":
            _check_torchscript(file)
            return load_torchscript(file)
        _check_exported(file)
        return load_exported(file, most_rows=most_rows)
    except ValueError:
        raise
    except Exception as error:  # torch raises many kinds for damaged files
        if is_out_of_memory(error):
            raise
        remedy = "save the program again with this version of torch, or copy the file again"
        remedy = remedy_for(error, remedy, is_program=True)
        raise ValueError(f"{file.name} cannot be read as {kind}: {describe_error(error)}; {remedy}") from error


def _refusal(file: Path, kind: str, content: str) -> ValueError:
    danger = "that could run code or open files"
    return ValueError(f"{file.name} contains {content}, so it is not loaded: {danger}; {_REMEDIES[kind]}")


def _check_torchscript(file: Path) -> None:
    """Check that neither reading nor running a program opens a file.

    Raises:
        ValueError: its code names such an operator, or is not what torch writes.
        RuntimeError: torch cannot read it.
    """
    reader = torch._C.PyTorchFileReader(str(file))  # the reader that torch.jit.load uses
    names = reader.get_all_records()
    folded = [name.lower() for name in names]  # the reader ignores case
    if len(set(folded)) != len(folded):
        raise _refusal(file, "torchscript", "two members of one name")
    if _LEGACY in folded:
        raise _refusal(file, "torchscript", f"{_LEGACY}, the format before torch 1.4")
    for name in names:
        if name.lower().endswith(".py"):
            for wrong in _find_unsafe_calls(reader.get_record(name)):
                raise _refusal(file, "torchscript", f"{wrong} in {name}")


def _find_unsafe_calls(code: bytes) -> Iterator[str]:
    try:
        text = code.decode()
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield "code that cannot be parsed"
        return
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in FILE_OPERATORS:
            yield f"{ast.unparse(node)}, which opens files,"
        elif name == "getattr" and id(node) not in called:
            yield "getattr under another name"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            # torch writes one literal name here; TorchScript would also accept a computed one
            written = (ast.get_source_segment(text, node.args[1]) or "") if len(node.args) > 1 else ""
            if not _LITERAL_NAME.fullmatch(written) or written[1:-1] in FILE_OPERATORS:
                yield f"getattr of {written[:60] or 'nothing'}"


def _check_exported(file: Path) -> None:
    """Check that loading an exported program runs no code.

    Raises:
        ValueError: it contains something that would be run, or that plain programs do not have.
        RuntimeError: torch cannot read it.
    """
    reader = torch._C.PyTorchFileReader(str(file))  # the reader that torch.export.load uses
    names = reader.get_all_records()
    _check_members(file, names)
    try:
        torch.load(io.BytesIO(reader.get_record(_EXAMPLE)), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise _refusal(file, "exported", "example inputs that are a pickle of more than tensors") from error
    for name in _CONFIGS:
        document = _read_json(file, name, reader.get_record(name))
        payloads = document.get("config")
        for key, payload in payloads.items() if isinstance(payloads, dict) else ():
            if not isinstance(payload, dict) or payload.get("use_pickle") is not False:
                raise _refusal(file, "exported", f"{key} as a pickle")
        _check_texts(file, document)
    model = _read_json(file, _MODEL, reader.get_record(_MODEL))
    model.pop("guards_code", None)  # never compiled, see `handlers.models.program`
    _check_texts(file, model)


def _check_members(file: Path, names: list[str]) -> None:
    with zipfile.ZipFile(file) as archive:
        listed = [name.partition("/") for name in archive.namelist()]
    one_root = len({root for root, _, _ in listed}) == 1
    if not one_root or sorted(rest for _, _, rest in listed) != sorted(names) or len(set(names)) != len(names):
        raise _refusal(file, "exported", "members that two readers would see differently")
    for name in names:
        if not _KNOWN_MEMBER.fullmatch(name):
            raise _refusal(file, "exported", f"the member {name}")
    for name in (_MODEL, _EXAMPLE, *_CONFIGS):
        if name not in names:
            raise ValueError(f"{file.name} lacks {name}; save it again with torch.export.save of torch 2.9 or newer")


def _read_json(file: Path, name: str, data: bytes) -> dict[str, Any]:
    try:
        document = parse_json(data)
    except ValueError as error:
        raise ValueError(f"{file.name} is damaged: {name} is not JSON; copy or export it again") from error
    if not isinstance(document, dict):
        raise ValueError(f"{file.name} is damaged: {name} is no JSON object; copy or export it again")
    return document


def _check_texts(file: Path, document: Mapping[str, Any]) -> None:
    for unsafe in _find_unsafe_texts(document, ""):
        raise _refusal(file, "exported", unsafe)


def _find_unsafe_texts(value: object, key: str) -> Iterator[str]:
    """Walk a document and yield every text that is neither a plain word, an operator nor arithmetic."""
    if isinstance(value, dict):
        for name, item in value.items():
            if not _WORD.fullmatch(name):
                yield f"the name {name!r}"
            if not _is_never_run(name, item):
                yield from _find_unsafe_texts(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _find_unsafe_texts(item, key)
    elif isinstance(value, str) and not _is_safe(value, key):
        yield f"{value[:60]!r} as {key}"


def _is_never_run(name: str, item: object) -> bool:
    """Return whether torch never evaluates these texts: the origin of a node, and arguments, which it quotes."""
    if name == "metadata":
        return isinstance(item, dict) and all(isinstance(text, str) for text in item.values())
    texts = [item] if name == "as_string" else item if name == "as_strings" else [None]
    return isinstance(texts, list) and all(isinstance(text, str) for text in texts)


def _is_safe(text: str, key: str) -> bool:
    if key in ("target", "as_operator"):
        return bool(_OPERATOR.fullmatch(text)) and not text.startswith(_EXPORTED_FILE_OPERATORS)
    if key == "expr_str":
        return _is_arithmetic(text)
    if key in ("in_spec", "out_spec"):
        return _is_plain_spec(text)
    return bool(_WORD.fullmatch(text))


def _is_arithmetic(text: str) -> bool:
    """Return whether a shape expression only computes: numbers, symbols, operators and functions of numbers."""
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _ARITHMETIC):
            return False
        if isinstance(node, ast.Name) and not (_FUNCTION.fullmatch(node.id) or _SYMBOL.fullmatch(node.id)):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not _SYMBOL.fullmatch(node.value):
            return False
        if isinstance(node, ast.Constant) and not isinstance(node.value, str | int | float):
            return False
    return True


def _is_plain_spec(text: str) -> bool:
    """Return whether a tree of inputs or outputs has only tuples, lists and mappings; others would import a type."""
    try:
        version_and_spec = parse_json(text)
        return len(version_and_spec) == 2 and _is_plain_tree(version_and_spec[1])
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _is_plain_tree(spec: Mapping[str, Any]) -> bool:
    return spec["type"] in _SPEC_TYPES and all(_is_plain_tree(child) for child in spec["children_spec"])
