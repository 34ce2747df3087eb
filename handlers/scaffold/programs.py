"""The script that saves a generator as a program, for the families torchscript and exported. No torch here."""

from __future__ import annotations

from string import Template

from handlers.cards.card import Card
from handlers.scaffold.template import Wish

__all__ = ["PROGRAM_SCRIPT", "program_script"]

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
