"""Names of files that commands cannot use, or hardly."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.contract.commands import fount
from tests.contract.fake_evaluations import FakeEvaluations, serving_evaluations
from tests.contract.fake_gateway import FakeGateway, serving

LONG = "n" * 300
UNKNOWN = "127.0.0.1:9"  # where nothing is requested


@pytest.fixture
def picture():
    Image.fromarray(np.zeros((4, 4), np.uint8)).save("a.png")
    Path("plan.yaml").write_text("dataset: digits\n")


COMMANDS = {
    "augment": ("augment", "a.png", "--out", f"{LONG}.png"),
    "augment, input": ("augment", f"{LONG}.png", "--out", "o.png"),
    "augment, policy": ("augment", "a.png", "--policy", LONG, "--out", "o.png"),
    "encode": ("encode", "digits-vae", "a.png", "--out", f"{LONG}.npz"),
    "encode, input": ("encode", "digits-vae", f"{LONG}.npz", "--out", "o.npz"),
    "decode, input": ("decode", "digits-vae", f"{LONG}.npz", "--out", "o.npz"),
    "latent-map": ("latent-map", "digits-vae", "--out", f"{LONG}.png"),
    "score": ("score", "digits-gmm", "a.png", "--out", f"{LONG}.csv"),
    "plan": ("plan", LONG),
    "plan, ticket": ("plan", "plan.yaml", "--ticket-out", LONG),
    "pull": ("pull", "plan.yaml", "--out", LONG),
    "pull, plan": ("pull", f"{LONG}.yaml", "--out", "o"),
    "evaluate": ("evaluate", "digits-cvae", "--report", f"{LONG}.html"),
    "evaluation": ("evaluation", "ev-1", "--report", f"{LONG}.html"),
}


@pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)
def test_a_name_that_is_too_long_is_one_sentence(picture, arguments):
    result = fount(*arguments, env={"FOUNT_SERVER": UNKNOWN})
    assert result.exit_code in (1, 2)
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert "File name too long" in result.stderr.splitlines()[-1]
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("out", [f"{LONG}.png", f"{LONG}.npz", f"{LONG}/", LONG], ids=["png", "npz", "folder", "bare"])
def test_samples_are_not_drawn_for_a_name_that_is_too_long(out):
    gateway = FakeGateway()
    with serving(gateway) as server:
        result = fount("sample", "digits-cvae", "--out", out, "--server", server)
    assert result.stderr == f"Error: {out.rstrip('/')} cannot be written: File name too long\n"
    assert gateway.requests == []


@pytest.mark.parametrize("name", ["m" * 251, "é" * 125], ids=["ASCII", "UTF-8"])
def test_the_longest_names_can_be_written(name):
    with serving(FakeGateway()) as server:
        for suffix in (".png", ".npz"):
            assert fount("sample", "digits-cvae", "--out", name + suffix, "--server", server).exit_code == 0
    assert {file.name for file in Path().iterdir()} == {f"{name}.png", f"{name}.npz"}


EMPTY = {
    "sample": ("sample", "digits-cvae", "--out", ""),
    "augment": ("augment", "a.png", "--out", ""),
    "augment, input": ("augment", "", "--out", "o.png"),
    "augment, policy": ("augment", "a.png", "--policy", "", "--out", "o.png"),
    "plan": ("plan", ""),
    "plan, ticket": ("plan", "plan.yaml", "--ticket-out", ""),
    "pull": ("pull", "plan.yaml", "--out", ""),
    "pull, plan": ("pull", "", "--out", "o"),
}


@pytest.mark.parametrize("arguments", EMPTY.values(), ids=EMPTY)
def test_an_empty_name_is_not_the_working_folder(picture, arguments):
    result = fount(*arguments, env={"FOUNT_SERVER": UNKNOWN})
    assert result.exit_code == 2
    assert result.stderr.endswith("the name is empty; name a file or a folder\n")


@pytest.mark.parametrize("name", ["a.png", "dangling", "loop"])
def test_what_is_no_folder_in_place_of_one_is_named(picture, name):
    Path("dangling").symlink_to("nowhere")
    Path("loop").symlink_to("loop")
    with serving(FakeGateway()) as server:
        result = fount("sample", "digits-cvae", "--out", f"{name}/", "--server", server)
    assert result.stderr == f"Error: {name} is a file, or a link that leads nowhere; name a folder\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("augment", "a.png", "--out", "no/o.png"), "no/o.png cannot be written: there is no folder no"),
        (("plan", "plan.yaml", "--ticket-out", "."), ". cannot be written: it is a folder"),
    ],
    ids=["augment", "plan"],
)
def test_the_output_is_checked_before_anything_is_requested(picture, arguments, message):
    assert fount(*arguments, env={"FOUNT_SERVER": UNKNOWN}).stderr == f"Error: {message}\n"


def test_a_ticket_without_end_is_refused(gateway):
    result = fount("pull", "/dev/zero", "--out", "o")
    message = "/dev/zero: is larger than 4194304 bytes; name a file that `fount plan --ticket-out` wrote"
    assert result.stderr.splitlines()[1].strip() == message


def test_a_report_may_have_the_longest_name():
    name = "r" * 250 + ".html"
    with serving_evaluations(FakeEvaluations()) as server:
        assert fount("evaluate", "digits-cvae", "--report", name, "--server", server).exit_code == 0
    assert Path(name).is_file()


def test_text_of_a_server_cannot_control_the_terminal_in_an_error():
    gateway = FakeGateway()
    with serving(gateway) as server:
        result = fount("model", "ghost\x1b[31m", "--server", server, color=True)
    assert "\x1b" not in result.stderr
