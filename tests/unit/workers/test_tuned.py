"""The file of `fount tune`, as the gateway's side reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import SetupError
from service.workers.torchserve.tuned import Tuned, read_tuned


def write(folder: Path, text: str) -> Path:
    file = folder / "workers.yaml"
    file.write_text(text)
    return file


def test_every_key_is_optional(tmp_path: Path) -> None:
    told = "models: {a: {workers: 2, threads: 3, precision: bf16, layout: nhwc, compiled: true}, b: {threads: 2}, c: }"
    assert read_tuned(write(tmp_path, told)) == {
        "a": Tuned(workers=2, threads=3),
        "b": Tuned(threads=2),
        "c": Tuned(),
    }


@pytest.mark.parametrize("text", ["", "models:", "models: {}"], ids=["empty", "null", "none"])
def test_a_file_may_say_nothing(tmp_path: Path, text: str) -> None:
    assert read_tuned(write(tmp_path, text)) == {}


WRONG = {
    "models: {a: {worker: 2}}": "models.a.worker is unknown; did you mean 'workers'",
    "model: {}": "model is unknown; did you mean 'models'",
    "models: {a: {zzz: 2}}": "models.a.zzz is unknown; known: workers, threads",
    "models: {a: {workers: 0}}": "models.a.workers must be a whole number from 1 to 64, not 0",
    "models: {a: {threads: '2'}}": "models.a.threads must be a whole number from 1 to 256, not '2'",
    "models: {a: {workers: true}}": "models.a.workers must be a whole number",
    "models: {a: {precision: fp16}}": "models.a.precision must be fp32 or bf16, not 'fp16'",
    "models: {a: {layout: hwc}}": "models.a.layout must be nchw or nhwc, not 'hwc'",
    "models: {a: {compiled: 1}}": "models.a.compiled must be true or false, not 1",
    "models: {a: 3}": "models.a must be a mapping",
    "models: [a]": "models must be a mapping of names",
    "[a]": "it must be a mapping with the key 'models'",
    "{": "is not YAML",
}


@pytest.mark.parametrize("text", WRONG, ids=str)
def test_what_nobody_understands_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(SetupError) as error:
        read_tuned(write(tmp_path, text))
    assert WRONG[text] in str(error.value)
    assert "workers.yaml" in str(error.value)


def test_everything_wrong_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"models\.a\.workers must.*models\.b\.layout must"):
        read_tuned(write(tmp_path, "models: {a: {workers: no}, b: {layout: 7}}"))


def test_a_file_that_is_not_there_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="fount tune NAME"):
        read_tuned(tmp_path / "none.yaml")


def test_code_in_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not YAML"):
        read_tuned(write(tmp_path, "models: !!python/object/apply:os.getcwd []"))
