"""When a call is repeated, and when it is given up."""

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
from fount.retry import RetryPolicy, RetryState

POLICY = RetryPolicy(first_attempts=3, attempts=5, base_s=1.0, cap_s=3.0, jitter=lambda: 1.0)


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_it_doubles_delays_up_to_the_cap():
    assert [POLICY.delay_s(failures) for failures in (1, 2, 3, 4)] == [1.0, 2.0, 3.0, 3.0]


def test_it_shortens_a_delay_by_jitter():
    assert RetryPolicy(base_s=1.0, jitter=lambda: 0.5).delay_s(1) == 0.5


def test_it_keeps_at_least_half_a_delay_by_default():
    assert all(0.05 <= RetryPolicy().delay_s(1) <= 0.1 for _ in range(100))


def test_it_gives_up_soon_on_a_server_that_never_answered():
    retry = RetryState(None, POLICY)
    assert [retry.delay_s(ServerUnavailable("")) for _ in range(2)] == [1.0, 2.0]
    with pytest.raises(ServerUnavailable):
        retry.delay_s(ServerUnavailable(""))


def test_it_allows_more_attempts_after_progress_and_counts_them_from_0():
    retry = RetryState(None, POLICY)
    retry.delay_s(ServerUnavailable(""))
    retry.record_progress()
    assert [retry.delay_s(ServerUnavailable("")) for _ in range(4)] == [1.0, 2.0, 3.0, 3.0]


def test_it_waits_as_long_as_an_overloaded_server_says():
    assert RetryState(None, POLICY).delay_s(Overloaded("", retry_after_s=7.5)) == 7.5


def test_it_repeats_a_call_to_an_overloaded_server_while_time_is_left(clock):
    retry = RetryState(20.0, POLICY, clock=clock)
    for _ in range(9):
        retry.delay_s(Overloaded("", retry_after_s=1.0))
    clock.now_s = 19.5
    with pytest.raises(Overloaded):
        retry.delay_s(Overloaded("", retry_after_s=1.0))


def test_it_does_not_repeat_a_call_when_an_overloaded_server_names_no_delay():
    with pytest.raises(Overloaded):
        RetryState(None, POLICY).delay_s(Overloaded(""))


@pytest.mark.parametrize(
    "kind",
    [
        BadReply, Cancelled, DeadlineExceeded, FailedPrecondition, FountError, InternalError, InvalidRequest,
        NotAllowed, NotFound,
    ],
)  # fmt: skip
def test_it_never_repeats_a_call_after_another_error(kind):
    with pytest.raises(kind):
        RetryState(None, POLICY).delay_s(kind(""))


def test_it_keeps_the_deadline_of_a_whole_call(clock):
    retry = RetryState(10.0, POLICY, clock=clock)
    clock.now_s = 4.0
    retry.restart_message_timer()
    assert (retry.call_timeout_s(), retry.message_timeout_s()) == (6.0, None)


def test_it_restarts_the_time_between_messages(clock):
    retry = RetryState(10.0, POLICY, between_messages=True, clock=clock)
    clock.now_s = 4.0
    retry.restart_message_timer()
    assert (retry.call_timeout_s(), retry.message_timeout_s()) == (None, 10.0)


def test_it_reports_the_timeout_when_no_time_is_left(clock):
    retry = RetryState(10.0, POLICY, clock=clock)
    clock.now_s = 10.0
    with pytest.raises(DeadlineExceeded, match="No answer within 10 s"):
        retry.call_timeout_s()


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_it_refuses_a_timeout_that_is_not_above_0(timeout_s):
    with pytest.raises(InvalidRequest, match="timeout_s"):
        RetryState(timeout_s, POLICY)


def test_it_does_not_count_an_error_that_is_never_repeated():
    retry = RetryState(None, POLICY)
    with pytest.raises(NotFound):
        retry.delay_s(NotFound(""))
    assert retry.delay_s(ServerUnavailable("")) == 1.0
