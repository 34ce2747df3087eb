"""Validation of the options of `fount new`, and its card with a comment for every key."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import pytest
from click.testing import CliRunner

from handlers.cards.card import Card, load_card
from handlers.cli.new import new
from handlers.scaffold.card_text import KEY_COMMENTS, card_to_text
from handlers.scaffold.template import FAMILIES, ModelTemplate, TemplateError, template_to_card


def template(**changes) -> ModelTemplate:
    usual = {"name": "shapes", "height": 32, "width": 24, "channels": 3, "classes": (), "latent_dim": 100}
    return ModelTemplate(**({"family": "module"} | usual | changes))


def records_in(hint: object) -> Iterator[type]:
    """The dataclasses within a type annotation."""
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        yield hint
    for argument in get_args(hint) if get_origin(hint) else ():
        yield from records_in(argument)


def keys_of(record: type, prefix: str = "") -> Iterator[str]:
    for name, hint in get_type_hints(record).items():
        yield prefix + name
        for inner in records_in(hint):
            yield from keys_of(inner, f"{prefix}{name}.")


def test_every_key_of_the_schema_has_a_comment() -> None:
    assert sorted(KEY_COMMENTS) == sorted(keys_of(Card))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_card_with_comments_reads_as_the_card(tmp_path: Path, family: str) -> None:
    card = template_to_card(template(family=family, classes=("no", "1.0", "a: b")[: 0 if family == "vae" else 3]))
    (tmp_path / "model.yaml").write_text(card_to_text(card), encoding="utf-8")
    assert load_card(tmp_path) == card


def test_every_key_is_below_a_comment() -> None:
    lines = card_to_text(template_to_card(template())).splitlines()
    bare = [line.removeprefix("# ") for line in lines]
    for key in sorted({name.rpartition(".")[2] for name in KEY_COMMENTS}):
        places = [i for i, line in enumerate(bare) if re.match(rf"( *|- |  # ){key}:", line)]
        assert places, key
        assert all("# " in lines[i - 1] for i in places), key


def test_optional_keys_are_valid_when_uncommented(tmp_path: Path) -> None:
    text = card_to_text(template_to_card(template()))
    start = text.index("# recipe:")
    blocks = text[start:].split("\n\n")
    uncommented = re.sub("^# (?=recipe|quality|  |-)", "", "\n\n".join(blocks[:2]), flags=re.M)
    (tmp_path / "model.yaml").write_text(
        text[:start] + uncommented + "\n\n" + "\n\n".join(blocks[2:]), encoding="utf-8"
    )
    card = load_card(tmp_path)
    assert card.recipe is not None
    assert [quality.metric for quality in card.quality] == ["label-accuracy"]


@pytest.mark.parametrize(
    ("name", "near"),
    [("Shapes GAN", "; try shapes-gan"), ("../up", "; try up"), ("7", ""), ("x" * 65, f"; try {'x' * 64}"), ("", "")],
)
def test_an_invalid_name_is_refused_with_a_suggestion(name: str, near: str) -> None:
    with pytest.raises(TemplateError) as error:
        template(name=name)
    assert str(error.value).endswith(f"must be a lower-case letter, then a-z, 0-9 and -, 64 characters at most{near}")


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"family": "conditional-gan"}, "name them with --labels"),
        ({"family": "vae", "classes": ("a",)}, "use --family conditional-vae, or leave --labels out"),
        ({"family": "vae", "width": 23}, "use an even --size, or use --family module"),
        ({"height": 99999, "width": 99999}, "use a smaller --size"),
    ],
)
def test_contradicting_options_are_refused_with_the_remedy(changes, remedy: str) -> None:
    with pytest.raises(TemplateError, match=remedy):
        template_to_card(template(**changes))


@pytest.mark.parametrize(
    "arguments", [("--size", "0"), ("--size", "8x8x3"), ("--channels", "0"), ("--labels", "99999")]
)
def test_an_invalid_option_is_a_usage_error(arguments: tuple[str, str]) -> None:
    result = CliRunner().invoke(new, ["shapes", *arguments])
    assert result.exit_code == 2
    assert arguments[0] in result.output
