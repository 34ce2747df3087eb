"""When a question is asked again, and when it is given up."""

import pytest

from fount.errors import (
    BadReply,
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    FountError,
    InternalError,
    InvalidRequest,
    NotAllowed,
    NotFound,
    Overloaded,
    ServerUnavailable,
)
from fount.retry import Patience, RetryPolicy

POLICY = RetryPolicy(first_attempts=3, attempts=5, base_s=1.0, cap_s=3.0, jitter=lambda: 1.0)


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_delays_double_up_to_the_cap():
    assert [POLICY.delay_s(failures) for failures in (1, 2, 3, 4)] == [1.0, 2.0, 3.0, 3.0]


def test_jitter_shortens_a_delay():
    assert RetryPolicy(base_s=1.0, jitter=lambda: 0.5).delay_s(1) == 0.5


def test_the_usual_jitter_keeps_at_least_half():
    assert all(0.05 <= RetryPolicy().delay_s(1) <= 0.1 for _ in range(100))


def test_a_server_that_never_answered_is_given_up_soon():
    patience = Patience(None, POLICY)
    assert [patience.delay_s(ServerUnavailable("")) for _ in range(2)] == [1.0, 2.0]
    with pytest.raises(ServerUnavailable):
        patience.delay_s(ServerUnavailable(""))


def test_progress_makes_more_patient_and_counts_afresh():
    patience = Patience(None, POLICY)
    patience.delay_s(ServerUnavailable(""))
    patience.take_progress()
    assert [patience.delay_s(ServerUnavailable("")) for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]


def test_a_full_queue_is_asked_again_after_the_delay_it_names():
    assert Patience(None, POLICY).delay_s(Overloaded("", retry_after_s=7.5)) == 7.5


def test_a_full_queue_is_asked_again_while_time_is_left(clock):
    patience = Patience(20.0, POLICY, clock=clock)
    for _ in range(9):
        patience.delay_s(Overloaded("", retry_after_s=1.0))
    clock.now_s = 19.5
    with pytest.raises(Overloaded):
        patience.delay_s(Overloaded("", retry_after_s=1.0))


def test_a_full_queue_that_names_no_delay_is_final():
    with pytest.raises(Overloaded):
        Patience(None, POLICY).delay_s(Overloaded(""))


@pytest.mark.parametrize(
    "kind",
    [
        BadReply, Cancelled, DeadlineExceeded, FailedPrecondition, FountError, InternalError, InvalidRequest,
        NotAllowed, NotFound,
    ],
)  # fmt: skip
def test_anything_else_is_never_asked_again(kind):
    with pytest.raises(kind):
        Patience(None, POLICY).delay_s(kind(""))


def test_the_time_of_a_whole_call_runs_on(clock):
    patience = Patience(10.0, POLICY, clock=clock)
    clock.now_s = 4.0
    patience.touch()
    assert (patience.call_timeout_s(), patience.message_timeout_s()) == (6.0, None)


def test_the_time_between_messages_starts_anew(clock):
    patience = Patience(10.0, POLICY, between_messages=True, clock=clock)
    clock.now_s = 4.0
    patience.touch()
    assert (patience.call_timeout_s(), patience.message_timeout_s()) == (None, 10.0)


def test_when_no_time_is_left_it_says_how_long_was_waited(clock):
    patience = Patience(10.0, POLICY, clock=clock)
    clock.now_s = 10.0
    with pytest.raises(DeadlineExceeded, match="No answer within 10 s"):
        patience.call_timeout_s()


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_a_timeout_is_above_0(timeout_s):
    with pytest.raises(InvalidRequest, match="timeout_s"):
        Patience(timeout_s, POLICY)
