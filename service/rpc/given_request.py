"""Read streams of given rows: a config and then rows, each field checked, and every wrong one reported.

The first request becomes a `GivenStream`; the others hold rows, and become `ReceivedRows`. The configs of all RPCs have
the same names for what they share.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fount.v1 import sampling_pb2
from service.caller import Caller
from service.calls import Labels
from service.catalog import Catalog
from service.domain import Encoding, Operation, Priority, ServedModel
from service.errors import InvalidRequest, NotReady, Retired, Violation
from service.latent.stream import GivenStream, ReceivedRows
from service.latent.tasks import Task
from service.rpc.fields import Violations, label_list, raise_violations, read_label
from service.rpc.input_rows import read_texts, read_values

__all__ = ["Config", "RpcShape", "read_config", "read_encoding", "read_rows"]

Config = Any
"""One of the configs of latent.proto and scoring.proto."""

_INDEX_LIMIT = 2**64
_TaskReader = Callable[[Config, ServedModel, Violations], Task | None]


@dataclass(frozen=True, kw_only=True)
class RpcShape:
    """What distinguishes the streams of one RPC.

    Attributes:
        operations: that the model needs.
        read_task: reads the fields that only this RPC has; None with a violation.
        grant: prefix of the grant that the caller needs.
        rows: what rows are: of the shape of samples, of latents, or of what the model translates.
        results: the dims of float results, computed from model and task; None: samples, encoded as the config says.
        labels: whether rows of a conditional model have labels.
        rows_each: how many rows an index counts: 2 for pairs.
    """

    operations: tuple[Operation, ...]
    read_task: _TaskReader
    grant: Literal["sample", "score"] = "sample"
    rows: Literal["samples", "latents", "inputs"] = "samples"
    results: Callable[[ServedModel, Task], tuple[int, ...]] | None = None
    labels: Literal["needed", "optional", "none"] = "needed"
    rows_each: int = 1


async def read_config(request: Any | None, shape: RpcShape, catalog: Catalog, caller: Caller) -> GivenStream:
    """Read the first request of a stream; None: the stream ended without one.

    Raises:
        InvalidRequest: it is no config, or some field is wrong; names every one.
        UnknownName: the model, a label or a direction does not exist, and nothing else is wrong.
        NotPermitted: the caller has no grant for the model.
        NotReady, Retired: no worker is ready, or the model lacks the operation, or the pinned digest or numerics.
    """
    if request is None or request.WhichOneof("kind") != "config":
        raise InvalidRequest((Violation(field="config", description="the first request must be a config"),))
    config, wrong = request.config, Violations()
    caller.require(f"{shape.grant}:{config.model.name}")
    if config.priority == sampling_pb2.PRIORITY_INTERACTIVE:
        caller.require("priority:interactive")
    elif config.priority not in sampling_pb2.Priority.values():
        wrong.add("config.priority", f"{config.priority} is not a Priority")
    try:
        entry = catalog.find(config.model.name, config.model.version, config.model.digest)
    except InvalidRequest as error:
        raise_violations([*(replace(each, field=f"config.{each.field}") for each in error.violations), *wrong])
        raise
    target, refusal = None, None
    try:
        for operation in shape.operations:
            target, model = catalog.choose(entry, operation, digest=config.model.digest, numerics=config.numerics)
    except (NotReady, Retired) as error:
        if entry.model is None or not set(shape.operations) <= entry.model.operations:
            raise  # other fields mean nothing to such a model
        model, refusal = entry.model, error  # raised only when no field is wrong
    task = shape.read_task(config, model, wrong)
    label = _read_label(config, shape, model, wrong)
    is_float = shape.results is not None
    encoding = Encoding.FLOAT32 if is_float else read_encoding(config.encoding, "config.encoding", model, wrong)
    if task and config.start_index * task.factor >= _INDEX_LIMIT:
        wrong.add("config.start_index", "the index of the first result would be beyond 2^64; start lower")
    raise_violations(wrong)
    if target is None or task is None:
        raise refusal or NotReady(f"{entry.name} {entry.version} is not ready: {entry.reason}")
    has_seed = "seed" in config.DESCRIPTOR.fields_by_name and config.HasField("seed")
    return GivenStream(
        model=model,
        target=target,
        task=task,
        seed=config.seed if has_seed else secrets.randbits(64),
        start_index=config.start_index,
        row_shape={"latents": (model.latent_dim,), "inputs": model.input_dims}.get(shape.rows, model.sample_dims),
        output_dims=model.sample_dims if shape.results is None else shape.results(model, task),
        encoding=encoding,
        label=label,
        priority=Priority.INTERACTIVE if config.priority == sampling_pb2.PRIORITY_INTERACTIVE else Priority.BULK,
    )


def _read_label(config: Config, shape: RpcShape, model: ServedModel, wrong: Violations) -> int | None:
    if shape.labels == "none" or not config.HasField("label"):
        return None
    if not model.labels:
        wrong.add("config.label", f"{model.key.name} is unconditional; leave the label out")
        return None
    return read_label(config.label, "config.label", model.key.name, model.labels, wrong)


def read_encoding(encoding: int, field: str, model: ServedModel, wrong: Violations) -> Encoding:
    """Read the encoding of decoded samples; unset is the model's default, as is, with a violation, a wrong one."""
    default = model.default_encoding
    if not encoding:
        return default
    if encoding not in list(Encoding):
        wrong.add(field, f"{encoding} is not an Encoding")
    elif not model.is_image and encoding != default:
        kind = "texts" if model.is_text else "vectors"
        wrong.add(field, f"samples of {model.key.name} are {kind}; set ENCODING_{default.name}")
    elif encoding == Encoding.PNG and model.sample_dims[-1] not in (1, 3):
        wrong.add(field, f"PNG needs 1 or 3 channels, {model.key.name} has {model.sample_dims[-1]}")
    else:
        return Encoding(encoding)
    return default


