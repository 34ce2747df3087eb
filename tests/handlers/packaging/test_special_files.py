"""Pipes and devices in the place of a model's files or of an archive: refused by name, and the others are served."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from handlers.cards.card import CARD_FILE, CardError, load_card
from handlers.packaging.pack import PackError, pack
from service.workers.torchserve.launch import verified_archives

SHIPPED = Path(__file__).resolve().parents[3] / "model_store" / "digits-vae"
NOT_A_FILE = "it is not a regular file"

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED, tmp_path / "digits-vae"))


def replace(file: Path, kind: str) -> None:
    file.unlink()
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_card_that_is_no_file_is_refused(folder: Path, kind: str) -> None:
    replace(folder / CARD_FILE, kind)
    with pytest.raises(CardError, match=NOT_A_FILE):
        load_card(folder)


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("name", ["weights.safetensors", "golden.safetensors"])
def test_weights_and_golden_samples_that_are_no_files_are_refused(folder: Path, name: str, kind: str) -> None:
    replace(folder / name, kind)
    with pytest.raises(PackError, match=name):
        pack(folder, folder.parent / "out")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_an_archive_that_is_no_file_is_refused_and_the_others_are_served(folder: Path, kind: str) -> None:
    out = folder.parent / "out"
    pack(folder, out)
    (out / "other-1.0.mar").touch()
    replace(out / "other-1.0.mar", kind)
    good, refused = verified_archives(out)
    assert [file.name for file in good] == ["digits-vae-1.0.mar"]
    assert NOT_A_FILE in refused[out / "other-1.0.mar"]
