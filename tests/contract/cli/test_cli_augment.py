"""`fount augment` against a real server, and the pictures it reads."""

import json
import re

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fount.cli.main import main
from tests.contract.fake_plans import FakePlans, serving_plans


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def gateway(monkeypatch):
    gateway = FakePlans()
    with serving_plans(gateway) as server:
        monkeypatch.setenv("FOUNT_SERVER", server)
        yield gateway


def fount(*arguments):
    return CliRunner().invoke(main, ["augment", *arguments])


def draw(name, value=100, size=(8, 8), mode="L"):
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(name)


def tile(path, column, row, side=72):
    """The middle pixel of a tile of the sheet."""
    with Image.open(path) as sheet:
        return sheet.getpixel((8 + column * (side + 8) + side // 2, 8 + row * (side + 18 + 8) + 18 + side // 2))


def test_originals_stand_beside_their_variants(gateway):
    draw("a.png", 100)
    draw("b.png", 50)
    result = fount("a.png", "b.png", "--variants", "3", "--seed", "1", "--out", "sheet.png")
    assert result.stdout == "2 pictures, 3 variants of each\nSeed      1\nWritten   sheet.png\n"
    assert [tile("sheet.png", column, 0) for column in range(4)] == [100, 101, 102, 103]
    assert [tile("sheet.png", column, 1) for column in range(4)] == [50, 51, 52, 53]


def test_colours_stay_colours(gateway):
    draw("a.png", 100, mode="RGB")
    fount("a.png", "--variants", "1", "--out", "sheet.png")
    assert tile("sheet.png", 1, 0) == (101, 101, 101)


def test_a_folder_is_read_in_order_as_far_as_asked(gateway, tmp_path):
    (tmp_path / "some").mkdir()
    for number in range(3):
        draw(f"some/{number}.png", 10 * number)
    assert json.loads(fount("some", "--rows", "2", "--out", "sheet.png", "--json").stdout)["pictures"] == 2
    assert (tile("sheet.png", 0, 0), tile("sheet.png", 0, 1)) == (0, 10)


@pytest.mark.parametrize("name", ["images", "samples"])
def test_an_npz_file_is_read(gateway, name):
    np.savez("some.npz", **{name: np.full((2, 8, 8), 30, np.uint8)})
    assert fount("some.npz", "--out", "sheet.png").exit_code == 0
    assert tile("sheet.png", 0, 1) == 30


def test_rows_of_a_data_set_are_varied(gateway):
    result = fount("--dataset", "digits", "--rows", "5", "--variants", "2", "--out", "sheet.png")
    assert result.stdout.startswith("5 pictures, 2 variants of each")


def test_the_seed_a_server_drew_is_told(gateway):
    draw("a.png")
    assert "Seed      77" in fount("a.png", "--out", "sheet.png").stdout


@pytest.mark.parametrize("text", ["- {rotate: [0, 15]}", "policy: [{rotate: [0, 15]}]"], ids=["list", "mapping"])
def test_a_policy_is_read_from_a_file(gateway, tmp_path, text):
    draw("a.png")
    (tmp_path / "policy.yaml").write_text(text)
    assert fount("a.png", "--policy", "policy.yaml", "--out", "sheet.png").exit_code == 0


def test_a_wrong_policy_names_what_is_wrong(tmp_path):
    draw("a.png")
    (tmp_path / "policy.yaml").write_text("- {rotat: [0, 15]}\n")
    result = fount("a.png", "--policy", "policy.yaml", "--out", "sheet.png")
    assert (result.exit_code, "did you mean 'rotate'?" in result.stderr) == (1, True)


def test_pictures_of_two_sizes_are_refused(tmp_path):
    draw("a.png")
    draw("b.png", size=(9, 8))
    assert re.search("a.png: is 8 × 8 × 1, and b.png is 8 × 9 × 1", fount("a.png", "b.png", "--out", "s.png").stderr)


def test_a_file_that_is_no_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    assert "a.png: is no picture that can be read" in fount("a.png", "--out", "s.png").stderr


def test_a_picture_cut_short_is_named(tmp_path):
    draw("a.png", size=(64, 64))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    assert "a.png: cannot be read" in fount("a.png", "--out", "s.png").stderr


def test_a_picture_that_is_too_large_is_refused_before_it_is_decoded(tmp_path):
    draw("a.png", size=(5000, 1))
    assert "a.png: has 5000 × 1 pixels; a side may have 4096" in fount("a.png", "--out", "s.png").stderr


def test_arrays_that_are_no_pictures_are_told(tmp_path):
    np.savez("some.npz", images=np.zeros((2, 8, 8), np.float32))
    assert (
        "holds images of (2, 8, 8, 1) float32; (N, H, W, 1 or 3) uint8 can be varied"
        in fount("some.npz", "--out", "s.png").stderr
    )


def test_an_array_called_npz_is_told():
    with open("some.npz", "wb") as file:
        np.save(file, np.zeros((2, 8, 8), np.uint8))
    assert "some.npz: is a single array; write it with numpy.savez" in fount("some.npz", "--out", "s.png").stderr


def test_a_number_called_images_is_told():
    np.savez("some.npz", images=np.uint8(3))
    assert "holds images of (1,) uint8" in fount("some.npz", "--out", "s.png").stderr


def test_a_picture_of_16_bits_is_not_made_white():
    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save("a.png")
    assert "a.png: has pixels of mode I;16, and 8 bits a channel" in fount("a.png", "--out", "s.png").stderr


def test_a_policy_that_is_no_yaml_is_told(tmp_path):
    draw("a.png")
    (tmp_path / "policy.yaml").write_text("- {rotate: 2024-13-45}\n")
    told = fount("a.png", "--policy", "policy.yaml", "--out", "s.png").stderr
    assert "The policy 'policy.yaml' is not YAML: month must be in 1..12" in told


def test_an_npz_file_with_objects_is_not_unpickled(tmp_path):
    np.savez("some.npz", images=np.array([object()], dtype=object))
    assert "some.npz: cannot be read" in fount("some.npz", "--out", "s.png").stderr


@pytest.mark.parametrize("place", ["missing.png", "missing.npz"])
def test_a_file_that_is_not_there_is_named(place):
    assert f"There is no file '{place}'." in fount(place, "--out", "s.png").stderr


def test_a_folder_without_pictures_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "The folder 'empty' holds no pictures" in fount("empty", "--out", "s.png").stderr


def test_nothing_to_vary_is_a_mistake_of_usage():
    assert fount("--out", "s.png").exit_code == 2


def test_a_sheet_is_a_png_file():
    draw("a.png")
    assert "write to a .png file" in fount("a.png", "--out", "sheet.jpg").stderr


def test_a_sheet_that_cannot_be_written_is_told(gateway):
    draw("a.png")
    assert "nowhere/s.png cannot be written" in fount("a.png", "--out", "nowhere/s.png").stderr
