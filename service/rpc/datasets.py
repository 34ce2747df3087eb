"""DatasetService: the catalogue of data sets, as messages."""

from __future__ import annotations

import grpc
import numpy as np

from fount.readers import Dataset, DatasetSplit
from fount.v1 import dataset_pb2, dataset_pb2_grpc
from service.caller import current_caller
from service.datasets import Datasets, DatasetSettings
from service.errors import DatasetUnreadable, InvalidRequest, Violation
from service.rpc.chunks import image_spec

__all__ = ["DatasetServicer"]


class DatasetServicer(dataset_pb2_grpc.DatasetServiceServicer):
    """Answers ListDatasets and GetDataset."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    async def ListDatasets(  # noqa: N802  # gRPC's name
        self, request: dataset_pb2.ListDatasetsRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> dataset_pb2.ListDatasetsResponse:
        """Return the data sets the caller may see, unreadable ones with the problem."""
        caller = current_caller()
        names = [name for name in self._datasets.names() if caller.may(f"dataset:{name}")]
        return dataset_pb2.ListDatasetsResponse(datasets=[await self._message(name) for name in names])

    async def GetDataset(  # noqa: N802  # gRPC's name
        self, request: dataset_pb2.GetDatasetRequest, context: grpc.aio.ServicerContext[object, object]
    ) -> dataset_pb2.GetDatasetResponse:
        """Return one data set."""
        if not request.name:
            raise InvalidRequest((Violation(field="name", description="is empty; name a data set"),))
        current_caller().require(f"dataset:{request.name}")
        dataset = await self._datasets.open(request.name, field="name")
        return dataset_pb2.GetDatasetResponse(dataset=_readable(dataset, self._datasets.settings(request.name)))

    async def _message(self, name: str) -> dataset_pb2.Dataset:
        settings = self._datasets.settings(name)
        try:
            return _readable(await self._datasets.open(name), settings)
        except DatasetUnreadable as error:
            source = settings.source
            return dataset_pb2.Dataset(
                name=name,
                format="built-in" if source.path is None else source.format,
                licence=source.licence,
                classifier=settings.classifier,
                problem=str(error),
            )


def _readable(dataset: Dataset, settings: DatasetSettings) -> dataset_pb2.Dataset:
    return dataset_pb2.Dataset(
        name=dataset.name,
        digest=dataset.digest,
        classes=dataset.classes,
        groups=dataset.groups,
        sample_spec=image_spec(dataset.shape),
        splits=[_split(dataset, split) for split in dataset.splits.values()],
        format=dataset.format,
        licence=dataset.licence,
        classifier=settings.classifier,
        background=dataset.background or "",
    )


def _split(dataset: Dataset, split: DatasetSplit) -> dataset_pb2.DatasetSplit:
    return dataset_pb2.DatasetSplit(
        name=split.name,
        rows=len(split),
        class_counts=np.bincount(split.labels, minlength=len(dataset.classes)).tolist(),
        group_counts=[] if split.groups is None else np.bincount(split.groups, minlength=len(dataset.groups)).tolist(),
    )
