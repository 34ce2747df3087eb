"""Read a folder that `diffusers` saved: a pipeline of a UNet2DModel and its scheduler, or the network alone.

A folder enters; the configuration of the family `diffusers-unet` and the network with its weights leave, or everything
that is wrong with the folder. Pickles are never read.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn

from handlers.loading.file_kinds import kind_of
from handlers.loading.memory import InsufficientMemoryError, require_memory
from handlers.models.diffusers_unet import SCHEDULER_KEYS, config_problems, unet_class
from handlers.scaffold.template import TemplateError

__all__ = ["SavedModel", "read_saved_model", "read_weights"]

_INDEX, _UNET, _SCHEDULER = "model_index.json", "config.json", "scheduler_config.json"
_STEM = "diffusion_pytorch_model"
_SAFE = (f"{_STEM}.safetensors", f"{_STEM}.safetensors.index.json")  # in one file, or in several
_LATENT_PARTS = ("vae", "vqvae", "text_encoder", "image_encoder", "tokenizer")
_MAX_JSON_BYTES = 2**20
_MAX_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A folder without problems.

    Attributes:
        config: of the family.
        unet: the folder of the network.
    """

    config: Mapping[str, Any]
    unet: Path


@dataclass(kw_only=True)
class _Reading:
    """Problems found so far."""

    problems: list[str] = field(default_factory=list)

    def read(self, file: Path, remedy: str) -> Mapping[str, Any]:
        """Read a JSON object; an empty one, and a problem, if it cannot be read."""
        try:
            if file.stat().st_size > _MAX_JSON_BYTES:
                raise ValueError("it is larger than 1 MiB")
            found = json.loads(file.read_text(encoding="utf-8"))
            if not isinstance(found, dict):
                raise ValueError("it is no JSON object")
        except FileNotFoundError:
            self.problems.append(f"{file} is missing; {remedy}")
        except OSError as error:
            self.problems.append(f"{file} cannot be read: {error.strerror}; correct its permissions")
        except ValueError as error:
            self.problems.append(f"{file} cannot be read: {error}; save the model again")
        else:
            return found
        return {}


def read_saved_model(folder: Path) -> SavedModel:
    """Read the configuration of a saved model, and check the files of its weights.

    Raises:
        TemplateError: the folder is not of a model that can be served; names every problem.
    """
    if not folder.is_dir():
        raise TemplateError(f"{folder} is no folder; name one that save_pretrained of diffusers wrote")
    reading = _Reading()
    index = reading.read(folder / _INDEX, "") if (folder / _INDEX).exists() else {}
    reading.problems += _index_problems(folder / _INDEX, index)
    unet_folder = folder / "unet" if (folder / "unet").is_dir() else folder
    unet = reading.read(
        unet_folder / _UNET, "save the pipeline with save_pretrained, or name the folder of its network"
    )
    scheduler_file = _find_scheduler(folder)
    scheduler = reading.read(
        scheduler_file, "copy it from the pipeline, or save one: scheduler.save_pretrained(FOLDER)"
    )
    has_unet_class = unet.get("_class_name", "UNet2DModel") == "UNet2DModel"
    if not has_unet_class and not reading.problems:
        reading.problems.append(_describe_class(unet_folder / _UNET, str(unet["_class_name"])))
    config = {
        "unet": {key: value for key, value in unet.items() if not key.startswith("_")},
        "scheduler": {key: value for key, value in scheduler.items() if key in SCHEDULER_KEYS and value is not None},
    }
    if unet and scheduler and has_unet_class:
        files = {"unet": unet_folder / _UNET, "scheduler": scheduler_file}
        reading.problems += [f"{files[wrong.split('.')[0].split()[0]]}: {wrong}" for wrong in config_problems(config)]
    reading.problems += _weights_problems(unet_folder)
    if reading.problems:
        raise TemplateError("\n".join([f"{folder} cannot be served:", *(f"  {each}" for each in reading.problems)]))
    return SavedModel(config=config, unet=unet_folder)


