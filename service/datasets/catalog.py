"""The catalogue: data sets by name, read when they are first asked for and kept open.

A reading that fails is not kept: the next call tries again, so that a mended file needs no restart.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence

from fount.readers import DataError, Dataset, read_dataset
from service.datasets.configuration import BUILT_IN, DatasetSettings
from service.errors import DatasetUnreadable, UnknownName, Violation

__all__ = ["Datasets"]


class Datasets:
    """Every data set there is.

    Args:
        configured: those beside the built-in one; names differ.
    """

    def __init__(self, configured: Sequence[DatasetSettings] = ()) -> None:
        self._settings = {each.name: each for each in sorted((BUILT_IN, *configured), key=lambda each: each.name)}
        self._opened: dict[str, Dataset] = {}
        self._opening: dict[str, asyncio.Task[Dataset]] = {}

    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(self._settings)

    def settings(self, name: str, *, field: str = "dataset") -> DatasetSettings:
        """What is configured for a data set.

        Args:
            name: of the data set.
            field: of the request that names it, for the message.

        Raises:
            UnknownName: there is none of the name.
        """
        if name not in self._settings:
            near = difflib.get_close_matches(name, self._settings, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            told = f"{name[:80]!r} is no data set here; {hint}ask ListDatasets which there are"
            raise UnknownName((Violation(field=field, description=told, unknown=True),))
        return self._settings[name]

    async def open(self, name: str, *, field: str = "dataset") -> Dataset:
        """A data set, read and with its digest known; callers at the same time share one reading.

        Raises:
            UnknownName: there is none of the name.
            DatasetUnreadable: its files are absent or damaged.
        """
        settings = self.settings(name, field=field)
        if name in self._opened:
            return self._opened[name]
        if name not in self._opening:
            self._opening[name] = asyncio.create_task(self._read(settings))
            self._opening[name].add_done_callback(
                lambda task: task.cancelled() or task.exception()
            )  # all may have left
        return await asyncio.shield(self._opening[name])  # one caller's leaving must not end it for the others

    async def _read(self, settings: DatasetSettings) -> Dataset:
        try:
            self._opened[settings.name] = await asyncio.to_thread(_read, settings)
            return self._opened[settings.name]
        except DataError as error:
            raise DatasetUnreadable(f"data set {settings.name}: {error}") from error
        finally:
            del self._opening[settings.name]


def _read(settings: DatasetSettings) -> Dataset:
    dataset = read_dataset(settings.source)
    _ = dataset.digest  # reads every image: what is broken is found now, and kept is what was found
    return dataset
