"""What `fount new` asks for, and the card with every key explained that comes of it."""

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
from handlers.scaffold.template import FAMILIES, Wish, WishError, card_of


def wish(**changes) -> Wish:
    usual = {"name": "shapes", "height": 32, "width": 24, "channels": 3, "classes": (), "latent_dim": 100}
    return Wish(**({"family": "module"} | usual | changes))


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


def test_every_key_of_the_schema_is_explained_and_no_other() -> None:
    assert sorted(KEY_COMMENTS) == sorted(keys_of(Card))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_card_with_comments_is_the_card(tmp_path: Path, family: str) -> None:
    card = card_of(wish(family=family, classes=("no", "1.0", "a: b")[: 0 if family == "vae" else 3]))
    (tmp_path / "model.yaml").write_text(card_to_text(card), encoding="utf-8")
    assert load_card(tmp_path) == card


def test_every_key_stands_below_a_comment() -> None:
    lines = card_to_text(card_of(wish())).splitlines()
    bare = [line.removeprefix("# ") for line in lines]
    for key in sorted({name.rpartition(".")[2] for name in KEY_COMMENTS}):
        places = [i for i, line in enumerate(bare) if re.match(rf"( *|- |  # ){key}:", line)]
        assert places, key
        assert all("# " in lines[i - 1] for i in places), key


def test_optional_keys_become_valid_when_their_comment_sign_goes(tmp_path: Path) -> None:
    text = card_to_text(card_of(wish()))
    start = text.index("# recipe:")
    blocks = text[start:].split("\n\n")
    freed = re.sub("^# (?=recipe|quality|  |-)", "", "\n\n".join(blocks[:2]), flags=re.M)
    (tmp_path / "model.yaml").write_text(text[:start] + freed + "\n\n" + "\n\n".join(blocks[2:]), encoding="utf-8")
    card = load_card(tmp_path)
    assert card.recipe is not None
    assert [quality.metric for quality in card.quality] == ["label-accuracy"]


@pytest.mark.parametrize(
    ("name", "near"),
    [("Shapes GAN", "; try shapes-gan"), ("../up", "; try up"), ("7", ""), ("x" * 65, f"; try {'x' * 64}"), ("", "")],
)
def test_a_name_no_client_could_use_is_refused_with_one_near_it(name: str, near: str) -> None:
    with pytest.raises(WishError) as told:
        wish(name=name)
    assert str(told.value).endswith(f"must be a lower-case letter, then a-z, 0-9 and -, 64 characters at most{near}")


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"family": "conditional-gan"}, "name them with --labels"),
        ({"family": "vae", "classes": ("a",)}, "use --family conditional-vae, or leave --labels out"),
        ({"family": "vae", "width": 23}, "ask for an even --size, or use --family module"),
        ({"height": 99999, "width": 99999}, "ask for a smaller --size"),
    ],
)
def test_a_wish_that_contradicts_itself_is_told_with_the_remedy(changes, remedy: str) -> None:
    with pytest.raises(WishError, match=remedy):
        card_of(wish(**changes))


@pytest.mark.parametrize(
    "arguments", [("--size", "0"), ("--size", "8x8x3"), ("--channels", "0"), ("--labels", "99999")]
)
def test_an_option_that_cannot_be_read_is_a_mistake_of_usage(arguments: tuple[str, str]) -> None:
    told = CliRunner().invoke(new, ["shapes", *arguments])
    assert told.exit_code == 2
    assert arguments[0] in told.output
