"""The folder of real patterns and structures beside the checkout; tests that use it skip where it is absent."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"
REAL = SHARED / "real_patterns"

needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no folder of real patterns at {REAL}")


def real_pattern(name: str) -> Path:
    """Return the path of a real pattern, or skip the test."""
    path = REAL / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path
