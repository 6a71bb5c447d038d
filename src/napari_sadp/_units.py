"""The units of the package, physical constants, and every conversion to and from them.

Inside the package: reciprocal lengths are ``g = 1/d`` in 1/Å (neither ``2 pi / d`` nor ``s = g/2``), lengths in Å,
accelerating voltages in kV, camera lengths in mm, angles in degrees at the API and radians inside, coordinates
(row, col) in px with integer values at pixel centres. Files and viewers use other units; they are converted here.
"""

from __future__ import annotations

import re

import numpy as np

PLANCK = 6.62607015e-34  # [J s], exact in the SI
ELEMENTARY_CHARGE = 1.602176634e-19  # [C], exact in the SI
LIGHT_SPEED = 299792458.0  # [m/s], exact in the SI
ELECTRON_MASS = 9.1093837015e-31  # [kg], CODATA 2018

#: A Nyquist frequency outside this range [1/Å] means that the calibration is nonsense, not that the pattern is odd.
PLAUSIBLE_NYQUIST_INV_ANGSTROM = (0.3, 5.0)

_RECIPROCAL_TO_INV_ANGSTROM = {
    "1/angstrom": 1.0,
    "1/nm": 0.1,
    "1/pm": 100.0,
    "1/um": 1e-4,
    "1/m": 1e-10,
}
_REAL_UNITS = {"pm", "angstrom", "nm", "um", "mm", "m"}
_KNOWN_UNITS = {*_RECIPROCAL_TO_INV_ANGSTROM, *_REAL_UNITS, "cm", "rad", "mrad", "ev", "kev", "s", "deg"}
_PREFIXED_LENGTH = {
    "å": "angstrom",
    "a": "angstrom",
    "aa": "angstrom",
    "ang": "angstrom",
    "angstroms": "angstrom",
    "µm": "um",
    "μm": "um",
    "micron": "um",
    "microns": "um",
    "mrads": "mrad",
} | {
    f"{word}{ending}": symbol
    for word, symbol in (
        ("nanomet", "nm"),
        ("micromet", "um"),
        ("picomet", "pm"),
        ("millimet", "mm"),
        ("met", "m"),
    )
    for ending in ("er", "ers", "re", "res")
}


def electron_wavelength(voltage_kv: float) -> float:
    """Return the relativistic de Broglie wavelength of an electron [Å].

    ``lambda = h / sqrt(2 m e V (1 + e V / (2 m c^2)))``

    Parameters
    ----------
    voltage_kv : float
        Accelerating voltage [kV].

    Returns
    -------
    float
        Wavelength [Å].

    Raises
    ------
    ValueError
        If the voltage is not positive.

    References
    ----------
    International Tables for Crystallography C (2006), section 4.3.1. doi:10.1107/97809553602060000593

    Examples
    --------
    >>> round(electron_wavelength(200), 6)
    0.025079
    """
    if not np.isfinite(voltage_kv) or voltage_kv <= 0:
        raise ValueError(f"voltage_kv is {voltage_kv!r}, expected a positive number of kV")
    energy = ELEMENTARY_CHARGE * voltage_kv * 1e3
    momentum_squared = 2 * ELECTRON_MASS * energy * (1 + energy / (2 * ELECTRON_MASS * LIGHT_SPEED**2))
    return float(1e10 * PLANCK / np.sqrt(momentum_squared))


def normalise_unit(unit: object) -> str:
    """Return one spelling for a unit as microscope files write it.

    Parameters
    ----------
    unit : object
        What the file says: ``"1 / nm"``, ``"nm^-1"``, ``"$A^{-1}$"``, ``"1/Å"``, ``"n_m"``, ``"mrad"``, ``"cm"``,
        ``""``, ``"px"``, None, ...

    Returns
    -------
    str
        ``"1/angstrom"``, ``"1/nm"``, ``"nm"``, ``"mrad"`` ...; ``"pixel"`` when the file gives no physical unit; one that nobody here
        knows as the file has it.

    Examples
    --------
    >>> normalise_unit("$A^{-1}$"), normalise_unit("n_m"), normalise_unit("<undefined>"), normalise_unit("k_A^-1")
    ('1/angstrom', 'nm', 'pixel', 'k_A^-1')
    """
    text = "" if unit is None else str(unit)
    text = re.sub(r"[\s$_{}\[\]]", "", text).lower()  # blanks, TeX, and the "[n_m]" of emd files
    text = text.replace("\\aa", "å").replace("⁻¹", "^-1").replace("\u212b", "å").replace("å", "å")
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    if text in ("", "px", "pixel", "pixels", "<undefined>", "undefined", "none", "unitless", "dimensionless"):
        return "pixel"
    inverse = re.fullmatch(r"1?/\(?(.+?)\)?|(.+?)(?:\^|\*\*)\(?-1\)?|(.+?)-1", text)
    if inverse:
        inner = next(group for group in inverse.groups() if group)
        known = "1/" + _PREFIXED_LENGTH.get(inner, inner)
    else:
        known = _PREFIXED_LENGTH.get(text, text)
    return known if known in _KNOWN_UNITS else " ".join(str(unit).split())


