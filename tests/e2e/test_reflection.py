"""A gRPC client that knows reflection alone lists the models and draws samples."""

from __future__ import annotations

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.e2e.processes import Served


class ReflectionClient:
    """A client without any generated code."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))

    def message(self, name: str):
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))

    def call(self, service: str, method: str, **fields):
        found = self._pool.FindServiceByName(service).FindMethodByName(method)
        make = self._channel.unary_stream if found.server_streaming else self._channel.unary_unary
        call = make(
            f"/{service}/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self.message(found.output_type.full_name).FromString,
        )
        return call(self.message(found.input_type.full_name)(**fields), timeout=30)


def test_reflection_is_enough_to_list_and_draw(served: Served) -> None:
    with grpc.insecure_channel(served.server) as channel:
        other = ReflectionClient(channel)
        listed = other.call("fount.v1.ModelService", "ListModels")
        names = [model.ref.name for model in listed.models]
        reference = other.message("fount.v1.ModelRef")(name="digits-cvae")
        responses = list(other.call("fount.v1.SamplingService", "Sample", model=reference, count=3, seed=1))
    assert names == ["digits-classifier", "digits-cvae", "digits-vae"]
    assert responses[0].header.model.digest.startswith("sha256:")
    assert sum(len(response.chunk.data) for response in responses[1:]) == 3 * 8 * 8
