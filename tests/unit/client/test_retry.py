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
    Loading,
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


LOADING = Loading("a 1 is loading", retry_after_s=2.0)


def test_it_waits_for_a_model_that_loads_while_time_is_left(clock):
    retry = RetryState(20.0, RetryPolicy(first_attempts=1, on_wait=lambda text: None), clock=clock)
    assert [retry.delay_s(LOADING) for _ in range(9)] == [2.0] * 9
    clock.now_s = 18.5
    with pytest.raises(Loading, match=r"a 1 is loading\. That did not change within 20 s; wait longer with timeout_s"):
        retry.delay_s(LOADING)


def test_it_waits_a_second_where_the_server_names_no_delay():
    assert RetryState(None, RetryPolicy(on_wait=lambda text: None)).delay_s(Loading("")) == 1.0


def test_it_reports_once_what_it_waits_for():
    waits = []
    retry = RetryState(20.0, RetryPolicy(on_wait=waits.append))
    retry.delay_s(LOADING)
    retry.delay_s(LOADING)
    assert waits == ["a 1 is loading; waiting for up to 20 s"]


def test_it_logs_what_it_waits_for_by_default(caplog):
    RetryState(None, RetryPolicy()).delay_s(LOADING)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "a 1 is loading; waiting")
    ]


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf"), 1e300])
def test_it_refuses_a_timeout_that_is_no_time(timeout_s):
    with pytest.raises(InvalidRequest, match="timeout_s"):
        RetryState(timeout_s, POLICY)


def test_it_does_not_count_an_error_that_is_never_repeated():
    retry = RetryState(None, POLICY)
    with pytest.raises(NotFound):
        retry.delay_s(NotFound(""))
    assert retry.delay_s(ServerUnavailable("")) == 1.0