async def read_rows(requests: AsyncIterator[Any], stream: GivenStream, shape: RpcShape) -> AsyncGenerator[ReceivedRows]:
    """Read the rows of all other requests.

    Raises:
        InvalidRequest: a request holds no rows, or some field is wrong; names every one.
        UnknownName: a label does not exist, and nothing else is wrong.
    """
    first = stream.start_index * shape.rows_each
    async for request in requests:
        kind = request.WhichOneof("kind")
        if kind != "rows":
            description = "only the first request is a config; send rows"
            raise InvalidRequest((Violation(field=kind or "rows", description=description),))
        received = _read_rows(request.rows, stream, shape, first)
        yield received
        first += len(received.rows)


def _read_rows(message: sampling_pb2.InputRows, stream: GivenStream, shape: RpcShape, first: int) -> ReceivedRows:
    wrong, is_latent = Violations(), shape.rows == "latents"
    if (first + message.count) * stream.task.factor > _INDEX_LIMIT * shape.rows_each:
        wrong.add("rows.count", "the last result would have an index beyond 2^64; start lower")
    rows: NDArray[np.uint8] | NDArray[np.float32]
    if stream.model.is_text and not is_latent:
        rows = read_texts(message, "rows", stream.model.max_text_bytes, wrong)
    else:
        rows = read_values(
            message,
            "rows",
            shape=stream.row_shape,
            takes_bytes=not is_latent and stream.model.is_image,
            value_range=None if is_latent else stream.model.value_range,
            wrong=wrong,
        )
    labels = _read_labels(message, stream, shape, len(rows), wrong)
    raise_violations(wrong)
    return ReceivedRows(first_row=first, rows=rows, labels=labels)


def _read_labels(
    message: sampling_pb2.InputRows, stream: GivenStream, shape: RpcShape, rows: int, wrong: Violations
) -> Labels | None:
    model, given, count = stream.model, message.labels, message.count
    if given and (shape.labels == "none" or not model.labels):
        reason = f"{model.key.name} is unconditional" if not model.labels else "rows are classified without labels"
        wrong.add("rows.labels", f"{reason}; leave labels out")
        return None
    if given and stream.label is not None:
        wrong.add("rows.labels", "the config names a label for every row; leave one of both out")
        return None
    if stream.label is not None:
        return np.full(rows, stream.label, np.uint32)  # not count, which may be any number
    if not given:
        if shape.labels == "needed" and model.labels:
            description = f"{model.key.name} is conditional: name config.label, or one label a row"
            wrong.add("rows.labels", description)
        return None
    if len(given) != count:
        wrong.add("rows.labels", f"must hold one label a row or none: count is {count}, got {len(given)}")
        return None
    ids = np.asarray(given, np.uint32)
    for k in np.flatnonzero(ids >= len(model.labels))[:3]:
        description = f"{model.key.name} has no label {ids[k]}; it has {label_list(model.labels)}"
        wrong.add(f"rows.labels[{k}]", description, unknown=True)
    return ids
