"""The arithmetic of the benchmarks on recorded numbers: samples, ratios, verdicts and tables."""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest

from benchmarks.loads import Observations, percentile, samples_within
from benchmarks.model_cpu import Calls, calls_of, model_cpu_s
from benchmarks.output import rows_to_markdown
from benchmarks.peers.http import HttpError, HttpPool
from benchmarks.peers.servers import peer_settings
from benchmarks.plan import WORKLOADS, Layout, Plan, layouts, quick_plan
from benchmarks.records import Record, Records, ratio_by_round
from benchmarks.request_body import body_of, read_body
from benchmarks.rows import Bound, Row, rows_of, verdict

AT_LEAST = Bound(must=0.8, aim=0.9)
AT_MOST = Bound(must=1.3, aim=1.0, at_most=True)


def row(ratio: float, bound: Bound = AT_LEAST) -> Row:
    return Row(workload="w", precision="fp32", value="v", reference="r", ratio=ratio, bound=bound)


def records_of(workload: str, contender: str, layout: str, precision: str = "fp32", **values: list[float]) -> Records:
    """One record a round; each value is a list over rounds."""
    rounds = max(map(len, values.values()))
    return Records(
        Record(
            round=number, precision=precision, workload=workload, contender=contender, layout=layout,
            values={name: each[number] for name, each in values.items() if number < len(each)},
        )
        for number in range(rounds)
    )  # fmt: skip


def joined(*parts: Records) -> Records:
    return Records(record for part in parts for record in part)


def only_row(records: Records) -> Row:
    (found,) = rows_of(records)
    return found


# --- Counts -----------------------------------------------------------------------------------------------------------


def test_counts_an_arrival_across_the_edge_in_proportion() -> None:
    arrivals = [(0.0, 2.0, 100), (2.0, 3.0, 40), (3.0, 7.0, 80)]
    assert samples_within(arrivals, 1.0, 4.0) == pytest.approx(50 + 40 + 20)


def test_counts_nothing_outside_the_window() -> None:
    assert samples_within([(0.0, 1.0, 5), (9.0, 9.5, 5)], 1.0, 9.0) == 0


def test_keeps_requests_within_the_window() -> None:
    seen = Observations(requests=[(0.5, 1.5), (1.0, 2.0), (2.5, 3.5)]).within(1.0, 3.0)
    assert seen.latencies_s == [1.0]


def test_a_percentile_without_values_is_nan() -> None:
    assert math.isnan(percentile([], 99))


def test_a_ratio_is_computed_within_a_round() -> None:
    assert ratio_by_round({0: 8.0, 1: 9.0, 2: 1.0}, {1: 10.0, 0: 16.0}) == [0.5, 0.9]


# --- Peers ------------------------------------------------------------------------------------------------------------


def test_a_body_holds_seed_first_index_and_labels() -> None:
    assert read_body(body_of(2**63, 7, b"\x03\x04")) == (2**63, 7, b"\x03\x04")