def is_real_space(unit: str) -> bool:
    """Tell whether a normalised unit is a length, so that the data are an image and no pattern."""
    return unit in _REAL_UNITS


def to_inv_angstrom(value: float, unit: str, voltage_kv: float | None = None) -> float | None:
    """Convert a reciprocal length or a scattering angle to 1/Å.

    Parameters
    ----------
    value : float
        The number.
    unit : str
        A unit as `normalise_unit` returns it.
    voltage_kv : float, optional
        Accelerating voltage [kV]; needed for angles (``g = theta / lambda``, small angles).

    Returns
    -------
    float or None
        The value in 1/Å, or None where the unit is no reciprocal length or the voltage is missing.
    """
    if unit in _RECIPROCAL_TO_INV_ANGSTROM:
        return float(value) * _RECIPROCAL_TO_INV_ANGSTROM[unit]
    if unit in ("mrad", "rad") and voltage_kv:
        return float(value) * (1e-3 if unit == "mrad" else 1.0) / electron_wavelength(voltage_kv)
    return None


def screen_to_inv_angstrom(size_mm: float, camera_length_mm: float, voltage_kv: float) -> float:
    """Convert a length on the screen or camera to 1/Å (``g = x / (lambda L)``, small angles).

    Parameters
    ----------
    size_mm : float
        Length on the screen [mm].
    camera_length_mm : float
        Camera length [mm].
    voltage_kv : float
        Accelerating voltage [kV].

    Returns
    -------
    float
        Reciprocal length [1/Å].

    Raises
    ------
    ValueError
        If camera length or voltage are not positive.

    Examples
    --------
    >>> round(screen_to_inv_angstrom(5.0159, 200.0, 200.0), 3)
    1.0
    """
    if not np.isfinite(camera_length_mm) or camera_length_mm <= 0:
        raise ValueError(f"camera_length_mm is {camera_length_mm!r}, expected a positive number of mm")
    return float(size_mm) / (camera_length_mm * electron_wavelength(voltage_kv))


#: Width of the camera [mm] where only the camera length is known: usual fibre-coupled and direct cameras have 20 to 60.
CAMERA_WIDTH_MM = 30.0


def pixel_size_of_camera(camera_length_mm: float, camera_pixel_um: float, voltage_kv: float) -> float:
    """Return the size of a camera pixel in the pattern (``g = R / (lambda L)``).

    Parameters
    ----------
    camera_length_mm : float
        Camera length L [mm].
    camera_pixel_um : float
        Size of a pixel, after binning [um].
    voltage_kv : float
        Accelerating voltage [kV].

    Returns
    -------
    float
        Size of a pixel [1/Å].

    Raises
    ------
    ValueError
        If one of them is not positive.

    Examples
    --------
    >>> round(pixel_size_of_camera(400.0, 100.0, 200.0), 5)
    0.00997
    """
    if not np.isfinite(camera_pixel_um) or camera_pixel_um <= 0:
        raise ValueError(f"camera_pixel_um is {camera_pixel_um!r}, expected a positive number of um")
    return screen_to_inv_angstrom(camera_pixel_um * 1e-3, camera_length_mm, voltage_kv)


def plausible_pixel_size(pixel_size_inv_angstrom: float, n_pixels: int) -> bool:
    """Tell whether a pixel size [1/Å] gives a Nyquist frequency that a diffraction camera can have."""
    low, high = PLAUSIBLE_NYQUIST_INV_ANGSTROM
    return bool(low <= abs(pixel_size_inv_angstrom) * n_pixels / 2 <= high)
