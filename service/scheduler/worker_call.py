"""Slices that share a call, on their way to a worker: what the call says, and what becomes of its outcomes.

A draw of many steps that would keep a worker too long is cut between steps: its call names a limit, its slices come
back with the sampler's state, and go on in another call, with the same bytes as if they had not been cut.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.domain import Call, Carry, RangeItem, Reply, Target
from service.scheduler.costs import CostModel
from service.scheduler.stream import SampleStream, Slice

__all__ = ["WorkerCall", "steps_of", "units_of"]


@dataclass(kw_only=True, eq=False)
class WorkerCall:
    """Slices that share a call.

    Attributes:
        slices: of one lane, all at the same step; never empty when sent.
        lost: how often a worker went away under them.
        died: how often the worker's own process died.
    """

    slices: list[Slice]
    lost: int = 0
    died: int = 0

    @property
    def leader(self) -> SampleStream:
        """The stream whose turn it was."""
        return self.slices[0].stream

    @property
    def is_cut(self) -> bool:
        """Whether they are the rest of a draw."""
        return self.slices[0].carry is not None

    @property
    def samples(self) -> int:
        """How many samples they are together."""
        return sum(each.item.count for each in self.slices)

    @property
    def units(self) -> float:
        """What one step of all of them costs; rows of one lane cost the same each."""
        return self.samples * self.leader.work.row_cost

    @property
    def steps_left(self) -> int:
        """How many steps their draw still takes."""
        carry = self.slices[0].carry
        return steps_of(self.leader) - (carry.next_step if carry else 0)

    def keep_wanted(self) -> bool:
        """Drop what nobody waits for any more; False when nothing is left."""
        self.slices = [each for each in self.slices if each.is_wanted]
        return bool(self.slices)

    def to_call(self, target: Target, costs: CostModel, budget_s: float) -> Call:
        """The call: cut between steps where all of them would take more than the budget."""
        works = [each.stream.work for each in self.slices]
        deadlines = [work.deadline_unix_s for work in works if work.deadline_unix_s is not None]
        within, steps = max(1, int(costs.units_within(budget_s) / self.units)), self.steps_left
        return Call(
            target=target,
            operation=works[0].operation,
            parameters=works[0].parameters,
            items=tuple(each.item for each in self.slices),
            deadline_unix_s=max(deadlines) if len(deadlines) == len(works) else None,
            request_id=works[0].request_id,
            step_limit=within if within < steps else 0,
            cost_s=costs.seconds(self.units * min(within, steps)),
        )

    def settle(self, reply: Reply) -> WorkerCall | None:
        """Give streams what a worker answered; what it cut is left, to be sent on."""
        rest = []
        for each, outcome in zip(self.slices, reply.outcomes, strict=True):
            item = each.item
            if isinstance(outcome, Carry) and isinstance(item, RangeItem) and self._goes_on(each, outcome):
                rest.append(each.cut(item, outcome))
            else:
                each.settle(outcome)
        return WorkerCall(slices=rest) if rest else None

    def fail(self, error: BaseException) -> None:
        """Give every stream an error in place of its slice."""
        for each in self.slices:
            each.fail(error)

    def _goes_on(self, each: Slice, carry: Carry) -> bool:
        """Whether a carry is of this slice and nearer to its end; else it would go round for ever."""
        before = each.carry.next_step if each.carry else 0
        return len(carry.state) == each.item.count and before < carry.next_step < steps_of(each.stream)


def steps_of(stream: SampleStream) -> int:
    """How many steps a draw of this stream takes."""
    return stream.work.parameters.steps or 1


def units_of(stream: SampleStream) -> float:
    """What a row of this stream costs, whole, in steps of a row of the model's own size."""
    return steps_of(stream) * stream.work.row_cost
