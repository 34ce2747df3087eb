"""One export from its beginning to its end: what it is of, what of it is there, and making the rest."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from fount.augmentation.pull import Level, PullInfo
from fount.augmentation.pull import Part as PartOfPlan
from fount.augmentation.rows import RowBatch
from fount.augmentation.shards import MAX_SHARDS
from fount.cli.output.writer import writing
from fount.client.sync import Client
from fount.errors import InvalidRequest, OutputError
from fount.export.formats import Format
from fount.export.journal import Record
from fount.export.manifest import finish, finished, sound_records
from fount.export.parallel import PartWriter, export_parts
from fount.export.plan_choice import Chosen, renew
from fount.export.table import Contents, cut, rows_a_part
from fount.export.target_folder import MANIFEST, Place

__all__ = ["Export", "Outcome", "Wanted"]

_SPLITS: Mapping[PartOfPlan, str] = {"plan": "train", "out-of-bag": "out_of_bag"}

Showing = Callable[[int, int], AbstractContextManager[Callable[[int], None]]]
"""Shows progress of (rows in all, rows there already), and gives what is told of rows that came."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What was asked for.

    Attributes:
        format: how files are written.
        provenance: how much every row tells.
        part: which rows of the plan.
        shards: into how many shards rows are cut; None: as planned.
        jobs: how many streams at a time.
    """

    format: Format
    provenance: Level
    part: PartOfPlan
    shards: int | None
    jobs: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of it.

    Attributes:
        manifest: the export's.
        made: how many parts were made now.
        again: how many of those were there before, and had been changed or cut off.
    """

    manifest: Mapping[str, Any]
    made: int
    again: int


class Export:
    """Rows of a plan on their way into a folder, which is held."""

    def __init__(self, client: Client, place: Place, chosen: Chosen, wanted: Wanted) -> None:
        """See what the plan is, and that the folder is for it.

        Raises:
            OutputError: the folder holds another export.
            FountError: the server does not know the plan, or does not answer.
        """
        self._client, self._place, self._wanted = client, place, wanted
        self._chosen, self._info = self._ask(chosen)
        self._contents = _contents(self._info, wanted.provenance)
        planned = 1 if self._chosen.plan is None else self._chosen.plan.shards
        self._shards = min(wanted.shards or planned, MAX_SHARDS)
        most = rows_a_part(self._contents.shape)
        self._parts = cut(self._info.rows, self._shards, most)
        split = _SPLITS[wanted.part]
        self._files = [wanted.format.file_of(part.number, len(self._parts), split) for part in self._parts]
        self._identity = self._describe(most)
        place.claim(self._identity)

    def run(self, showing: Showing) -> Outcome:
        """Make what is missing, and the manifest.

        Raises:
            OutputError: it cannot be written; what is whole stays, and the next run goes on.
            FountError: rows did not come; likewise.
        """
        journal, total = self._place.journal(), self._info.rows
        known = [record for record in journal.records.values() if self._is_of(record.part, record.file)]
        sound = sound_records(self._place.folder, self._wanted.format, known, self._wanted.jobs)
        done = {record.part: record for record in sound}
        missing = [part for part in self._parts if part.number not in done]
        if not missing and (whole := self._finished([done[part.number] for part in self._parts])) is not None:
            return Outcome(manifest=whole, made=0, again=0)
        with writing(self._place.folder):
            (self._place.folder / MANIFEST).unlink(missing_ok=True)
        writer = PartWriter(self._place, self._wanted.format, journal, self._files)
        with showing(total, total - sum(map(len, missing))) as came:
            export_parts(self._pull, writer, missing, contents=self._contents, jobs=self._wanted.jobs, came=came)
        records = [journal.records[part.number] for part in self._parts]
        manifest = finish(self._place, self._wanted.format, self._contents, records, self._told())
        return Outcome(manifest=manifest, made=len(missing), again=len(known) - len(sound))

    def _finished(self, records: list[Record]) -> Mapping[str, Any] | None:
        return finished(self._place, self._wanted.format, self._contents, records, self._told())

    def _is_of(self, number: int, file: str) -> bool:
        return 0 <= number < len(self._files) and self._files[number] == file

    def _ask(self, chosen: Chosen) -> tuple[Chosen, PullInfo]:
        try:
            return chosen, self._ask_once(chosen)
        except InvalidRequest as error:
            if chosen.plan is None or all(field != "ticket" for field, _ in error.fields):
                raise
            chosen = renew(self._client, self._place, chosen.plan)
            return chosen, self._ask_once(chosen)

    def _ask_once(self, chosen: Chosen) -> PullInfo:
        return self._client.pull_info(chosen.ticket, provenance=self._wanted.provenance, part=self._wanted.part)

    def _pull(self, *, shard: int, start_index: int, end_index: int) -> Generator[RowBatch, None, None]:
        return self._client.pull(
            self._chosen.ticket,
            shard=shard,
            shards=self._shards,
            start_index=start_index,
            end_index=end_index,
            provenance=self._wanted.provenance,
            part=self._wanted.part,
        )

    def _describe(self, most: int) -> dict[str, Any]:
        """What makes this export another than the next; JSON values."""
        info, wanted = self._info, self._wanted
        return {
            "plan_id": info.plan_id,
            "format": wanted.format.name,
            "provenance": wanted.provenance,
            "part": wanted.part,
            "shards": self._shards,
            "rows": info.rows,
            "rows_a_part": most,
            "dataset": info.dataset,
            "dataset_digest": info.dataset_digest,
            "models": [
                {"role": each.role, "model": str(each.model), "numerics": each.numerics} for each in info.models
            ],
            "classes": list(info.classes),
            "groups": list(info.groups),
            "image_shape": list(info.shape),
            "transforms": list(info.transform_columns),
        }

    def _told(self) -> dict[str, Any]:
        """What the manifest says beside the parts."""
        kept = (self._place.plan() or {}).get("plan") or {}
        is_its_own = kept.get("id") == self._info.plan_id  # not that of wishes this folder was refused for
        return {**self._identity, "request": kept.get("request") if is_its_own else None}


def _contents(info: PullInfo, provenance: Level) -> Contents:
    if len(info.shape) != 3:
        raise OutputError(f"The rows have the shape {info.shape}; pictures of (height, width, channels) can be written")
    height, width, channels = info.shape
    return Contents(
        classes=info.classes,
        groups=info.groups,
        shape=(height, width, channels),
        provenance=provenance,
        transforms=info.transform_columns,
    )
