"""Training on the reduced rows: `python -m benchmarks.imbalance.training DATA WORK` writes WORK/store.

The shipped recipes are used without measuring the quality, which takes minutes. Interrupted training continues from its
checkpoint.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.child import ROOT
from handlers.recipes.catalogue import RECIPES
from handlers.recipes.data.load import load_data
from handlers.recipes.model_folder import load_evaluator, write_model
from handlers.recipes.run.loop import TrainingOptions
from handlers.recipes.run.training import train_module

__all__ = ["TRAINED", "main"]

TRAINED = ("mnist-cvae", "mnist-classifier")
"""The generator, and the classifier that filters its samples and verifies transforms."""


def main(data_folder: Path, work: Path) -> None:
    """Train the models that are missing."""
    for name in TRAINED:
        folder, recipe = work / "store" / name, RECIPES[name]
        if (folder / "model.yaml").is_file():
            continue
        data = load_data(recipe.data, data_folder)
        evaluator = None  # only for the snapshots of training
        if recipe.evaluator:
            evaluator = load_evaluator(ROOT / "model_store" / recipe.evaluator, data)
        options = TrainingOptions(steps=recipe.steps, seed=0, run_folder=work / "runs" / name, resume=True)
        module = train_module(recipe, data, evaluator, options, log=_log)
        write_model(recipe, folder, data, module, (), steps=recipe.steps, seed=0)


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
