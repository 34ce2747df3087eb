"""Loading programs: the file is looked at first, so that nothing of it is unpickled or run; then torch reads it.

Enters: a program's file and its kind. Leaves: a module, or one sentence that says why not and what to do.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from handlers.execution.errors import describe_error, is_out_of_memory
from handlers.loading.file_kinds import describe_wrong_kind
from handlers.models.program import load_exported, load_torchscript

__all__ = ["FILE_OPERATORS", "check_exported_archive", "check_torchscript_archive", "load_program"]


def load_program(file: Path, kind: str, *, most_rows: int) -> nn.Module:
    """Load a program with its weights, on the CPU.

    Args:
        file: the program.
        kind: "torchscript" or "exported".
        most_rows: how many rows it must be able to take at once.

    Returns:
        A module whose `forward`, or `sample`, is the program's.

    Raises:
        ValueError: it is another kind of file, is damaged, holds what must not be read, or takes only some numbers of
            rows; the message says what to do.
        MemoryError: or torch's own error: there is not enough memory for it, now.
    """
    try:
        if wrong := describe_wrong_kind(file, "torchscript" if kind == "torchscript" else "exported"):
            raise ValueError(wrong)
        if kind == "torchscript":
            check_torchscript_archive(file)
            return load_torchscript(file)
        check_exported_archive(file)
        return load_exported(file, most_rows=most_rows)
    except ValueError:
        raise
    except Exception as error:  # torch raises many kinds for damaged files
        if is_out_of_memory(error):
            raise
        remedy = "save the program again with this version of torch, or copy the file again"
        raise ValueError(f"{file.name} cannot be read as {kind}: {describe_error(error)}; {remedy}") from error


# FOLDED FROM handlers.loading.program:
# Exported programs, looked at before torch reads them: whether an archive holds operators and numbers alone.
# Torch's own loader unpickles some members, evaluates shape expressions as Python, and looks operators up by
# any name below `torch`. So each member must be one that plain programs have, nothing may be kept as a pickle
# but the example inputs (and those must be tensors and plain values), every operator must be one of torch's
# own, and every expression arithmetic. What remains can compute and nothing more. Source:
# torch.export.pt2_archive (members), torch._export.serde.serialize (what is evaluated).


_MODEL, _EXAMPLE = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_KNOWN_MEMBER = re.compile(
    r"models/model\.json|data/sample_inputs/model\.pt|data/(weights|constants)/model_\w+_config\.json"
    r"|data/weights/weight_\d+|data/constants/tensor_\d+|archive_format|archive_version|byteorder"
    r"|\.data/(version|serialization_id|alignment)|\.format_version|\.storage_alignment"
)
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims)\.[A-Za-z_]\w*(\.\w+)?"
    # Of those that call what they are given, the ones that torch.export itself writes.
    r"|torch\.ops\.higher_order\.(cond|while_loop|map_impl|scan|associative_scan|flex_attention"
    r"|wrap_with_(autocast|set_grad_enabled))"
    r"|torch\._?sym_\w+"
    r"|math\.(ceil|floor|sqrt|trunc)"
    r"|_operator\.(abs|add|and_|eq|floordiv|ge|getitem|gt|le|lt|mod|mul|ne|neg|not_|or_|pos|pow|sub|truediv)"
)
_FILE_OPERATORS = ("torch.ops.aten.from_file", "torch.ops.aten.save")
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


def check_exported_archive(file: Path) -> None:
    """Make sure that reading an exported program runs nothing.

    Raises:
        ValueError: it holds something that would be run, or that plain programs do not have.
        RuntimeError: torch cannot read it.
    """
    reader = torch._C.PyTorchFileReader(str(file))  # the very reader that torch.export.load will use
    names = reader.get_all_records()
    _check_members(file, names)
    _check_pickle(file, reader.get_record(_EXAMPLE))
    for name in _CONFIGS:
        _check_payloads(file, _read_json(file, name, reader.get_record(name)))
    model = _read_json(file, _MODEL, reader.get_record(_MODEL))
    model.pop("guards_code", None)  # never compiled, see `handlers.models.program`
    for wrong in _find_strangers(model, ""):
        raise ValueError(_refusal(file, wrong))


def _check_members(file: Path, names: list[str]) -> None:
    with zipfile.ZipFile(file) as archive:
        listed = [name.partition("/") for name in archive.namelist()]
    one_root = len({root for root, _, _ in listed}) == 1
    if not one_root or sorted(rest for _, _, rest in listed) != sorted(names) or len(set(names)) != len(names):
        raise ValueError(_refusal(file, "members that two readers would see differently"))
    for name in names:
        if not _KNOWN_MEMBER.fullmatch(name):
            raise ValueError(_refusal(file, f"the member {name}"))
    for name in (_MODEL, _EXAMPLE, *_CONFIGS):
        if name not in names:
            raise ValueError(f"{file.name} lacks {name}; save it again with torch.export.save of torch 2.9 or newer")


def _check_pickle(file: Path, data: bytes) -> None:
    try:
        torch.load(io.BytesIO(data), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(_refusal(file, "example inputs that are a pickle of more than tensors")) from error


def _check_payloads(file: Path, document: Mapping[str, Any]) -> None:
    payloads = document.get("config")
    for name, payload in payloads.items() if isinstance(payloads, dict) else ():
        if not isinstance(payload, dict) or payload.get("use_pickle") is not False:
            raise ValueError(_refusal(file, f"{name} as a pickle"))
    for wrong in _find_strangers(document, ""):
        raise ValueError(_refusal(file, wrong))


def _read_json(file: Path, name: str, data: bytes) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file.name} is damaged: {name} is not JSON; copy or export it again") from error
    if not isinstance(document, dict):
        raise ValueError(f"{file.name} is damaged: {name} is no JSON object; copy or export it again")
    return document


def _refusal(file: Path, what: str) -> str:
    remedy = "export the plain module with torch.export.save, or serve it as family module with its weights"
    return f"{file.name} holds {what}, so it is not read: that could run code; {remedy}"


def _find_strangers(value: object, key: str) -> Iterator[str]:
    """Walk a document and name every text that is neither a plain word, an operator nor arithmetic."""
    if isinstance(value, dict):
        for name, item in value.items():
            if not _WORD.fullmatch(name):
                yield f"the name {name!r}"
            if not _is_only_shown(name, item):
                yield from _find_strangers(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _find_strangers(item, key)
    elif isinstance(value, str) and not _is_plain(value, key):
        yield f"{value[:60]!r} as {key}"


def _is_only_shown(name: str, item: object) -> bool:
    """Whether texts are never run: where a node came from, and arguments, which torch quotes."""
    if name == "metadata":
        return isinstance(item, dict) and all(isinstance(text, str) for text in item.values())
    texts = [item] if name == "as_string" else item if name == "as_strings" else [None]
    return isinstance(texts, list) and all(isinstance(text, str) for text in texts)


def _is_plain(text: str, key: str) -> bool:
    if key in ("target", "as_operator"):
        return bool(_OPERATOR.fullmatch(text)) and not text.startswith(_FILE_OPERATORS)
    if key == "expr_str":
        return _is_arithmetic(text)
    if key in ("in_spec", "out_spec"):
        return _is_plain_spec(text)
    return bool(_WORD.fullmatch(text))


def _is_arithmetic(text: str) -> bool:
    """Whether a shape expression only computes: numbers, symbols, operators and functions of numbers."""
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
    """Whether a tree of inputs or outputs is made of tuples, lists and mappings; others would import their type."""
    try:
        version_and_spec = json.loads(text)
        return len(version_and_spec) == 2 and _is_plain_tree(version_and_spec[1])
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _is_plain_tree(spec: Mapping[str, Any]) -> bool:
    return spec["type"] in _SPEC_TYPES and all(_is_plain_tree(child) for child in spec["children_spec"])


# FOLDED FROM handlers.loading.program:
# TorchScript, looked at before torch reads it: whether its code computes, or reaches for files. Torch's reader
# runs no Python, but TorchScript has operators of its own that write and read any file, and a class may call
# them as soon as it is read (`__setstate__`). Its code lies in the archive as text that is Python by syntax, so
# those operators can be found by name before anything runs; a name that is put together is refused, too.
# Source: torch/csrc/jit/serialization/import.cpp (which members are code), the schemas of aten (which operators
# take a file name).


FILE_OPERATORS = ("save", "from_file")
"""Operators of aten that open a file."""

_LEGACY = "model.json"  # of torch before 1.4: its code may be any member
_PLAIN_NAME = re.compile(r"""(["'])[\w.]*\1""")


def check_torchscript_archive(file: Path) -> None:
    """Make sure that neither reading nor running a program opens a file.

    Raises:
        ValueError: its code names such an operator, or is not what torch writes.
        RuntimeError: torch cannot read it.
    """
    reader = torch._C.PyTorchFileReader(str(file))  # the very reader that torch.jit.load will use
    names = reader.get_all_records()
    folded = [name.lower() for name in names]  # the reader finds members whatever their case
    if len(set(folded)) != len(folded):
        raise ValueError(_torchscript_refusal(file, "two members of one name"))
    if _LEGACY in folded:
        raise ValueError(_torchscript_refusal(file, f"{_LEGACY}, the format before torch 1.4"))
    for name in names:
        if name.lower().endswith(".py"):
            for wrong in _find_unknown_calls(reader.get_record(name)):
                raise ValueError(_torchscript_refusal(file, f"{wrong} in {name}"))


def _find_unknown_calls(code: bytes) -> Iterator[str]:
    try:
        text = code.decode()
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield "code that cannot be looked at"
        return
    asked = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
        if name in FILE_OPERATORS:
            yield f"{ast.unparse(node)}, which opens files,"
        elif name == "getattr" and id(node) not in asked:
            yield "getattr under another name"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            yield from _find_strange_name(text, node)


def _find_strange_name(text: str, call: ast.Call) -> Iterator[str]:
    """Look at what getattr asks for: torch writes one plain word, and TorchScript would put pieces together."""
    written = (ast.get_source_segment(text, call.args[1]) or "") if len(call.args) > 1 else ""
    if not _PLAIN_NAME.fullmatch(written) or written[1:-1] in FILE_OPERATORS:
        yield f"getattr of {written[:60] or 'nothing'}"


def _torchscript_refusal(file: Path, what: str) -> str:
    remedy = "save a program that only computes, or serve it as family module with its weights"
    return f"{file.name} holds {what} so it is not read; {remedy}"
