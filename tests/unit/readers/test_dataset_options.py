"""--data-set and --data-sets: the settings they give, and that every problem is reported at once."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from fount.cli.main import main
from fount.transforms import Kind, Transform
from service.datasets import configuration
from service.datasets.configuration import configured_datasets
from service.errors import SetupError

WHOLE = """
faces:
  path: faces
  format: folder
  classes: [young, old]
  group: groups.csv
  held_out: 0.1
  size: [32, 24]
  channels: 1
  background: black
  classifier: faces-classifier
  licence: CC0
  max_bytes: 1000
  policy: [{flip-horizontal: true, probability: 0.5}, {rotate: [5, 15]}]
"""


def configured(tmp_path: Path, text: str):
    (tmp_path / "sets.yaml").write_text(text)
    return configured_datasets((), tmp_path / "sets.yaml")


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(SetupError) as refused:
        configured(tmp_path, text)
    return str(refused.value).removeprefix(f"{tmp_path}/")


def test_every_key_is_a_setting(tmp_path: Path) -> None:
    (faces,) = configured(tmp_path, WHOLE)
    source = faces.source
    assert (source.name, source.path, source.format) == ("faces", tmp_path / "faces", "folder")
    assert (source.classes, source.group, source.held_out) == (("young", "old"), "groups.csv", 0.1)
    assert (source.size, source.channels, source.background) == ((32, 24), 1, "black")
    assert source.limits.max_bytes == 1000
    assert (faces.classifier, source.licence) == ("faces-classifier", "CC0")


def test_every_key_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "augmentation.md").read_text()
    table = text[text.index("| key | meaning | unset |") :].partition("\n\n")[0]
    keys = {each.name for each in dataclasses.fields(configuration._Entry)}
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == keys


def test_a_policy_is_read(tmp_path: Path) -> None:
    (faces,) = configured(tmp_path, WHOLE)
    flip = Transform(kind=Kind.FLIP_HORIZONTAL, probability=0.5)
    assert faces.policy is not None
    assert faces.policy.transforms == (flip, Transform(kind=Kind.ROTATE, min=5, max=15))


def test_a_pair_is_a_name_and_a_path() -> None:
    (mnist,) = configured_datasets(["mnist=data/mnist"], None)
    assert (mnist.name, mnist.source.path, mnist.source.format) == ("mnist", Path("data/mnist"), "auto")


WRONG = {
    "unknown key": ("{path: x, formt: npz}", "a.formt: unknown key; did you mean 'format'?"),
    "no path": ("{format: npz}", "a.path: missing; add this key"),
    "unknown format": ("{path: x, format: foldr}", "a.format: is 'foldr'; must be one of auto, idx, npz, folder"),
    "share": ("{path: x, held_out: 1.5}", "a.held_out: is 1.5; must be between 0 and 1"),
    "share of no number": ("{path: x, held_out: much}", "a.held_out: is 'much'; must be a finite number"),
    "size": ("{path: x, size: 32}", "a.size: is 32; must be [height, width], as in [32, 32]"),
    "size of too many": ("{path: x, size: [1, 2, 3]}", "a.size: is [1, 2, 3]; must be [height, width]"),
    "side": ("{path: x, size: [0, 5000]}", "a.size[1]: is 5000; must be 1 to 4096 pixels"),
    "channels": ("{path: x, channels: 2}", "a.channels: is 2; must be one of 1, 3"),
    "background": ("{path: x, background: red}", "a.background: is 'red'; must be one of white, black"),
    "class without text": ("{path: x, classes: [a, null]}", "a.classes[1]: is None; must be text: put it in quotes"),
    "classes": ("{path: x, classes: [[1], 2]}", "a.classes[0]: is [1]; must be text"),
    "bytes": ("{path: x, max_bytes: 0}", "a.max_bytes: is 0; must be 1 or more"),
    "policy": ("{path: x, policy: rotate}", "a.policy: is 'rotate'; must be a list like"),
    "kind": ("{path: x, policy: [{rotat: [0, 3]}]}", "a.policy[0].rotat: unknown key; did you mean 'rotate'?"),
    "transform range": ("{path: x, policy: [{rotate: [0, 999]}]}", "a.policy[0].rotate"),
    "transform value": ("{path: x, policy: [{rotate: [0, far]}]}", "a.policy[0].rotate[1]: is 'far'; must be"),
    "no mapping": ("x", "a: is 'x'; must be a mapping"),
}


@pytest.mark.parametrize(("keys", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_setting_is_named_with_its_path(tmp_path: Path, keys: str, message: str) -> None:
    assert message in refusal(tmp_path, f"a: {keys}")


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, "a: {formt: npz}\nb c: {path: x, size: 0}")
    expected = ("a.formt: ", "a.path: ", "'b c' is not a valid name", "b c.size: ")
    assert [part for part in expected if part not in message] == []


def test_class_names_are_the_text_as_written(tmp_path: Path) -> None:
    (found,) = configured(tmp_path, "a: {path: x, classes: [010, 1.10, 1e3, 0x1F, True, no, 8], licence: 1.0}")
    assert found.source.classes == ("010", "1.10", "1e3", "0x1F", "True", "no", "8")
    assert found.source.licence == "1.0"


def test_aliases_are_refused_before_they_grow(tmp_path: Path) -> None:
    levels = (f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 8))
    assert "has a YAML anchor (&) on line 1" in refusal(tmp_path, "a0: &a0 [x]\n" + "".join(levels))


@pytest.mark.parametrize("pair", ["mnist", "=x", "mnist="])
def test_a_pair_without_name_or_path_is_refused(pair: str) -> None:
    with pytest.raises(SetupError, match="is not NAME=PATH, as in mnist=data/mnist"):
        configured_datasets([pair], None)


def test_the_built_in_name_is_taken() -> None:
    with pytest.raises(SetupError, match="'digits' is built in; give the data set another name"):
        configured_datasets(["digits=x"], None)


def test_a_name_configured_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sets.yaml").write_text("a: {path: x}")
    with pytest.raises(SetupError, match="data set 'a' is configured twice"):
        configured_datasets(["a=y"], tmp_path / "sets.yaml")


@pytest.mark.parametrize("text", ["[", "- a", "", "!!python/object:os.system x"])
def test_a_file_without_data_sets_is_refused(tmp_path: Path, text: str) -> None:
    assert "sets.yaml" in refusal(tmp_path, text)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"nowhere.yaml cannot be read: No such file or directory; check --data-sets"):
        configured_datasets((), tmp_path / "nowhere.yaml")


def test_the_gateway_refuses_to_start_with_wrong_settings(tmp_path: Path) -> None:
    (tmp_path / "sets.yaml").write_text("a: {pth: x}")
    result = CliRunner().invoke(main, ["gateway", "--torchserve", "x:1/2", "--data-sets", str(tmp_path / "sets.yaml")])
    assert (result.exit_code, "a.pth: unknown key; did you mean 'path'?" in " ".join(result.stderr.split())) == (
        2,
        True,
    )
