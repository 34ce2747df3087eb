"""The rows of the table: workload, measured value, reference, and the verdict.

Each row is in the table of `docs/performance.md`. Ratios are medians over rounds of the ratio within a round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.plan import MAX_BATCH_MS
from benchmarks.records import Records, ratio_by_round

__all__ = ["TRANSFORMED", "Bound", "Row", "rows_of", "verdict"]


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Required and desired bounds of a ratio.

    Attributes:
        must: required; None: nothing is.
        aim: desired; None: nothing is. With neither, the ratio is only reported.
        at_most: whether smaller is better.
    """

    must: float | None = None
    aim: float | None = None
    at_most: bool = False

    def holds(self, ratio: float, bound: float) -> bool:
        """Whether a ratio satisfies a bound; NaN satisfies none."""
        return ratio <= bound if self.at_most else ratio >= bound


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row.

    Attributes:
        workload: its description.
        precision: of the workers.
        value: measured of Fount, with unit and layout.
        reference: the compared value, likewise.
        ratio: median over rounds; NaN without one.
        spread: smallest and largest ratio of a round.
        bound: of the ratio.
    """

    workload: str
    precision: str
    value: str
    reference: str
    ratio: float = math.nan
    spread: tuple[float, float] | None = None
    bound: Bound = Bound()


def verdict(row: Row) -> str:
    """Compare the ratio with its bounds: "aim", "must", "missed", "missed aim" or "reported"."""
    bound, ratio = row.bound, row.ratio
    if bound.must is None and bound.aim is None:
        return "reported"
    if bound.aim is not None and bound.holds(ratio, bound.aim):
        return "aim"
    if bound.must is None:
        return "missed aim"
    return "must" if bound.holds(ratio, bound.must) else "missed"


_OF_LIMIT = {
    ("bulk", "fp32"): Bound(must=0.90),
    ("bulk", "bf16"): Bound(must=0.60, aim=0.80),
    ("medium", "fp32"): Bound(must=0.80),
    ("medium", "bf16"): Bound(must=0.50, aim=0.80),
}
TRANSFORMED = Bound(must=0.8, aim=0.9)
_OF_PEERS = {"bulk": Bound(aim=1.2), "medium": Bound(aim=1.0)}
_NAMES = {"bulk": "1024 samples × 2 clients", "medium": "64 × 4"}
_OTHERS = {"torchserve": "TorchServe", "mosec": "mosec", "litserve": "LitServe"}


def rows_of(records: Records) -> list[Row]:
    """Compute every row with records, in the order of the table."""
    rows: list[Row] = []
    for precision in records.precisions():
        for make in (_throughput, _small, _single, _interactive, _transformed, _first_chunk, _scale, _replicas, _cpu):
            rows += make(records, precision)
    return rows


def _make(
    workload: str, precision: str, value: str, reference: str, ratios: Sequence[float], bound: Bound
) -> Iterator[Row]:
    if ratios:
        yield Row(
            workload=workload, precision=precision, value=value, reference=reference, bound=bound,
            ratio=statistics.median(ratios), spread=(min(ratios), max(ratios)),
        )  # fmt: skip


def _throughput(records: Records, precision: str) -> Iterator[Row]:
    """Compare samples/s with the limit, the higher of the two layouts, and with every other server."""
    for workload, name in _NAMES.items():
        sides = {contender: (workload, contender, "samples_per_s") for contender in _OTHERS}
        sides = {"limit": ("limit", "limit", "samples_per_s")} | sides
        for other, side in sides.items():
            bound = _OF_LIMIT[workload, precision] if other == "limit" else _OF_PEERS[workload]
            yield from _against(
                records, precision, name, (workload, "fount", "samples_per_s"), side, "{:.0f} samples/s", bound
            )


_CLIENTS = {"fount": "", "fount-bare": ", generated stubs"}


def _small(records: Records, precision: str) -> Iterator[Row]:
    for contender, through in _CLIENTS.items():
        is_fount = contender == "fount"  # the other shows the cost of the client library and is only reported
        for other in _OTHERS if is_fount else ("torchserve",):
            alone = other == "torchserve"
            rate, tail = (Bound(must=1.3), Bound(must=0.8, at_most=True)) if alone else (Bound(aim=1.0), Bound())
            yield from _against(
                records, precision, f"1 × 32 clients{through}", ("small", contender, "requests_per_s"),
                ("small", other, "requests_per_s"), "{:.0f} requests/s", rate if is_fount else Bound(),
            )  # fmt: skip
            ours = records.best_layout(precision, "small", contender, "requests_per_s")
            n = records.median(precision, "small", contender, ours or "", "requests")
            yield from _against(
                records, precision, f"1 × 32 clients{through}, p99 (n ≈ {n:.0f} a round)",
                ("small", contender, "p99_ms"), ("small", other, "p99_ms"), "p99 {:.1f} ms",
                tail if is_fount else Bound(), by="requests_per_s",
            )  # fmt: skip


def _single(records: Records, precision: str) -> Iterator[Row]:
    for contender, through in _CLIENTS.items():
        for other in _OTHERS if contender == "fount" else ("torchserve",):
            bound = Bound(must=0.7, at_most=True) if other == "torchserve" else Bound(aim=1.0, at_most=True)
            yield from _against(
                records, precision, f"1 × 1{through}", ("single", contender, "p50_ms"), ("single", other, "p50_ms"),
                "p50 {:.2f} ms", bound if contender == "fount" else Bound(), choose=min,
            )  # fmt: skip


def _against(
    records: Records, precision: str, name: str, ours: tuple[str, str, str], theirs: tuple[str, str, str], text: str,
    bound: Bound, *, by: str = "", choose: Callable[..., float] = max,
) -> Iterator[Row]:  # fmt: skip
    """Compare one value of two contenders, each in its best layout.

    Args:
        records: of the run.
        precision: of the workers.
        name: of the workload.
        ours: workload, contender and value.
        theirs: likewise.
        text: format of the value.
        bound: of the ratio.
        by: the value that chooses the layout; "" is the compared one.
        choose: the better of two values.
    """
    texts, values = [], []
    for workload, contender, value in (ours, theirs):
        layout = records.best_layout(precision, workload, contender, by or value, choose)
        if layout is None:
            return
        values.append(records.rounds(precision, workload, contender, layout, value))
        texts.append(f"{text.format(statistics.median(values[-1].values()))} ({layout})")
    reference = f"{_OTHERS.get(theirs[1], theirs[1])} {texts[1]}"
    yield from _make(name, precision, texts[0], reference, ratio_by_round(*values), bound)


def _interactive(records: Records, precision: str) -> Iterator[Row]:
    """Compute the growth of p99 under a pull, in units of max_batch_ms."""
    best = records.best_layout(precision, "interactive", "fount", "growth_ms", min)
    if best is None:
        return
    idle, loaded, n = (
        records.median(precision, "interactive", "fount", best, value)
        for value in ("idle_p99_ms", "loaded_p99_ms", "requests")
    )
    growth = records.rounds(precision, "interactive", "fount", best, "growth_ms")
    yield from _make(
        f"8 every 50 ms under a pull, p99 (n = {n:.0f} a round)", precision,
        f"p99 {loaded:.1f} ms ({best})", f"idle p99 {idle:.1f} ms; ratio is growth / max_batch_ms {MAX_BATCH_MS}",
        [each / MAX_BATCH_MS for each in growth.values()], Bound(must=1.0, at_most=True),
    )  # fmt: skip


def _transformed(records: Records, precision: str) -> Iterator[Row]:
    yield from _against(
        records, precision, "transformed rows, 4 shards", ("transformed", "fount", "rows_per_s"),
        ("transformed", "one process", "rows_per_s"), "{:.0f} rows/s", TRANSFORMED,
    )  # fmt: skip


def _first_chunk(records: Records, precision: str) -> Iterator[Row]:
    best = records.best_layout(precision, "first-chunk", "fount", "first_ms", min)
    if best is None:
        return
    firsts, wholes = (
        records.rounds(precision, "first-chunk", "fount", best, value) for value in ("first_ms", "whole_256_ms")
    )
    yield from _make(
        "first chunk of 1 000 000", precision,
        f"{statistics.median(firsts.values()):.0f} ms ({best})",
        f"256 samples in {statistics.median(wholes.values()):.0f} ms",
        ratio_by_round(firsts, wholes), Bound(must=2.0, at_most=True),
    )  # fmt: skip


def _scale(records: Records, precision: str) -> Iterator[Row]:
    """Compare the cost per sample of all request sizes, highest over lowest; and the growth of the gateway."""
    for layout in records.layouts(precision, "scale", "fount"):
        costs = {
            count: records.median(precision, "scale", "fount", layout, f"us_per_sample_{count}")
            for count in (10**3, 10**4, 10**5, 10**6)  # other sizes of a plan have no row
        }
        costs = {count: cost for count, cost in costs.items() if not math.isnan(cost)}
        if len(costs) > 1:
            listed = ", ".join(f"10^{round(math.log10(count))}: {cost:.0f}" for count, cost in costs.items())
            ratio = max(costs.values()) / min(costs.values())
            yield from _make(f"cost per sample, {len(costs)} sizes", precision, f"{listed} µs ({layout})",
                             "highest / lowest", [ratio], Bound(must=1.15, at_most=True))  # fmt: skip
        growth = records.rounds(precision, "scale", "fount", layout, "gateway_growth_mb")
        if growth:
            largest = max(costs, default=0)
            yield from _make(f"gateway memory over {largest} samples", precision,
                             f"+{max(growth.values()):.1f} MB ({layout})", "MB; ratio is of 64 MB",
                             [max(growth.values()) / 64], Bound(must=1.0, at_most=True))  # fmt: skip


def _replicas(records: Records, precision: str) -> Iterator[Row]:
    for layout in records.layouts(precision, "replicas", "fount"):
        shares = records.rounds(precision, "replicas", "fount", layout, "busier_over_other")
        first = records.median(precision, "replicas", "fount", layout, "first_share")
        yield from _make("two TorchServe processes", precision, f"{first:.1%} and {1 - first:.1%} of worker CPU",
                         "busier / other", list(shares.values()), Bound(must=1.1, at_most=True))  # fmt: skip


def _cpu(records: Records, precision: str) -> Iterator[Row]:
    """Report CPU-seconds per 1000 samples outside the model; of TorchServe alone, all of its worker."""
    for workload, contender, name in _CPU_ROWS:
        value = "samples_per_s" if workload == "bulk" else "requests_per_s"
        layout = records.best_layout(precision, workload, contender, value)
        if layout is None:
            continue
        parts = {
            role: records.median(precision, workload, contender, layout, f"{role}_cpu_s_per_1000")
            for role in ("client", "gateway", "java", "worker_outside_model")
        }
        listed = ", ".join(f"{role.replace('_', ' ')} {seconds:.3f}" for role, seconds in parts.items())
        model = records.median(precision, workload, contender, layout, "model_cpu_s_per_1000")
        yield Row(
            workload=f"CPU-seconds outside the model per 1000 samples, {name}", precision=precision,
            value=f"{listed} ({layout})", reference=_cpu_reference(records, precision, workload, model),
            ratio=sum(parts.values()) / model if model else math.nan,
        )  # fmt: skip


_CPU_ROWS = (
    ("bulk", "fount", "1024 × 2"), ("small", "fount", "1 × 32"), ("small", "fount-bare", "1 × 32, generated stubs"),
)  # fmt: skip


def _cpu_reference(records: Records, precision: str, workload: str, model: float) -> str:
    """Describe the cost of the model, and of TorchServe alone if it had the same load."""
    text = f"model {model:.3f}"
    layout = records.best_layout(precision, workload, "torchserve", "requests_per_s")
    if layout is None:
        return text
    parts = {
        role: records.median(precision, workload, "torchserve", layout, f"{role}_cpu_s_per_1000")
        for role in ("client", "java", "worker")
    }
    alone = ", ".join(f"{role} {seconds:.3f}" for role, seconds in parts.items())
    return f"{text}; TorchServe alone: {alone}, model within ({layout})"