def _index_problems(file: Path, index: Mapping[str, Any]) -> Iterator[str]:
    if parts := [part for part in _LATENT_PARTS if index.get(part)]:
        denoises = f"its network denoises the latents of another one ({', '.join(parts)}), not pictures"
        yield f"{file} is of a {index.get('_class_name')}: {denoises}; serve it as a class of your own"
    kind = index.get("unet", ["diffusers", "UNet2DModel"])
    if index and "unet" not in index:
        yield f"{file} is of a {index.get('_class_name')} without unet; only pipelines of a UNet2DModel can be served"
    elif not parts and (not isinstance(kind, list) or kind[-1] != "UNet2DModel"):
        yield _describe_class(file, str(kind[-1] if isinstance(kind, list) and kind else kind))


def _describe_class(file: Path, name: str) -> str:
    needs = " which needs the states of a text encoder or another condition," if name == "UNet2DConditionModel" else ""
    return f"{file} names {name},{needs} and not UNet2DModel; serve it as a class of your own: `fount new NAME`"


def _find_scheduler(folder: Path) -> Path:
    """Find the scheduler's configuration: in the pipeline, or next to a network that was saved alone."""
    places = [folder / "scheduler" / _SCHEDULER, folder / _SCHEDULER]
    if not (folder / _INDEX).exists():
        places += [folder.parent / "scheduler" / _SCHEDULER, folder.parent / _SCHEDULER]
    return next((place for place in places if place.exists()), places[0])


def _weights_problems(folder: Path) -> Iterator[str]:
    file = next((folder / name for name in _SAFE if (folder / name).exists()), None)
    if file is not None:
        if file.suffix == ".safetensors" and kind_of(file) != "safetensors":
            remedy = "save the model again: model.save_pretrained(FOLDER, safe_serialization=True)"
            yield f"{file} is no safetensors file, whatever its name, and is not read; {remedy}"
        return
    expected = folder / _SAFE[0]
    pickle = next((name for name in sorted(folder.glob("*.bin"))), None)
    variant = next((name for name in sorted(folder.glob(f"{_STEM}.*.safetensors"))), None)
    if pickle is not None:
        convert = f"`fount convert {shlex.quote(str(pickle))} --out {shlex.quote(str(expected))}`"
        yield f"{pickle} is a pickle, and loading one could run code; convert it: {convert}"
    elif variant is not None:
        copy = f"`cp {shlex.quote(str(variant))} {shlex.quote(str(expected))}`"
        yield f"{expected} is missing; to serve the variant {variant.name}, copy it: {copy}"
    else:
        yield f"{expected} is missing; save the model again: model.save_pretrained(FOLDER, safe_serialization=True)"


def read_weights(folder: Path) -> nn.Module:
    """Read a network with its weights, in float32; diffusers renames those that its older versions saved.

    Raises:
        TemplateError: diffusers cannot be imported, or the weights do not fit.
    """
    try:
        for file in folder.glob(f"{_STEM}*.safetensors"):
            require_memory(file)
        loaded = unet_class().from_pretrained(  # type: ignore[attr-defined]
            folder, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False, output_loading_info=True
        )
    except (ImportError, InsufficientMemoryError) as error:
        raise TemplateError(str(error)) from error
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise TemplateError(f"{folder}: diffusers cannot load it: {reason}; save the model again") from error
    module, info = loaded
    wrong = [
        f"{what} {', '.join(sorted(info[key])[:_MAX_NAMED])}"
        for what, key in (("lack", "missing_keys"), ("have unknown", "unexpected_keys"))
        if info[key]
    ]
    if wrong:
        raise TemplateError(
            f"{folder}: the weights {' and '.join(wrong)}; they are not of its {_UNET}: save both again"
        )
    model: nn.Module = module.float().eval()
    return model
