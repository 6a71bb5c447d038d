"""The named ways from an analysed pattern to the image that a network sees.

*article* and *aligned* resample what the camera saw (`geometry.convention`). *rendered* draws the nodes of the lattice anew,
with their measured intensities, as the simulator draws its spots: without background, noise, or the shape of the spots.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from napari_sadp._validate import check_option, check_range
from napari_sadp.geometry.convention import (
    CONVERSIONS,
    GAMMA,
    IMAGE_SIZE,
    TrainingImage,
    beam_position,
    g1_length,
    image_map,
    normalise_image,
    to_training_image,
)
from napari_sadp.geometry.draw import render_gaussians

if TYPE_CHECKING:
    from napari_sadp.geometry.analyse import PatternGeometry
    from napari_sadp.geometry.nodes import NodeMap
    from napari_sadp.geometry.results import SpotLattice

PatternConversion = Literal["aligned", "article", "rendered"]
PATTERN_CONVERSIONS: tuple[str, ...] = (*CONVERSIONS, "rendered")

#: Standard deviation of a redrawn spot over the shortest lattice vector, the middle of what the training streams draw.
SPOT_SIGMA_G1 = 0.12


def convert_pattern(
    geometry: PatternGeometry,
    conversion: PatternConversion = "aligned",
    *,
    size: int = IMAGE_SIZE,
    gamma: float = GAMMA,
) -> TrainingImage:
    """Bring an analysed pattern into the image convention.

    Parameters
    ----------
    geometry : PatternGeometry
        From `analyse_pattern`.
    conversion : {"aligned", "article", "rendered"}
        How.
    size : int
        Rows and columns of the image [px].
    gamma : float
        Exponent of the intensities.

    Returns
    -------
    TrainingImage
        The image with its coordinate map to the pattern and back.

    Raises
    ------
    ValueError
        If an option is unknown or a number out of range.
    """
    check_option("conversion", conversion, PATTERN_CONVERSIONS)
    if conversion == "rendered":
        return render_nodes(geometry.nodes, geometry.lattice, size=size, gamma=gamma)
    return to_training_image(geometry.image, geometry.lattice, conversion=conversion, size=size, gamma=gamma)


def render_nodes(
    nodes: NodeMap, lattice: SpotLattice, *, size: int = IMAGE_SIZE, gamma: float = GAMMA
) -> TrainingImage:
    """Draw the nodes that show a spot, aligned, with their measured intensities.

    Parameters
    ----------
    nodes : NodeMap
        What each node shows.
    lattice : SpotLattice
        Their lattice. Nodes are drawn where it says, not where their spots were found.
    size : int
        Rows and columns of the image [px].
    gamma : float
        Exponent of the intensities.

    Returns
    -------
    TrainingImage
        Spots of one size; a spot too saturated to be measured counts as the strongest. Unknown nodes stay dark. Its map to the
        pattern and back holds the radial distortion of the lattice.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    check_range("size", size, 16, 4096, "px")
    check_range("gamma", gamma, 0.0, 2.0, low_inclusive=False)
    matrix = image_map(lattice, size, "aligned")
    beam = np.asarray(lattice.beam_rc, dtype=float)
    blank = TrainingImage(
        np.zeros((size, size), np.float32), "rendered", matrix, beam, radial_px2=lattice.radial_px2
    )
    shown = nodes.present
    if not shown.any():
        return blank
    intensity = nodes.intensity[shown]
    known = np.isfinite(intensity)
    intensity = np.where(known, intensity, np.max(intensity[known], initial=1.0)).clip(0.0)
    # where they would be without radial distortion, as the simulator draws them
    g = nodes.indices[shown] @ np.stack([lattice.g1_px, lattice.g2_px])
    rc = g @ np.linalg.inv(matrix).T + beam_position(size)
    image = render_gaussians(rc, intensity, SPOT_SIGMA_G1 * g1_length(size), (size, size))
    return replace(blank, data=normalise_image(image, gamma).astype(np.float32))
