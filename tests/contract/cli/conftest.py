"""Every command runs in an empty folder, by default with the server of a gateway that makes plans."""

import pytest

from tests.contract.fake_plans import FakePlans, serving_plans


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def gateway(monkeypatch):
    gateway = FakePlans()
    with serving_plans(gateway) as server:
        monkeypatch.setenv("FOUNT_SERVER", server)
        yield gateway
