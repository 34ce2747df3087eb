"""One export of a plan into a folder, from resolving the plan to the manifest.

A plan file or ticket and `ExportOptions` enter; `ExportResult` leaves. A plan file without a seed gives another plan
each time, so the plan is saved in the folder, and a second run continues with its ticket. When the gateway no longer
accepts the ticket, the same plan is made again from its resolved request.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from fount.augmentation.plan import SOURCES, PlanInfo, plan_info
from fount.augmentation.plan_file import load_plan_file, plan_request
from fount.augmentation.pull import Level, PullInfo
from fount.augmentation.pull import Part as PartOfPlan
from fount.augmentation.rows import RowBatch
from fount.augmentation.shards import MAX_SHARDS
from fount.client.sync import Client
from fount.errors import InvalidRequest, NotFound, OutputError, output_errors
from fount.export.export_folder import MANIFEST, ExportFolder, PartRecord
from fount.export.formats import DATA, Format, class_folder_names, csv_header, to_csv
from fount.export.parts import Part, export_parts, rows_per_part, split_into_parts
from fount.export.table import Table, TableSchema
from fount.files import atomic_path, sha256_of
from fount.readers.folder_tables import CLASSES_FILE, GROUPS_FILE
from fount.readers.validation import NO_GROUP_NAME
from fount.v1 import augmentation_pb2

__all__ = ["Export", "ExportOptions", "ExportResult", "is_plan_file"]

_PLAN_SUFFIXES = (".yaml", ".yml", ".json")
_ROWS_FILE = "rows.csv"
_MAX_TICKET_BYTES = 2**22  # as of a message
_SPLITS: Mapping[PartOfPlan, str] = {"plan": "train", "out-of-bag": "out_of_bag"}

ShowProgress = Callable[[int, int], AbstractContextManager[Callable[[int], None]]]
"""Shows progress of (rows in total, rows that exist already); the context's value is called with each count of rows."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export and how; `shards` is None for the planned number, `jobs` the number of simultaneous streams."""

    format: Format
    provenance: Level
    part: PartOfPlan
    shards: int | None
    jobs: int


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """The manifest, the number of parts this run wrote, and how many of those replaced damaged ones."""

    manifest: Mapping[str, Any]
    written: int
    replaced: int


def is_plan_file(path: Path) -> bool:
    """Whether a file is a plan file rather than a ticket, by its suffix."""
    return path.suffix.lower() in _PLAN_SUFFIXES


