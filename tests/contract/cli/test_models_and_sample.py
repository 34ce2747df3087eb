"""The command `fount` against a real server."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from fount.cli.main import main
from fount.v1 import model_pb2, sampling_pb2
from tests.contract.commands import fount, interrupted
from tests.contract.fake_gateway import (
    DIGEST,
    NUMERICS,
    Behaviour,
    FakeGateway,
    invalid,
    overloaded,
    pixels,
    sample_spec,
    serving,
    unavailable,
)


@pytest.fixture
def gateway(monkeypatch):
    gateway = FakeGateway()
    with serving(gateway) as server:
        monkeypatch.setenv("FOUNT_SERVER", server)
        yield gateway


# --- Models -----------------------------------------------------------------------------------------------------------


def test_models_are_listed_in_a_table(gateway):
    assert fount("models").stdout.splitlines() == [
        "MODEL                      STATE  CAN     CLASSES  SHAPE            DESCRIPTION",
        "digits-cvae:1.0 (default)  ready  sample  10       4 × 4 × 1 uint8  Handwritten digits.",
    ]


def test_a_server_without_models_says_so(gateway):
    gateway.pages = [[]]
    assert (
        fount("models").stderr == "The server offers no model; one that has just started may not know its models yet.\n"
    )


def test_models_can_be_json(gateway):
    (model,) = json.loads(fount("models", "--json").stdout)
    assert (model["name"], model["state"], model["parameters"][0]["range"]) == ("digits-cvae", "ready", [0.5, 4.0])


def test_a_model_is_shown_in_full(gateway):
    lines = fount("model", "digits-cvae").stdout.splitlines()
    assert "Parameter     truncation, 0.5 to 4, unset off: How far z may be from 0." in lines
    assert "Quality       label-accuracy 0.98 [0.975, 0.985], real data 0.99; 10 000 samples" in lines


def test_a_model_is_shown_with_its_latents_and_scores(gateway, monkeypatch):
    model = gateway.model()
    model.latent_dim, model.latent_spread, model.draw_steps = 8, 0.75, 50
    model.directions.add(name="thick", description="The stroke widens.", vector=[1.0] + [0.0] * 7)
    kind = model_pb2.ScoreColumn.KIND_LOWER_BOUND
    model.score_columns.add(name="elbo", unit="nats", kind=kind, description="Of 256 levels.")
    monkeypatch.setattr(gateway, "model", lambda: model)
    assert fount("model", "digits-cvae").stdout.splitlines()[10:14] == [
        "Draw steps    50",
        "Latent        8 numbers, spread 0.75",
        "Direction     thick: The stroke widens.",
        "Score         elbo, nats, lower-bound: Of 256 levels.",
    ]


def test_a_model_of_text_is_shown_with_what_can_be_given(gateway, monkeypatch):
    model = gateway.model()
    model.sample_spec.modality, model.sample_spec.layout = model.sample_spec.MODALITY_TEXT, model.sample_spec.LAYOUT_T
    model.sample_spec.dims[:], model.limits.max_text_bytes, model.prefix_unit = [-1], 2000, 2
    model.conditions.append(model_pb2.CONDITION_KIND_PREFIX)
    monkeypatch.setattr(gateway, "model", lambda: model)
    lines = fount("model", "digits-cvae").stdout.splitlines()
    assert "Sample        text to 2,000 bytes" in lines
    assert "Given         prefix, a multiple of 2 bytes" in lines
    assert "text to 2,000 bytes" in fount("models").stdout


@pytest.mark.parametrize("charset", ["ascii", "latin-1"])
@pytest.mark.parametrize(
    "arguments",
    [["models"], ["model", "digits-cvae"], ["sample", "digits-cvae", "--label", "猫", "--seed", "1", "--out", "a.npz"]],
    ids=["models", "model", "sample"],
)
def test_names_that_the_terminal_cannot_show_are_escaped(gateway, tmp_path, monkeypatch, arguments, charset):
    monkeypatch.chdir(tmp_path)
    gateway.class_names = (*"012", "猫", *"456789")
    model = gateway.model()
    model.description = "猫"
    gateway.pages = [[model]]
    result = CliRunner(charset=charset).invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    assert b"\\u732b" in result.stdout_bytes or arguments[0] == "sample"


def test_text_of_a_server_cannot_control_the_terminal(gateway):
    hostile = gateway.model()
    hostile.description = "red\x1b[31m\nline"
    gateway.pages = [[hostile]]
    assert fount("models").stdout.splitlines()[1].endswith("red [31m line")


def test_the_reason_of_a_model_that_is_not_ready_fits_the_terminal(gateway, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    broken = model_pb2.Model(state=model_pb2.Model.STATE_UNAVAILABLE, state_reason="its weights\nare damaged; " * 9)
    broken.ref.name, broken.ref.version = "digits-vae", "1.0"
    gateway.pages = [[gateway.model(), broken]]
    message = fount("models")
    *_, line = message.stdout.splitlines()
    assert line.endswith("  -        -                its weights are damaged; its weights are dama…")
    assert len(line) == 120
    assert message.stderr == "The full reason why a model is not ready: fount model NAME\n"


def test_a_cold_model_is_listed_with_its_description(gateway):
    cold = gateway.model()
    cold.state, cold.state_reason = model_pb2.Model.STATE_COLD, "its workers start with the first request"
    gateway.pages = [[cold]]
    message = fount("models")
    assert " cold " in message.stdout
    assert message.stdout.endswith("Handwritten digits.\n")
    assert message.stderr == ""


def test_an_unknown_model_is_one_line_and_exit_code_1(gateway):
    result = fount("model", "ghost")
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", 'Error: no model "ghost"\n')


# --- Sample -----------------------------------------------------------------------------------------------------------


def test_a_grid_is_drawn(gateway):
    result = fount("sample", "digits-cvae", "--label", "7", "--count", "4", "--seed", "1", "--out", "sevens.png")
    assert result.exit_code == 0
    with Image.open("sevens.png") as grid:
        assert grid.size == (168, 204)


def test_an_npz_file_is_written(gateway):
    assert fount("sample", "digits-cvae", "--count", "6", "--seed", "1", "--out", "x.npz").exit_code == 0
    with np.load("x.npz") as npz:
        assert np.array_equal(npz["samples"], np.stack([pixels(1, index) for index in range(6)]))


@pytest.mark.parametrize("encoding", ["uint8", "float32", "png"])
def test_a_folder_has_the_same_images_in_any_encoding(gateway, encoding):
    result = fount("sample", "digits-cvae", "--count", "2", "--seed", "1", "--out", "x/", "--encoding", encoding)
    assert result.exit_code == 0
    assert np.array_equal(np.asarray(Image.open("x/00000001_label1.png")), pixels(1, 1)[..., 0])


def test_the_summary_has_the_address_of_the_samples(gateway):
    lines = fount("sample", "digits-cvae", "--label", "7", "--count", "3").stdout.splitlines()
    assert lines[0].startswith("3 samples of digits-cvae:1.0, ")
    assert lines[1:] == [
        f"Digest    {DIGEST}", "Seed      4711, indices 0 to 2", f"Numerics  {NUMERICS}", "Classes   7 (3)",
        "Nothing was written; name a file with --out",
    ]  # fmt: skip


def test_the_summary_can_be_json(gateway):
    result = fount("sample", "digits-cvae", "--labels", "1,2,2", "--seed", "1", "--out", "x.npz", "--json")
    summary = json.loads(result.stdout)
    assert summary.pop("samples_per_s") > 0
    assert (result.stderr, summary) == (
        "",
        {
            "model": "digits-cvae:1.0", "digest": DIGEST, "seed": 1, "numerics": NUMERICS, "start_index": 0,
            "count": 3, "labels": {"1": 1, "2": 2}, "out": "x.npz",
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("option", "value", "field", "sent"),
    [
        ("--count", "5", "count", 5),
        ("--seed", "9", "seed", 9),
        ("--start-index", "3", "start_index", 3),
        ("--encoding", "float32", "encoding", model_pb2.ENCODING_FLOAT32),
        ("--numerics", NUMERICS, "numerics", NUMERICS),
        ("--priority", "interactive", "priority", sampling_pb2.PRIORITY_INTERACTIVE),
        ("--truncation", "1.5", "parameters", sampling_pb2.Parameters(truncation=1.5)),
        ("--temperature", "0.5", "parameters", sampling_pb2.Parameters(temperature=0.5)),
        ("--top-k", "3", "parameters", sampling_pb2.Parameters(top_k=3)),
        ("--top-p", "0.5", "parameters", sampling_pb2.Parameters(top_p=0.5)),
        ("--guidance-scale", "2", "parameters", sampling_pb2.Parameters(guidance_scale=2)),
        ("--steps", "8", "parameters", sampling_pb2.Parameters(steps=8)),
        ("--stop", "é", "stop", "é"),
    ],
)
def test_each_option_reaches_the_server(gateway, option, value, field, sent):
    assert fount("sample", "digits-cvae", option, value).exit_code == 0
    assert getattr(gateway.requests[0], field) == sent


@pytest.mark.parametrize("name", ["COUNT", "SEED", "START_INDEX"])
def test_an_option_can_be_set_by_the_environment(gateway, monkeypatch, name):
    monkeypatch.setenv(f"FOUNT_SAMPLE_{name}", "3")
    fount("sample", "digits-cvae")
    assert getattr(gateway.requests[0], name.lower()) == 3


NUMBERED = ("0", "1", "10", "11", "2", "cat")


@pytest.mark.parametrize(
    ("label", "index"), [("2", 4), ("#2", 2), ("10", 2), ("3", 3), ("#0", 0), ("cat", 5), ("5", 5), (" 2 ", 4)]
)
def test_a_label_is_a_name_first_and_then_an_index(gateway, label, index):
    gateway.class_names = NUMBERED
    for options in (["--label", label], ["--labels", f"{label},0"], ["--mixture", f"{label}=1"]):
        assert fount("sample", "digits-cvae", *options).exit_code == 0
    one, each, mixture = (request.condition for request in gateway.requests)
    assert one.label.id == each.labels.ids[0] == mixture.mixture.components[0].label.id == index


def test_a_number_that_is_the_name_of_another_class_is_noted(gateway):
    gateway.class_names = NUMBERED
    assert fount("sample", "digits-cvae", "--mixture", "2=1,cat=1").stderr == (
        'note: "2" (index 4): taken as names of classes; write \'#2\', in quotes, for index 2, which is "10"\n'
    )
    assert fount("sample", "digits-cvae", "--labels", "1,#2,3,cat").stderr == ""


def test_a_class_that_is_named_and_numbered_in_a_mixture_is_a_usage_error(gateway):
    result = fount("sample", "digits-cvae", "--mixture", "7=1,#7=1")
    assert result.exit_code == 2
    assert "names a class twice" in result.stderr


@pytest.mark.parametrize("label", ["dog", "07", "#", "1e0"])
def test_an_unknown_class_among_labels_is_one_line(gateway, label):
    result = fount("sample", "digits-cvae", "--labels", f"1,{label}")
    assert (result.exit_code, result.stderr) == (
        1, f"Error: digits-cvae has no class '{label}'; `fount model digits-cvae` lists its classes.\n",
    )  # fmt: skip


def test_an_index_that_the_model_may_lack_is_left_to_the_server(gateway):
    gateway.attempts = [Behaviour(status=invalid(labels="has no label 77"))]
    assert "labels: has no label 77" in fount("sample", "digits-cvae", "--labels", "1,#77").stderr
    assert list(gateway.requests[0].condition.labels.ids) == [1, 77]


def test_an_unknown_label_is_left_to_the_server(gateway):
    gateway.attempts = [Behaviour(status=invalid(label="is unknown"))]
    assert "label: is unknown" in fount("sample", "digits-cvae", "--label", "dog").stderr
    assert gateway.requests[0].condition.label.name == "dog"


def test_a_mixture_is_labels_and_weights(gateway):
    fount("sample", "digits-cvae", "--mixture", "7=0.9,1=0.1")
    components = gateway.requests[0].condition.mixture.components
    assert [(component.label.id, component.weight) for component in components] == [(7, 0.9), (1, 0.1)]


@pytest.mark.parametrize("out", ["x.png", "x/"])
def test_samples_of_four_channels_are_not_written_as_pictures(gateway, monkeypatch, out):
    spec = sample_spec(model_pb2.ENCODING_UINT8)
    spec.dims[2] = 4
    monkeypatch.setattr("tests.contract.fake_gateway.sample_spec", lambda encoding: spec)
    message = f"Error: {out} would hold images of 4 channels, and PNG has 1 or 3: write a .npz file\n"
    assert fount("sample", "digits-cvae", "--out", out).stderr == message


@pytest.mark.parametrize(
    ("text", "named"),
    [("3", "3"), ("3:0.8,8:0.2", "3:0.8"), ("7=1,=2", "=2"), ("3=0,8;8=0,2", "2")],
    ids=["no weight", "colons", "no label", "decimal commas"],
)
def test_a_mixture_without_labels_or_weights_is_explained(text, named):
    message = fount("sample", "digits-cvae", "--mixture", text).stderr
    assert f"'{named}' is not LABEL=WEIGHT, as in 7=0.9,1=0.1" in message


def test_the_digest_of_the_card_is_pinned(gateway):
    fount("sample", "digits-cvae")
    assert gateway.requests[0].model.digest == DIGEST


@pytest.mark.parametrize(
    "arguments",
    [("--mixture", "7"), ("--mixture", "7=a"), ("--mixture", "7=1,7=2"), ("--labels", "1,,2"), ("--timeout", "0")],
)
def test_an_invalid_option_is_a_usage_error(arguments):
    result = fount("sample", "digits-cvae", *arguments)
    assert result.exit_code == 2
    assert arguments[0] in result.stderr


def test_a_long_run_shows_a_bar_on_stderr(gateway, monkeypatch):
    monkeypatch.setattr("fount.cli.sample.error_is_terminal", lambda: True)
    gateway.chunk_count = 1000
    result = fount("sample", "digits-cvae", "--count", "10001")
    assert "10001/10001" in result.stderr
    assert "10001/10001" not in result.stdout


def test_a_log_gets_no_bar(gateway):
    assert fount("sample", "digits-cvae", "--count", "10001").stderr == ""


# --- Faults -----------------------------------------------------------------------------------------------------------


def test_an_absent_server_is_reported_with_the_command_to_start_one():
    result = fount("models", "--server", "127.0.0.1:1")
    assert (result.exit_code, result.stdout, result.stderr) == (
        1, "",
        "Error: No Fount server answers at 127.0.0.1:1. Start one with `fount serve`, or name another with --server.\n",
    )  # fmt: skip


def test_each_wrong_field_is_a_line(gateway):
    gateway.attempts = [Behaviour(status=invalid(truncation="is 9, above 4", seed="is odd"))]
    result = fount("sample", "digits-cvae")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1:] == ["  truncation: is 9, above 4", "  seed: is odd"]


def test_an_unwritable_path_is_reported_before_anything_is_drawn(gateway):
    result = fount("sample", "digits-cvae", "--out", "no/x.npz")
    assert (result.exit_code, result.stderr) == (1, "Error: no/x.npz cannot be written: there is no folder no\n")
    assert gateway.requests == []


def test_failed_samples_leave_no_file(gateway):
    gateway.failed = frozenset({5})
    result = fount("sample", "digits-cvae", "--out", "x.npz")
    assert result.exit_code == 1
    assert "sample 5: INTERNAL: not finite" in result.stderr
    assert list(Path().iterdir()) == []


def test_a_full_disk_is_reported_and_no_file_remains(gateway):
    gateway.chunk_count = 1000
    command = "from fount.cli.main import main; main(['sample', 'digits-cvae', '--count', '9000', '--out', 'x.npz'])"
    limited = subprocess.run(
        f'ulimit -f 100; {sys.executable} -c "{command}"', shell=True, capture_output=True, text=True, check=False
    )
    assert (limited.returncode, limited.stderr) == (1, "Error: x.npz cannot be written: File too large\n")
    assert list(Path().iterdir()) == []


def test_no_file_remains_when_the_server_stops(gateway):
    gateway.attempts = [Behaviour(status=unavailable(), break_after=0)] * 3
    result = fount("sample", "digits-cvae", "--out", "x.npz")
    assert (result.exit_code, result.stderr) == (1, "Error: draining\n")
    assert list(Path().iterdir()) == []


def test_a_silent_server_times_out(gateway):
    gateway.attempts = [Behaviour(silent_after=1)]
    result = fount("sample", "digits-cvae", "--timeout", "0.6")
    assert result.exit_code == 1
    assert "No answer within 0.6 s" in result.stderr


def test_ctrl_c_exits_with_130_and_leaves_no_file(gateway):
    gateway.attempts = [Behaviour(silent_after=1)]
    message = interrupted("sample", "digits-cvae", "--out", "x.npz", when=lambda: gateway.chunks_sent)
    assert message == (130, "Stopped.\n")
    assert list(Path().iterdir()) == []


def test_ctrl_c_ends_the_wait_for_a_server_that_is_overloaded(gateway):
    gateway.attempts = [Behaviour(status=overloaded(30))]
    message = interrupted("sample", "digits-cvae", when=lambda: not gateway.attempts)
    assert message == (130, "Stopped.\n")


def test_a_closed_pipe_is_no_traceback(gateway):
    piped = subprocess.run(
        f'{sys.executable} -c "from fount.cli.main import main; main()" models --json | true',
        shell=True, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Traceback" not in piped.stderr
