"""Where the acquired patterns are that may not be committed, and the mark that skips tests without them."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"
REAL = SHARED / "real_patterns"

needs_real = pytest.mark.skipif(
    not REAL.is_dir(), reason="the acquired patterns are not beside the repository (../shared/real_patterns)"
)
