"""The folder that `fount new` writes, whole or not at all, and what its owner does next."""

from __future__ import annotations

import importlib
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from string import Template

import torch
from safetensors.torch import save_file
from torch import nn

from handlers.cards.card import CARD_FILE, Card, CardError, load_card
from handlers.models import CUSTOM_FAMILY, PROGRAM_FAMILIES, load_family
from handlers.scaffold.card_text import card_to_text
from handlers.scaffold.template import Wish, WishError, card_of

__all__ = ["PROGRAM_SCRIPT", "next_steps", "program_script", "write_folder"]


_STUBS = Path(__file__).parent / "stubs"
_SEED = 0


def write_folder(wish: Wish, store: Path) -> Path:
    """Write a model folder into a store.

    Args:
        wish: what was asked for.
        store: folder of model folders; made when absent.

    Returns:
        The folder.

    Raises:
        WishError: something is there already, a class name is not legal, or the folder cannot be written.
    """
    folder = store / wish.name
    if folder.exists() or folder.is_symlink():
        raise WishError(f"{folder} is there already, and is left as it is; choose another name, or remove it first")
    try:
        store.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=store, prefix=f".{wish.name}."))
        try:
            _fill(made, wish, folder)
            made.chmod(0o755)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise WishError(f"{folder} cannot be written: {error.strerror}; name another --model-store") from error
    return folder


def _fill(made: Path, wish: Wish, folder: Path) -> None:
    card = card_of(wish)
    (made / CARD_FILE).write_text(card_to_text(card), encoding="utf-8")
    try:
        load_card(made)
    except CardError as error:
        raise WishError("\n".join(["no card can say this:", *(f"  {each}" for each in error.problems)])) from error
    own = wish.family == CUSTOM_FAMILY or wish.family in PROGRAM_FAMILIES
    if own:
        shutil.copyfile(_STUBS / f"{_stub_of(wish)}.py", made / "generator.py")
    if wish.family in PROGRAM_FAMILIES:
        (made / PROGRAM_SCRIPT).write_text(program_script(wish, card), encoding="utf-8")
        _run_script(made)
    else:
        save_file(_untrained(wish).state_dict(), made / card.weights.file)
    shutil.copyfile(_STUBS / "test_model.py", made / f"test_{wish.name.replace('-', '_')}.py")
    (made / "README.md").write_text(next_steps(wish, folder), encoding="utf-8")


def _stub_of(wish: Wish) -> str:
    return "conditional" if wish.classes else "unconditional"


def _untrained(wish: Wish) -> nn.Module:
    """Build what the folder's weights belong to: the same numbers every time, and no random state touched."""
    with torch.random.fork_rng():
        torch.manual_seed(_SEED)
        if wish.family != CUSTOM_FAMILY:
            module = load_family(wish.family, card_of(wish).family.config)
            assert isinstance(module, nn.Module)
            return module
        stub = importlib.import_module(f"handlers.scaffold.stubs.{_stub_of(wish)}")
        own: nn.Module = stub.Generator(**wish.stub_config)
        return own


def _run_script(made: Path) -> None:
    """Save the stand-in as a program, by the script that its owner will run."""
    done = subprocess.run(
        [sys.executable, "-B", PROGRAM_SCRIPT], cwd=made, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"it ended with code {done.returncode}"]
        raise WishError(f"this torch cannot save the program: {last[0]}; use --family module")


# FOLDED FROM handlers.scaffold.folder:
# What is to be done with a new model folder, in order: `fount new` prints it, and the folder's README says it.


def next_steps(wish: Wish, folder: Path) -> str:
    """Write the steps from the stand-in to the samples of one's own, as Markdown."""
    store = f" --model-store {shlex.quote(str(folder.parent))}"
    at = "" if folder.parent == Path("model_store") else store
    label = " --label 0" if wish.classes else ""
    steps = [
        *_weights_steps(wish, folder),
        f"Say in {folder}/model.yaml what it is: description, data_licence, intended_use.",
        f"`fount check {wish.name}{at}`: says what is wrong and what to change, and records golden samples.",
        f"`fount pack {wish.name}{at}`: makes the archive, for servers elsewhere; on this machine the next does it.",
        f"`fount serve{store}`: packs what is there, and serves it.",
        f"`fount sample {wish.name}{label} --count 16 --seed 1 --out samples.png`, in another terminal.",
    ]
    warning = "The weights here are UNTRAINED: samples are noise until yours are here. What to do, in order:"
    head = f"# {wish.name}\n\n{warning}\n"
    return "\n".join([head, *(f"{number}. {step}" for number, step in enumerate(steps, 1)), ""])


def _weights_steps(wish: Wish, folder: Path) -> list[str]:
    convert = f"`fount convert CHECKPOINT --out {shlex.quote(f'{folder}/weights.safetensors')} --force`"
    if wish.family in PROGRAM_FAMILIES:
        run = f"`python {shlex.quote(f'{folder}/{PROGRAM_SCRIPT}')}`"
        return [
            f"Put your class into {folder}/generator.py, and your trained weights into {folder}/{PROGRAM_SCRIPT}.",
            f"{run} saves the program. A program that you have already replaces its file.",
        ]
    own = [
        f"Put your class into {folder}/generator.py, in place of Generator.",
        f"Make `family.config` in {folder}/model.yaml what it is built with, and `latent.shape` the shape of its z.",
    ]
    others = [f"Make `family.config` in {folder}/model.yaml the one your weights were trained with."]
    save = f'`safetensors.torch.save_file(module.state_dict(), "{folder}/weights.safetensors")`'
    return [
        *(own if wish.family == CUSTOM_FAMILY else others),
        f"Write your trained weights there, from Python with {save}, or from a checkpoint file with {convert}.",
    ]


# FOLDED FROM handlers.scaffold.folder:
# The script that saves a generator as a program, for the families torchscript and exported. No torch here.


PROGRAM_SCRIPT = "save_program.py"
"""Its name in the model's folder."""

_HEAD = '''\
"""Writes $file, the program that is served: `python $script`, after every change."""

from pathlib import Path

import torch

from generator import Generator

torch.manual_seed(0)  # of the stand-in's untrained weights
module = Generator($config)
# Load your trained weights here: module.load_state_dict(safetensors.torch.load_file("trained.safetensors"))
module.eval()  # before saving: a program keeps the mode it was saved in
file = Path(__file__).with_name("$file")
'''
_TAILS = {
    "torchscript": "torch.jit.script(module).save(file)\n",
    "exported": """\
examples = ($examples,)
rows = torch.export.Dim("rows", min=1)  # any number of rows: else the program runs batches of 2 alone
program = torch.export.export(module, examples, dynamic_shapes=[{0: rows} for _ in examples])
torch.export.save(program, file)
""",
}


def program_script(wish: Wish, card: Card) -> str:
    """Write the script for a model of the family torchscript or exported."""
    z = f"torch.randn(2, {wish.latent_dim})"
    return Template(_HEAD + _TAILS[wish.family]).substitute(
        file=card.weights.file,
        script=PROGRAM_SCRIPT,
        config=", ".join(f"{name}={value}" for name, value in wish.stub_config.items()),
        examples=f"{z}, torch.tensor([0, 0])" if wish.classes else z,
    )
