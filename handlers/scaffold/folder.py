"""The folder that `fount new` writes, whole or not at all, and what its owner does next."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from handlers.cards.card import CARD_FILE, CardError, load_card
from handlers.models import OWN_FAMILY, PROGRAM_FAMILIES, load_family
from handlers.scaffold.card_text import card_to_text
from handlers.scaffold.next_steps import next_steps
from handlers.scaffold.programs import PROGRAM_SCRIPT, program_script
from handlers.scaffold.template import Wish, WishError, card_of

__all__ = ["write_folder"]

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
    own = wish.family == OWN_FAMILY or wish.family in PROGRAM_FAMILIES
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
        if wish.family != OWN_FAMILY:
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
