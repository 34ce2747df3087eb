"""Archives: whatever is not exactly what was packed is refused, with the file, the member and the remedy."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

import fount.archive
from fount.archive import ArchiveError, verify_archive, verify_folder
from handlers.packaging.pack import pack

Members = dict[str, bytes]


@pytest.fixture
def archive(store: Path, tmp_path: Path) -> Path:
    pack(store / "small", tmp_path)
    return tmp_path / "small-1.0.mar"


def _rewrite(archive: Path, change: Callable[[Members], object]) -> None:
    with zipfile.ZipFile(archive) as source:
        members = {name: source.read(name) for name in source.namelist()}
    change(members)
    with zipfile.ZipFile(archive, "w") as target:
        for name, data in members.items():
            target.writestr(name, data)


def _edit_contents(archive: Path, change: Callable[[dict[str, object]], object]) -> None:
    def edit(members: Members) -> None:
        contents = json.loads(members["archive.json"])
        change(contents)
        members["archive.json"] = json.dumps(contents).encode()

    _rewrite(archive, edit)


def _refusal(archive: Path) -> str:
    with pytest.raises(ArchiveError) as caught:
        verify_archive(archive)
    message = str(caught.value)
    assert message.startswith(f"{archive}: ")
    return message.removeprefix(f"{archive}: ")


def test_a_rewritten_archive_with_nothing_changed_verifies(archive: Path) -> None:
    _rewrite(archive, lambda members: None)
    assert verify_archive(archive).name == "small"


def test_an_older_archive_without_a_description_verifies(archive: Path) -> None:
    _edit_contents(archive, lambda contents: contents["files"].pop("model.json"))
    _rewrite(archive, lambda members: members.pop("model.json"))
    assert verify_archive(archive).description == ""


def test_a_file_that_is_not_a_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mar").write_bytes(b"hello")
    assert _refusal(tmp_path / "a.mar").startswith("is not a zip archive")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert _refusal(tmp_path / "a.mar") == (
        "cannot be read (No such file or directory); check the path and its permissions"
    )


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_archive_is_refused(archive: Path, kept: float) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * kept)])
    assert _refusal(archive).startswith("is cut short or damaged")


def test_a_flipped_byte_is_refused(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as source:
        data[source.getinfo("weights.safetensors").header_offset + 200] ^= 1
    archive.write_bytes(data)
    assert "weights.safetensors" in _refusal(archive)


def test_a_foreign_archive_is_refused(archive: Path) -> None:
    _rewrite(archive, lambda members: members.pop("archive.json"))
    assert "was not packed by `fount pack`" in _refusal(archive)


def test_a_missing_member_is_refused(archive: Path) -> None:
    _rewrite(archive, lambda members: members.pop("golden.safetensors"))
    assert _refusal(archive).startswith("golden.safetensors is missing; copy it again")


def test_an_extra_member_is_refused(archive: Path) -> None:
    _rewrite(archive, lambda members: members.update({"sitecustomize.py": b""}))
    assert _refusal(archive).startswith("sitecustomize.py is not in its list; do not use it")


def test_a_changed_member_is_refused(archive: Path) -> None:
    _rewrite(archive, lambda members: members.update({"entry.py": b"import os"}))
    assert _refusal(archive).startswith("entry.py has sha256:")


def test_a_repeated_member_is_refused(archive: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(archive, "a") as target:
        warnings.simplefilter("ignore")
        target.writestr("entry.py", b"import os")
    assert _refusal(archive).startswith("member 'entry.py' occurs twice")


@pytest.mark.parametrize("name", ["../entry.py", "/etc/passwd", "a/../../b", "a\\b", "C:b", "folder/", "a//b"])
def test_a_member_outside_the_archive_is_refused(archive: Path, name: str) -> None:
    _rewrite(archive, lambda members: members.update({name: b""}))
    assert "is not a plain relative path" in _refusal(archive)


def test_a_link_is_refused(archive: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as target:
        target.writestr(info, "/etc/passwd")
    assert "is a link, a device or encrypted" in _refusal(archive)


def test_bytes_between_members_are_refused(archive: Path) -> None:
    hidden = io.BytesIO()
    with zipfile.ZipFile(hidden, "w") as target:
        target.writestr("hidden.py", b"")
    archive.write_bytes(hidden.getvalue()[:100] + archive.read_bytes())
    assert "does not follow the one before" in _refusal(archive)


def test_bytes_after_the_end_are_refused(archive: Path) -> None:
    archive.write_bytes(archive.read_bytes() + b"PK")
    assert "has bytes that belong to no member" in _refusal(archive)


@pytest.mark.parametrize(
    ("place", "byte"),
    [(6, 2), (8, 8), (14, 1), (18, 1), (22, 1), (28, 1), (30, 1)],
    ids=["flags", "method", "crc", "stored-size", "full-size", "extra-field", "name"],
)
def test_a_contradictory_header_is_refused(archive: Path, place: int, byte: int) -> None:
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as source:
        data[source.getinfo("entry.py").header_offset + place] ^= byte
    archive.write_bytes(data)
    assert "member 'entry.py' has a header that differs from the directory; do not use it" in _refusal(archive)


def test_a_header_whose_size_uncovers_a_second_entry_is_refused(archive: Path) -> None:
    hidden = io.BytesIO()
    with zipfile.ZipFile(hidden, "w") as target:
        target.writestr("entry.py", b"import os")
    _rewrite(archive, lambda members: members.update({"golden.safetensors": hidden.getvalue()}))
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as source:
        header = source.getinfo("golden.safetensors").header_offset
    data[header + 14 : header + 26] = bytes(12)  # CRC and both sizes: to a streaming reader the member is empty
    archive.write_bytes(data)
    assert "'golden.safetensors' has a header that differs from the directory" in _refusal(archive)


def test_large_sizes_in_a_header_are_read(archive: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(archive, "w") as target:
        for name, data in members.items():
            with target.open(name, "w", force_zip64=True) as stream:
                stream.write(data)
    assert verify_archive(archive).name == "small"


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_member_is_refused(archive: Path, method: int) -> None:
    with zipfile.ZipFile(archive, "a") as target:
        target.writestr("bomb.bin", bytes(10**6), method)
    assert "member 'bomb.bin' is not stored without compression; do not use it" in _refusal(archive)


def test_a_stored_member_that_is_called_deflated_is_refused(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as source:
        local, directory = source.getinfo("entry.py").header_offset, data.rindex(b"entry.py") - 46
    data[local + 8] = data[directory + 10] = zipfile.ZIP_DEFLATED
    archive.write_bytes(data)
    assert "member 'entry.py' is not stored without compression" in _refusal(archive)


def test_damaged_lzma_is_refused(archive: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        contents = source.read("archive.json")
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("archive.json", contents, zipfile.ZIP_LZMA)
        info = target.getinfo("archive.json")
    data = bytearray(archive.read_bytes())
    data[60 : info.compress_size] = b"\xff" * (info.compress_size - 60)
    archive.write_bytes(data)
    assert "member 'archive.json' is not stored without compression" in _refusal(archive)


def test_a_name_that_is_no_utf8_is_refused(archive: Path) -> None:
    _rewrite(archive, lambda members: members.update({"caf\u00e9.py": b""}))
    archive.write_bytes(archive.read_bytes().replace(b"caf\xc3\xa9", b"caf\xc3("))
    assert _refusal(archive).startswith("is cut short or damaged ('utf-8' codec can't decode")


def test_a_name_beyond_ascii_is_refused(archive: Path) -> None:
    _rewrite(archive, lambda members: members.update({"caf\u00e9.py": b""}))
    assert "is not a plain relative path" in _refusal(archive)


def test_text_that_unpacks_too_large_is_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fount.archive, "MAX_TEXT_BYTES", 100)
    assert "unpacks to more than 64 MiB of text" in _refusal(archive)


def test_an_archive_that_unpacks_too_large_is_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fount.archive, "_MAX_TOTAL_BYTES", 1000)
    assert "unpacks to more than" in _refusal(archive)


def test_another_manifest_name_is_refused(archive: Path) -> None:
    _edit_contents(archive, lambda contents: contents.update({"version": "2.0"}))
    assert _refusal(archive).startswith("MAR-INF/MANIFEST.json says small 1.0, archive.json says small 2.0")


def test_a_model_digest_of_other_ingredients_is_refused(archive: Path) -> None:
    _edit_contents(archive, lambda contents: contents.update({"model_digest": "sha256:" + "0" * 64}))
    assert "its ingredients give sha256:" in _refusal(archive)


def test_ingredients_that_no_member_has_are_refused(archive: Path) -> None:
    def change(contents: dict[str, object]) -> None:
        model = contents["model"]
        assert isinstance(model, dict)
        model["weights"] = "sha256:" + "0" * 64
        contents["model_digest"] = fount.archive.digest_of_ingredients(model)

    _edit_contents(archive, change)
    assert "no member has the digest of the ingredient 'weights'" in _refusal(archive)


@pytest.mark.parametrize(
    ("number", "wrong"),
    [("NaN", "is not JSON"), ("-Infinity", "is not JSON"), ("1e999", "ingredients have no digest")],
)
def test_ingredients_that_are_no_numbers_are_refused(archive: Path, number: str, wrong: str) -> None:
    _edit_contents(archive, lambda contents: contents.update({"model": {"weights": "NUMBER"}}))
    change = lambda data: data.replace(b'"NUMBER"', number.encode())  # noqa: E731
    _rewrite(archive, lambda members: members.update({"archive.json": change(members["archive.json"])}))
    assert wrong in _refusal(archive)


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"no", "archive.json is not JSON"),
        (b"[]", "archive.json is not a JSON object"),
        (b"{}", "has format None"),
        (b'{"format": "fount-archive/1"}', "archive.json lacks name, version, model, model_digest, files"),
        (b"[" * 100_000, "archive.json is not JSON"),
    ],
    ids=["text", "list", "empty", "format-alone", "nested"],
)
def test_contents_that_cannot_be_read_are_refused(archive: Path, data: bytes, wrong: str) -> None:
    _rewrite(archive, lambda members: members.update({"archive.json": data}))
    assert wrong in _refusal(archive)


def test_a_link_in_an_unpacked_archive_is_refused(archive: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        source.extractall(tmp_path / "unpacked")
    (tmp_path / "unpacked/entry.py").rename(tmp_path / "entry.py")
    (tmp_path / "unpacked/entry.py").symlink_to(tmp_path / "entry.py")
    with pytest.raises(ArchiveError, match=r"entry\.py is not a regular file"):
        verify_folder(tmp_path / "unpacked")


def test_verifying_needs_only_the_standard_library() -> None:
    script = "import sys, fount.archive; print({'torch', 'numpy', 'grpc', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
