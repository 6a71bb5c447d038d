"""What the commands share: exit statuses, progress, and lists given as text."""

from __future__ import annotations

import argparse
import sys

EXIT_OK, EXIT_UNUSABLE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def show_progress(text: str) -> None:
    """Show a line that the next one overwrites, on terminals only."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text[:100]}", end="", file=sys.stderr, flush=True)


def group_list(text: str) -> tuple[int, ...]:
    """Return space-group numbers from text such as ``"221,225"``."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: expected space-group numbers such as 221,225") from None
