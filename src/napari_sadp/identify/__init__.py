"""The whole chain: patterns in, classes and space groups out. What every front end calls.

A pattern is analysed (beam, spots, lattice, nodes), turned into the image convention of the network and classified: by the shape
of its lattice, by its spots and gaps, and by the network. Patterns of one crystal are combined.
"""

from __future__ import annotations

from napari_sadp.identify._combine import (
    SAME_LENGTH,
    Knowledge,
    combine_results,
    identify_patterns,
    stage_angle,
)
from napari_sadp.identify._pattern import (
    UNREADABLE,
    classify_geometry,
    classify_results,
    identify_pattern,
    measure_pattern,
    pool_classes,
    refused_result,
    unreadable_result,
)
from napari_sadp.identify._results import NONE_LABEL, Identification, PatternResult, zone_text

__all__ = [
    "NONE_LABEL",
    "SAME_LENGTH",
    "UNREADABLE",
    "Identification",
    "Knowledge",
    "PatternResult",
    "classify_geometry",
    "classify_results",
    "combine_results",
    "identify_pattern",
    "identify_patterns",
    "measure_pattern",
    "pool_classes",
    "refused_result",
    "stage_angle",
    "unreadable_result",
    "zone_text",
]
