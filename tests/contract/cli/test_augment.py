"""`fount augment` against a real server, and the images it reads."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.contract.commands import fount as run_fount


def fount(*arguments):
    return run_fount("augment", *arguments)


def draw(name, value=100, size=(8, 8), mode="L"):
    Image.new(mode, size, value if mode == "L" else (value,) * len(mode)).save(name)


def tile(path, column, row, side=72):
    """Read the middle pixel of a tile of the sheet."""
    with Image.open(path) as sheet:
        return sheet.getpixel((8 + column * (side + 8) + side // 2, 8 + row * (side + 18 + 8) + 18 + side // 2))


def test_originals_are_drawn_next_to_their_variants(gateway):
    draw("a.png", 100)
    draw("b.png", 50)
    result = fount("a.png", "b.png", "--variants", "3", "--seed", "1", "--out", "sheet.png")
    assert result.stdout == "2 images, 3 variants of each\nSeed      1\nWritten   sheet.png\n"
    assert [tile("sheet.png", column, 0) for column in range(4)] == [100, 101, 102, 103]
    assert [tile("sheet.png", column, 1) for column in range(4)] == [50, 51, 52, 53]


def test_colour_images_stay_in_colour(gateway):
    draw("a.png", 100, mode="RGB")
    fount("a.png", "--variants", "1", "--out", "sheet.png")
    assert tile("sheet.png", 1, 0) == (101, 101, 101)


def test_a_folder_is_read_in_order_up_to_the_limit(gateway, tmp_path):
    (tmp_path / "some").mkdir()
    for number in range(3):
        draw(f"some/{number}.png", 10 * number)
    assert json.loads(fount("some", "--rows", "2", "--out", "sheet.png", "--json").stdout)["pictures"] == 2
    assert (tile("sheet.png", 0, 0), tile("sheet.png", 0, 1)) == (0, 10)


JUNK = ("._0.png", ".ipynb_checkpoints/0-checkpoint.png", "__MACOSX/._0.png", "Thumbs.db", "ant/.hidden.png")


@pytest.mark.parametrize("junk", JUNK)
def test_files_that_data_sets_ignore_are_ignored(gateway, tmp_path, junk):
    (tmp_path / "some" / "ant").mkdir(parents=True)
    draw("some/ant/0.png", 40)
    (tmp_path / "some" / junk).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "some" / junk).write_bytes(b"junk")
    assert json.loads(fount("some", "--out", "sheet.png", "--json").stdout)["pictures"] == 1


def test_copies_that_notebooks_keep_are_not_counted(gateway, tmp_path):
    (tmp_path / "some" / ".ipynb_checkpoints").mkdir(parents=True)
    draw("some/0.png", 40)
    draw("some/.ipynb_checkpoints/0-checkpoint.png", 40)
    assert json.loads(fount("some", "--out", "sheet.png", "--json").stdout)["pictures"] == 1


def test_a_link_to_a_folder_is_not_followed(gateway, tmp_path):
    (tmp_path / "some").mkdir()
    draw("some/0.png", 40)
    (tmp_path / "some" / "again").symlink_to(tmp_path / "some")
    assert json.loads(fount("some", "--out", "sheet.png", "--json").stdout)["pictures"] == 1


def test_a_photo_is_turned_upright(gateway):
    photo = Image.fromarray(np.repeat(np.array([[230, 20]], np.uint8), 8, 0).repeat(4, 1))
    block = Image.Exif()
    block[0x0112] = 6
    photo.save("a.png", exif=block)
    fount("a.png", "--variants", "1", "--out", "sheet.png")
    with Image.open("sheet.png") as sheet:
        assert [sheet.getpixel((8 + 36, 8 + 18 + y)) for y in (9, 63)] == [230, 20]


def test_transparent_pixels_are_drawn_on_white(gateway):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save("a.png")
    fount("a.png", "--variants", "1", "--out", "sheet.png")
    assert tile("sheet.png", 0, 0) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["gif", "tif", "ppm", "pgm", "bmp", "webp", "jpg"])
def test_every_kind_of_image_is_read(gateway, suffix):
    draw(f"a.{suffix}", 100)
    assert fount(f"a.{suffix}", "--out", "sheet.png").exit_code == 0


@pytest.mark.parametrize("name", ["images", "samples"])
def test_an_npz_file_is_read(gateway, name):
    np.savez("some.npz", **{name: np.full((2, 8, 8), 30, np.uint8)})
    assert fount("some.npz", "--out", "sheet.png").exit_code == 0
    assert tile("sheet.png", 0, 1) == 30


def test_rows_of_a_data_set_are_augmented(gateway):
    result = fount("--dataset", "digits", "--rows", "5", "--variants", "2", "--out", "sheet.png")
    assert result.stdout.startswith("5 images, 2 variants of each")


def test_a_data_set_with_alpha_cannot_be_drawn(gateway):
    gateway.channels = 4
    message = "Error: The data set 'digits' has images of 4 channels; 1 or 3 can be drawn.\n"
    assert fount("--dataset", "digits", "--out", "sheet.png").stderr == message


def test_the_seed_that_the_server_drew_is_shown(gateway):
    draw("a.png")
    assert "Seed      77" in fount("a.png", "--out", "sheet.png").stdout


@pytest.mark.parametrize("text", ["- {rotate: [0, 15]}", "policy: [{rotate: [0, 15]}]"], ids=["list", "mapping"])
def test_a_policy_is_read_from_a_file(gateway, tmp_path, text):
    draw("a.png")
    (tmp_path / "policy.yaml").write_text(text)
    assert fount("a.png", "--policy", "policy.yaml", "--out", "sheet.png").exit_code == 0


def test_a_wrong_policy_is_reported_with_its_key(tmp_path):
    draw("a.png")
    (tmp_path / "policy.yaml").write_text("- {rotat: [0, 15]}\n")
    result = fount("a.png", "--policy", "policy.yaml", "--out", "sheet.png")
    assert (result.exit_code, "did you mean 'rotate'?" in result.stderr) == (1, True)


def test_images_of_two_sizes_are_refused(tmp_path):
    draw("a.png")
    draw("b.png", size=(9, 8))
    assert re.search("a.png: is 8 × 8 × 1, and b.png is 8 × 9 × 1", fount("a.png", "b.png", "--out", "s.png").stderr)


def test_a_file_that_is_not_an_image_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no")
    assert "a.png is not a supported image" in fount("a.png", "--out", "s.png").stderr


def test_a_truncated_image_is_named(tmp_path):
    draw("a.png", size=(64, 64))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    assert "a.png is cut off" in fount("a.png", "--out", "s.png").stderr


def test_an_image_with_a_side_that_is_too_long_is_refused(tmp_path):
    draw("a.png", size=(5000, 1))
    assert "a.png: has 5000 × 1 pixels; a side may have at most 4096" in fount("a.png", "--out", "s.png").stderr


def test_arrays_that_are_not_images_are_refused(tmp_path):
    np.savez("some.npz", images=np.zeros((2, 8, 8), np.float32))
    message = "some.npz, images: pixels are float32, of unknown scale and perhaps NaN; write uint8, 0 to 255"
    assert message in fount("some.npz", "--out", "s.png").stderr


def test_images_with_alpha_in_an_array_are_refused(tmp_path):
    np.savez("some.npz", images=np.zeros((2, 8, 8, 4), np.uint8))
    assert "some.npz: holds images of (2, 8, 8, 4); (N, H, W, 1 or 3)" in fount("some.npz", "--out", "s.png").stderr


def test_a_single_array_named_npz_is_refused():
    with open("some.npz", "wb") as file:
        np.save(file, np.zeros((2, 8, 8), np.uint8))
    assert "some.npz is a single array; write it with numpy.savez" in fount("some.npz", "--out", "s.png").stderr


def test_a_number_named_images_is_refused():
    np.savez("some.npz", images=np.uint8(3))
    assert "images: the shape is (); images are (n, H, W)" in fount("some.npz", "--out", "s.png").stderr


def test_an_image_of_16_bits_is_refused():
    Image.fromarray(np.full((8, 8), 3000, np.uint16)).save("a.png")
    assert "a.png has pixels of mode I;16, and 8 bits per channel are read" in fount("a.png", "--out", "s.png").stderr


def test_a_policy_that_is_not_yaml_is_reported(tmp_path):
    draw("a.png")
    (tmp_path / "policy.yaml").write_text("- {rotate: [1\n")
    message = fount("a.png", "--policy", "policy.yaml", "--out", "s.png").stderr
    assert "The policy 'policy.yaml' is not YAML at line 2: " in message


def test_an_npz_file_with_objects_is_not_unpickled(tmp_path):
    np.savez("some.npz", images=np.array([object()], dtype=object))
    remedy = "if the images have one shape, save np.stack(images), otherwise resize them to one shape first"
    assert remedy in fount("some.npz", "--out", "s.png").stderr


@pytest.mark.parametrize("place", ["missing.png", "missing.npz"])
def test_an_absent_file_is_named(place):
    assert f"There is no file '{place}'." in fount(place, "--out", "s.png").stderr


def test_a_folder_without_images_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "The folder 'empty' has no images" in fount("empty", "--out", "s.png").stderr


def test_no_images_and_no_data_set_is_a_usage_error():
    assert fount("--out", "s.png").exit_code == 2


def test_the_output_must_be_a_png_file():
    draw("a.png")
    assert "write to a .png file" in fount("a.png", "--out", "sheet.jpg").stderr


def test_an_unwritable_output_is_reported(gateway):
    draw("a.png")
    assert "nowhere/s.png cannot be written" in fount("a.png", "--out", "nowhere/s.png").stderr
