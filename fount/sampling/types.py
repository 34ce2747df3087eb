"""The samples that the client returns: `Samples`, one array, and `Chunk`, a part of a stream.

Both hold what is needed to reproduce any of their samples: the model's digest, the seed, the indices and the numerics.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fount.errors import BadReply, InvalidRequest, SampleFailed

__all__ = ["TEXT_DIMS", "Chunk", "ModelId", "Provenance", "RowError", "SampleCollector", "SampleShape", "Samples"]

Array = NDArray[Any]
Int64s = NDArray[np.int64]
Uint64s = NDArray[np.uint64]

TEXT_DIMS = (-1,)
"""The dims of a text."""


@dataclass(frozen=True, kw_only=True)
class ModelId:
    """A model as a server resolved it; as text "name:version@sha256:...", which requests accept."""

    name: str
    version: str
    digest: str

    def __str__(self) -> str:
        return f"{self.name}:{self.version}@{self.digest}"


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The origin of samples: together with an index, enough to reproduce one."""

    model: ModelId
    seed: int
    numerics: str


class _HasProvenance:
    provenance: Provenance

    @property
    def model(self) -> ModelId:
        """The model as the server resolved it."""
        return self.provenance.model

    @property
    def seed(self) -> int:
        """The seed, also when the server drew it."""
        return self.provenance.seed

    @property
    def numerics(self) -> str:
        """The numerics id the samples were computed on."""
        return self.provenance.numerics


@dataclass(frozen=True, kw_only=True)
class SampleShape:
    """Shape, element type and encoding of one sample.

    Attributes:
        dims: (height, width, channels) of an image, (length,) of a vector, (-1,) of a text.
        dtype: "uint8" or "float32", the element type.
        value_range: the smallest and the largest an element can be.
        encoding: "uint8", "float32" or "png".
    """

    dims: tuple[int, ...]
    dtype: str
    value_range: tuple[float, float]
    encoding: str

    @property
    def is_text(self) -> bool:
        """Whether samples are texts, which vary in length."""
        return self.dims == TEXT_DIMS

    @cached_property
    def wire_dtype(self) -> np.dtype[Any]:
        """The element type in messages."""
        return np.dtype(self.dtype).newbyteorder("<")

    @cached_property
    def row_bytes(self) -> int:
        """The bytes of one sample that is neither a file nor a text."""
        return math.prod(self.dims) * self.wire_dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class RowError:
    """Why one sample is missing; the code is the name of the gRPC status, as "INTERNAL"."""

    index: int
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Chunk(_HasProvenance):
    """Consecutive samples of a stream.

    Attributes:
        provenance: model, seed and numerics, the same for a whole stream.
        shape_of_one: shape, element type and encoding of a sample.
        start_index: index of the first sample.
        count: number of samples, failed ones included.
        samples: (N, *dims) uint8 or float32, read-only, rows of failed samples being zero; None for texts and for
            encoding "png".
        files: one PNG file a sample for encoding "png", that of a failed sample being empty; else empty.
        texts: one text a sample of a model of text, that of a failed sample being empty; else empty.
        labels: (N,) int64 class indices; None when the model is unconditional.
        errors: the samples that failed.
    """

    provenance: Provenance
    shape_of_one: SampleShape
    start_index: int
    count: int
    samples: Array | None
    files: tuple[bytes, ...] = ()
    texts: tuple[str, ...] = ()
    labels: Int64s | None = None
    errors: tuple[RowError, ...] = ()

    def __len__(self) -> int:
        return self.count

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self.shape_of_one.is_text:
            raise TypeError("A chunk of texts is not an array; read its .texts.")
        if self.samples is None:
            raise TypeError("A chunk of PNG files is not an array; read its .files.")
        return np.array(self.samples, dtype=dtype, copy=copy)

    @property
    def indices(self) -> Uint64s:
        """(N,) uint64, the index of each sample."""
        return np.uint64(self.start_index) + np.arange(self.count, dtype=np.uint64)


