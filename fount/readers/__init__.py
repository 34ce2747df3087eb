"""Labelled images, read from where they lie: IDX, NPZ, a folder by class, Parquet, and digits, which is always there.

A `DatasetSource` enters, which says what to read and how much at most; a `Dataset` leaves, whose pixels are read when
asked for. Whatever is wrong with the files is a `DataError` that names the file, the row and the remedy.
"""

from fount.readers.dataset import DataError, Dataset, DatasetSplit
from fount.readers.read import FORMATS, read_dataset
from fount.readers.source import DatasetSource, Limits

__all__ = ["FORMATS", "DataError", "Dataset", "DatasetSource", "DatasetSplit", "Limits", "read_dataset"]
