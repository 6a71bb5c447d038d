"""What the commands share: exit statuses, progress, and lists given as text."""

from __future__ import annotations

import argparse
import os
import re
import sys
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

EXIT_OK, EXIT_UNUSABLE, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


#: How torch words a failure of a device, or of its memory.
_DEVICE_WORDS = re.compile(
    r"out of memory|allocate memory|\b(CUDA|cuDNN|CUBLAS|NCCL|HIP|MPS)\b.*\b(error|failed)|CUDA driver", re.I
)


def is_device_failure(error: RuntimeError) -> bool:
    """Tell whether torch ran out of memory or its device failed: nothing that a traceback would help with."""
    return bool(_DEVICE_WORDS.search(str(error)))


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


def axis_of(text: str) -> tuple[int, int, int]:
    """Return a zone axis from text such as ``"013"`` or ``"1 -1 0"``; raises `ValueError` for what is none."""
    from napari_sadp._validate import check_zone_axis

    return check_zone_axis([int(x) for x in (text.split() if " " in text else text)])


def axis_list(text: str) -> tuple[tuple[int, int, int], ...]:
    """Return zone axes from text such as ``"001,013"``."""
    try:
        return tuple(axis_of(part.strip()) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected zone axes of three whole numbers such as 001,013"
        ) from None


def plain_numbers(words: Iterable[str]) -> list[str]:
    """Return words in which negative numbers such as ``-1e-3`` are ``-0.001``.

    Before Python 3.14 argparse takes ``-1e-3`` and ``-5.`` for options.
    """
    number = re.compile(r"-(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?")
    return [format(Decimal(word), "f") if number.fullmatch(word) else word for word in words]


PICTURE_FORMATS = (".png", ".pdf", ".svg")


def check_picture_path(option: str, path: str) -> None:
    """Raise `ValueError` unless a picture can be written to a path: known before any work is done."""
    target = Path(path).absolute()
    if target.suffix.lower() not in PICTURE_FORMATS:
        raise ValueError(f"{option} is {path!r}, expected a file name ending in {', '.join(PICTURE_FORMATS)}")
    if target.is_dir():
        raise ValueError(f"{option} is {path!r}, a folder; expected a file name")
    if not target.parent.is_dir():
        raise ValueError(f"{option} is {path!r}, expected a path in a folder that exists")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"{option} is {path!r}, expected a path in a folder that may be written to")