class Samples(_HasProvenance, np.ndarray[tuple[int, ...], np.dtype[Any]]):
    """An (N, H, W, C) uint8 or float32 array of samples, or (N, D) of vectors, with their labels and addresses.

    Where each row has several, as of `Client.vary`, they are (N, V, ...), and labels and indices (N, V). Of a model of
    text it is an (N,) array of str; `texts` has them as a tuple.

    Selecting rows, as in `samples[3:5]` or `samples[samples.labels == 7]`, and `copy()` keep labels and indices; other
    views of the array lose them, and arithmetic returns plain arrays.

    Attributes:
        labels: (N,) int64 class indices; None when the model is unconditional, or once lost.
        indices: (N,) uint64, the index of each sample; None once lost.
        provenance: model, seed and numerics.
        value_range: the smallest and the largest an element can be.
    """

    labels: Int64s | None
    indices: Uint64s | None
    provenance: Provenance
    value_range: tuple[float, float]

    @classmethod
    def of(
        cls,
        array: Array,
        *,
        labels: Int64s | None,
        indices: Uint64s | None,
        provenance: Provenance,
        value_range: tuple[float, float],
    ) -> Self:
        """View an array as samples, without copying it."""
        samples = array.view(cls)
        samples.labels, samples.indices = labels, indices
        samples.provenance, samples.value_range = provenance, value_range
        return samples

    def __array_finalize__(self, obj: Any) -> None:
        self.labels = self.indices = None  # shape and order may differ from those of obj
        if isinstance(obj, Samples) and hasattr(obj, "provenance"):
            self.provenance, self.value_range = obj.provenance, obj.value_range

    def __array_wrap__(self, array: Array, context: Any = None, return_scalar: bool = False) -> Any:
        plain = array.view(np.ndarray)
        return plain[()] if return_scalar else plain

    def __getitem__(self, key: Any) -> Any:
        selected = super().__getitem__(key)
        if not isinstance(selected, Samples):
            return selected
        if not (isinstance(key, slice) or (isinstance(key, list | np.ndarray) and np.ndim(key) == 1)):
            return selected.view(np.ndarray)
        selected.labels = None if self.labels is None else self.labels[key]
        selected.indices = None if self.indices is None else self.indices[key]
        return selected

    def __reduce__(self) -> tuple[Callable[..., Samples], tuple[Any, ...]]:
        return _restore, (type(self), self.view(np.ndarray), dict(vars(self)))

    def copy(self, order: Any = "C") -> Samples:
        """Copy the array, with its labels and indices."""
        copied: Samples = super().copy(order)
        copied.labels = None if self.labels is None else self.labels.copy()
        copied.indices = None if self.indices is None else self.indices.copy()
        return copied

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of a model of text; empty of other samples."""
        return tuple(self.tolist()) if self.dtype == object else ()

    @property
    def start_index(self) -> int | None:
        """Index of the first sample; None when there is none, or once lost."""
        return int(self.indices.flat[0]) if self.indices is not None and len(self.indices) else None


def _restore(kind: type[Samples], array: Array, attributes: dict[str, Any]) -> Samples:
    samples = array.view(kind)
    vars(samples).update(attributes)
    return samples


class SampleCollector:
    """Fills one array from the chunks of a stream, which must be complete and in order."""

    def __init__(self, count: int, *, field: str = "count", remedy: str = "use stream") -> None:
        """Expect `count` samples; `field` is the argument to change, and `remedy` how, if they do not fit in memory."""
        self._count, self._filled = count, 0
        self._field, self._remedy = field, remedy
        self._array: Array | None = None
        self._labels: Int64s | None = None
        self._first: Chunk | None = None
        self._failures: list[tuple[int, str]] = []

    def add(self, chunk: Chunk) -> None:
        """Copy a chunk to its place in the array; an InvalidRequest is raised if all samples do not fit in memory."""
        if self._first is None or self._array is None:
            self._first = chunk
            self._array = self._allocate(chunk.shape_of_one)
            self._labels = None if chunk.labels is None else np.empty(self._count, np.int64)
        rows = slice(self._filled, self._filled + len(chunk))
        self._array[rows] = chunk.texts if chunk.shape_of_one.is_text else chunk.samples
        if self._labels is not None and chunk.labels is not None:
            self._labels[rows] = chunk.labels
        self._failures += [(error.index, f"{error.code}: {error.message}") for error in chunk.errors]
        self._filled += len(chunk)

    def _allocate(self, shape: SampleShape) -> Array:
        try:
            if shape.is_text:
                return np.empty(self._count, object)
            return np.empty((self._count, *shape.dims), shape.dtype)
        except (MemoryError, ValueError) as error:  # more bytes than memory, or than can be counted
            fields = [(self._field, f"{self._count} samples do not fit in memory; {self._remedy}")]
            raise InvalidRequest("The reply cannot be stored:", fields=fields) from error

    def finish(self) -> Samples:
        """Return the array.

        Raises:
            SampleFailed: some samples failed.
        """
        if self._failures:
            raise SampleFailed(self._failures)
        if self._array is None or self._first is None:
            raise BadReply("The reply holds no samples.")
        return Samples.of(
            self._array,
            labels=self._labels,
            indices=np.uint64(self._first.start_index) + np.arange(self._count, dtype=np.uint64),
            provenance=self._first.provenance,
            value_range=self._first.shape_of_one.value_range,
        )
