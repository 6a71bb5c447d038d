"""A guard against two LLVMs in one process. Called before torchvision is imported, and nowhere else needed."""

from __future__ import annotations

import sys
from pathlib import Path


def keep_triton_out() -> bool:
    """Keep Triton from being loaded into a process in which Mesa has loaded its LLVM.

    Triton brings an LLVM of its own and exports its symbols. Loaded after the one that Mesa uses to draw (llvmpipe,
    radeonsi: most remote desktops and virtual displays), the process dies with a segmentation fault, viewer and all.
    torchvision imports torch's compiler, and that imports Triton where it is installed. Inference needs neither, so
    that Triton is declared missing for the rest of the process, where loading it would be the end of it anyway.

    Returns
    -------
    bool
        Whether it was necessary.
    """
    maps = Path("/proc/self/maps")  # Triton exists for Linux only
    if "triton" in sys.modules or not maps.exists() or "libLLVM" not in maps.read_text(errors="replace"):
        return False
    sys.modules["triton"] = None  # type: ignore[assignment]  # import raises ModuleNotFoundError
    return True
