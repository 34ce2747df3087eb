"""Clients and processes that were forked."""

import multiprocessing

import pytest

from fount import Client
from tests.contract.fake_gateway import FakeGateway, serving

# The gateway's threads run while a test forks.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def in_a_fork(call):
    """Run a call in a forked process, and return its result, or the error as text."""

    def run(sender):
        try:
            sender.send(call())
        except Exception as error:
            sender.send(f"{type(error).__name__}: {error}")

    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=run, args=(sender,))
    process.start()
    try:
        return receiver.recv() if receiver.poll(20) else "no answer"
    finally:
        process.kill()
        process.join()


def samples(client):
    return sum(len(chunk) for chunk in client.stream("digits-cvae", count=40))


def test_a_client_that_was_made_before_the_fork_is_refused():
    with serving(FakeGateway()) as server, Client(server) as client:
        client.models()
        assert in_a_fork(lambda: samples(client)) == (
            "RuntimeError: This client was made before the process was forked; make a client in each process"
        )


def test_a_client_that_is_made_after_the_fork_draws():
    with serving(FakeGateway()) as server, Client(server) as client:
        client.models()
        assert in_a_fork(lambda: samples(Client(server))) == 40
