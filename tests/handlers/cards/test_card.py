"""Model cards and model digests."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from handlers.cards.card import CardError, Parameter, load_card, write_card
from handlers.cards.digests import check_weights, file_digest, model_digest

MODEL_STORE = Path(__file__).resolve().parents[3] / "model_store"
SHIPPED = ("digits-classifier", "digits-cvae", "digits-vae")
WEIGHTS = b"weights"

Plain = dict[str, Any]


def plain_card() -> Plain:
    digest = "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()
    return {
        "name": "toy",
        "version": "1.0",
        "description": "A toy.",
        "family": {"name": "conditional-vae", "config": {"latent_dim": 2}},
        "operations": ["SAMPLE"],
        "classes": ["a", "b"],
        "prior": [0.25, 0.75],
        "sample": {"modality": "image", "height": 8, "width": 4, "channels": 1, "value_range": [0, 1]},
        "parameters": {"truncation": {"min": 0.5, "max": 4, "default": None, "description": "Bounds z."}},
        "encodings": ["UINT8", "PNG"],
        "limits": {"max_count": 100, "max_labels": 10, "max_exec_batch": 4},
        "precisions": ["fp32"],
        "recipe": {"name": "toy", "seed": 0, "steps": 1, "data": "none", "data_digest": digest},
        "quality": [{"metric": "accuracy", "value": 0.5, "interval": [0.4, 0.6], "method": "Counted."}],
        "data_licence": "none",
        "intended_use": "tests",
        "weights": {"file": "weights.safetensors", "digest": digest},
        "golden": {"file": "golden.safetensors"},
    }


def write(folder: Path, plain: Plain) -> Path:
    (folder / "weights.safetensors").write_bytes(WEIGHTS)
    (folder / "model.yaml").write_text(yaml.safe_dump(plain))
    return folder


def problems_of(folder: Path, change: Callable[[Plain], object]) -> list[str]:
    plain = plain_card()
    change(plain)
    with pytest.raises(CardError) as caught:
        load_card(write(folder, plain))
    return [str(problem) for problem in caught.value.problems]


# --- What is read -----------------------------------------------------------------------------------------------------


def test_a_whole_card_is_read(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, plain_card()))
    assert (card.name, card.version, card.family.config) == ("toy", "1.0", {"latent_dim": 2})
    assert (card.classes, card.prior) == (("a", "b"), (0.25, 0.75))
    assert card.parameters["truncation"].default is None
    assert card.quality[0].real_value is None


def test_an_integer_is_read_as_a_float(tmp_path: Path) -> None:
    ends = load_card(write(tmp_path, plain_card())).sample.value_range
    assert (ends, type(ends[0])) == ((0.0, 1.0), float)


def test_an_unconditional_model_has_neither_classes_nor_prior(tmp_path: Path) -> None:
    plain = plain_card()
    del plain["classes"], plain["prior"]
    card = load_card(write(tmp_path, plain))
    assert (card.classes, card.prior) == ((), ())


def test_optional_keys_may_be_absent(tmp_path: Path) -> None:
    plain = plain_card()
    del plain["recipe"], plain["quality"], plain["golden"], plain["weights"]["digest"]
    card = load_card(write(tmp_path, plain))
    assert (card.recipe, card.quality, card.golden.file) == (None, (), "golden.safetensors")
    assert check_weights(card, tmp_path) == file_digest(tmp_path / "weights.safetensors")


def test_a_class_name_may_be_any_printable_text(tmp_path: Path) -> None:
    plain = plain_card() | {"classes": ["../x", "<script>"]}
    assert load_card(write(tmp_path, plain)).classes == ("../x", "<script>")


def test_a_written_card_is_read_back_equal(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, plain_card()))
    write_card(card, tmp_path)
    assert load_card(tmp_path) == card


def test_class_names_that_look_like_numbers_are_read_back_equal(tmp_path: Path) -> None:
    names = ["010", "1e3", "0o7", "0x10", "1_000", "true", "no", "null", "~", "2024-01-01", "1:30", "<<", "8"]
    plain = plain_card() | {"classes": names, "prior": [0.5, 0.5] + [0.0] * (len(names) - 2)}
    card = load_card(write(tmp_path, plain))
    write_card(card, tmp_path)
    assert load_card(tmp_path).classes == tuple(names)


def test_a_card_is_written_in_the_order_of_its_fields_without_options_at_their_defaults(tmp_path: Path) -> None:
    plain = plain_card()
    del plain["classes"], plain["prior"], plain["golden"]
    write_card(load_card(write(tmp_path, plain)), tmp_path)
    written = yaml.safe_load((tmp_path / "model.yaml").read_text())
    assert list(written) == list(plain)


# --- What is refused --------------------------------------------------------------------------------------------------


def set_at(*path: Any) -> Callable[[Plain], None]:
    """Set the value at a path of keys; the last item is the value."""
    *keys, last, value = path

    def change(plain: Plain) -> None:
        for key in keys:
            plain = plain[key]
        plain[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda plain: plain["limits"].update(max_cuont=plain["limits"].pop("max_count")),
            "limits.max_cuont: unknown key; did you mean 'max_count'?",
            id="a misspelt key",
        ),
        pytest.param(set_at("golden", "zzz", 1), "golden.zzz: unknown key; known keys: file", id="a key like no other"),
        pytest.param(
            lambda plain: plain.pop("intended_use"), "intended_use: missing; add this key", id="a missing key"
        ),
        pytest.param(
            set_at("version", "1.0-beta"),
            "version: is '1.0-beta'; must be digits and dots, like \"1.0\"",
            id="a version with letters",
        ),
        pytest.param(
            set_at("name", "Toy"),
            "name: is 'Toy'; must be a lower-case letter, then a-z, 0-9 and -, 64 characters at most",
            id="an upper-case name",
        ),
        pytest.param(
            set_at("operations", ["SAMPEL"]),
            "operations[0]: is 'SAMPEL'; must be one of SAMPLE, CLASSIFY, EMBED, TRANSFORM, ENCODE, DECODE, "
            "TRANSLATE, SCORE; did you mean SAMPLE?",
            id="a misspelt operation",
        ),
        pytest.param(
            set_at("operations", ["SAMPLE", "TRANSFORM"]),
            "operations: is ['SAMPLE', 'TRANSFORM']; a transformer has no other operation and no classes:"
            " set it to [TRANSFORM], and remove classes",
            id="a transformer that samples",
        ),
        pytest.param(
            set_at("weights", "file", "../weights.safetensors"),
            "weights.file: is '../weights.safetensors'; must be a plain file name in the card's folder, without a path",
            id="a path for a file",
        ),
        pytest.param(
            set_at("prior", [0.5, 0.6]), "prior: sums to 1.1; must be weights of 0 or more that sum to 1", id="a sum"
        ),
        pytest.param(
            lambda plain: plain.pop("prior"),
            "prior: has 0 weights; must have 2, one for each class of a model that samples",
            id="classes without a prior",
        ),
        pytest.param(
            set_at("encodings", []),
            "encodings: is []; must list the encodings it offers when operations has SAMPLE or TRANSLATE, else be []",
            id="samples without an encoding",
        ),
        pytest.param(
            set_at("parameters", "truncation", "default", 9),
            "parameters.truncation.default: is 9; must be within min and max, or null",
            id="a default out of range",
        ),
        pytest.param(
            set_at("precisions", ["bf16"]), "precisions: is ['bf16']; must list fp32", id="no single precision"
        ),
        pytest.param(
            set_at("quality", 0, "value", float("nan")),
            "quality[0].value: is '.nan'; must be a finite number",
            id="a value that is no number",
        ),
        pytest.param(
            set_at("quality", 0, "interval", [0.6, 0.4]),
            "quality[0].interval: is [0.6, 0.4]; must have the lower end first",
            id="an interval upside down",
        ),
        pytest.param(
            set_at("classes", ["a", "b\n"]),
            r"classes[1]: is 'b\n'; must be text of 128 characters at most, without control characters or space at its "
            "ends",
            id="a class with a line break",
        ),
        pytest.param(
            set_at("classes", ["a", "b" * 129]),
            f"classes[1]: is '{'b' * 56}...; must be text of 128 characters at most, without control characters or "
            "space at its ends",
            id="a long class",
        ),
        pytest.param(set_at("limits", "max_count", 0), "limits.max_count: is 0; must be 1 or more", id="a limit of 0"),
        pytest.param(
            set_at("limits", "max_count", True),
            "limits.max_count: is True; must be a whole number",
            id="a truth for a number",
        ),
    ],
)
def test_an_invalid_card_reports_place_problem_and_remedy(
    tmp_path: Path, change: Callable[[Plain], object], message: str
) -> None:
    assert problems_of(tmp_path, change) == [message]


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    def change(plain: Plain) -> None:
        plain["nmae"] = plain.pop("name")
        plain["sample"]["height"] = "8"
        plain["prior"] = [1.0]

    assert problems_of(tmp_path, change) == [
        "sample.height: is '8'; must be a whole number",
        "nmae: unknown key; did you mean 'name'?",
    ]


def test_an_absent_card_is_reported(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"model.yaml: 1 problem\n  cannot be read: No such file or directory"):
        load_card(tmp_path)


def test_a_card_of_more_than_a_mebibyte_is_not_parsed(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text("#" * (2**20 + 1))
    with pytest.raises(CardError, match="is larger than 1048576 bytes"):
        load_card(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("name: [", "is not YAML", id="broken"),
        pytest.param("a: &x [1]\nb: *x", r"has a YAML anchor \(&\) on line 1; leave it out", id="with an anchor"),
        pytest.param("!!python/object/apply:os.getcwd []", r"has a YAML tag \(!\) on line 1", id="with code"),
        pytest.param("- 1", r"is \[1\]; must be a mapping", id="a list"),
    ],
)
def test_a_file_that_is_not_a_plain_mapping_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(CardError, match=message):
        load_card(tmp_path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("name: a\nname: b\n", "name: occurs on lines 1 and 2; keep one of them", id="at the top"),
        pytest.param("family: {config: {x: 1, x: 2}}\n", "family.config.x: occurs twice on line 1", id="within"),
        pytest.param("quality: [{x: a}, {x: a, x: b}]\n", r"quality\[1\].x: occurs twice on line 1", id="in a list"),
    ],
)
def test_a_repeated_key_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(CardError, match=f"1 problem\n  {problem}"):
        load_card(tmp_path)


def test_versions_and_classes_are_the_text_as_written(tmp_path: Path) -> None:
    text = yaml.safe_dump(plain_card() | {"version": "VERSION", "classes": "CLASSES"})
    text = text.replace("VERSION", "1.10").replace("CLASSES", "[00014, 1e3]")
    (tmp_path / "model.yaml").write_text(text)
    assert (load_card(tmp_path).version, load_card(tmp_path).classes) == ("1.10", ("00014", "1e3"))


# --- The shipped models -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_card_matches_its_weights(name: str) -> None:
    folder = MODEL_STORE / name
    card = load_card(folder)
    check_weights(card, folder)
    assert card.name == name
    assert card.weights.digest == file_digest(folder / "weights.safetensors")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_small(name: str) -> None:
    assert (MODEL_STORE / name / "weights.safetensors").stat().st_size <= 300_000


# --- Model digests ----------------------------------------------------------------------------------------------------


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, plain_card()))
    (tmp_path / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(CardError, match=r"weights.digest: weights.safetensors has sha256:d9298a10"):
        check_weights(card, tmp_path)


def test_absent_weights_are_reported(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, plain_card()))
    (tmp_path / "weights.safetensors").unlink()
    with pytest.raises(CardError, match=r"weights.file: weights.safetensors is not in .*; put it next to the card"):
        check_weights(card, tmp_path)


def test_a_model_digest_is_the_hash_of_canonical_json(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("source")
    digest = model_digest(load_card(write(tmp_path, plain_card())), tmp_path, source)
    canonical = (
        '{"config":{"classes":["a","b"],"config":{"latent_dim":2},"defaults":{"truncation":null},"family":"conditional-vae","max_exec_batch":4,'
        '"operations":["SAMPLE"],"prior":[0.25,0.75],'
        '"sample":{"channels":1,"height":8,"modality":"image","value_range":[0.0,1.0],"width":4}},'
        '"execution":"execution-1","noise":"philox4x32-10/box-muller-1","source":"SOURCE","weights":"WEIGHTS"}'
    )
    for word, content in (("SOURCE", b"source"), ("WEIGHTS", WEIGHTS)):
        canonical = canonical.replace(word, "sha256:" + hashlib.sha256(content).hexdigest())
    assert digest == "sha256:" + hashlib.sha256(canonical.encode()).hexdigest()


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"classes": ("a", "c")}, id="classes"),
        pytest.param({"operations": ("CLASSIFY",)}, id="operations"),
        pytest.param({"prior": (0.5, 0.5)}, id="prior"),
        pytest.param(
            {"parameters": {"truncation": Parameter(min=0.5, max=4.0, default=2.0, description="Bounds z.")}},
            id="a default",
        ),
    ],
)
def test_a_model_digest_changes_with_what_is_served(tmp_path: Path, change: dict[str, Any]) -> None:
    card = load_card(write(tmp_path, plain_card()))
    assert model_digest(dataclasses.replace(card, **change), tmp_path) != model_digest(card, tmp_path)


def test_a_model_digest_changes_with_the_execution_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = load_card(write(tmp_path, plain_card()))
    before = model_digest(card, tmp_path)
    monkeypatch.setattr("handlers.cards.digests.EXECUTION_VERSION", "execution-2")
    assert model_digest(card, tmp_path) != before


def test_a_model_digest_does_not_depend_on_measurements(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, plain_card()))
    other = dataclasses.replace(card, quality=(), description="Another.", version="2.0")
    assert model_digest(other, tmp_path) == model_digest(card, tmp_path)


def test_class_names_are_composed(tmp_path: Path) -> None:
    card = load_card(write(tmp_path, plain_card() | {"classes": ["cafe\u0301", "b"]}))
    assert card.classes == ("caf\u00e9", "b")


def test_a_class_name_in_two_forms_of_unicode_is_a_repetition(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, lambda plain: plain.update(classes=["cafe\u0301", "caf\u00e9"]))
    assert problem.startswith("classes: ")
    assert problem.endswith("must be free of repetitions")
