"""`fount sample` of texts, and of pictures that are given in part."""

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fount.v1 import model_pb2
from service.domain import ConditionKind
from service.workers.memory import MemoryPool, memory_model
from tests.contract.commands import fount as run_fount
from tests.contract.fake_gateway import FakeGateway, serving
from tests.contract.gateways import serving as serving_memory

FIRST, SECOND = "Ein Röslein\n\trot", "zwei\n"


@pytest.fixture
async def pool(monkeypatch):
    models = [
        memory_model("verse", labels=(), max_text_bytes=20, conditions=frozenset({ConditionKind.PREFIX})),
        memory_model("moods", labels=("calm", "loud"), max_text_bytes=20),
        memory_model("points", labels=(), dims=(2,)),
    ]
    async with serving_memory(MemoryPool(models=models)) as running:
        running.pool.faults.texts = {0: FIRST.encode(), 1: SECOND.encode(), 2: b""}
        monkeypatch.setenv("FOUNT_SERVER", f"127.0.0.1:{running.gateway.port}")
        yield running.pool


async def fount(*arguments):
    return await asyncio.to_thread(run_fount, "sample", *arguments, "--seed", "7")


async def test_one_text_is_printed_alone(pool):
    result = await fount("verse", "--count", "1")
    assert (result.exit_code, result.stdout) == (0, f"{FIRST}\n")
    assert "Seed      7, indices 0 to 0" in result.stderr


async def test_several_texts_are_printed_after_their_indices(pool):
    result = await fount("verse", "--count", "3")
    assert result.stdout == f"==> sample 0 <==\n{FIRST}\n\n==> sample 1 <==\nzwei\n\n==> sample 2 <==\n\n\n"


async def test_a_prefix_begins_a_text(pool):
    pool.faults.texts = {}
    result = await fount("verse", "--prefix", "Ö: ", "--count", "1")
    assert (result.exit_code, result.stdout[:3]) == (0, "Ö: ")
    assert len(result.stdout) > 4


async def test_the_header_names_the_class(pool):
    result = await fount("moods", "--count", "2", "--label", "loud")
    assert result.stdout.splitlines()[0] == "==> sample 0, loud <=="
    assert "Classes   loud (2)" in result.stderr


async def test_a_terminal_gets_no_control_characters(pool, monkeypatch):
    pool.faults.texts = {0: b"a\x1b[31m\nb"}
    monkeypatch.setattr("fount.cli.output.text_writers._is_terminal", lambda: True)
    assert (await fount("verse", "--count", "1")).stdout == "a [31m\nb\n"
    monkeypatch.undo()


async def test_a_file_holds_one_text_alone(pool):
    result = await fount("verse", "--count", "1", "--start-index", "1", "--out", "x.txt")
    assert (result.exit_code, Path("x.txt").read_text(encoding="utf-8")) == (0, SECOND)
    assert "Written   x.txt" in result.stdout


async def test_a_file_of_several_texts_is_what_would_be_printed(pool):
    await fount("verse", "--count", "5", "--out", "x.txt")
    assert Path("x.txt").read_text(encoding="utf-8") == (await fount("verse", "--count", "5")).stdout


async def test_a_folder_has_a_file_for_each_text(pool):
    result = await fount("moods", "--count", "3", "--label", "calm", "--out", "x/")
    assert result.exit_code == 0
    names = sorted(each.name for each in Path("x").iterdir())
    assert names == [*(f"0000000{k}_label0_calm.txt" for k in range(3)), "manifest.json"]
    assert Path("x", names[0]).read_bytes() == FIRST.encode()


async def test_another_stop_is_another_run_of_a_folder(pool):
    assert (await fount("verse", "--out", "x/", "--stop", "s")).exit_code == 0
    assert "holds samples of another run" in (await fount("verse", "--out", "x/", "--stop", "t")).stderr


async def test_texts_can_be_json(pool):
    result = await fount("verse", "--count", "3", "--stop", "\n", "--json")
    summary = json.loads(result.stdout)
    assert (summary["texts"], summary["count"], result.stderr) == (["Ein Röslein", "zwei", ""], 3, "")


@pytest.mark.parametrize("out", ["x.png", "x.npz", "x"])
async def test_a_file_of_pictures_cannot_hold_texts(pool, out):
    result = await fount("verse", "--out", out)
    assert result.stderr == f"Error: {out} cannot hold texts: write to a .txt file, or a folder ending with /\n"
    assert not pool.calls


