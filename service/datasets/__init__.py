"""The data sets a gateway can augment: what is configured enters, an open `Dataset` leaves.

The catalogue is cheap to build; a data set is read, every pixel of it for its digest, when it is first asked for.
"""

from service.datasets.catalog import Datasets
from service.datasets.configuration import DatasetSettings

__all__ = ["DatasetSettings", "Datasets"]
