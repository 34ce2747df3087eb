"""Write the model folder of `fount new --from-diffusers`: card, weights, golden samples, and the next steps.

A folder that `diffusers` saved enters; a folder leaves that can be packed and served.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from safetensors.torch import save_file

from handlers.cards.card import (
    CARD_FILE,
    NAME_RULE,
    Card,
    Family,
    Golden,
    Limits,
    Parameter,
    Sample,
    Weights,
    is_model_name,
    load_card,
)
from handlers.loading.build import BuildError, build_module
from handlers.loading.weights import WeightsError
from handlers.models.diffusers_unet import DEFAULT_STEPS, SchedulerConfig, UnetShape
from handlers.scaffold.card_text import card_to_text
from handlers.scaffold.diffusers_folder import SavedModel, read_saved_model, read_weights
from handlers.scaffold.folder import check_card, create_folder
from handlers.scaffold.template import DATA_LICENCE, INTENDED_USE, TemplateError
from handlers.verification.golden import GoldenError, record_golden
from handlers.verification.profile import ProfileError

__all__ = ["write_diffusers_folder"]

_FAMILY = "diffusers-unet"
_MAX_EXEC_BATCH = 32


def write_diffusers_folder(name: str, source: Path, classes: Sequence[str], store: Path) -> Path:
    """Write a model folder into a store, which is created when absent, and return it.

    Args:
        name: of the model.
        source: the folder that diffusers saved.
        classes: names, in the order of their labels; empty for their numbers.
        store: the model store.

    Raises:
        TemplateError: the name is invalid, the source cannot be served, the classes are not as many as the model's, or
            the folder exists or cannot be written.
    """
    if not is_model_name(name):
        raise TemplateError(f"the name {name!r} {NAME_RULE}")
    saved = read_saved_model(source)
    card = _make_card(name, saved, classes)
    return create_folder(name, store, partial(_fill, card=card, saved=saved))


def _make_card(name: str, saved: SavedModel, classes: Sequence[str]) -> Card:
    shape = UnetShape.read(saved.config["unet"])
    scheduler = SchedulerConfig.read(saved.config["scheduler"])
    if classes and len(classes) != shape.classes:
        found = f"--classes names {len(classes)}, the model has {shape.classes} (num_class_embeds)"
        remedy = "leave --classes out" if not shape.classes else "name each, a label for no class, too"
        raise TemplateError(f"{found}; {remedy}")
    names = tuple(classes) or tuple(map(str, range(shape.classes)))
    steps = min(DEFAULT_STEPS, scheduler.max_steps)
    kind = "Class-conditional" if names else "Unconditional"
    size = f"{shape.height}×{shape.width}×{shape.channels}"
    return Card(
        name=name,
        version="1.0",
        description=f"{kind} diffusion model of pictures of {size}, a UNet2DModel of diffusers drawn by DDIM.",
        family=Family(name=_FAMILY, config={**saved.config, "steps": steps}),
        operations=("SAMPLE",),
        classes=names,
        prior=tuple(1 / len(names) for _ in names),
        sample=Sample(
            modality="image", height=shape.height, width=shape.width, channels=shape.channels, value_range=(-1.0, 1.0)
        ),
        parameters={
            "steps": Parameter(
                min=1, max=scheduler.max_steps, default=steps, description="Steps of DDIM; more are slower and finer."
            ),
            "eta": Parameter(
                min=0.0, max=1.0, default=0.0, description="Noise added by each step: 0 is DDIM, 1 ancestral sampling."
            ),
        },
        encodings=("UINT8", "FLOAT32", "PNG") if shape.channels in (1, 3) else ("UINT8", "FLOAT32"),
        draw_steps=steps,
        limits=Limits(max_count=1_000_000, max_labels=100_000, max_exec_batch=_MAX_EXEC_BATCH),
        precisions=("fp32",),
        data_licence=DATA_LICENCE,
        intended_use=INTENDED_USE,
        weights=Weights(file="weights.safetensors"),
        golden=Golden(file="golden.safetensors"),
    )


def _fill(made: Path, folder: Path, *, card: Card, saved: SavedModel) -> None:
    (made / CARD_FILE).write_text(card_to_text(card), encoding="utf-8")
    check_card(made)
    weights = read_weights(saved.unet).state_dict()
    save_file({f"unet.{name}": tensor.contiguous() for name, tensor in weights.items()}, made / card.weights.file)
    try:
        written = load_card(made)  # its lists are those of a worker
        record_golden(written, build_module(written, made), made / card.golden.file)
    except (BuildError, GoldenError, ProfileError, WeightsError) as error:
        raise TemplateError(f"{saved.unet} cannot be served: {error}") from error
    (made / "README.md").write_text(_describe_steps(card, folder), encoding="utf-8")


def _describe_steps(card: Card, folder: Path) -> str:
    store = f" --model-store {shlex.quote(str(folder.parent))}"
    at = "" if folder.parent == Path("model_store") else store
    label = f" --label {shlex.quote(card.classes[0])}" if card.classes else ""
    steps = [
        f"Describe the model in {folder}/model.yaml: description, data_licence, intended_use.",
        f"`fount check {card.name}{at}`: reports what is wrong and what to change, and draws check.png.",
        f"`fount pack {card.name}{at}`: creates the archive for another server; here the next command does it.",
        f"`fount serve{store}`: packs all models, and serves them.",
        f"`fount sample {card.name}{label} --count 16 --seed 1 --steps {card.draw_steps} --out samples.png`, in another"
        " terminal.",
    ]
    head = f"# {card.name}\n\nThe weights, and golden samples of them, are in this folder. Next steps:\n"
    return "\n".join([head, *(f"{number}. {step}" for number, step in enumerate(steps, 1)), ""])
