"""What was measured of a lattice as short text, for the table in the terminal and that of the viewer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from napari_sadp.geometry.calibrated import calibrated_lattice, length_errors
from napari_sadp.labels.lattice2d import LATTICE_TYPES

if TYPE_CHECKING:
    from napari_sadp.geometry.grains import Leftover
    from napari_sadp.identify import PatternResult


class LatticeTexts(NamedTuple):
    """A lattice in words; lengths with their standard uncertainty in brackets.

    Parameters
    ----------
    kind : str
        Most probable lattice type and its probability, ``"A 0.97"``.
    kinds : str
        All lattice types with names and probabilities.
    ratio, angle : str
        Length ratio ``|g2| / |g1|``, and angle between the vectors [deg].
    g_px, g_inv_angstrom, d_angstrom : tuple of 2 str
        Lengths of g1 and g2 [px], [1/Å], and their spacings [Å]; the latter two are empty when uncalibrated.
    camera_constant : str
        Camera constant [px Å], empty when uncalibrated.
    """

    kind: str
    kinds: str
    ratio: str
    angle: str
    g_px: tuple[str, ...]
    g_inv_angstrom: tuple[str, ...] = ()
    d_angstrom: tuple[str, ...] = ()
    camera_constant: str = ""


def with_error(value: float, error: float) -> str:
    """Return a value with its standard uncertainty in units of the last digit, as crystallographers write it.

    Parameters
    ----------
    value : float
        Finite value.
    error : float
        Its standard uncertainty, in the same unit.

    Returns
    -------
    str
        One digit of the uncertainty, two where the first is 1; four decimals at most, and none of it where it is not above 0.

    Examples
    --------
    >>> with_error(0.51703, 0.0026), with_error(90.02, 0.14), with_error(1234.0, 56.0)
    ('0.517(3)', '90.02(14)', '1230(60)')
    """
    if not np.isfinite(error) or error <= 0:
        return f"{value:.4g}"
    place = int(np.floor(np.log10(error)))
    place -= round(error / 10.0**place, 6) < 1.95
    place = max(place, -4)
    last = round(error / 10.0**place)
    if place <= 0:
        return f"{value:.{-place}f}({last})" if last else f"{value:.{-place}f}"
    return f"{round(value, -place):.0f}({last * 10**place})"


def lattice_texts(result: PatternResult) -> LatticeTexts:
    """Return what was measured of the lattice of a pattern that has one."""
    lattice = result.lattice
    lengths = np.linalg.norm([lattice.g1_px, lattice.g2_px], axis=1)
    chances = lattice.type_probabilities()
    best = max(chances, key=chances.get)
    log_ratio_error, angle_error = np.sqrt(np.diag(lattice.shape_covariance()))
    found = LatticeTexts(
        f"{best} {chances[best]:.2f}",
        "\n".join(f"{kind} {LATTICE_TYPES[kind]}: {p:.3f}" for kind, p in chances.items()),
        with_error(lattice.ratio, lattice.ratio * log_ratio_error),
        with_error(lattice.angle_deg, float(np.degrees(angle_error))),
        _both(lengths, length_errors(lattice)),
    )
    if result.pattern.pixel_size_inv_angstrom is None:
        return found
    metric = calibrated_lattice(lattice, result.pattern)
    return found._replace(
        g_inv_angstrom=_both(metric.g_inv_angstrom, metric.g_error_inv_angstrom),
        d_angstrom=_both(metric.d_angstrom, metric.d_error_angstrom),
        camera_constant=f"{metric.camera_constant_px_angstrom:.4g}",
    )


def leftover_text(leftover: Leftover | None) -> str:
    """Return what spots on no node say of a second grain; empty without any."""
    if leftover is None or not leftover.n_spots:
        return ""
    share = f"{100 * leftover.share:.0f} % of the amplitude of the inner spots"
    if leftover.turned_deg is not None:
        return (
            f"{leftover.n_spots} spots on no node, {share}: a second grain of the same crystal, turned by "
            f"{leftover.turned_deg:.1f} deg, leaves {100 * leftover.foreign_share:.0f} % over"
        )
    if leftover.basis is None:
        return f"{leftover.n_spots} spots on no node, {share}: no second lattice in them"
    g1, g2 = np.linalg.norm(leftover.basis, axis=1)
    return (
        f"{leftover.n_spots} spots on no node, {share}: a second lattice, |g1| {g1:.1f} px, |g2| {g2:.1f} px"
    )


def _both(values: np.ndarray, errors: np.ndarray) -> tuple[str, ...]:
    return tuple(with_error(float(value), float(error)) for value, error in zip(values, errors, strict=True))
