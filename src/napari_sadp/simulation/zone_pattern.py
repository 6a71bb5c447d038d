"""From a crystal and a zone axis to an image and its spots, by either engine, with one set of settings.

What the terminal, the HyperSpy function and the viewer share. Lengths are g = 1/d in 1/Å, positions (row, col) in px.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_sadp._units import CAMERA_WIDTH_MM, pixel_size_of_camera
from napari_sadp._validate import check_option, check_range, check_zone_axis
from napari_sadp.geometry.convention import IMAGE_SIZE, beam_position
from napari_sadp.labels.spacegroups import zone_name
from napari_sadp.simulation.kinematic import RELRODS, Relrod, simulate_kinematic
from napari_sadp.simulation.render import check_profile, render_pattern, spot_positions

if TYPE_CHECKING:
    from napari_sadp.pattern import DiffractionPattern
    from napari_sadp.simulation.crystal import Crystal
    from napari_sadp.simulation.kinematic import SpotPattern

Engine = Literal["kinematic", "dynamical"]
ENGINES: tuple[str, ...] = ("kinematic", "dynamical")

#: |g| that the frame shows where nothing is said about its scale [1/Å].
_REACH = 1.5
#: |g| of the beams of the dynamical engine by default [1/Å]; its docstring says what that is good for.
DYNAMICAL_REACH = 2.0
#: Electron scattering factors are valid to here [1/Å].
_LARGEST_G = 4.0


@dataclass(frozen=True)
class PatternSettings:
    """How a pattern is simulated and drawn.

    The scale of the image is that of `pixel_size_inv_angstrom`, else of `camera_length_mm`, else such that
    `g_max_inv_angstrom` (1.5 1/Å by default) just fits.

    Parameters
    ----------
    voltage_kv : float
        Accelerating voltage [kV].
    thickness_nm : float
        Thickness of the crystal [nm].
    engine : {"kinematic", "dynamical"}
        Single scattering, or zone-axis Bloch waves.
    pixel_size_inv_angstrom : float, optional
        Size of a pixel [1/Å].
    camera_length_mm : float, optional
        Camera length [mm], instead of the pixel size.
    camera_pixel_um : float, optional
        Size of a camera pixel [um], with `camera_length_mm`; by default `CAMERA_WIDTH_MM` over `size`.
    size : int
        Rows and columns of the image [px].
    g_max_inv_angstrom : float, optional
        Largest |g| of a beam [1/Å]; by default the corner of the image, and 2 1/Å for the dynamical engine.
    tilt_mrad : tuple of 2 float
        Tilt of the incident beam towards x and y of the pattern before `rotation_deg` [mrad].
    relrod : {"gaussian", "sinc", "none"}
        Shape of the relrods, for the kinematic engine.
    spot_sigma_px : float
        Standard deviation of the Gaussian spots, or of the edge of discs and profiles [px].
    disc_radius_px : float
        Radius of the discs of a convergent beam [px]; 0 for Gaussian spots.
    spot_profile : (h, w) ndarray of float, optional
        Image of one measured spot, whose shape all spots get instead; see `napari_sadp.simulation.render.check_profile`.
    rotation_deg : float
        Anticlockwise rotation [deg].
    gamma : float
        Exponent of the intensities of the image; 1 leaves them linear. The list of spots is always linear.

    Raises
    ------
    ValueError
        If a value is out of range, or two say different things about the scale.
    """

    voltage_kv: float = 200.0
    thickness_nm: float = 10.0
    engine: Engine = "kinematic"
    pixel_size_inv_angstrom: float | None = None
    camera_length_mm: float | None = None
    camera_pixel_um: float | None = None
    size: int = IMAGE_SIZE
    g_max_inv_angstrom: float | None = None
    tilt_mrad: tuple[float, float] = (0.0, 0.0)
    relrod: Relrod = "gaussian"
    spot_sigma_px: float = 2.0
    disc_radius_px: float = 0.0
    spot_profile: np.ndarray | None = field(default=None, compare=False, repr=False)
    rotation_deg: float = 0.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        check_option("engine", self.engine, ENGINES)
        check_option("relrod", self.relrod, RELRODS)
        check_range("voltage_kv", self.voltage_kv, 10, 3000, "kV")
        check_range("thickness_nm", self.thickness_nm, 0, 1e4, "nm", low_inclusive=False)
        check_range("size", self.size, 32, 8192, "px")
        check_range("spot_sigma_px", self.spot_sigma_px, 0, self.size / 8, "px", low_inclusive=False)
        check_range("disc_radius_px", self.disc_radius_px, 0, self.size / 4, "px")
        if self.spot_profile is not None:
            check_profile(self.spot_profile)
            if self.disc_radius_px:
                raise ValueError(
                    f"disc_radius_px is {self.disc_radius_px}, expected 0 with a spot_profile, which has a shape of its own"
                )
        check_range("rotation_deg", self.rotation_deg, -360, 360, "deg")
        check_range("gamma", self.gamma, 0, 10, low_inclusive=False)
        for tilt in self.tilt_mrad:
            check_range("tilt_mrad", tilt, -200, 200, "mrad")
        positive: tuple[tuple[str, float, str], ...] = (
            ("pixel_size_inv_angstrom", 1.0, "1/Å"),
            ("camera_length_mm", 1e6, "mm"),
            ("camera_pixel_um", 1e5, "um"),
            ("g_max_inv_angstrom", _LARGEST_G, "1/Å"),
        )
        for name, high, unit in positive:
            if getattr(self, name) is not None:
                check_range(name, getattr(self, name), 0, high, unit, low_inclusive=False)
        if self.pixel_size_inv_angstrom is not None and self.camera_length_mm is not None:
            raise ValueError(
                f"pixel_size_inv_angstrom is {self.pixel_size_inv_angstrom} and camera_length_mm is "
                f"{self.camera_length_mm}, expected one of them"
            )
        if self.camera_pixel_um is not None and self.camera_length_mm is None:
            raise ValueError(
                f"camera_pixel_um is {self.camera_pixel_um}, expected with camera_length_mm only"
            )

    def pixel_size(self) -> float:
        """Return the size of a pixel [1/Å]."""
        if self.pixel_size_inv_angstrom is not None:
            return float(self.pixel_size_inv_angstrom)
        if self.camera_length_mm is not None:
            camera_pixel = self.camera_pixel_um or 1e3 * CAMERA_WIDTH_MM / self.size
            size = pixel_size_of_camera(self.camera_length_mm, camera_pixel, self.voltage_kv)
            return check_range("pixel size of camera_length_mm and camera_pixel_um", size, 0, 1, "1/Å")
        return (self.g_max_inv_angstrom or _REACH) / (beam_position(self.size) - 2 * self.spot_sigma_px)


@dataclass(frozen=True, eq=False)
class SimulatedPattern:
    """A simulated pattern with the spots in it.

    Parameters
    ----------
    pattern : DiffractionPattern
        Calibrated image; the strongest diffracted beam of the crystal has the height 1.
    spots : SpotPattern
        The beams whose centres lie in the image, from small to large |g|.
    rc : (n, 2) ndarray of float64
        Where they are (row, col) [px].
    beam_rc : tuple of 2 float
        Direct beam (row, col) [px].
    settings : PatternSettings
        What it was made with.
    """

    pattern: DiffractionPattern
    spots: SpotPattern
    rc: np.ndarray
    beam_rc: tuple[float, float]
    settings: PatternSettings


def simulate_pattern(
    crystal: Crystal, zone: tuple[int, int, int], settings: PatternSettings | None = None, **changes: Any
) -> SimulatedPattern:
    """Simulate a zone-axis pattern: the spots, and an image of them.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis [u, v, w].
    settings : PatternSettings, optional
        How; the defaults of that class otherwise.
    **changes
        Fields of `PatternSettings` that differ from `settings`.

    Returns
    -------
    SimulatedPattern
        Image, spots and where they are.

    Raises
    ------
    ValueError
        If a value is out of range, or nothing diffracts into the image.
    StructureError
        If an element has no electron scattering factor.

    Examples
    --------
    >>> from napari_sadp.simulation.catalogue import find_structure
    >>> made = simulate_pattern(find_structure("Al", 225).crystal(), (0, 0, 1), pixel_size_inv_angstrom=0.0125)
    >>> made.spots.hkl[0].tolist(), made.pattern.shape
    ([-2, 0, 0], (256, 256))
    """
    settings = replace(settings or PatternSettings(), **changes)
    zone = check_zone_axis(zone)
    pixel_size = settings.pixel_size()
    spots, direct_beam = zone_beams(crystal, zone, settings)
    image = render_pattern(
        spots,
        size=settings.size,
        pixel_size_inv_angstrom=pixel_size,
        spot_sigma_px=settings.spot_sigma_px,
        direct_beam=direct_beam,
        rotation_deg=settings.rotation_deg,
        disc_radius_px=settings.disc_radius_px,
        spot_profile=settings.spot_profile,
    )
    beam = (beam_position(settings.size),) * 2
    rc = spot_positions(
        spots, pixel_size_inv_angstrom=pixel_size, beam_rc=beam, rotation_deg=settings.rotation_deg
    )
    order = beams_in_frame(spots, rc, settings.size)
    if len(order) == 0:
        raise _outside(crystal, zone, settings, pixel_size)
    note = f"simulated: {settings.engine}, {settings.thickness_nm:g} nm thick"
    data = image.data if settings.gamma == 1 else image.data**settings.gamma
    pattern = replace(
        image,
        data=data,
        camera_length_mm=settings.camera_length_mm,
        source=f"{crystal.name} {zone_name(zone)}, simulated, {settings.voltage_kv:g} kV",
        notes=(*image.notes, note if settings.gamma == 1 else f"{note}, gamma {settings.gamma:g}"),
    )
    return SimulatedPattern(pattern, take_beams(spots, order), rc[order], beam, settings)


def zone_beams(
    crystal: Crystal, zone: tuple[int, int, int], settings: PatternSettings, *, margin: float = 1.0
) -> tuple[SpotPattern, float]:
    """Return the beams of a zone axis by the engine of the settings, those outside the frame too.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zone : tuple of 3 int
        Zone axis [u, v, w].
    settings : PatternSettings
        How.
    margin : float
        Where `g_max_inv_angstrom` is not given: how far the beams reach, over the corner of a centred frame.

    Returns
    -------
    spots : SpotPattern
        Beams, strongest = 1.
    direct_beam : float
        Height of the direct beam over the strongest of them.

    Raises
    ------
    ValueError
        If nothing diffracts within the reach.
    """
    pixel_size = settings.pixel_size()
    if settings.engine == "dynamical":
        from napari_sadp.simulation.bloch import simulate_bloch

        result = simulate_bloch(
            crystal,
            zone,
            voltage_kv=settings.voltage_kv,
            thickness_nm=settings.thickness_nm,
            g_max_inv_angstrom=settings.g_max_inv_angstrom or DYNAMICAL_REACH,
            tilt_mrad=settings.tilt_mrad,
        )
        return result.pattern(0), result.direct_ratio(0)
    corner = margin * np.sqrt(2) * settings.size / 2 * pixel_size
    try:
        spots = simulate_kinematic(
            crystal,
            zone,
            voltage_kv=settings.voltage_kv,
            thickness_nm=settings.thickness_nm,
            g_max_inv_angstrom=settings.g_max_inv_angstrom or min(corner, _LARGEST_G),
            relrod=settings.relrod,
            tilt_mrad=settings.tilt_mrad,
        )
    except ValueError as error:
        if settings.g_max_inv_angstrom is not None:
            raise
        # the settings are checked, so that the circle is too small, which the user gave by the pixel size
        raise _outside(crystal, zone, settings, pixel_size) from error
    return spots, 3.0  # there is no direct beam in single scattering: the height that `render_pattern` takes


def _outside(
    crystal: Crystal, zone: tuple[int, int, int], settings: PatternSettings, pixel_size: float
) -> ValueError:
    return ValueError(
        f"pixel size is {pixel_size:.4g} 1/Å: no beam of {crystal.name} on {zone_name(zone)} falls into {settings.size} px"
    )


def beams_in_frame(spots: SpotPattern, rc: np.ndarray, size: int) -> np.ndarray:
    """Return the indices of the beams whose centres (n, 2) [px] lie in the frame, from small to large |g|."""
    inside = np.flatnonzero(((rc > -0.5) & (rc < size - 0.5)).all(axis=1))
    # rounded, so that equal lengths are equal and Miller indices decide
    return inside[np.lexsort((*spots.hkl[inside].T[::-1], spots.g[inside].round(9)))]


def take_beams(spots: SpotPattern, index: np.ndarray) -> SpotPattern:
    """Return some of the beams, intensities unchanged."""
    fields = ("hkl", "g_xy", "intensity", "excitation_error")
    return replace(spots, **{name: getattr(spots, name)[index] for name in fields})
