"""The one spelling of a class or group name: Unicode's composed form, NFC.

The same name may be written in several ways: macOS decomposes `é` in file names into a letter and an accent, keyboards
type one character. Readers, cards, plans and requests pass every name through here, so that both are one class.

Source: Unicode Standard Annex #15, "Unicode Normalization Forms".
"""

from __future__ import annotations

import unicodedata

__all__ = ["normal_name"]


def normal_name(name: str) -> str:
    """Return a name in NFC."""
    return unicodedata.normalize("NFC", name)
