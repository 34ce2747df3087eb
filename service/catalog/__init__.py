"""The catalog: which models are served, and which of them a reference means.

Offers of the worker pool enter; resolved models, targets and label sources leave.
"""

from service.catalog.catalog import ROLES, TRANSFORMER, Catalog, Entry, PinnedModel, class_labels, not_ready
from service.catalog.conditions import LabelSource

__all__ = ["ROLES", "TRANSFORMER", "Catalog", "Entry", "LabelSource", "PinnedModel", "class_labels", "not_ready"]
