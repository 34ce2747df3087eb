"""The catalog: what is served, and which of it a reference means.

Offers of the worker pool enter; resolved models and targets leave.
"""

from service.catalog.catalog import Catalog, Entry
from service.catalog.conditions import LabelSource

__all__ = ["Catalog", "Entry", "LabelSource"]
