"""The imperfections of real patterns, seeded, each one switchable: for one pattern, or batches on the training device."""

from __future__ import annotations

from napari_sadp.simulation.imperfections.frames import (
    Frames,
    ImperfectPattern,
    degrade_pattern,
    draw_frames,
    simulate_imperfect,
)
from napari_sadp.simulation.imperfections.parameters import FrameParameters, draw_parameters, draw_specimen
from napari_sadp.simulation.imperfections.ranges import PRESETS, Imperfections, choose_imperfections
from napari_sadp.simulation.imperfections.visibility import spot_spacing, spot_visibility

__all__ = [
    "PRESETS",
    "FrameParameters",
    "Frames",
    "ImperfectPattern",
    "Imperfections",
    "choose_imperfections",
    "degrade_pattern",
    "draw_frames",
    "draw_parameters",
    "draw_specimen",
    "simulate_imperfect",
    "spot_spacing",
    "spot_visibility",
]
