"""One call to a worker: slices of streams enter, its request leaves, and its reply is passed on to the streams."""

from __future__ import annotations

from dataclasses import dataclass

from service.calls import Call, Reply, SamplerState
from service.domain import Target
from service.scheduler.stream import SampleStream, Slice
from service.scheduler.timing import CostModel

__all__ = ["WorkerCall"]


@dataclass(kw_only=True, eq=False)
class WorkerCall:
    """One call to a worker: slices of several streams that are computed together, and how its reply reaches them.

    A draw of many steps that would occupy a worker too long is preempted between steps: its call has a step limit, the
    worker returns the sampler's state, and another call resumes from there, with the same bytes as without a break.

    Attributes:
        slices: of one lane, all at the same step; never empty when sent.
        lost: how many attempts ended with a lost worker.
        died: in how many of these the worker's own process died.
    """

    slices: list[Slice]
    lost: int = 0
    died: int = 0

    @property
    def leader(self) -> SampleStream:
        """The stream that the fair queue chose."""
        return self.slices[0].stream

    @property
    def is_resumed(self) -> bool:
        """Whether it continues a preempted draw."""
        return self.slices[0].state is not None

    @property
    def samples(self) -> int:
        """How many samples the slices have together."""
        return sum([each.item.count for each in self.slices])

    @property
    def units(self) -> float:
        """What one step of all of them costs; rows of one lane cost the same each."""
        return self.samples * self.leader.work.row_cost

    @property
    def steps_left(self) -> int:
        """How many steps their draw still takes."""
        return self.leader.steps - _next_step(self.slices[0])

    @property
    def is_abandoned(self) -> bool:
        """Whether all its readers are gone."""
        return all(each.stream.is_closed for each in self.slices)

    def keep_wanted(self) -> bool:
        """Drop the slices whose readers are gone or late; return whether any remain."""
        self.slices = [each for each in self.slices if each.is_wanted]
        return bool(self.slices)

    def to_call(self, target: Target, costs: CostModel, budget_s: float) -> Call:
        """Build the call, with a step limit when all remaining steps would take more than the budget."""
        work, units, steps = self.leader.work, self.units, self.steps_left
        affordable = 1 if steps == 1 else max(1, int(costs.units_within(budget_s) / units))
        deadlines = [each.stream.work.context.deadline_unix_s for each in self.slices]
        return Call(
            target=target,
            operation=work.operation,
            parameters=work.parameters,
            items=tuple([each.item for each in self.slices]),
            deadline_unix_s=None if None in deadlines else max(deadlines),  # type: ignore[type-var]  # no None is left
            request_id=work.context.request_id,
            step_limit=affordable if affordable < steps else None,
            cost_s=costs.seconds(units * min(affordable, steps)),
        )

    def complete(self, reply: Reply) -> WorkerCall | None:
        """Pass a worker's outcomes to the streams; return the call that resumes preempted slices, if there are any."""
        preempted = []
        for each, outcome in zip(self.slices, reply.outcomes, strict=True):
            if isinstance(outcome, SamplerState) and each.preempted(outcome):
                preempted.append(each)
            else:
                each.complete(outcome)
        return WorkerCall(slices=preempted) if preempted else None

    def fail(self, error: BaseException) -> None:
        """Pass an error to every stream in place of its slice."""
        for each in self.slices:
            each.fail(error)


def _next_step(each: Slice) -> int:
    return each.state.next_step if each.state else 0
