"""The file of tuned worker settings, which both the gateway and the workers read."""

from __future__ import annotations

from pathlib import Path

import pytest

from fount.tuned import TunedError, TunedModel, read_tuned


def write(folder: Path, text: str) -> Path:
    file = folder / "workers.yaml"
    file.write_text(text)
    return file


def test_every_key_is_optional(tmp_path: Path) -> None:
    first = "{workers: 2, threads: 3, precision: bf16, layout: nhwc, folded: false, compiled: true}"
    text = f"models: {{a: {first}, b: {{threads: 2}}, c: }}"
    assert read_tuned(write(tmp_path, text)) == {
        "a": TunedModel(workers=2, threads=3, precision="bf16", layout="nhwc", folded=False, compiled=True),
        "b": TunedModel(threads=2),
        "c": TunedModel(),
    }


@pytest.mark.parametrize("text", ["", "models:", "models: {}"], ids=["empty", "null", "none"])
def test_a_file_may_have_no_entry(tmp_path: Path, text: str) -> None:
    assert read_tuned(write(tmp_path, text)) == {}


@pytest.mark.parametrize("key", ["workers", "threads"])
@pytest.mark.parametrize("count", [1, 1024])
def test_counts_range_from_1_to_1024(tmp_path: Path, key: str, count: int) -> None:
    assert getattr(read_tuned(write(tmp_path, f"models: {{a: {{{key}: {count}}}}}"))["a"], key) == count


WRONG = {
    "models: {a: {worker: 2}}": "models.a.worker: unknown key; did you mean 'workers'",
    "model: {}": "model: unknown key; did you mean 'models'",
    "models: {a: {zzz: 2}}": "models.a.zzz: unknown key; known keys: workers, threads",
    "models: {a: {workers: 0}}": "models.a.workers: is 0; must be 1 to 1024",
    "models: {a: {threads: 1025}}": "models.a.threads: is 1025; must be 1 to 1024",
    "models: {a: {threads: '2'}}": "models.a.threads: is '2'; must be a whole number",
    "models: {a: {workers: true}}": "models.a.workers: is True; must be a whole number",
    "models: {a: {precision: fp16}}": "models.a.precision: is 'fp16'; must be one of fp32, bf16",
    "models: {a: {layout: hwc}}": "models.a.layout: is 'hwc'; must be one of nchw, nhwc",
    "models: {a: {folded: 1}}": "models.a.folded: is 1; must be true or false",
    "models: {a: {compiled: 1}}": "models.a.compiled: is 1; must be true or false",
    "models: {a: 3}": "models.a: is 3; must be a mapping",
    "models: [a]": "models: is ['a']; must be a mapping",
    "[a]": "is ['a']; must be a mapping",
    "{": "is not YAML",
}


@pytest.mark.parametrize("text", WRONG, ids=str)
def test_an_error_names_the_key_and_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(TunedError) as error:
        read_tuned(write(tmp_path, text))
    assert WRONG[text] in str(error.value)
    assert "workers.yaml" in str(error.value)


def test_an_error_names_every_problem_at_once(tmp_path: Path) -> None:
    with pytest.raises(TunedError, match=r"models\.a\.workers: is.*models\.b\.layout: is"):
        read_tuned(write(tmp_path, "models: {a: {workers: no}, b: {layout: 7}}"))


def test_an_error_for_a_missing_file_names_the_command_that_writes_it(tmp_path: Path) -> None:
    with pytest.raises(TunedError, match="fount tune NAME"):
        read_tuned(tmp_path / "none.yaml")


def test_code_in_the_file_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(TunedError, match=r"has a YAML tag \(!\) on line 1"):
        read_tuned(write(tmp_path, "models: !!python/object/apply:os.getcwd []"))
