"""Noise against the published generator, and against itself as it was on the day it was fixed.

The known answers are Random123's `kat_vectors` for philox4x32, ten rounds. The recorded bits are a promise: whoever
kept a seed and an index can have the same sample again. If a test here fails, the code is wrong, never the record;
noise that is meant to differ gets another NOISE_VERSION, and with it every model another digest.
"""

import math

import numpy as np
import pytest

from fount.address import NOISE_VERSION, Addresses, Stream, philox4x32_10

KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]

LARGEST = 2**64 - 1

RECORDED_NORMALS = [
    pytest.param(0, 0, Stream.LATENT, 0, None, "3f7dbb33 bf6cb6b0 bf1e1b9f bef6d1b2", id="first"),
    pytest.param(0, 1, Stream.LATENT, 0, None, "be1d5357 3e392a6d 3f54ec98 3e4a2da3", id="second index"),
    pytest.param(20240229, 731204, Stream.LATENT, 0, None, "3da59b47 be6bce98 3fe121b7 bf810115", id="anywhere"),
    pytest.param(LARGEST, LARGEST, Stream.LATENT, 0, None, "bdecae72 3fc5c0e9 3f3fead9 3e54097c", id="last"),
    pytest.param(7, 7, Stream.STEP, 999, None, "3eac6b87 3f2ce1d5 bfdd8aca bfea2acc", id="step 999"),
    pytest.param(7, 7, Stream.TRANSFORM, 0, None, "3f3141b6 3f50365f 3fbc48d2 3ec5c937", id="transform"),
    pytest.param(3, 5, Stream.LATENT, 0, 0.5, "3e5903a3 be05ef93 becb90d3 bd6dc8d4", id="truncated"),
]

RECORDED_UNIFORMS = [
    pytest.param(0, 0, ["0x1.cc0e7ce45ee4dp-1", "0x1.52ded561bda19p-1"], id="first"),
    pytest.param(20240229, 731204, ["0x1.a462d9bd18b03p-1", "0x1.21e2dbe8aeb84p-3"], id="anywhere"),
    pytest.param(LARGEST, LARGEST, ["0x1.65c4ad7c5d248p-4", "0x1.d72436de44855p-1"], id="last"),
]


def words(text: str) -> np.ndarray:
    return np.array([int(word, 16) for word in text.split()], np.uint32)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_published_answers(counter: str, key: str, answer: str) -> None:
    assert philox4x32_10(words(counter), words(key)).tolist() == words(answer).tolist()


def test_philox_gives_the_published_answers_side_by_side() -> None:
    counters, keys, answers = (np.stack([words(vector[i]) for vector in KNOWN_ANSWERS]) for i in range(3))
    assert philox4x32_10(counters, keys).tolist() == answers.tolist()


def test_seed_0_index_0_reads_the_known_answer_of_counter_0() -> None:
    row = Addresses.of_range(0, 0, 1).words(Stream.LATENT, 4)[0]
    assert row.tolist() == words("6627e8d5 e169c58d bc57ac4c 9b00dbd8").tolist()


def test_an_address_reads_philox_where_the_documentation_says() -> None:
    row = Addresses.of_range(0x299F31D0_A4093822, 0x85A308D3_243F6A88, 1).words(Stream.STEP, 4, 0x7344_13198A2E)[0]
    counter, key = words("243f6a88 85a308d3 13198a2e 00027344"), words("a4093822 299f31d0")
    assert row.tolist() == philox4x32_10(counter, key).tolist()


def test_the_first_normals_follow_from_the_known_answer_by_box_muller() -> None:
    radius = math.sqrt(-2 * math.log((0x6627E8D5 + 0.5) / 2**32))
    turn = 2 * math.pi * 0xE169C58D / 2**32
    z = Addresses.of_range(0, 0, 1).normals(Stream.LATENT, 2)[0]
    assert z.tolist() == pytest.approx([radius * math.cos(turn), radius * math.sin(turn)], rel=1e-7)


@pytest.mark.parametrize(("seed", "index", "stream", "step", "truncation", "bits"), RECORDED_NORMALS)
def test_normals_keep_their_recorded_bits(
    seed: int, index: int, stream: Stream, step: int, truncation: float | None, bits: str
) -> None:
    z = Addresses.of_range(seed, index, 1).normals(stream, 4, step=step, truncation=truncation)
    assert [f"{word:08x}" for word in z.view(np.uint32)[0]] == bits.split()


@pytest.mark.parametrize(("seed", "index", "values"), RECORDED_UNIFORMS)
def test_uniforms_keep_their_recorded_bits(seed: int, index: int, values: list[str]) -> None:
    drawn = Addresses.of_range(seed, index, 1).uniforms(Stream.LABEL, 2)[0]
    assert [float(value).hex() for value in drawn] == values


def test_the_noise_version_is_the_recorded_one() -> None:
    assert NOISE_VERSION == "philox4x32-10/box-muller-1"


def test_streams_keep_their_numbers() -> None:
    numbers = {stream.name: int(stream) for stream in Stream}
    assert numbers == {"LATENT": 0, "LABEL": 1, "STEP": 2, "TRANSFORM": 3, "ATTEMPT": 4, "RESAMPLE": 5, "ORDER": 6}
