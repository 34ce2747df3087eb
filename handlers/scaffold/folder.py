"""Write the model folder of `fount new` atomically: card, class, tests, untrained weights, and the next steps.

A template enters; a folder leaves that can be checked, packed and served at once.
"""

from __future__ import annotations

import importlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from string import Template
from typing import cast

import torch
from safetensors.torch import save_file
from torch import nn

from handlers.cards.card import CARD_FILE, Card, CardError, load_card
from handlers.execution.causes import find_in_output
from handlers.models import CUSTOM_FAMILY, PROGRAM_FAMILIES, load_family
from handlers.scaffold.card_text import card_to_text
from handlers.scaffold.template import ModelTemplate, TemplateError, template_to_card

__all__ = ["check_card", "create_folder", "write_folder"]

_STUBS = Path(__file__).parent / "stubs"
_SEED = 0
_PROGRAM_SCRIPT = "save_program.py"
_HEAD = '''\
"""Save $file, the program that is served: run `python $script` after every change."""

from pathlib import Path

import torch

from generator import Generator

torch.manual_seed(0)  # untrained weights of the placeholder
module = Generator($config)
# Load your trained weights here: module.load_state_dict(safetensors.torch.load_file("trained.safetensors"))
module.eval()  # before saving: a program keeps its mode
file = Path(__file__).with_name("$file")
'''
_TAILS = {
    "torchscript": "torch.jit.script(module).save(file)\n",
    "exported": """\
examples = ($examples,)
rows = torch.export.Dim("rows", min=1)  # any number of rows; otherwise the program accepts batches of 2 only
program = torch.export.export(module, examples, dynamic_shapes=[{0: rows} for _ in examples])
torch.export.save(program, file)
""",
}


def write_folder(template: ModelTemplate, store: Path) -> Path:
    """Write the folder of a new model into a store, which is created when absent, and return it.

    Raises:
        TemplateError: the folder exists, a class name is invalid, or the folder cannot be written.
    """
    return create_folder(template.name, store, lambda made, folder: _fill(made, template, folder))


def create_folder(name: str, store: Path, fill: Callable[[Path, Path], None]) -> Path:
    """Create a model folder in a store, as a whole or not at all, and return it.

    Args:
        name: of the folder.
        store: created when absent.
        fill: writes the files; called with a temporary folder, and the one it will become.

    Raises:
        TemplateError: the folder exists, or cannot be written.
    """
    folder = store / name
    if folder.exists() or folder.is_symlink():
        raise TemplateError(f"{folder} exists already and is not changed; choose another name, or remove it first")
    try:
        store.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=store, prefix=f".{name}."))
        try:
            fill(made, folder)
            made.chmod(0o755)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise TemplateError(f"{folder} cannot be written: {error.strerror}; name another --model-store") from error
    return folder


def check_card(made: Path) -> None:
    """Check the card that was written.

    Raises:
        TemplateError: it is invalid, which options cause.
    """
    try:
        load_card(made)
    except CardError as error:
        raise TemplateError(
            "\n".join(["these options give an invalid card:", *(f"  {each}" for each in error.problems)])
        ) from error


def _describe_steps(template: ModelTemplate, folder: Path) -> str:
    store = f" --model-store {shlex.quote(str(folder.parent))}"
    at = "" if folder.parent == Path("model_store") else store
    label = f" --label {shlex.quote(template.classes[0])}" if template.classes else ""
    steps = [
        *_weights_steps(template, folder),
        f"Describe the model in {folder}/model.yaml: description, data_licence, intended_use.",
        f"`fount check {template.name}{at}`: reports what is wrong and what to change, and records golden samples.",
        f"`fount pack {template.name}{at}`: creates the archive for another server; here the next command does it.",
        f"`fount serve{store}`: packs all models, and serves them.",
        f"`{_try_out(template, label)}`, in another terminal.",
    ]
    warning = "The weights here are UNTRAINED: samples are noise until you replace them. Next steps:"
    head = f"# {template.name}\n\n{warning}\n"
    return "\n".join([head, *(f"{number}. {step}" for number, step in enumerate(steps, 1)), ""])


