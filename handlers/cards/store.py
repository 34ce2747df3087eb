"""A model store: any folder with one folder a model, each with its card.

Names and paths, as a person types them, enter; model folders leave. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from handlers.cards.card import CARD_FILE, CardError, load_card

__all__ = ["StoreError", "find_duplicates", "find_folder", "find_folders", "list_names"]

_CARDS = f"[!.]*/{CARD_FILE}"  # a hidden folder is a model that `fount new` is still writing, or another program's


class StoreError(Exception):
    """A model is not where it was looked for. Name one that the message lists, or another store."""


def find_folders(store: Path) -> list[Path]:
    """List the model folders of a store, by name.

    Raises:
        StoreError: it does not exist, or has none.
    """
    _check_exists(store, "begin a model there with `fount new NAME`")
    folders = sorted(card.parent for card in store.glob(_CARDS))
    if not folders and (store / CARD_FILE).is_file():
        raise StoreError(f"{store} is one model; name the folder it lies in: --model-store {store.resolve().parent}")
    if not folders:
        raise StoreError(f"{store} has no model; name another with --model-store, or begin one with `fount new NAME`")
    return folders


def find_folder(name: str, store: Path) -> Path:
    """Find the folder of one model.

    Args:
        name: of a folder in the store, or a path with a / to a folder anywhere.
        store: where names are looked up.

    Raises:
        StoreError: there is no card where it points.
    """
    folder = Path(name).expanduser() if _is_path(name) else store / name
    if (folder / CARD_FILE).is_file():
        return folder
    if _is_path(name):
        raise StoreError(f"{folder} has no {CARD_FILE}; name a model folder, as `fount new` writes one")
    is_here = (Path(name) / CARD_FILE).is_file()
    _check_exists(store, f"say ./{name} for the folder here" if is_here else f"a model by its path, as in ./{name}")
    here = f" The folder here is ./{name}." if is_here else ""
    raise StoreError(f"{store} has no model {name!r}; it has {list_names(store)}.{here}")


def list_names(store: Path) -> str:
    """Name the models of a store in a sentence; "none" when it has none."""
    return ", ".join(sorted(card.parent.name for card in store.glob(_CARDS))) or "none"


def find_duplicates(folders: Sequence[Path]) -> dict[Path, str]:
    """Find folders whose cards have one name and version: their archives would be one file.

    Returns:
        What is wrong, for each such folder; folders whose card cannot be read are left to packing.
    """
    by_key: dict[tuple[str, str], list[Path]] = {}
    for folder in folders:
        try:
            card = load_card(folder)
        except CardError:
            continue
        by_key.setdefault((card.name, card.version), []).append(folder)
    return {
        folder: f"{' and '.join(map(str, twins))} are both {name} {version}; give one another name or version"
        for (name, version), twins in by_key.items()
        if len(twins) > 1
        for folder in twins
    }


def _check_exists(store: Path, otherwise: str) -> None:
    if not store.is_dir():
        told = f"the folder {store} does not exist" if not store.exists() else f"{store} is not a folder"
        raise StoreError(f"{told}; name the one that holds one folder a model with --model-store, or {otherwise}")


def _is_path(name: str) -> bool:
    return "/" in name or name in (".", "..")
