"""What was measured in a pattern as plain Python values, for the JSON output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp.geometry.calibrated import calibrated_lattice
from napari_sadp.geometry.nodes import STATE_NAMES

if TYPE_CHECKING:
    from napari_sadp.geometry.grains import Leftover
    from napari_sadp.geometry.nodes import NodeMap
    from napari_sadp.geometry.results import SpotLattice, SpotList
    from napari_sadp.identify._results import PatternResult


def spot_dicts(spots: SpotList, lattice: SpotLattice | None) -> list[dict[str, Any]]:
    """Return every spot, with its node where there is a lattice that it lies on."""
    nodes: list[Any] = [None] * len(spots)
    if lattice is not None and lattice.spots is spots:
        pairs = zip(lattice.indices.tolist(), lattice.indexed.tolist(), strict=True)
        nodes = [node if on else None for node, on in pairs]
    columns = (spots.rc, spots.intensity, spots.intensity_error, spots.snr)
    return [
        {"rc": rc, "intensity": value, "intensity_error": error, "snr": snr, "node": node}
        for rc, value, error, snr, node in zip(*(c.tolist() for c in columns), nodes, strict=True)
    ]


def leftover_dict(leftover: Leftover) -> dict[str, Any]:
    """Return the spots on no node, with the vectors of a lattice of their own and the turn of a second grain, where there are such."""
    basis = leftover.basis
    return {
        "n_spots": leftover.n_spots,
        "share": leftover.share,
        "g1_px": None if basis is None else basis[0].tolist(),
        "g2_px": None if basis is None else basis[1].tolist(),
        "turned_deg": leftover.turned_deg,
        "foreign_share": leftover.unexplained_share,
    }


def node_dicts(nodes: NodeMap) -> list[dict[str, Any]]:
    """Return every node in view; an unknown intensity is None, since JSON knows no NaN."""
    columns = (nodes.indices, nodes.rc, nodes.intensity, nodes.sigma, nodes.presence, nodes.state)
    return [
        {
            "node": node,
            "rc": rc,
            "intensity": value if np.isfinite(value) else None,
            "intensity_error": error if np.isfinite(error) else None,
            "presence": presence,
            "state": STATE_NAMES[state],
        }
        for node, rc, value, error, presence, state in zip(*(c.tolist() for c in columns), strict=True)
    ]


def lattice_dict(lattice: SpotLattice) -> dict[str, Any]:
    """Return basis, shape with uncertainties, types and distortion of a lattice."""
    log_ratio_error, angle_error = np.sqrt(np.diag(lattice.shape_covariance()))
    return {
        "g1_px": [float(x) for x in lattice.g1_px],
        "g2_px": [float(x) for x in lattice.g2_px],
        "ratio": lattice.ratio,
        "angle_deg": lattice.angle_deg,
        "ratio_error": float(lattice.ratio * log_ratio_error),
        "angle_error_deg": float(np.degrees(angle_error)),
        "type_probabilities": {name: float(p) for name, p in lattice.type_probabilities().items()},
        "rms_px": float(lattice.rms_px),
        "radial_px2": float(lattice.radial_px2),
        "n_spots": lattice.n_spots,
    }


def calibrated_dict(result: PatternResult) -> dict[str, Any] | None:
    """Return lengths with their uncertainties, and the camera constant; None when refused or uncalibrated."""
    if result.lattice is None or result.pattern.pixel_size_inv_angstrom is None:
        return None
    found = calibrated_lattice(result.lattice, result.pattern)
    return {
        "g_inv_angstrom": found.g_inv_angstrom.tolist(),
        "g_error_inv_angstrom": found.g_error_inv_angstrom.tolist(),
        "d_angstrom": found.d_angstrom.tolist(),
        "d_error_angstrom": found.d_error_angstrom.tolist(),
        "camera_constant_px_angstrom": found.camera_constant_px_angstrom,
    }
