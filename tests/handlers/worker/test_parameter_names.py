"""Sampling parameters: every place that lists them agrees with the contract."""

import dataclasses
from typing import get_args

import pytest
from click.testing import CliRunner
from google.protobuf.descriptor import FieldDescriptor

from fount.augmentation.plan_file import ParametersSpec
from fount.cli.main import main
from fount.sampling.request import ParametersQuery, sample_request
from fount.v1 import sampling_pb2
from handlers.cards.card import ParameterName
from handlers.family import Draw
from service.domain import Parameters

FIELDS = sampling_pb2.Parameters.DESCRIPTOR.fields
CONTRACT = {field.name for field in FIELDS}
WHOLE = {field.name for field in FIELDS if field.type == FieldDescriptor.TYPE_UINT32}


def names(record: type) -> set[str]:
    return {field.name for field in dataclasses.fields(record)}


@pytest.mark.parametrize(
    "listed",
    [
        pytest.param(names(Parameters), id="the gateway"),
        pytest.param(set(ParametersQuery.__annotations__), id="the client"),
        pytest.param(names(ParametersSpec), id="plan files"),
        pytest.param(set(get_args(ParameterName)), id="model cards"),
        pytest.param(names(Draw) & CONTRACT, id="model families"),
    ],
)
def test_it_lists_the_parameters_of_the_contract(listed: set[str]) -> None:
    assert listed == CONTRACT


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_a_command_has_an_option_for_it(name: str) -> None:
    assert f"--{name.replace('_', '-')} " in CliRunner().invoke(main, ["sample", "--help"]).stdout


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_the_client_sends_it_with_its_type(name: str) -> None:
    request = sample_request("a-model", {"count": 1, name: 2})
    assert getattr(request.parameters, name) == 2
    if name in WHOLE:
        with pytest.raises((TypeError, ValueError)):
            sample_request("a-model", {"count": 1, name: 2.5})
