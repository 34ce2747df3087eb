"""Memory: a model is loaded only if it fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers.loading.memory import InsufficientMemoryError, require_memory


@pytest.mark.parametrize(("size", "fits"), [(1000, True), (1001, False)])
def test_a_file_needs_twice_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, fits: bool) -> None:
    (tmp_path / "w").write_bytes(bytes(size))
    monkeypatch.setattr("handlers.loading.memory.available_bytes", lambda: 2000)
    if fits:
        require_memory(tmp_path / "w")
    else:
        with pytest.raises(InsufficientMemoryError, match="use a machine or a limit with more memory"):
            require_memory(tmp_path / "w")