async def test_a_text_that_is_not_utf8_leaves_no_file(pool):
    pool.faults.texts = {1: b"a\xffb"}
    result = await fount("verse", "--count", "2", "--out", "x.txt")
    assert (result.exit_code, list(Path().iterdir())) == (1, [])
    assert "sample 1: DATA_LOSS: the model drew bytes that are not UTF-8" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verse", "--stop", ""], "stop: is empty; leave it out"),
        (["verse", "--prefix", ""], "prefix: is empty; leave it out"),
        (["verse", "--stop", "x" * 21], "stop: must be at most the 20 bytes of a text of verse, got 21"),
        (["points", "--stop", "x", "--encoding", "float32"], "stop: samples of points are no texts; leave stop out"),
        (["points", "--prefix", "x"], "--prefix: points draws no texts; leave it out"),
        (["verse", "--prefix-image", "grey.png"], "--prefix-image: verse draws no pictures; give --prefix TEXT"),
        (["points", "--prefix-image", "grey.png"], "--prefix-image: points draws no pictures; leave it out"),
        (["verse", "--prefix", "a", "--prefix-image", "grey.png"], "cannot go with --prefix; give one of both"),
        (["verse", "--encoding", "png"], "the model cannot give PNG; it gives UINT8"),
        (["verse", "--image", "grey.png"], "--image: verse draws no pictures; give --prefix TEXT"),
        (["verse", "--mask", "grey.png"], "mask: needs image"),
        (["verse", "--image", "no.png", "--mask", "grey.png"], "There is no file 'no.png'"),
    ],
)
async def test_what_cannot_be_given_is_refused_with_a_remedy(pool, arguments, message):
    Image.new("L", (3, 2)).save("grey.png")
    result = await fount(*arguments)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.stderr.split())


# --- Pictures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def gateway(monkeypatch):
    gateway = FakeGateway()  # of pictures of 4 × 4 × 1
    with serving(gateway) as server:
        monkeypatch.setenv("FOUNT_SERVER", server)
        yield gateway


def draw(name, pixels, mode="L"):
    Image.fromarray(np.asarray(pixels, np.uint8)).convert(mode).save(name)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_and_a_mask_are_read_from_files(gateway, mode):
    picture = np.arange(16).reshape(4, 4)
    draw("a.png", picture, mode)
    draw("b.png", [[255] * 4, [200] * 4, [127] * 4, [0] * 4], mode)
    result = run_fount("sample", "digits-cvae", "--image", "a.png", "--mask", "b.png", "--count", "2", "--out", "x/")
    assert result.exit_code == 0, result.stderr
    condition = gateway.requests[0].condition
    assert (condition.image.count, condition.image.data) == (1, bytes(range(16)))
    assert (condition.mask.dtype, condition.mask.data) == (model_pb2.DTYPE_UINT8, bytes([1] * 8 + [0] * 8))
    assert json.loads(Path("x/manifest.json").read_text())["asked"]["condition"]["image"].startswith("sha256:")


def test_the_prefix_of_a_picture_is_no_text(gateway):
    result = run_fount("sample", "digits-cvae", "--prefix", "a")
    assert "--prefix: digits-cvae draws no texts; name a picture with --prefix-image" in result.stderr
    assert (result.exit_code, gateway.requests) == (2, [])


def test_the_upper_rows_of_samples_are_read_from_a_file(gateway):
    draw("a.png", np.arange(8).reshape(2, 4))
    assert run_fount("sample", "digits-cvae", "--prefix-image", "a.png").exit_code == 0
    assert gateway.requests[0].condition.prefix == bytes(range(8))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 5), ["--prefix-image", "a.png"], "is 4 × 5 × 1 (height, width, channels), and digits-cvae takes"),
        ((5, 4), ["--prefix-image", "a.png"], "digits-cvae takes at most 4 × 4 × 1"),
        ((3, 4), ["--image", "a.png", "--mask", "a.png"], "is 3 × 4 × 1 (height, width, channels)"),
        ((4, 4, 3), ["--prefix-image", "a.png"], "is 4 × 4 × 3"),
    ],
    ids=["wide", "high", "low", "colours"],
)  # fmt: skip
def test_a_picture_of_another_shape_is_refused(gateway, shape, options, message):
    Image.fromarray(np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)).save("a.png")
    result = run_fount("sample", "digits-cvae", *options)
    assert (result.exit_code, gateway.requests) == (2, [])
    assert message in " ".join(result.stderr.split())
