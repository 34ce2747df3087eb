"""The services of given rows, latent, scoring and translation: a config and rows enter; a header and chunks leave."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc

from fount.v1 import (
    latent_pb2,
    latent_pb2_grpc,
    model_pb2,
    sampling_pb2,
    scoring_pb2,
    scoring_pb2_grpc,
    translation_pb2,
    translation_pb2_grpc,
)
from service.caller import current_caller
from service.catalog import Catalog
from service.config import GatewayConfig
from service.domain import Operation, Parameters, ServedModel
from service.errors import InvalidRequest, Violation
from service.latent.stream import GivenStream, results
from service.latent.tasks import (
    Classify,
    Decode,
    Encode,
    Interpolate,
    Jitter,
    Reconstruct,
    Score,
    Task,
    Translate,
    Walk,
)
from service.rpc.chunks import responses_of, sample_spec
from service.rpc.fields import Violations, read_parameters, read_weights, reference_to_message
from service.rpc.given_request import Config, RpcShape, read_config, read_rows
from service.rpc.interceptor import request_context
from service.rpc.loading import read_when_loaded
from service.scheduler.inference import InferenceClient
from service.telemetry.metrics import Metrics

__all__ = ["GivenStreams", "LatentServicer", "ScoringServicer", "TranslationServicer"]

if TYPE_CHECKING:  # generic in the stubs alone
    Context = grpc.aio.ServicerContext[object, object]

_MOST_OUTPUTS = 1000  # of a row
_DEFAULT_OUTPUTS, _DEFAULT_SCALE, _DEFAULT_AMOUNT = 8, 0.5, 2.0
_MOST_SCALE = 100.0
_UNBOUNDED = (-math.inf, math.inf)
_PROBABILITIES = (0.0, 1.0)


class GivenStreams:
    """Answers streams of given rows, whichever RPC they come by."""

    def __init__(
        self, *, catalog: Catalog, inference: InferenceClient, metrics: Metrics, config: GatewayConfig
    ) -> None:
        self._catalog, self._inference, self._metrics = catalog, inference, metrics
        self._window_bytes, self._timeout_s = config.window_bytes, config.worker_timeout_s

    async def answer(
        self, rpc: str, shape: RpcShape, requests: AsyncIterator[Any], context: Context, header: Any
    ) -> AsyncGenerator[Any]:
        """Yield a header, made by `header` of the resolved stream, then framed chunks."""
        with self._metrics.open_pull(rpc):
            messages, caller = aiter(requests), current_caller()
            first = await anext(messages, None)
            stream = await read_when_loaded(
                lambda: read_config(first, shape, self._catalog, caller), self._catalog, context
            )
            if isinstance(stream.task, Score):
                self._check_duration(stream, stream.task)
            yield header(stream)
            received = read_rows(messages, stream, shape)
            on_behalf = request_context(context, stream.priority)
            async with aclosing(results(stream, received, self._inference, on_behalf, self._window_bytes)) as pieces:
                async for piece in pieces:
                    for chunk in await responses_of(piece, stream.encoding):
                        yield chunk
                    failed = len(piece.failures)
                    self._metrics.delivered(stream.target.model, len(piece.rows) - failed, failed)

    def _check_duration(self, stream: GivenStream, task: Score) -> None:
        """Refuse parameters by which one score would take longer than a worker call may; never the usual ones."""
        expected_s, usual_s = [
            self._inference.seconds_to_score(stream.target, stream.model, each)
            for each in (task.parameters, Parameters())
        ]
        if expected_s > max(usual_s, self._timeout_s):
            description = f"a score would take about {expected_s:.0f} s, and may take {self._timeout_s:g} s"
            remedy = "lower steps or importance_samples"
            raise InvalidRequest((Violation(field="config.parameters", description=f"{description}; {remedy}"),))


class LatentServicer(latent_pb2_grpc.LatentServiceServicer):
    """Answers Encode, Decode, Reconstruct, Interpolate and Vary."""

    def __init__(self, streams: GivenStreams) -> None:
        self._streams = streams

    def Encode(self, request_iterator: Any, context: Context) -> Any:  # noqa: N802  # gRPC's name
        """Stream a header, then the latent of every row that arrives."""
        return self._answer("Encode", _ENCODE, request_iterator, context)

    def Decode(self, request_iterator: Any, context: Context) -> Any:  # noqa: N802  # gRPC's name
        """Stream a header, then the sample of every latent that arrives."""
        return self._answer("Decode", _DECODE, request_iterator, context)

    def Reconstruct(self, request_iterator: Any, context: Context) -> Any:  # noqa: N802  # gRPC's name
        """Stream a header, then the reconstruction of every row that arrives."""
        return self._answer("Reconstruct", _RECONSTRUCT, request_iterator, context)

    def Interpolate(self, request_iterator: Any, context: Context) -> Any:  # noqa: N802  # gRPC's name
        """Stream a header, then the line between the rows of every pair that arrives."""
        return self._answer("Interpolate", _INTERPOLATE, request_iterator, context)

    def Vary(self, request_iterator: Any, context: Context) -> Any:  # noqa: N802  # gRPC's name
        """Stream a header, then the variants of every row that arrives."""
        return self._answer("Vary", _VARY, request_iterator, context)

    def _answer(self, rpc: str, shape: RpcShape, requests: Any, context: Context) -> Any:
        response = getattr(latent_pb2, f"{rpc}Response")
        return self._streams.answer(rpc, shape, requests, context, lambda stream: response(header=_header(stream)))


class ScoringServicer(scoring_pb2_grpc.ScoringServiceServicer):
    """Answers Score and Classify."""

    def __init__(self, streams: GivenStreams) -> None:
        self._streams = streams

    def Score(self, request_iterator: Any, context: Context) -> Any:  # noqa: N802  # gRPC's name
        """Stream a header, then the scores of every row that arrives."""

        def header(stream: GivenStream) -> scoring_pb2.ScoreResponse:
            columns = model_pb2.Model.FromString(stream.model.card).score_columns
            return scoring_pb2.ScoreResponse(header=scoring_pb2.ScoreHeader(stream=_header(stream), columns=columns))

        return self._streams.answer("Score", _SCORE, request_iterator, context, header)

    def Classify(self, request_iterator: Any, context: Context) -> Any:  # noqa: N802  # gRPC's name
        """Stream a header, then the class probabilities of every row that arrives."""

        def header(stream: GivenStream) -> scoring_pb2.ClassifyResponse:
            labels = [model_pb2.Label(id=k, name=name) for k, name in enumerate(stream.model.labels)]
            found = scoring_pb2.ClassifyHeader(stream=_header(stream, _PROBABILITIES), labels=labels)
            return scoring_pb2.ClassifyResponse(header=found)

        return self._streams.answer("Classify", _CLASSIFY, request_iterator, context, header)


class TranslationServicer(translation_pb2_grpc.TranslationServiceServicer):
    """Answers Translate."""

    def __init__(self, streams: GivenStreams) -> None:
        self._streams = streams

    def Translate(self, request_iterator: Any, context: Context) -> Any:  # noqa: N802  # gRPC's name
        """Stream a header, then the image made of every row that arrives."""

        def header(stream: GivenStream) -> translation_pb2.TranslateResponse:
            return translation_pb2.TranslateResponse(header=_header(stream))

        return self._streams.answer("Translate", _TRANSLATE, request_iterator, context, header)


def _header(stream: GivenStream, bounds: tuple[float, float] = _UNBOUNDED) -> sampling_pb2.SampleHeader:
    model = stream.model
    value_range = model.value_range if stream.output_dims == model.sample_dims else bounds
    return sampling_pb2.SampleHeader(
        model=reference_to_message(stream.target.model),
        seed=stream.seed,
        numerics=stream.target.numerics,
        sample_spec=sample_spec(stream.output_dims, value_range, stream.encoding),
    )


# --- The fields that only one RPC has ---------------------------------------------------------------------------------


def _read_sampled(config: Config, wrong: Violations) -> bool:
    if config.latents not in latent_pb2.Latents.values():
        wrong.add("config.latents", f"{config.latents} is not one of Latents")
    return bool(config.latents == latent_pb2.LATENTS_SAMPLED)


def _read_encode(config: Config, model: ServedModel, wrong: Violations) -> Task:
    sampled = _read_sampled(config, wrong)
    if sampled and config.spread:
        wrong.add("config.spread", "drawn latents have no spread; use LATENTS_MEAN, or leave spread out")
    return Encode(sampled=sampled, spread=config.spread)


def _read_decode(config: Config, model: ServedModel, wrong: Violations) -> Task:
    return Decode()


def _read_reconstruct(config: Config, model: ServedModel, wrong: Violations) -> Task:
    return Reconstruct(sampled=_read_sampled(config, wrong))


def _read_interpolate(config: Config, model: ServedModel, wrong: Violations) -> Task:
    paths = latent_pb2.InterpolateConfig.Path
    if config.path not in paths.values():
        wrong.add("config.path", f"{config.path} is not a Path")
    points = config.points or _DEFAULT_OUTPUTS
    wrong.check_range("config.points", points, 2, _MOST_OUTPUTS)
    spherical = config.path == latent_pb2.InterpolateConfig.PATH_SPHERICAL
    return Interpolate(points=points, spherical=spherical)


def _read_vary(config: Config, model: ServedModel, wrong: Violations) -> Task | None:
    variants = config.variants or _DEFAULT_OUTPUTS
    wrong.check_range("config.variants", variants, 1, _MOST_OUTPUTS)
    if config.WhichOneof("kind") != "walk":
        scale = config.jitter.scale if config.jitter.HasField("scale") else _DEFAULT_SCALE
        wrong.check_range("config.jitter.scale", scale, 0, _MOST_SCALE)
        return Jitter(variants=variants, scale=scale * model.latent_spread)
    walk = config.walk
    start = walk.from_amount if walk.HasField("from_amount") else -_DEFAULT_AMOUNT
    end = walk.to_amount if walk.HasField("to_amount") else _DEFAULT_AMOUNT
    wrong.check_range("config.walk.from_amount", start, -_MOST_SCALE, _MOST_SCALE)
    wrong.check_range("config.walk.to_amount", end, -_MOST_SCALE, _MOST_SCALE)
    known = ", ".join(sorted(model.directions)) or "none"
    if not walk.direction:
        wrong.add("config.walk.direction", f"name a direction; {model.key.name} has {known}")
    elif walk.direction not in model.directions:
        shown = repr(walk.direction[:80])
        description = f"{model.key.name} has no direction {shown}; it has {known}"
        wrong.add("config.walk.direction", description, unknown=True)
    else:
        direction = model.directions[walk.direction]
        return Walk(variants=variants, direction=direction, from_amount=start, to_amount=end)
    return None


def _read_score(config: Config, model: ServedModel, wrong: Violations) -> Task:
    return Score(parameters=read_parameters(config.parameters, "config.parameters", model, wrong))


def _read_translate(config: Config, model: ServedModel, wrong: Violations) -> Task:
    return Translate(parameters=read_parameters(config.parameters, "config.parameters", model, wrong))


def _read_classify(config: Config, model: ServedModel, wrong: Violations) -> Task:
    if not config.HasField("prior"):
        return Classify()
    path, before = "config.prior.components", len(wrong)
    if not model.prior:
        wrong.add("config.prior", f"the card of {model.key.name} has no prior to replace; leave it out")
        return Classify()
    weights = read_weights(config.prior.components, path, model.key.name, model.labels, wrong)
    total = sum(weights.values())
    if len(wrong) == before and not 0 < total < math.inf:
        wrong.add(path, "must hold at least one weight above 0, of finite sum")
    if len(wrong) > before:
        return Classify()
    return Classify(prior=tuple(weights.get(label, 0.0) / total for label in range(len(model.labels))))


def _latent_dims(model: ServedModel, task: Task) -> tuple[int, ...]:
    return (2, model.latent_dim) if isinstance(task, Encode) and task.spread else (model.latent_dim,)


_BOTH = (Operation.ENCODE, Operation.DECODE)
_ENCODE = RpcShape(operations=(Operation.ENCODE,), read_task=_read_encode, results=_latent_dims)
_DECODE = RpcShape(operations=(Operation.DECODE,), read_task=_read_decode, rows="latents")
_RECONSTRUCT = RpcShape(operations=_BOTH, read_task=_read_reconstruct)
_INTERPOLATE = RpcShape(operations=_BOTH, read_task=_read_interpolate, rows_each=2)
_VARY = RpcShape(operations=_BOTH, read_task=_read_vary)
_SCORE = RpcShape(
    operations=(Operation.SCORE,),
    read_task=_read_score,
    grant="score",
    results=lambda model, _: (len(model.score_columns),),
    labels="optional",
)
_TRANSLATE = RpcShape(operations=(Operation.TRANSLATE,), read_task=_read_translate, rows="inputs")
_CLASSIFY = RpcShape(
    operations=(Operation.CLASSIFY,),
    read_task=_read_classify,
    results=lambda model, _: (len(model.labels),),
    labels="none",
)
