"""Cut lists into pages: the size and token that a List request gives, and how many entries one answer holds.

A token is opaque to clients: the URL-safe base64 of a text that names the last entry of the page before.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from itertools import accumulate

from service.rpc.fields import Violations

__all__ = ["PAGE_BYTES", "count_fitting", "decode_token", "encode_token", "read_page_size"]

_PAGE_SIZE, _PAGE_SIZE_MAX = 100, 1000
PAGE_BYTES = 1 << 20  # of entries in one answer, which is one message


def read_page_size(page_size: int, wrong: Violations) -> int:
    """Read a page size; 0 is the default, and larger ones than the maximum are the maximum."""
    if page_size < 0:
        wrong.add("page_size", f"must not be negative, got {page_size}")
    return min(max(page_size, 0) or _PAGE_SIZE, _PAGE_SIZE_MAX)


def encode_token(text: str) -> str:
    """Make a token."""
    return base64.urlsafe_b64encode(text.encode()).decode()


def decode_token(token: str) -> str:
    """Read a token.

    Raises:
        ValueError: it is none.
    """
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("is not one this gateway gave") from error


def count_fitting(sizes: Iterable[int], most_bytes: int = PAGE_BYTES) -> int:
    """Count the first entries of these sizes in bytes that fit one answer; one at least."""
    return max(1, sum(end <= most_bytes for end in accumulate(sizes)))
