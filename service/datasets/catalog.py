"""The data sets of a gateway by name, opened on first use and kept open.

Reading one takes a thread, and goes on when its callers are gone: the next one finds more of it done, or all. It ends
with the gateway. A refusal is remembered until a file changes, so asking again costs nothing, and a corrected file
needs no restart.
"""

from __future__ import annotations

import asyncio
import logging
import os
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fount.documents import nearest
from fount.readers import DataError, Dataset, DatasetSource, read_dataset, state_of_files
from fount.transforms import Policy
from service.errors import DatasetUnreadable, UnknownName, Violation
from service.threads import run_in_thread

__all__ = ["BUILT_IN", "DatasetSettings", "Datasets", "unreadable_errors"]

_READ_AT_ONCE = 4  # in threads of their own, so that calls which need one do not wait for a data set

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DatasetSettings:
    """One configured data set.

    Attributes:
        source: where it is stored and how it is read.
        classifier: the model that checks its labels unless a request names another; empty: none.
        policy: transforms its rows unless a request has a policy; None: the safe policy.
    """

    source: DatasetSource
    classifier: str = ""
    policy: Policy | None = None

    @property
    def name(self) -> str:
        """The name of the data set in requests."""
        return self.source.name


BUILT_IN = (
    DatasetSettings(source=DatasetSource(name="digits"), classifier="digits-classifier"),
    DatasetSettings(source=DatasetSource(name="shapes64"), classifier="shapes-classifier"),
)
"""Those that need no configuration."""


class Datasets:
    """All data sets of a gateway: the built-in ones, and the configured ones, whose names differ."""

    def __init__(self, configured: Sequence[DatasetSettings] = ()) -> None:
        self._settings = {each.name: each for each in sorted((*BUILT_IN, *configured), key=lambda each: each.name)}
        self._opened: dict[str, Dataset] = {}
        self._opening: dict[str, asyncio.Task[Dataset]] = {}
        self._refused: dict[str, tuple[str, DataError]] = {}  # with the state of the files that were refused
        self._threads = ThreadPoolExecutor(_READ_AT_ONCE, "fount-datasets")
        for each in self._settings.values():
            if (path := each.source.path) is not None and not os.path.exists(path):  # may be made later, or mounted
                _log.warning("data set %s: there is no %s yet; it is looked for at the first request", each.name, path)

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(self._settings)

    def settings(self, name: str, *, field: str = "dataset") -> DatasetSettings:
        """Look up the settings of a data set; `field` of the request names it.

        Raises:
            UnknownName: there is none of the name.
        """
        if name not in self._settings:
            near = nearest(name, self.names())
            hint = f"did you mean {near!r}? " if near else ""
            message = (
                f"{name[:80]!r} is not a data set of this gateway; {hint}`fount datasets` (ListDatasets) lists them"
            )
            raise UnknownName((Violation(field=field, description=message, unknown=True),))
        return self._settings[name]

    async def open(self, name: str, *, field: str = "dataset") -> Dataset:
        """Open a data set and compute its digest; simultaneous callers share one reading.

        Raises:
            UnknownName: there is none of the name.
            DatasetUnreadable: its files are absent or damaged.
        """
        settings = self.settings(name, field=field)
        if name in self._opened:
            return self._opened[name]
        if name not in self._opening:
            self._opening[name] = task = asyncio.create_task(self._read(settings))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())  # all callers may be gone
        return await asyncio.shield(self._opening[name])  # one cancelled caller must not cancel the others

    async def close(self) -> None:
        """End every reading; who waits for one is cancelled."""
        for task in (opening := list(self._opening.values())):
            task.cancel()
        if opening:
            await asyncio.wait(opening)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _read(self, settings: DatasetSettings) -> Dataset:
        try:
            with unreadable_errors(settings.name, settings.source.path):
                self._opened[settings.name] = await run_in_thread(self._read_files, settings, executor=self._threads)
            return self._opened[settings.name]
        finally:
            del self._opening[settings.name]

    def _read_files(self, settings: DatasetSettings) -> Dataset:
        """Read a data set completely, unless its files were refused as they are."""
        path = settings.source.path
        state = "" if path is None else state_of_files(path)
        refused_state, refusal = self._refused.get(settings.name, ("", None))
        if refusal is not None and refused_state == state:
            raise DataError(str(refusal))
        try:
            dataset = read_dataset(settings.source)
            _ = dataset.digest  # reads every image, so damage is found now, and caches the digest
        except DataError as error:
            if path is not None and not _may_pass(error):
                self._refused[settings.name] = state, DataError(str(error))
            raise
        self._refused.pop(settings.name, None)
        return dataset


def _may_pass(error: DataError) -> bool:
    """Whether the operating system failed rather than the files, which may pass without a change of the files."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno is not None


@contextmanager
def unreadable_errors(name: str, path: Path | None) -> Iterator[None]:
    """Raise DatasetUnreadable, with the name of the data set, when reading it in this block fails.

    Clients read its message, so it names files relative to `path`, the file or folder of the data set; the log has
    whole paths.
    """
    try:
        yield
    except DataError as error:
        _forget_values(error)
        _log.warning("data set %s cannot be read: %s", name, error)
        raise DatasetUnreadable(f"data set {name}: {_without_folders(str(error), path)}") from error


def _without_folders(message: str, path: Path | None) -> str:
    """Write files of a data set relative to its folder, and the folder or file itself by its name alone."""
    for root in () if path is None else (path, path.resolve()):
        if root.is_absolute() and root.name:
            message = message.replace(f"{root}{os.sep}", "").replace(str(root), root.name)
    return message


def _forget_values(error: BaseException | None) -> None:
    """Clear the variables of the functions an error passed through: with its traceback they would keep the images."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
