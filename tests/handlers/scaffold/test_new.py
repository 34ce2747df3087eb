"""`fount new` writes a folder that can be checked and served at once, and prints the next steps."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from handlers.cards.card import Card, load_card, write_card
from handlers.cli.new import new
from handlers.loading.build import build_unwrapped
from handlers.trial import open_trial
from tests.handlers.planted import find


def run(store: Path, *arguments: str) -> Result:
    return CliRunner().invoke(new, [*arguments, "--model-store", str(store)])


def create(store: Path, name: str, *options: str) -> Card:
    result = run(store, name, *options)
    assert result.exit_code == 0, result.output
    return load_card(store / name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    create(store, "pets", "--labels", "cat,dog", "--size", "17x23", "--channels", "4")
    return store / "pets"


def test_the_folder_contains_card_class_tests_weights_and_steps(made: Path) -> None:
    names = ["README.md", "generator.py", "model.yaml", "test_pets.py", "weights.safetensors"]
    assert sorted(file.name for file in made.iterdir()) == names


def test_the_steps_are_commands_for_a_shell(tmp_path: Path) -> None:
    create(tmp_path / "my store", "pets", "--labels", "a dog,cat")
    steps = (tmp_path / "my store/pets/README.md").read_text()
    assert f"`fount serve --model-store '{tmp_path}/my store'`" in steps
    assert "`fount sample pets --label 'a dog' --count 16" in steps


def test_the_placeholder_draws_samples_of_the_card(made: Path) -> None:
    assert open_trial(made).draw(count=2).shape == (2, 17, 23, 4)


def test_the_tests_it_writes_pass(made: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "."]
    done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
    assert "6 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_the_tests_it_writes_fail_for_a_module_that_ignores_z(made: Path, tmp_path: Path) -> None:
    create(tmp_path, "stuck")
    stub = (tmp_path / "stuck/generator.py").read_text()
    (tmp_path / "stuck/generator.py").write_text(stub.replace("return self.forward(z)", "return self.forward(0 * z)"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "."]
    done = subprocess.run(command, cwd=tmp_path / "stuck", capture_output=True, text=True, check=False)
    assert "FAILED test_stuck.py::test_another_seed_gives_other_samples" in done.stdout


def test_the_weights_are_marked_as_untrained(tmp_path: Path) -> None:
    output = run(tmp_path, "shapes").output
    assert "UNTRAINED" in output
    assert "UNTRAINED" in load_card(tmp_path / "shapes").description
    assert output.endswith((tmp_path / "shapes/README.md").read_text().split("\n\n", 1)[1])


def test_placeholder_texts_of_the_card_are_warned_of(tmp_path: Path) -> None:
    card = create(tmp_path, "shapes")
    finding = find(tmp_path / "shapes", "card")
    assert (finding.state, finding.blocks) == ("warned", False)
    assert finding.change.startswith(
        "replace the text of these keys in model.yaml (description, data_licence, intended_use)"
    )
    written = dataclasses.replace(card, description="Draws shapes.", data_licence="Ours.")
    write_card(written, tmp_path / "shapes")
    assert find(tmp_path / "shapes", "card").seen.endswith("wrote: intended_use")
    write_card(dataclasses.replace(written, intended_use="Greetings."), tmp_path / "shapes")
    assert find(tmp_path / "shapes", "card").state == "passed"


def test_the_next_steps_are_in_order(tmp_path: Path) -> None:
    output = run(tmp_path, "shapes").output
    steps = [
        "save_file(module.state_dict(),",
        "fount convert",
        "fount check shapes",
        "fount pack shapes",
        "fount serve",
    ]
    assert [output.index(step) for step in steps] == sorted(output.index(step) for step in steps)
    assert f"--model-store {tmp_path}" in output


def test_the_weights_are_the_same_every_time(tmp_path: Path) -> None:
    for name in ("one", "two"):
        torch.randn(3)
        create(tmp_path, name)
    one, two = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("family", "labels", "file"), [("torchscript", "none", "generator.pt"), ("exported", "cat,dog", "generator.pt2")]
)
def test_a_program_is_saved_by_its_script(tmp_path: Path, family: str, labels: str, file: str) -> None:
    create(tmp_path, "program", "--family", family, "--labels", labels, "--size", "8")
    assert (tmp_path / "program/save_program.py").is_file()
    assert (tmp_path / "program" / file).is_file()
    assert open_trial(tmp_path / "program").draw(count=3).shape == (3, 8, 8, 3)


@pytest.mark.parametrize(
    ("family", "labels", "kind"),
    [("vae", "none", "Vae"), ("conditional-vae", "3", "ConditionalVae"), ("conditional-gan", "3", "ConditionalGan")],
)
def test_a_built_in_architecture_needs_no_class(tmp_path: Path, family: str, labels: str, kind: str) -> None:
    card = create(tmp_path, "built-in", "--family", family, "--labels", labels, "--size", "12x20", "--latent", "7")
    assert type(build_unwrapped(card, tmp_path / "built-in")).__name__ == kind
    assert open_trial(tmp_path / "built-in").draw(count=2).shape == (2, 12, 20, 3)
    assert not (tmp_path / "built-in/generator.py").exists()


def test_an_existing_folder_is_not_changed(tmp_path: Path) -> None:
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes/mine.txt").write_text("mine")
    result = run(tmp_path, "shapes")
    assert result.exit_code == 1
    assert "exists already and is not changed; choose another name" in result.output
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["mine.txt"]


def test_no_files_remain_after_a_failure(tmp_path: Path) -> None:
    result = run(tmp_path, "pets", "--labels", "cat,cat")
    assert "classes: is" in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_cannot_be_written_is_reported_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run(tmp_path / "file" / "store", "shapes")
    assert result.exit_code == 1
    assert "name another --model-store" in result.output


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        (("--size", "17x23"), lambda card: (card.sample.height, card.sample.width) == (17, 23)),
        (("--size", "28"), lambda card: (card.sample.height, card.sample.width) == (28, 28)),
        (("--channels", "1"), lambda card: card.sample.channels == 1),
        (("--labels", "cat, dog"), lambda card: (card.classes, card.prior) == (("cat", "dog"), (0.5, 0.5))),
        (("--labels", "3"), lambda card: card.classes == ("0", "1", "2")),
        (("--latent", "7"), lambda card: card.latent.shape == (7,)),
        (("--family", "vae"), lambda card: (card.family.name, card.latent) == ("vae", None)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_an_option_changes_the_card(tmp_path: Path, arguments: tuple[str, ...], read) -> None:
    usual, changed = (
        CliRunner().invoke(new, [name, *options, "--model-store", str(tmp_path)])
        for name, options in (("usual", ()), ("changed", arguments))
    )
    assert (usual.exit_code, changed.exit_code) == (0, 0)
    assert read(load_card(tmp_path / "changed"))
    assert not read(load_card(tmp_path / "usual"))


@pytest.mark.parametrize(
    ("options", "shapes", "classes"),
    [
        (("--translate", "--size", "8", "--channels", "1", "--labels", "there,back"), ((8, 8, 1), (8, 8, 1)), 2),
        (
            ("--condition", "image", "--size", "8x12", "--input-size", "4x6", "--input-channels", "1"),
            ((4, 6, 1), (8, 12, 3)), 0,
        ),
    ],
    ids=["translate", "condition"],
)  # fmt: skip
def test_a_model_translates_pictures(tmp_path: Path, options, shapes, classes: int) -> None:
    card = create(tmp_path, "turner", *options)
    assert (card.operations, card.input_shape, card.sample.shape) == (("TRANSLATE",), *shapes)
    assert (len(card.classes), card.latent is None) == (classes, "--translate" in options)
    steps = (tmp_path / "turner/README.md").read_text()
    assert "`fount translate turner PICTURES/" in steps
    assert ("--variants" in steps) == ("--condition" in options)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "."]
    done = subprocess.run(command, cwd=tmp_path / "turner", capture_output=True, text=True, check=False)
    assert "5 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--input-size", "8"), "add --translate or --condition image"),
        (("--translate", "--family", "vae"), "family vae translates no pictures"),
        (("--translate", "--input-size", "20000"), "use a smaller --input-size"),
    ],
    ids=["no translation", "family", "too large"],
)
def test_options_of_translation_are_refused_in_words(tmp_path: Path, options, reason: str) -> None:
    result = run(tmp_path, "turner", *options)
    assert result.exit_code
    assert reason in result.output


def test_a_translator_that_loses_its_label_is_found(tmp_path: Path) -> None:
    create(tmp_path, "turner", "--translate", "--size", "8", "--labels", "there,back")
    folder = tmp_path / "turner"
    assert "the same picture under 2 labels" in find(folder, "uses-label").seen
    stub = (folder / "generator.py").read_text()
    (folder / "generator.py").write_text(stub.replace("else label)", "else 0 * label)"))
    found = find(folder, "uses-label")
    assert (found.state, "the same result under all 2 labels" in found.seen) == ("warned", True)