class Export:
    """An export of a plan into a folder that is locked."""

    def __init__(self, client: Client, folder: ExportFolder, source: Path, options: ExportOptions) -> None:
        """Resolve the plan of a plan file or ticket, and check that the folder, which is locked, is for this export."""
        self._client, self._folder, self._options = client, folder, options
        plan = self._resolve_plan(source) if is_plan_file(source) else None
        self._ticket = _read_ticket(source) if plan is None else plan.ticket
        try:
            self._info = self._request_info()
        except InvalidRequest as error:
            if plan is None or all(field != "ticket" for field, _ in error.fields):
                raise
            plan = self._plan_again(plan)
            self._ticket = plan.ticket
            self._info = self._request_info()
        if len(self._info.shape) != 3:
            shape = f"the shape {self._info.shape}"
            raise OutputError(f"The rows have {shape}; only images of (height, width, channels) are exported")
        self._schema = TableSchema(
            classes=self._info.classes,
            groups=self._info.groups,
            shape=self._info.shape,
            provenance=options.provenance,
            transforms=self._info.transform_columns,
        )
        self._shards = min(options.shards or (1 if plan is None else plan.shards), MAX_SHARDS)
        max_rows = rows_per_part(self._schema.shape)
        self._parts = split_into_parts(self._info.rows, self._shards, max_rows)
        split = _SPLITS[options.part]
        self._files = [options.format.file_of(part.number, len(self._parts), split) for part in self._parts]
        self._identity = self._describe(max_rows)
        folder.claim(self._identity)
        self._journal = folder.journal()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by id."""
        return self._info.classes

    def run(self, show_progress: ShowProgress) -> ExportResult:
        """Write the missing parts and the manifest; after an error, complete parts remain and the next run resumes."""
        folder, jobs, total = self._folder, self._options.jobs, self._info.rows
        files = dict(enumerate(self._files))
        recorded = [each for each in self._journal.records.values() if files.get(each.part) == each.file]
        with ThreadPoolExecutor(jobs, "fount-verify") as pool:
            checks = list(pool.map(self._is_intact, recorded))
        intact = {each.part for each, is_intact in zip(recorded, checks, strict=True) if is_intact}
        missing = [part for part in self._parts if part.number not in intact]
        if not missing and (manifest := self._valid_manifest()) is not None:
            return ExportResult(manifest=manifest, written=0, replaced=0)
        with output_errors(folder.path):
            (folder.path / MANIFEST).unlink(missing_ok=True)
        with show_progress(total, total - sum(map(len, missing))) as on_rows:
            export_parts(self._pull, self._write_part, missing, schema=self._schema, jobs=jobs, on_rows=on_rows)
        with output_errors(folder.path):
            if not self._options.format.suffix:
                self._describe_folders()
                self._join_row_lists()
            manifest = self._make_manifest()
        folder.write(MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
        return ExportResult(manifest=manifest, written=len(missing), replaced=len(recorded) - len(intact))

    # --- The plan -----------------------------------------------------------------------------------------------------

    def _resolve_plan(self, file: Path) -> PlanInfo:
        """Make the plan of a plan file, or read the one that an earlier run made and saved."""
        request = plan_request(load_plan_file(file))
        saved = self._folder.plan()
        if saved is None:
            return self._save(MessageToDict(request), self._client.plan(request))
        if saved.get("spec") != MessageToDict(request):
            found = f"{self._folder.path} holds an export of another plan file than {file} is now"
            raise OutputError(f"{found}; name another folder with --out")
        try:
            return plan_info(ParseDict(saved.get("plan", {}), augmentation_pb2.Plan()))
        except (ParseError, ValueError) as error:
            found = f"{self._folder.path} holds a plan that cannot be read ({error})"
            raise OutputError(f"{found}; name another folder with --out") from error

    def _plan_again(self, plan: PlanInfo) -> PlanInfo:
        """Make the same plan again, when the gateway no longer accepts its ticket."""
        again = self._client.plan(plan.request)
        if again.id != plan.id:
            found = f"{self._folder.path} holds rows of plan {plan.id}, whose ticket is no longer accepted"
            raise OutputError(f"{found}, and planning it again gives {again.id}; name another folder with --out")
        return self._save((self._folder.plan() or {}).get("spec"), again)

    def _save(self, spec: Any, plan: PlanInfo) -> PlanInfo:
        self._folder.save_plan({"spec": spec, "plan": MessageToDict(plan.message)}, plan.ticket)
        return plan

    def _request_info(self) -> PullInfo:
        options = self._options
        return self._client.pull_info(self._ticket, provenance=options.provenance, part=options.part)

    def _pull(self, parts: Sequence[Part]) -> Generator[RowBatch]:
        return self._client.pull(
            self._ticket,
            shard=parts[0].shard,
            shards=self._shards,
            start_index=parts[0].first,
            end_index=parts[-1].end,
            provenance=self._options.provenance,
            part=self._options.part,
        )

    # --- Files --------------------------------------------------------------------------------------------------------

    def _write_part(self, part: Part, table: Table) -> None:
        """Write a part, and then record it in the journal; until then it counts as missing."""
        file = self._files[part.number]
        with output_errors(self._folder.path / file):
            data = self._options.format.encode(table, self._save_image)
            self._folder.write(file, data)
            record = PartRecord(
                part=part.number,
                first=part.first,
                end=part.end,
                file=file,
                bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(),
                rows=len(table),
                rejected=table.rejected,
                by_class=_counts(table, "label", dict(enumerate(self._schema.classes))),
                by_source=_counts(table, "source", {int(code): name for code, name in SOURCES.items()}),
            )
            self._journal.add(record)

    def _save_image(self, path: str, data: bytes) -> None:
        self._folder.write(f"{DATA}/{path}", data, durable=False)  # `_join_row_lists` syncs all images at once

    def _is_intact(self, record: PartRecord) -> bool:
        """Whether the files of a part still have their sizes and digests."""
        folder = self._folder.path
        path = folder / record.file
        try:
            if path.stat().st_size != record.bytes or sha256_of(path) != (record.sha256, record.bytes):
                return False
            if self._options.format.suffix:
                return True
            with path.open(newline="") as file:  # the part is a list of images with their digests
                return all(sha256_of(folder / DATA / name)[0] == digest for name, digest, *_ in csv.reader(file))
        except OSError:
            return False

    def _describe_folders(self) -> None:
        """Write which class each folder has and, where there are groups, the group of each image, as readers expect."""
        classes = self._schema.classes
        lines = zip(class_folder_names(classes), classes, strict=True)
        self._folder.write(f"{DATA}/{CLASSES_FILE}", to_csv([["folder", "class"], *lines]))
        if not self._schema.groups:
            return
        groups_file = self._folder.path / DATA / GROUPS_FILE
        with atomic_path(groups_file, staging=self._folder.staging) as temporary, temporary.open("wb") as file:
            file.write(to_csv([["path", "group"]]))
            for part_file in self._files:
                with (self._folder.path / part_file).open(newline="", encoding="utf-8") as part:
                    file.write(to_csv([[path, group or NO_GROUP_NAME] for path, _, _, group, *_ in csv.reader(part)]))

    def _join_row_lists(self) -> None:
        """Write `rows.csv` from the lists of all parts, and sync the images they list."""
        rows_file = self._folder.path / _ROWS_FILE
        with atomic_path(rows_file, staging=self._folder.staging) as temporary, temporary.open("wb") as file:
            file.write(csv_header(self._schema))
            for part_file in self._files:
                file.write((self._folder.path / part_file).read_bytes())
            if hasattr(os, "sync"):
                os.sync()

    def _listing_files(self) -> list[str]:
        """Name the files that describe images which are files of their own."""
        if self._options.format.suffix:
            return []
        return [_ROWS_FILE, f"{DATA}/{CLASSES_FILE}", *([f"{DATA}/{GROUPS_FILE}"] if self._schema.groups else [])]

    def _valid_manifest(self) -> dict[str, Any] | None:
        """Read the manifest of an earlier run; None when it, or a list of images, is missing or was changed."""
        found = self._folder.manifest()
        try:
            return found if found == json.loads(json.dumps(self._make_manifest())) else None
        except OSError:
            return None

    def _make_manifest(self) -> dict[str, Any]:
        saved = (self._folder.plan() or {}).get("plan") or {}
        records = [self._journal.records[part.number] for part in self._parts]
        files = []
        for name in self._listing_files():
            digest, size = sha256_of(self._folder.path / name)
            files.append({"file": name, "bytes": size, "sha256": digest})
        return {
            **self._identity,
            "request": saved.get("request") if saved.get("id") == self._info.plan_id else None,
            "written": sum(record.rows for record in records),
            "rejected": sum(record.rejected for record in records),
            "by_class": _total([record.by_class for record in records], self._schema.classes),
            "by_source": _total([record.by_source for record in records], SOURCES.values()),
            "files": files,
            "parts": [asdict(record) for record in records],
        }

    def _describe(self, max_rows: int) -> dict[str, Any]:
        """Return what distinguishes this export from others, as JSON values."""
        info, options = self._info, self._options
        return {
            "plan_id": info.plan_id,
            "format": options.format.name,
            "provenance": options.provenance,
            "part": options.part,
            "shards": self._shards,
            "rows": info.rows,
            "rows_a_part": max_rows,
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


def _read_ticket(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            ticket = file.read(_MAX_TICKET_BYTES + 1)
    except OSError as error:
        raise NotFound(f"The ticket {str(path)!r} cannot be read: {error.strerror or error}.") from error
    if len(ticket) > _MAX_TICKET_BYTES:
        problem = f"is larger than {_MAX_TICKET_BYTES} bytes; name a file that `fount plan --ticket-out` wrote"
        raise InvalidRequest("The rows cannot be pulled:", fields=[(str(path), problem)])
    return ticket


def _counts(table: Table, column: str, names: Mapping[int, str]) -> dict[str, int]:
    if column not in table.columns:
        return {}
    ids, counts = np.unique(table.columns[column], return_counts=True)
    return {names.get(id, str(id)): count for id, count in zip(ids.tolist(), counts.tolist(), strict=True)}


def _total(counts: Sequence[Mapping[str, int]], names: Iterable[str]) -> dict[str, int]:
    """Sum counts over all parts, in the order of the names; no zeros."""
    totals = {name: sum(each.get(name, 0) for each in counts) for name in names}
    return {name: total for name, total in totals.items() if total}
