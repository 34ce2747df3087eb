"""Packing custom models: the author's file is included; stale samples, pickles and name clashes are refused."""

from __future__ import annotations

import dataclasses
import zipfile
from pathlib import Path

import pytest
import torch

from handlers.cards.card import load_card, write_card
from handlers.cards.digests import file_digest, is_golden_stale
from handlers.loading.build import build_module
from handlers.packaging.pack import PackError, pack
from handlers.verification.golden import record_golden
from tests.handlers.custom_models import CONDITIONAL, Trap, custom_card, write_custom


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of the user's with its golden samples."""
    write_custom(tmp_path / "own", CONDITIONAL, custom_card())
    _record(tmp_path / "own")
    return tmp_path / "own"


def _record(folder: Path) -> None:
    card = load_card(folder)
    record_golden(card, build_module(card, folder), folder / card.golden.file)


def _refusal(folder: Path) -> str:
    with pytest.raises(PackError) as caught:
        pack(folder, folder.parent)
    return str(caught.value)


def test_an_archive_holds_the_authors_file_and_no_family(folder: Path) -> None:
    pack(folder, folder.parent)
    with zipfile.ZipFile(folder.parent / "own-1.0.mar") as archive:
        names = archive.namelist()
        assert archive.read("generator.py") == CONDITIONAL.encode()
    families = sorted(name for name in names if name.startswith("handlers/models/"))
    assert families == ["handlers/models/__init__.py", "handlers/models/custom.py"]


def test_packing_twice_gives_the_same_bytes(folder: Path) -> None:
    assert pack(folder, folder.parent / "a") == pack(folder, folder.parent / "b")


def test_other_files_of_the_folder_are_not_packed(folder: Path) -> None:
    (folder / "train.py").write_text("secret = 1\n")
    pack(folder, folder.parent)
    with zipfile.ZipFile(folder.parent / "own-1.0.mar") as archive:
        assert "train.py" not in archive.namelist()


def test_golden_samples_of_an_older_file_are_refused(folder: Path) -> None:
    (folder / "generator.py").write_text(CONDITIONAL.replace("torch.tanh(", "0.5 * torch.tanh("))
    golden = folder / "golden.safetensors"
    assert _refusal(folder) == (
        f"{golden} was recorded with other weights or other code than {folder} has now; run `fount check {folder}`, "
        "which records it again"
    )


@pytest.mark.parametrize("change", ["config", "class_name", "latent", "sample", "classes"])
def test_golden_samples_are_stale_when_the_card_makes_another_model(folder: Path, change: str) -> None:
    card = load_card(folder)
    other = {
        "config": {"family": dataclasses.replace(card.family, config={"height": 4})},
        "class_name": {"family": dataclasses.replace(card.family, class_name="Other")},
        "latent": {"latent": dataclasses.replace(card.latent, shape=(2, 3))},
        "sample": {"sample": dataclasses.replace(card.sample, value_range=(0.0, 1.0))},
        "classes": {"classes": ("a", "b"), "prior": (0.5, 0.5)},
    }[change]
    assert not is_golden_stale(card, folder)
    assert is_golden_stale(dataclasses.replace(card, **other), folder)


def test_golden_samples_stay_valid_when_only_texts_change(folder: Path) -> None:
    card = load_card(folder)
    assert not is_golden_stale(dataclasses.replace(card, description="Another.", version="2.0"), folder)


@pytest.mark.parametrize("name", ["torch.py", "random.py", "entry.py", "handlers.py", "click.py"])
def test_a_file_that_would_shadow_a_module_is_refused(folder: Path, name: str) -> None:
    card = load_card(folder)
    (folder / "generator.py").rename(folder / name)
    write_card(dataclasses.replace(card, family=dataclasses.replace(card.family, source=name)), folder)
    _record(folder)
    assert _refusal(folder).endswith("rename it, and family.source in the card, for instance to generator.py")


def test_a_namesake_in_the_current_folder_is_ignored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.parent / "generator.py").write_text("")
    monkeypatch.chdir(folder.parent)
    monkeypatch.syspath_prepend(str(folder.parent))
    assert pack(folder, folder.parent).name == "own"


def test_a_pickle_is_refused(folder: Path) -> None:
    torch.save(Trap(folder / "ran"), folder / "weights.safetensors")
    assert _refusal(folder).startswith(f"{folder}: weights.safetensors is a pickle")
    assert not (folder / "ran").exists()


def test_an_absent_file_is_refused(folder: Path) -> None:
    (folder / "generator.py").unlink()
    assert "family.source: generator.py is not in" in _refusal(folder)


def test_a_digest_in_the_card_is_compared(folder: Path) -> None:
    card = load_card(folder)
    wrong = dataclasses.replace(card.weights, digest=file_digest(folder / "model.yaml"))
    write_card(dataclasses.replace(card, weights=wrong), folder)
    assert "or remove this key to accept any file" in _refusal(folder)
