"""What is to be done with a new model folder, in order: `fount new` prints it, and the folder's README says it."""

from __future__ import annotations

import shlex
from pathlib import Path

from handlers.models import OWN_FAMILY, PROGRAM_FAMILIES
from handlers.scaffold.programs import PROGRAM_SCRIPT
from handlers.scaffold.template import Wish

__all__ = ["next_steps"]


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
        *(own if wish.family == OWN_FAMILY else others),
        f"Write your trained weights there, from Python with {save}, or from a checkpoint file with {convert}.",
    ]
