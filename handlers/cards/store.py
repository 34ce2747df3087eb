"""Find models in a model store: any folder that contains one folder for each model, with its card.

Names and paths, as the user types them, enter; model folders leave. Nothing here imports torch.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from handlers.cards.card import CARD_FILE, CardError, load_card

__all__ = ["StoreError", "find_duplicates", "find_folder", "find_folders", "list_names"]

_CARDS = f"[!.]*/{CARD_FILE}"  # `fount new` writes into a hidden folder first


class StoreError(Exception):
    """A model was not found. Name one that the message lists, or another store."""


def find_folders(store: Path) -> list[Path]:
    """List the model folders of a store, by name.

    Raises:
        StoreError: it does not exist, or has none.
    """
    _check_exists(store, "create a model there with `fount new NAME`")
    folders = sorted(card.parent for card in store.glob(_CARDS))
    if not folders and (store / CARD_FILE).is_file():
        parent = shlex.quote(str(store.resolve().parent))
        raise StoreError(f"{store} is a model folder; name the folder that contains it: --model-store {parent}")
    if not folders:
        raise StoreError(f"{store} has no model; name another with --model-store, or create one with `fount new NAME`")
    return folders


def find_folder(name: str, store: Path) -> Path:
    """Find the folder of one model.

    Args:
        name: of a folder in the store, or a path with a / to any folder.
        store: in which names are looked up.

    Raises:
        StoreError: there is no card in that folder.
    """
    folder = Path(name).expanduser() if _is_path(name) else store / name
    if (folder / CARD_FILE).is_file():
        return folder
    if _is_path(name):
        raise StoreError(f"{folder} has no {CARD_FILE}; name a model folder, as `fount new` writes one")
    is_here = (Path(name) / CARD_FILE).is_file()
    _check_exists(store, f"./{name} for the folder here" if is_here else f"a model by its path, as in ./{name}")
    here = f" Use ./{name} for the folder here." if is_here else ""
    raise StoreError(f"{store} has no model {name!r}; it has {list_names(store)}.{here}")


def list_names(store: Path) -> str:
    """List the models of a store as text; "none" when it has none."""
    return ", ".join(sorted(card.parent.name for card in store.glob(_CARDS))) or "none"


def find_duplicates(folders: Sequence[Path]) -> dict[Path, str]:
    """Find folders whose cards have the same name and version: their archives would be the same file.

    Returns:
        The problem of each such folder; unreadable cards are ignored here and reported by packing.
    """
    by_key: dict[tuple[str, str], list[Path]] = {}
    for folder in folders:
        try:
            card = load_card(folder)
        except CardError:
            continue
        by_key.setdefault((card.name, card.version), []).append(folder)
    return {
        folder: f"{' and '.join(map(str, duplicates))} are both {name} {version}; change the name or version of one"
        for (name, version), duplicates in by_key.items()
        if len(duplicates) > 1
        for folder in duplicates
    }


def _check_exists(store: Path, otherwise: str) -> None:
    if not store.is_dir():
        wrong = f"the folder {store} does not exist" if not store.exists() else f"{store} is not a folder"
        raise StoreError(f"{wrong}; name the folder of your models with --model-store, or {otherwise}")


def _is_path(name: str) -> bool:
    return "/" in name or name in (".", "..")
