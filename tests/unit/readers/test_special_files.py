"""Pipes and devices in the place of files that a user names: refused by name, and never waited for."""

import os
from pathlib import Path

import pytest

from fount.files import open_regular
from fount.plain_yaml import read_yaml
from fount.readers import read_dataset
from fount.readers.dataset import DataError, DatasetSource
from service.errors import SetupError
from service.rpc.tickets import TicketKeys
from service.workers.torchserve.channel import read_tokens

NOT_A_FILE = "it is not a regular file"


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_file(device):
    with pytest.raises(OSError, match=NOT_A_FILE):
        open_regular(Path(device))


def test_a_link_to_a_file_is_one(tmp_path):
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    with open_regular(tmp_path / "link") as stream:
        assert stream.read() == b"content"


def test_a_document_is_a_file(pipe):
    with pytest.raises(OSError, match=NOT_A_FILE):
        read_yaml(pipe)


def test_ticket_keys_are_a_file(pipe):
    with pytest.raises(SetupError, match=NOT_A_FILE):
        TicketKeys.at(pipe)


def test_tokens_are_a_file(pipe):
    assert read_tokens(pipe) == {}


@pytest.mark.parametrize("name", ["train.npz", "train.parquet"])
@pytest.mark.parametrize("is_named", [True, False], ids=["named", "in a folder"])
def test_a_data_set_is_a_file(tmp_path, name, is_named):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is not a regular file; give a file"):
        read_dataset(DatasetSource(name="x", path=tmp_path / name if is_named else tmp_path))


def test_a_picture_is_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "0.png")
    with pytest.raises(DataError, match=r"0\.png"):
        read_dataset(DatasetSource(name="x", path=tmp_path))
