"""Names of the networks, known without loading PyTorch."""

from __future__ import annotations

from typing import Literal, get_args

Architecture = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
