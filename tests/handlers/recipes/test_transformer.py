"""Transformers of pictures and text: exact sums over all small inputs, causality, and draws that steps never change."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fount.address import Addresses, Stream
from handlers.discrete import draw_values
from handlers.family import Deadline, Draw, Given, Noise
from handlers.models import load_family
from handlers.models.transformer import CausalTransformer, ImageTransformer, TextTransformer
from handlers.stepping import GivenStepsSampler, ManyStepSampler, take_steps

CORE: dict[str, Any] = {"layers": 2, "features": 16, "heads": 2}
PIXELS = {**CORE, "height": 2, "width": 2, "channels": 1, "classes": 3, "patch": 1, "levels": 2, "run": 1}
PATCHES = {**PIXELS, "height": 8, "width": 8, "patch": 2, "levels": 4, "run": 3}  # 16 tokens, the last step has one
TEXT = {**CORE, "length": 4, "run": 3, "alphabet": "ab"}
LONG = {**TEXT, "length": 20, "run": 6, "alphabet": "abcdefg"}
PICTURE, WORD = partial(load_family, "image-transformer"), partial(load_family, "text-transformer")
OFF = Deadline()


def build(config: Mapping[str, Any], seed: int = 0) -> CausalTransformer:
    """Build a module whose probabilities are far from equal."""
    torch.manual_seed(seed)
    module = (PICTURE if "height" in config else WORD)(config)
    assert isinstance(module, CausalTransformer)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.4)
    return module.eval().requires_grad_(False)


def noise(count: int, start: int = 0) -> Noise:
    return Noise(addresses=Addresses.of_range(5, start, count), device=torch.device("cpu"))


def draw(module: CausalTransformer, labels: Tensor | None = None, count: int = 8, **parameters: Any) -> Tensor:
    return module.sample(noise(count), labels, Draw(**parameters), OFF)


def score(module: CausalTransformer, rows: Tensor, labels: Tensor | None = None) -> Tensor:
    return module.score(rows, labels, noise(len(rows)), Draw(), OFF)[:, 0]


def texts(*words: bytes) -> Tensor:
    return torch.tensor([list(word) for word in words]).float()


def spread(module: CausalTransformer, flags: Tensor) -> Tensor:
    """Turn flags of tokens, (B, T), into flags of values."""
    return module._write(flags * (module.values - 1)) > 0


def labels_of(module: CausalTransformer, count: int = 8) -> Tensor | None:
    return torch.arange(count) % 3 if isinstance(module, ImageTransformer) else None


BOTH = pytest.mark.parametrize("config", [PATCHES, LONG], ids=["image", "text"])

# --- Likelihoods ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [0, 2, None])
@pytest.mark.parametrize(("patch", "side"), [(1, 2), (2, 2), (1, 3)])
def test_probabilities_of_all_binary_pictures_add_up_to_1(label: int | None, patch: int, side: int) -> None:
    module = build({**PIXELS, "patch": patch, "height": side, "width": side})
    pictures = torch.tensor(list(itertools.product([0.0, 1.0], repeat=side**2))).view(-1, 1, side, side)
    labels = None if label is None else torch.full((len(pictures),), label)
    assert float(score(module, pictures, labels).double().exp().sum()) == pytest.approx(1, abs=1e-5)


def test_probabilities_of_all_texts_of_the_alphabet_add_up_to_1() -> None:
    words = texts(*(bytes(word) for word in itertools.product(b"ab", repeat=4)))
    assert float(score(build(TEXT), words).double().exp().sum()) == pytest.approx(1, abs=1e-5)


def test_a_text_outside_the_alphabet_has_a_finite_score_that_no_other_one_comes_near() -> None:
    assert -10_100 < float(score(build(TEXT), texts(b"axab"))) < -9900


def test_a_padded_text_has_the_probability_of_all_that_begin_with_it() -> None:
    longer = texts(*(b"ba" + bytes(word) for word in itertools.product(b"ab", repeat=2)))
    expected = float(score(build(TEXT), longer).logsumexp(dim=0))
    assert float(score(build(TEXT), texts(b"ba\0\0"))) == pytest.approx(expected, abs=1e-4)


def test_grey_levels_are_scored_as_the_nearest_level() -> None:
    module = build(PATCHES)
    exact = torch.tensor([0.0, 1 / 3, 2 / 3, 1.0]).repeat(2, 1, 8, 2)
    torch.testing.assert_close(score(module, (exact + 0.1).clamp(max=1)), score(module, exact), rtol=0, atol=0)


def test_a_score_without_labels_is_that_of_the_label_after_the_last_class() -> None:
    module, pictures = build(PATCHES), torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    none = module.log_likelihood(pictures, torch.tensor([3, 3]))
    assert torch.equal(none, score(module, pictures))
    assert not torch.allclose(none, score(module, pictures, torch.tensor([0, 0])))


@BOTH
def test_a_score_is_the_sum_of_the_log_probabilities_of_the_steps(config: Mapping[str, Any]) -> None:
    module = build(config)
    labels = labels_of(module)
    rows = draw(module, labels)
    tokens, _ = module._read(rows)
    parts = []
    for position in range(module.tokens):
        before = torch.cat([tokens[:, :position], torch.zeros_like(tokens[:, position:])], dim=1)  # later ones unknown
        logits = module.logits(before, labels)[:, position]
        parts.append(torch.log_softmax(logits, dim=1).gather(1, tokens[:, position, None])[:, 0])
    torch.testing.assert_close(score(module, rows, labels), torch.stack(parts).sum(dim=0), rtol=0, atol=1e-4)


# --- The network ------------------------------------------------------------------------------------------------------


@BOTH
def test_logits_depend_on_all_tokens_before_them_and_on_no_other(config: Mapping[str, Any]) -> None:
    module, position, vectors = build(config), 9, list[Tensor]()
    module.embedding.register_forward_hook(lambda _module, _args, out: vectors.append(out.requires_grad_()) or out)
    tokens = torch.ones(1, module.tokens, dtype=torch.int64)
    with torch.enable_grad():
        module.logits(tokens, None)[0, position].square().sum().backward()
    assert vectors[0].grad is not None
    reached = vectors[0].grad[0].abs().sum(dim=1) > 0  # (T - 1,)
    assert reached.tolist() == [True] * position + [False] * (module.tokens - 1 - position)


@pytest.mark.parametrize("table", ["row_positions", "column_positions"])
def test_both_coordinates_of_a_place_change_its_probabilities(table: str) -> None:
    module, pictures = build(PATCHES), torch.zeros(1, 1, 8, 8)
    before = score(module, pictures)
    getattr(module, table).zero_()
    assert not torch.allclose(score(module, pictures), before)


def test_places_are_described_by_the_sum_of_their_row_and_their_column() -> None:
    module = build(PATCHES)
    nn.init.zeros_(module.class_positions.weight)
    positions = module._positions(None).view(4, 4, -1)
    torch.testing.assert_close(positions[0, 1] - positions[0, 3], positions[2, 1] - positions[2, 3])
    assert not torch.equal(positions[0, 1], positions[1, 0])


def test_a_picture_survives_its_way_into_tokens_and_back() -> None:
    module = load_family("image-transformer", {**PATCHES, "channels": 2, "levels": 2, "width": 6})
    assert isinstance(module, ImageTransformer)
    pictures = torch.randint(0, 2, (3, 2, 8, 6), generator=torch.Generator().manual_seed(0)).float()
    tokens, is_given = module._read(pictures)
    assert tokens.shape == (3, 12)
    assert bool(is_given.all())
    assert torch.equal(module._write(tokens), pictures)


# --- Draws ------------------------------------------------------------------------------------------------------------


@BOTH
def test_cached_draws_are_those_without_a_cache(config: Mapping[str, Any]) -> None:
    module = build(config)
    labels = labels_of(module)
    tokens = torch.zeros(8, module.tokens, dtype=torch.int64)
    for position in range(module.tokens):
        step, column = divmod(position, module.run)
        uniforms = noise(8).uniform(Stream.STEP, module.run, step=step)[:, column]
        tokens[:, position] = draw_values(module.logits(tokens, labels)[:, position], uniforms, Draw())
    assert torch.equal(draw(module, labels), module._write(tokens))
    assert len(tokens.unique(dim=0)) == 8


@BOTH
def test_draws_cut_at_any_step_are_uncut_ones(config: Mapping[str, Any]) -> None:
    module = build(config)
    labels, whole, steps = labels_of(module), draw(module, labels_of(module)), module.steps(Draw())
    for cut in range(1, steps):
        first = take_steps(module, None, range(cut), noise(8), labels, Draw(), OFF)
        rest = take_steps(module, first[3:], range(cut, steps), noise(5, 3), _take(labels), Draw(), OFF)
        assert torch.equal(module.finish(rest), whole[3:])


def _take(labels: Tensor | None) -> Tensor | None:
    return None if labels is None else labels[3:]


@BOTH
@pytest.mark.parametrize("tokens", [1, 4, 7, 12])
def test_a_prefix_of_a_draw_is_continued_as_the_draw_was(config: Mapping[str, Any], tokens: int) -> None:
    module = build(config)
    labels = labels_of(module)
    whole = draw(module, labels)
    mask = spread(module, (torch.arange(module.tokens) < tokens).expand(8, -1)).float()
    state = module.begin_given(Given(values=whole, mask=mask), noise(8), labels, Draw())
    steps = range(module.steps(Draw()))
    assert torch.equal(module.finish(take_steps(module, state, steps, noise(8), labels, Draw(), OFF)), whole)


def test_given_pixels_keep_their_grey_levels_and_change_what_follows() -> None:
    module, mask = build(PATCHES), torch.zeros(2, 1, 8, 8)
    mask[:, :, :4] = 1
    ends = []
    for value in (0.2, 0.9):
        given = Given(values=torch.full((2, 1, 8, 8), value), mask=mask)
        state = module.begin_given(given, noise(2), None, Draw())
        ends.append(module.finish(take_steps(module, state, range(6), noise(2), None, Draw(), OFF)))
        assert torch.equal(ends[-1][:, :, :4], given.values[:, :, :4])
    assert not torch.equal(ends[0][:, :, 4:], ends[1][:, :, 4:])


@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_steps_that_were_left_out_count_as_0(fill: float) -> None:
    module = build(PATCHES)
    state = module.begin(noise(4), None, Draw())
    before = spread(module, (torch.arange(16) < 6).expand(4, -1))  # 2 steps of 3 tokens
    filled = torch.where(before, fill, -1.0)
    after, expected = (module.advance(each, 2, noise(4), None, Draw())[~before] for each in (state, filled))
    assert torch.equal(after, expected) == (fill == 0)


@BOTH
def test_rows_do_not_depend_on_the_batch(config: Mapping[str, Any]) -> None:
    module = build(config)
    labels = torch.zeros(16, dtype=torch.int64) if isinstance(module, ImageTransformer) else None
    whole = draw(module, labels, 16)
    one = None if labels is None else labels[:1]
    for row in (0, 9):
        assert torch.equal(module.sample(noise(1, row), one, Draw(), OFF), whole[row : row + 1])


@BOTH
def test_temperature_0_takes_the_likeliest_value_of_each_token(config: Mapping[str, Any]) -> None:
    module = build(config)
    rows = draw(module, temperature=0.0)
    assert len(rows.unique(dim=0)) == 1
    tokens, _ = module._read(rows)
    assert torch.equal(module.logits(tokens, None).argmax(dim=2), tokens)


@BOTH
@pytest.mark.parametrize("unchanged", [{"top_k": 256}, {"top_p": 1.0}, {"temperature": 1.0}, {"guidance_scale": 1.0}])
def test_parameters_that_remove_nothing_change_no_byte(config: Mapping[str, Any], unchanged: dict[str, Any]) -> None:
    module = build(config)
    assert torch.equal(draw(module, labels_of(module), **unchanged), draw(module, labels_of(module)))


@pytest.mark.parametrize("changed", [{"top_k": 3}, {"top_p": 0.5}, {"temperature": 0.5}, {"guidance_scale": 3.0}])
def test_other_parameters_change_draws(changed: dict[str, Any]) -> None:
    module = build(PATCHES)
    assert not torch.equal(draw(module, labels_of(module), **changed), draw(module, labels_of(module)))


def test_guidance_of_0_draws_without_the_class() -> None:
    module = build(PATCHES)
    assert torch.equal(draw(module, labels_of(module), guidance_scale=0.0), draw(module))


def test_texts_are_drawn_from_the_alphabet_alone() -> None:
    assert set(draw(build(LONG), count=32, temperature=2.0).unique().tolist()) == set(map(float, b"abcdefg"))


def test_without_an_alphabet_every_byte_but_padding_is_drawn() -> None:
    rows = draw(build({**CORE, "length": 96, "run": 48}), count=64, temperature=2.0)
    assert rows.min() >= 1
    assert len(rows.unique()) > 250


@BOTH
def test_the_probe_is_of_the_first_middle_and_last_step(config: Mapping[str, Any]) -> None:
    module = build(config)
    assert isinstance(module, ManyStepSampler)
    assert isinstance(module, GivenStepsSampler)
    last = module.steps(Draw()) - 1
    assert module.probe() == (Draw(), (0, (last + 1) // 2, last))


# --- Configurations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "config", "named"),
    [
        ("image-transformer", {**PATCHES, "height": 7}, "height is 7"),
        ("image-transformer", {**PATCHES, "levels": 1}, "levels is 1"),
        ("image-transformer", {**PATCHES, "patch": 4}, "levels is 4"),
        ("image-transformer", {**PATCHES, "heads": 3}, "features is 16"),
        ("image-transformer", {**PATCHES, "colour": 1}, "colour"),
        ("image-transformer", {**PATCHES, "run": 0}, "run is 0"),
        ("text-transformer", {**TEXT, "alphabet": 3}, "alphabet is 3"),
        ("text-transformer", {**TEXT, "alphabet": "a\0"}, "alphabet"),
        ("text-transformer", CORE, "length"),
    ],
)
def test_a_wrong_configuration_is_refused_by_its_key(family: str, config: Mapping[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        load_family(family, config)


# --- Training ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_trained_model_of_a_markov_chain_reaches_its_entropy_rate() -> None:
    stay, generator, length = 0.85, torch.Generator().manual_seed(0), 16
    flips = torch.rand(2064, length, generator=generator) > torch.where(torch.arange(length) == 0, 0.5, stay)
    rows = 97 + (flips.cumsum(dim=1) % 2).float()  # "a" and "b": the next byte is the last one with probability 0.85
    torch.manual_seed(0)
    module = load_family("text-transformer", {**CORE, "layers": 1, "length": length, "run": 8, "alphabet": "ab"})
    assert isinstance(module, TextTransformer)
    optimizer = torch.optim.AdamW(module.parameters(), lr=5e-3, weight_decay=0.0)
    for step in range(150):
        optimizer.zero_grad()
        loss = -module.log_likelihood(rows[(step * 64) % 1984 :][:64], None).mean()
        loss.backward()
        optimizer.step()
    rate = -stay * math.log(stay) - (1 - stay) * math.log(1 - stay)
    with torch.inference_mode():
        nats = -float(module.log_likelihood(rows, None).mean())
    assert nats == pytest.approx(math.log(2) + (length - 1) * rate, rel=0.03)