def test_measures_a_peer_once_in_each_layout_and_wait() -> None:
    settings = peer_settings([Layout(workers=1, threads=2)], ["small", "single", "bulk"])
    assert [(each.name, str(each)) for each in settings] == [
        ("mosec", "1×2, wait 1 ms"), ("mosec", "1×2, wait 0 ms"), ("litserve", "1×2, wait 1 ms"),
    ]  # fmt: skip


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request with its body, in two parts; close the connection after "bye"; 500 after "bad"."""
    body = b""
    with suppress(asyncio.IncompleteReadError):
        while body != b"bye":
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2]))
            status = b"500 Error" if body == b"bad" else b"200 OK"
            writer.write(b"HTTP/1.1 %s\r\ncontent-length: %d\r\n" % (status, len(body)))
            await writer.drain()
            writer.write(b"\r\n" + body)
    writer.close()
    await writer.wait_closed()


@asynccontextmanager
async def pool_of_server() -> AsyncGenerator[HttpPool]:
    connections = set[asyncio.Task[None]]()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.create_task(answer(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        pool = HttpPool("127.0.0.1", server.sockets[0].getsockname()[1], "/predict")
        yield pool
        pool.close()
        await asyncio.gather(*connections)


async def test_posts_over_a_kept_connection_and_replaces_a_closed_one() -> None:
    async with pool_of_server() as pool:
        assert [await pool.post(body, 10.0) for body in (b"one", b"bye")] == [b"one", b"bye"]
        while pool.idle:  # until the end of the connection has arrived
            await asyncio.sleep(0.01)
        assert await pool.post(b"x" * 100_000, 10.0) == b"x" * 100_000
        assert pool.idle == 1


async def test_another_status_than_200_is_an_error() -> None:
    async with pool_of_server() as pool:
        with pytest.raises(HttpError, match="500 Error"):
            await pool.post(b"bad", 10.0)


# --- Verdicts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "bound", "expected"),
    [
        (0.90, AT_LEAST, "aim"),
        (0.89, AT_LEAST, "must"),
        (0.80, AT_LEAST, "must"),
        (0.79, AT_LEAST, "missed"),
        (1.00, AT_MOST, "aim"),
        (1.30, AT_MOST, "must"),
        (1.31, AT_MOST, "missed"),
        (2.00, Bound(must=2.0, at_most=True), "must"),
        (math.nan, AT_LEAST, "missed"),
        (math.nan, AT_MOST, "missed"),
        (math.nan, Bound(), "reported"),
        (1.0, Bound(aim=1.0), "aim"),
        (0.9, Bound(aim=1.0), "missed aim"),
    ],
)
def test_gives_the_verdict_of_a_ratio(ratio: float, bound: Bound, expected: str) -> None:
    assert verdict(row(ratio, bound)) == expected


# --- Rows -------------------------------------------------------------------------------------------------------------


def limit(layout: str, *rates: float, precision: str = "fp32") -> Records:
    return records_of("limit", "limit", layout, precision, samples_per_s=list(rates))


def test_compares_with_the_larger_limit_whatever_the_layout() -> None:
    ours = records_of("bulk", "fount", "1×2", samples_per_s=[1700.0, 1800.0, 1900.0])
    found = rows_of(joined(limit("1×2", 2000.0, 2000.0, 2000.0), limit("2×1", 2500.0, 2500.0, 2500.0), ours))[0]
    assert (found.ratio, found.spread) == (0.72, (0.68, 0.76))
    assert found.reference == "limit 2500 samples/s (2×1)"
    assert verdict(found) == "missed"


def test_takes_the_better_layout_of_fount() -> None:
    slow = records_of("medium", "fount", "1×2", samples_per_s=[100.0])
    fast = records_of("medium", "fount", "2×1", samples_per_s=[130.0])
    found = only_row(joined(limit("1×2", 200.0), slow, fast))
    assert (found.value, found.ratio) == ("130 samples/s (2×1)", 0.65)


@pytest.mark.parametrize(("precision", "ratio", "expected"), [("fp32", 0.79, "missed"), ("bf16", 0.60, "must")])
def test_bulk_in_bf16_has_a_lower_bound(precision: str, ratio: float, expected: str) -> None:
    ours = records_of("bulk", "fount", "1×2", precision, samples_per_s=[1000 * ratio])
    found = rows_of(joined(limit("1×2", 1000.0, precision=precision), ours))[0]
    assert verdict(found) == expected


def test_rate_and_tail_of_small_requests_have_their_own_verdicts() -> None:
    ours = records_of("small", "fount", "1×2", requests_per_s=[2600.0], p99_ms=[21.0], requests=[5000.0])
    theirs = records_of("small", "torchserve", "2×1", requests_per_s=[1000.0], p99_ms=[20.0], requests=[4000.0])
    rate, tail, *_ = rows_of(joined(ours, theirs))
    assert [verdict(rate), verdict(tail)] == ["must", "missed"]
    assert (rate.ratio, tail.ratio) == (2.6, 1.05)
    assert "n ≈ 5000" in tail.workload


def test_results_of_generated_stubs_are_only_reported() -> None:
    ours = records_of("single", "fount-bare", "1×2", p50_ms=[9.0])
    theirs = records_of("single", "torchserve", "1×2", p50_ms=[6.0])
    found = only_row(joined(ours, theirs))
    assert (found.workload, found.ratio, verdict(found)) == ("1 × 1, generated stubs", 1.5, "reported")


def test_compares_a_single_request_with_the_faster_torchserve() -> None:
    ours = records_of("single", "fount", "1×2", p50_ms=[3.0])
    slow = records_of("single", "torchserve", "1×2", p50_ms=[8.0])
    fast = records_of("single", "torchserve", "2×1", p50_ms=[5.0])
    found = only_row(joined(ours, slow, fast))
    assert (found.ratio, verdict(found)) == (0.6, "must")


def test_a_peer_is_an_aim_in_its_best_setting() -> None:
    ours = records_of("single", "fount", "1×2", p50_ms=[3.0])
    theirs = joined(
        records_of("single", "mosec", "1×2, wait 0 ms", p50_ms=[2.5]),
        records_of("single", "mosec", "2×1, wait 0 ms", p50_ms=[2.0]),
    )
    found = only_row(joined(ours, theirs))
    assert (found.reference, found.ratio) == ("mosec p50 2.00 ms (2×1, wait 0 ms)", 1.5)
    assert verdict(found) == "missed aim"


def test_large_requests_are_compared_with_the_limit_and_with_every_other_server() -> None:
    ours = records_of("bulk", "fount", "2×1", samples_per_s=[950.0])
    others = [records_of("bulk", name, "2×1", samples_per_s=[500.0]) for name in ("torchserve", "mosec", "litserve")]
    found = rows_of(joined(ours, limit("2×1", 1000.0), *others))
    assert [each.reference.split()[0] for each in found[:4]] == ["limit", "TorchServe", "mosec", "LitServe"]
    assert [verdict(each) for each in found[:4]] == ["must", "aim", "aim", "aim"]


def test_measures_interactive_growth_in_batches() -> None:
    found = only_row(
        records_of("interactive", "fount", "1×2", growth_ms=[30.0, 50.0, 41.0], idle_p99_ms=[10.0] * 3,
                   loaded_p99_ms=[51.0] * 3, requests=[300.0] * 3)
    )  # fmt: skip
    assert (found.ratio, verdict(found)) == (2.05, "missed")


def test_the_highest_cost_is_compared_with_the_lowest() -> None:
    scale = records_of("scale", "fount", "1×2", us_per_sample_1000=[520.0, 560.0], us_per_sample_10000=[500.0, 500.0],
                       us_per_sample_1000000=[600.0], gateway_growth_mb=[12.0, 70.0])  # fmt: skip
    cost, memory = rows_of(scale)
    assert cost.value == "10^3: 540, 10^4: 500, 10^6: 600 µs (1×2)"
    assert (cost.ratio, verdict(cost)) == (1.2, "missed")
    assert (memory.ratio, verdict(memory)) == (70 / 64, "missed")


def test_replicas_are_compared_by_the_busier() -> None:
    found = only_row(
        records_of("replicas", "fount", "2×1", busier_over_other=[1.02, 1.3, 1.05], first_share=[0.51] * 3)
    )
    assert (found.ratio, found.spread, verdict(found)) == (1.05, (1.02, 1.3), "must")


def test_sums_the_cost_of_a_sample_outside_the_model() -> None:
    parts = {"client": 0.1, "gateway": 0.2, "java": 0.05, "worker_outside_model": 0.15, "model": 2.0}
    values = {f"{role}_cpu_s_per_1000": [seconds] for role, seconds in parts.items()}
    found = only_row(records_of("bulk", "fount", "1×2", samples_per_s=[9.0], **values))
    assert found.value == "client 0.100, gateway 0.200, java 0.050, worker outside model 0.150 (1×2)"
    assert (found.ratio, verdict(found)) == (0.25, "reported")


def test_a_workload_without_records_has_no_row() -> None:
    assert rows_of(limit("1×2", 1.0)) == []


# --- Cost of the model ------------------------------------------------------------------------------------------------

SERIES = """# TYPE fount_batch_size_samples histogram
fount_batch_size_samples_bucket{le="1.0",model="mnist-cgan",version="1.0"} 3.0
fount_batch_size_samples_bucket{le="8.0",model="mnist-cgan",version="1.0"} 5.0
fount_batch_size_samples_bucket{le="1.0",model="other",version="1.0"} 9.0
fount_batch_size_samples_sum{model="mnist-cgan",version="1.0"} 14.0
"""


def test_reads_the_calls_of_one_model_by_size() -> None:
    calls = calls_of(SERIES)
    assert (dict(calls.by_bound), calls.samples) == ({1.0: 3.0, 8.0: 2.0}, 14.0)


def test_subtracts_earlier_calls() -> None:
    since = calls_of(SERIES).since(Calls(by_bound={1.0: 1.0}, samples=1.0))
    assert (dict(since.by_bound), since.samples) == ({1.0: 2.0, 8.0: 2.0}, 13.0)


def test_a_small_call_costs_the_smallest_batch_that_fits() -> None:
    calls = Calls(by_bound={1.0: 10.0, 16.0: 2.0}, samples=40.0)
    assert model_cpu_s(calls, {8: 0.004, 32: 0.012}) == pytest.approx(10 * 0.004 + 2 * 0.012)


def test_samples_of_large_calls_cost_the_cheapest_batch() -> None:
    calls = Calls(by_bound={8.0: 0.0, 512.0: 2.0}, samples=1000.0)
    assert model_cpu_s(calls, {8: 0.008, 32: 0.016}) == pytest.approx(1000 * 0.016 / 32)


# --- Plans and tables -------------------------------------------------------------------------------------------------


def test_lists_two_layouts() -> None:
    assert [str(each) for each in layouts(2)] == ["1×2", "2×1"]
    assert layouts(1) == (Layout(workers=1, threads=1),)


def test_bf16_with_fp32_measures_only_workloads_that_compare_both() -> None:
    plan = Plan(rounds=5, precisions=("fp32", "bf16"), workloads=tuple(WORKLOADS), layouts=layouts(2))
    assert plan.workloads_in("fp32") == tuple(each for each in WORKLOADS if each != "transformed")
    assert plan.workloads_in("bf16") == ("bulk", "medium")


def test_bf16_alone_measures_everything() -> None:
    plan = Plan(rounds=5, precisions=("bf16",), workloads=("bulk", "scale"), layouts=layouts(2))
    assert plan.workloads_in("bf16") == ("bulk", "scale")


def test_quick_leaves_out_slow_workloads_unless_named() -> None:
    assert "scale" not in quick_plan(tuple(WORKLOADS), 2).workloads
    assert quick_plan(("scale",), 2).workloads == ("scale",)


def test_quick_has_two_rounds() -> None:
    plan = quick_plan(tuple(WORKLOADS), 2)
    assert (plan.rounds, plan.precisions, plan.final_counts, plan.warm_up_s) == (2, ("fp32",), (), 10.0)


def test_writes_a_row_with_bounds_spread_and_verdict() -> None:
    shown = Row(workload="64 × 4", precision="fp32", value="130 samples/s (2×1)", reference="limit 200 samples/s (1×2)",
                ratio=0.65, spread=(0.61, 0.7), bound=Bound(must=0.65, aim=0.8))  # fmt: skip
    table = rows_to_markdown([shown, row(math.nan, Bound())], {"cpu": "X", "cores": 2}, ["a note"])
    assert (
        "| 64 × 4 | fp32 | 130 samples/s (2×1) | limit 200 samples/s (1×2) | 0.65 (0.61–0.70) | ≥ 0.65 | ≥ 0.8 "
        "| reached must |" in table
    )
    assert "| w | fp32 | v | r | – |  |  | reported |" in table
    assert table.endswith("- a note\n")


def test_a_missed_bound_is_bold() -> None:
    assert "| ≤ 1.3 | ≤ 1 | **missed** |" in rows_to_markdown([row(1.5, AT_MOST)], {}, [])
