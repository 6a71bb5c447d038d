"""Where the shared real patterns are, for tests that skip without them."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"
REAL_PATTERNS = SHARED / "real_patterns"

needs_real_patterns = pytest.mark.skipif(
    not REAL_PATTERNS.is_dir(), reason=f"the real patterns are not at {REAL_PATTERNS}"
)


def real_pattern(name: str) -> Path:
    """Return the path of a real pattern, or skip the test."""
    path = REAL_PATTERNS / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return path
