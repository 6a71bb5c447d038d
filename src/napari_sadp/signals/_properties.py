"""What property maps hold: the columns, their units, and the row of one frame. No HyperSpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.errors import REFUSAL_REASONS
from napari_sadp.geometry.calibrated import length_errors
from napari_sadp.geometry.grains import leftover_share
from napari_sadp.labels.lattice2d import LATTICE_TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.geometry.nodes import NodeMap
    from napari_sadp.geometry.results import DirectBeam, SpotLattice

#: Names of the codes in the column ``reason``: 0 is a frame with a lattice, the others say why there is none.
REASONS: tuple[str, ...] = ("used", *REFUSAL_REASONS)

#: Columns of the property maps, with their units.
PROPERTY_COLUMNS: dict[str, str] = {
    "reason": "code",
    "beam_row_px": "px",
    "beam_col_px": "px",
    "beam_score": "",
    "g1_row_px": "px",
    "g1_col_px": "px",
    "g2_row_px": "px",
    "g2_col_px": "px",
    "g1_px": "px",
    "ratio": "",
    "ratio_sigma": "",
    "angle_deg": "deg",
    "angle_sigma_deg": "deg",
    "rotation_deg": "deg",
    "rms_px": "px",
    "n_spots": "",
    **{f"p_{kind}": "probability" for kind in LATTICE_TYPES},
    "nodes_present": "",
    "nodes_absent": "",
    "nodes_unknown": "",
    "g1_inv_angstrom": "1/Å",
    "g2_inv_angstrom": "1/Å",
    "d1_angstrom": "Å",
    "d2_angstrom": "Å",
    "d1_sigma_angstrom": "Å",
    "d2_sigma_angstrom": "Å",
    "leftover_share": "",
}
#: More columns where frames are classified too.
CLASS_COLUMNS: dict[str, str] = {
    "class": "code",
    "class_probability": "probability",
    "none_of_these": "probability",
}
_COUNTS = ("n_spots", "nodes_present", "nodes_absent", "nodes_unknown")


@dataclass(frozen=True, eq=False)
class Measured:
    """What one frame gave, whichever way it was analysed.

    Parameters
    ----------
    reason : str or None
        Why it was refused; None when it has a lattice.
    beam : DirectBeam or None
        Direct beam.
    lattice : SpotLattice or None
        Lattice.
    nodes : NodeMap or None
        What its nodes show.
    pixel_size : float or None
        Size of a pixel [1/Å].
    """

    reason: str | None
    beam: DirectBeam | None
    lattice: SpotLattice | None
    nodes: NodeMap | None
    pixel_size: float | None


def property_row(measured: Measured) -> np.ndarray:
    """Return the values of `PROPERTY_COLUMNS` for one frame.

    Parameters
    ----------
    measured : Measured
        What was found.

    Returns
    -------
    (n_columns,) ndarray of float64
        A refused frame has its reason, counts of 0, the beam where it was found, and nan elsewhere.
    """
    row = dict.fromkeys(PROPERTY_COLUMNS, np.nan) | dict.fromkeys(_COUNTS, 0.0)
    row["reason"] = REASONS.index(measured.reason or "used")
    beam, lattice, nodes = measured.beam, measured.lattice, measured.nodes
    if beam is not None:
        row["beam_row_px"], row["beam_col_px"] = beam.rc
        row["beam_score"] = beam.score
    if lattice is not None:
        # a beam that was given is a hint: the lattice knows it to a fraction of a pixel
        row["beam_row_px"], row["beam_col_px"] = lattice.beam_rc
        lengths = np.linalg.norm([lattice.g1_px, lattice.g2_px], axis=1)
        spread = np.sqrt(np.diag(lattice.shape_covariance()))
        row["g1_row_px"], row["g1_col_px"] = lattice.g1_px
        row["g2_row_px"], row["g2_col_px"] = lattice.g2_px
        row |= {
            "g1_px": lengths[0],
            "ratio": lattice.ratio,
            "ratio_sigma": lattice.ratio * spread[0],
            "angle_deg": lattice.angle_deg,
            "angle_sigma_deg": np.degrees(spread[1]),
            "rotation_deg": np.degrees(np.arctan2(lattice.g1_px[1], lattice.g1_px[0])),
            "rms_px": lattice.rms_px,
            "n_spots": lattice.n_spots,
        }
        row |= {f"p_{kind}": p for kind, p in lattice.type_probabilities().items()}
        if measured.pixel_size is not None:
            row["g1_inv_angstrom"], row["g2_inv_angstrom"] = lengths * measured.pixel_size
            d = 1 / (lengths * measured.pixel_size)
            row["d1_angstrom"], row["d2_angstrom"] = d
            row["d1_sigma_angstrom"], row["d2_sigma_angstrom"] = d * length_errors(lattice) / lengths
        row["leftover_share"] = leftover_share(lattice)
    if nodes is not None:
        present, absent = int(nodes.present.sum()), int(nodes.absent.sum())
        row["nodes_present"], row["nodes_absent"] = present, absent
        row["nodes_unknown"] = len(nodes) - present - absent
    return np.array(list(row.values()), dtype=float)


def class_part(stated: np.ndarray | None) -> Sequence[float]:
    """Return the values of `CLASS_COLUMNS`: the code n_classes stands for none of the classes.

    Parameters
    ----------
    stated : (n_classes + 1,) ndarray of float or None
        Probability of each class and, last, of none of them; None where the frame is refused.

    Returns
    -------
    sequence of 3 float
        nan where the frame is refused.
    """
    if stated is None:
        return (np.nan,) * len(CLASS_COLUMNS)
    best = int(np.argmax(stated))
    return best, float(stated[best]), float(stated[-1])