def _try_out(template: ModelTemplate, label: str) -> str:
    if template.input_shape is None:
        return f"fount sample {template.name}{label} --count 16 --seed 1 --out samples.png"
    many = " --variants 6 --seed 1" if template.draws else ""
    return f"fount translate {template.name} PICTURES/{label}{many} --out translated.png"


def _fill(made: Path, template: ModelTemplate, folder: Path) -> None:
    card = template_to_card(template)
    (made / CARD_FILE).write_text(card_to_text(card), encoding="utf-8")
    check_card(made)
    if template.family in (CUSTOM_FAMILY, *PROGRAM_FAMILIES):
        shutil.copyfile(_STUBS / f"{_stub_of(template)}.py", made / "generator.py")
    if template.family in PROGRAM_FAMILIES:
        (made / _PROGRAM_SCRIPT).write_text(_program_script(template, card), encoding="utf-8")
        _run_script(made)
    else:
        save_file(_untrained(template).state_dict(), made / card.weights.file)
    tests = "test_translator.py" if template.input_shape else "test_model.py"
    shutil.copyfile(_STUBS / tests, made / f"test_{template.name.replace('-', '_')}.py")
    (made / "README.md").write_text(_describe_steps(template, folder), encoding="utf-8")


def _stub_of(template: ModelTemplate) -> str:
    if template.input_shape:
        return "image_conditional" if template.draws else "translator"
    return "conditional" if template.classes else "unconditional"


def _untrained(template: ModelTemplate) -> nn.Module:
    """Build the untrained module, with the same weights every time and without changing torch's random state."""
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        if template.family != CUSTOM_FAMILY:
            module = load_family(template.family, template_to_card(template).family.config)
            assert isinstance(module, nn.Module)
            return module
        stub = importlib.import_module(f"handlers.scaffold.stubs.{_stub_of(template)}")
        return cast(nn.Module, stub.Generator(**template.stub_config))


def _run_script(made: Path) -> None:
    """Save the placeholder as a program, with the script that its owner will run."""
    done = subprocess.run(
        [sys.executable, "-B", _PROGRAM_SCRIPT], cwd=made, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        cause = find_in_output(done.stderr) or f"it exited with code {done.returncode}"
        raise TemplateError(f"this torch cannot save the program: {cause}; use --family module")


def _weights_steps(template: ModelTemplate, folder: Path) -> list[str]:
    convert = f"`fount convert CHECKPOINT --out {shlex.quote(f'{folder}/weights.safetensors')} --force`"
    if template.family in PROGRAM_FAMILIES:
        run = f"`python {shlex.quote(f'{folder}/{_PROGRAM_SCRIPT}')}`"
        return [
            f"Put your class into {folder}/generator.py, and your trained weights into {folder}/{_PROGRAM_SCRIPT}.",
            f"{run} saves the program. If you already have a program, replace its file.",
        ]
    save = f'`safetensors.torch.save_file(module.state_dict(), "{folder}/weights.safetensors")`'
    write = f"Write your trained weights there, from Python with {save}, or from a checkpoint file with {convert}."
    key = f"Set `family.config` in {folder}/model.yaml to"
    if template.family == CUSTOM_FAMILY:
        replace = f"Replace the class Generator in {folder}/generator.py by your own."
        shape_of_z = ", and `latent.shape` to the shape of its z" if template.has_latent else ""
        return [replace, f"{key} its arguments{shape_of_z}.", write]
    return [f"{key} the configuration your weights were trained with.", write]


def _program_script(template: ModelTemplate, card: Card) -> str:
    z = f"torch.randn(2, {template.latent_dim})"
    return Template(_HEAD + _TAILS[template.family]).substitute(
        file=card.weights.file,
        script=_PROGRAM_SCRIPT,
        config=", ".join(f"{name}={value}" for name, value in template.stub_config.items()),
        examples=f"{z}, torch.tensor([0, 0])" if template.classes else z,
    )
