"""Packing: one model folder, one archive, always the same bytes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from google.protobuf import json_format
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fount.archive import verify_archive, verify_folder
from fount.v1 import model_pb2
from handlers.cards.card import Direction, load_card, write_card
from handlers.cards.digests import model_digest
from handlers.cli.pack import pack as pack_command
from handlers.models import source_file
from handlers.packaging.pack import PackError, pack
from tests.handlers.toys import DESCRIBE_SCRIPT


def test_packing_twice_gives_the_same_bytes(store: Path, tmp_path: Path) -> None:
    first, second = pack(store / "small", tmp_path / "a"), pack(store / "small", tmp_path / "b")
    assert first == second


def test_the_file_is_named_by_model_and_version(store: Path, tmp_path: Path) -> None:
    pack(store / "small", tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["small-1.0.mar"]


def test_it_returns_what_it_wrote(store: Path, tmp_path: Path) -> None:
    info = pack(store / "small", tmp_path)
    assert (info.name, info.version, info.size_bytes) == ("small", "1.0", (tmp_path / "small-1.0.mar").stat().st_size)
    assert info == verify_archive(tmp_path / "small-1.0.mar")


def test_the_model_digest_is_the_cards(store: Path, tmp_path: Path) -> None:
    folder = store / "small"
    assert pack(folder, tmp_path).model_digest == model_digest(load_card(folder), folder)


def test_it_describes_the_model_as_gateways_list_it(store: Path, tmp_path: Path) -> None:
    info = pack(store / "small", tmp_path)
    model = json_format.Parse(info.description, model_pb2.Model())
    assert (model.ref.name, model.ref.version, model.ref.digest) == ("small", "1.0", info.model_digest)
    assert model.description == load_card(store / "small").description
    assert (model.state, list(model.numerics)) == (model_pb2.Model.STATE_UNSPECIFIED, [])


def test_what_was_measured_does_not_enter_the_model_digest(store: Path, tmp_path: Path) -> None:
    before = pack(store / "small", tmp_path).model_digest
    write_card(dataclasses.replace(load_card(store / "small"), quality=(), description="Another."), store / "small")
    assert pack(store / "small", tmp_path).model_digest == before


@pytest.mark.parametrize(
    "change",
    [{"latent_spread": 0.5}, {"directions": (Direction(name="thick", description="Ink.", vector=(1.0, 0.0)),)}],
)
def test_what_rows_are_varied_by_enters_the_model_digest(store: Path, change: dict[str, Any]) -> None:
    card = dataclasses.replace(load_card(store / "small"), latent_dim=2)
    changed = dataclasses.replace(card, **change)
    assert model_digest(changed, store / "small") != model_digest(card, store / "small")


@pytest.fixture
def names(store: Path, tmp_path: Path) -> set[str]:
    pack(store / "small", tmp_path)
    with zipfile.ZipFile(tmp_path / "small-1.0.mar") as archive:
        return set(archive.namelist())


def test_an_archive_holds_what_is_served(names: set[str]) -> None:
    assert {"model.yaml", "weights.safetensors", "golden.safetensors", "archive.json", "entry.py"} <= names


def test_an_archive_holds_only_its_own_family(names: set[str]) -> None:
    families = sorted(name for name in names if name.startswith("handlers/models/"))
    assert families == ["handlers/models/__init__.py", "handlers/models/classifier.py"]


@pytest.mark.parametrize(
    "part", ["handlers/recipes", "command", "fount/client", "fount/cli", "packing", "handlers/entry"]
)
def test_an_archive_holds_nothing_a_worker_does_not_need(names: set[str], part: str) -> None:
    assert [name for name in names if part in name] == []


def test_torchserve_is_configured_not_to_batch(store: Path, tmp_path: Path) -> None:
    pack(store / "small", tmp_path)
    with zipfile.ZipFile(tmp_path / "small-1.0.mar") as archive:
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
        config = archive.read("model-config.yaml").decode().splitlines()[1:]
    assert manifest["model"]["handler"] == "entry.py"
    assert config[:3] == ["batchSize: 1", "maxBatchDelay: 1", "responseTimeout: 120"]


def test_torchserve_is_configured_to_wait_for_a_first_start(store: Path, tmp_path: Path) -> None:
    pack(store / "small", tmp_path)
    with zipfile.ZipFile(tmp_path / "small-1.0.mar") as archive:
        assert "startupTimeout: 600" in archive.read("model-config.yaml").decode().splitlines()


def test_a_worker_runs_from_its_archive_only(store: Path, tmp_path: Path) -> None:
    pack(store / "small", tmp_path)
    with zipfile.ZipFile(tmp_path / "small-1.0.mar") as archive:
        archive.extractall(tmp_path / "unpacked")
    environment = dict(os.environ) | {"PYTHONPATH": str(tmp_path / "unpacked")}
    command = [sys.executable, "-W", "error", "-c", DESCRIBE_SCRIPT]
    done = subprocess.run(command, cwd=tmp_path / "unpacked", env=environment, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.strip() == "2"


def test_an_unpacked_archive_that_has_run_still_verifies(store: Path, tmp_path: Path) -> None:
    pack(store / "small", tmp_path)
    with zipfile.ZipFile(tmp_path / "small-1.0.mar") as archive:
        archive.extractall(tmp_path / "unpacked")
    (tmp_path / "unpacked/handlers/__pycache__").mkdir()
    (tmp_path / "unpacked/handlers/__pycache__/card.cpython-311.pyc").write_bytes(b"compiled")
    assert verify_folder(tmp_path / "unpacked").name == "small"


def test_an_invalid_card_is_refused(store: Path, tmp_path: Path) -> None:
    (store / "small/model.yaml").write_text("name: small\n")
    with pytest.raises(PackError, match="version: missing"):
        pack(store / "small", tmp_path)


def test_weights_of_another_card_are_refused(store: Path, tmp_path: Path) -> None:
    (store / "small/weights.safetensors").write_bytes(b"others")
    with pytest.raises(PackError, match=r"weights\.safetensors has sha256:"):
        pack(store / "small", tmp_path)


def test_missing_golden_samples_are_refused(store: Path, tmp_path: Path) -> None:
    (store / "small/golden.safetensors").unlink()
    with pytest.raises(PackError, match=r"golden\.safetensors is missing; run `fount check .*`, which records it"):
        pack(store / "small", tmp_path)


def test_golden_samples_of_other_weights_are_refused(store: Path, tmp_path: Path) -> None:
    folder = store / "small"
    weights = load_file(folder / "weights.safetensors")
    save_file({name: tensor * 2 for name, tensor in weights.items()}, folder / "weights.safetensors")
    card = load_card(folder)
    write_card(dataclasses.replace(card, weights=dataclasses.replace(card.weights, digest=None)), folder)
    with pytest.raises(PackError, match=r"was recorded with other weights or other code .*; run `fount check .*`"):
        pack(folder, tmp_path)


def test_golden_samples_without_a_fingerprint_are_refused(store: Path, tmp_path: Path) -> None:
    golden = store / "small/golden.safetensors"
    with safe_open(golden, framework="np") as stream:
        metadata = {key: value for key, value in stream.metadata().items() if key != "fingerprint"}
    save_file(load_file(golden), golden, metadata)
    with pytest.raises(PackError, match="run `fount check"):
        pack(store / "small", tmp_path)


def test_an_archive_is_readable_by_other_users_whatever_the_umask(store: Path, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        pack(store / "small", tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "small-1.0.mar").stat().st_mode & 0o777 == 0o644


def test_an_unknown_family_is_refused(store: Path, tmp_path: Path) -> None:
    card = load_card(store / "small")
    write_card(dataclasses.replace(card, family=dataclasses.replace(card.family, name="classy")), store / "small")
    with pytest.raises(PackError, match="family 'classy' is unknown"):
        pack(store / "small", tmp_path)


def test_a_file_name_that_is_taken_is_refused(store: Path, tmp_path: Path) -> None:
    card = load_card(store / "small")
    (store / "small/golden.safetensors").rename(store / "small/entry.py")
    write_card(dataclasses.replace(card, golden=dataclasses.replace(card.golden, file="entry.py")), store / "small")
    with pytest.raises(PackError, match="need distinct names"):
        pack(store / "small", tmp_path)


def test_a_folder_that_cannot_be_created_is_reported(store: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where a folder should be")
    with pytest.raises(PackError, match="choose another folder or free some space"):
        pack(store / "small", tmp_path / "out")


def test_an_archive_with_the_same_content_is_not_rewritten(store: Path, tmp_path: Path) -> None:
    first = pack(store / "small", tmp_path)
    file = tmp_path / "small-1.0.mar"
    before = file.stat().st_ino
    assert (pack(store / "small", tmp_path), file.stat().st_ino) == (first, before)


def test_an_archive_that_was_damaged_or_zipped_again_is_replaced(store: Path, tmp_path: Path) -> None:
    pack(store / "small", tmp_path)
    file = tmp_path / "small-1.0.mar"
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(tmp_path / "again", "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    for other in (whole[:-9], whole.replace(b"batchSize: 1", b"batchSize: 9"), (tmp_path / "again").read_bytes()):
        file.write_bytes(other)
        pack(store / "small", tmp_path)
        assert file.read_bytes() == whole


def test_a_full_disk_leaves_the_older_archive_and_no_temporary_file(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(store / "small", tmp_path)
    before = (tmp_path / "small-1.0.mar").read_bytes()
    with (store / "small/model.yaml").open("a") as card:
        card.write("# another\n")

    def fill(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", fill)
    with pytest.raises(PackError, match="No space left on device"):
        pack(store / "small", tmp_path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("small-1.0.mar", before)]


def _run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(pack_command, list(arguments))
    return done.exit_code, done.output


def test_the_command_prints_digests_and_path(store: Path, tmp_path: Path) -> None:
    status, output = _run("small", "--model-store", str(store), "--out", str(tmp_path))
    info = verify_archive(tmp_path / "small-1.0.mar")
    assert status == 0
    assert output.splitlines() == [
        "small 1.0",
        f"  model digest   {info.model_digest}",
        f"  archive digest {info.archive_digest}",
        f"  archive        {tmp_path}/small-1.0.mar ({info.size_bytes} bytes)",
    ]


def test_the_command_packs_all_and_prints_json(store: Path, tmp_path: Path) -> None:
    status, output = _run("--all", "--json", "--model-store", str(store), "--out", str(tmp_path))
    assert status == 0
    assert [(packed["name"], packed["path"]) for packed in json.loads(output)] == [
        ("small", f"{tmp_path}/small-1.0.mar")
    ]


def test_the_command_lists_the_models_of_the_store(store: Path, tmp_path: Path) -> None:
    status, output = _run("large", "--model-store", str(store), "--out", str(tmp_path))
    assert (status, output) == (1, f"Error: {store} has no model 'large'; it has small.\n")


def test_the_command_reports_errors_in_a_sentence(store: Path, tmp_path: Path) -> None:
    (store / "small/golden.safetensors").unlink()
    status, output = _run("small", "--model-store", str(store), "--out", str(tmp_path))
    assert status == 1
    assert output.startswith("Error: ")
    assert "golden.safetensors is missing" in output


def test_the_command_requires_names_or_all(store: Path) -> None:
    status, output = _run("--model-store", str(store))
    assert status == 2
    assert "Name models, or use --all." in output


def test_the_commands_help_has_an_example() -> None:
    assert "fount pack --all --out build/archives" in _run("--help")[1]


def test_the_family_in_the_archive_is_the_one_in_the_digest(store: Path, tmp_path: Path) -> None:
    pack(store / "small", tmp_path)
    with zipfile.ZipFile(tmp_path / "small-1.0.mar") as archive:
        assert archive.read("handlers/models/classifier.py") == source_file("classifier").read_bytes()
