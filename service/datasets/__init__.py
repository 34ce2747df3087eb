"""The data sets a gateway can augment: configured settings enter, an open `Dataset` leaves.

The catalogue is cheap to build; a data set is read, every image of it for the digest, on first use.
"""

from service.datasets.catalog import Datasets, DatasetSettings, unreadable_errors

__all__ = ["DatasetSettings", "Datasets", "unreadable_errors"]
