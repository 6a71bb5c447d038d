"""Kinematic patterns of one crystal in many orientations, on the axes or off them, as lists and as images.

An orientation is a frame, as `napari_sadp.simulation.frames` makes them.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_sadp._units import electron_wavelength
from napari_sadp._validate import check_option, check_range
from napari_sadp.geometry.convention import IMAGE_SIZE, beam_position
from napari_sadp.simulation.frames import check_frames
from napari_sadp.simulation.kinematic import (
    MAX_TILT_MRAD,
    RELRODS,
    Relrod,
    diffracted_beams,
    incident_waves,
    largest_excitation_error,
)
from napari_sadp.simulation.reflections import Reflections, reflections
from napari_sadp.simulation.render import render_gaussians

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sadp.simulation.crystal import Crystal

Precision = Literal["float32", "float64"]
PRECISIONS: tuple[str, ...] = ("float32", "float64")

#: Orientations times reflections handled at once: a few MB for each of a handful of arrays.
_CHUNK = 500_000
#: Images drawn together on a processor: their profiles stay in its cache.
_DRAWN_TOGETHER = 4
#: Images handed out at once by the processor and by a device.
_IMAGES, _IMAGES_OF_DEVICE = 64, 512
#: |g| up to which the scattering factors are valid [1/Å].
_LARGEST_G = 4.0


@dataclass(frozen=True, eq=False)
class OrientationSpots:
    """The diffracted beams of a crystal in b orientations, padded to the largest number n of them.

    Arrays are of numpy, or of torch where the simulation ran on a device.

    Parameters
    ----------
    reflections : Reflections
        What `node` counts.
    frames : (b, 3, 3) ndarray of float64
        Orientations.
    voltage_kv, thickness_nm : (b,) ndarray of float64
        Of each pattern [kV], [nm].
    count : (b,) array of int
        Number of beams; the rest of each row is padding.
    node : (b, n) array of int
        Reflection of each beam, -1 in the padding.
    g_xy : (b, n, 2) array of float
        Place in the pattern, x to the right, y up [1/Å].
    intensity : (b, n) array of float
        Relative to the strongest beam of the pattern; 0 in the padding.
    excitation_error : (b, n) array of float
        s_g [1/Å].
    """

    reflections: Reflections
    frames: np.ndarray
    voltage_kv: np.ndarray
    thickness_nm: np.ndarray
    count: Any
    node: Any
    g_xy: Any
    intensity: Any
    excitation_error: Any

    def __len__(self) -> int:
        return len(self.frames)

    def hkl(self, index: int) -> np.ndarray:
        """Return the Miller indices (count, 3) of the beams of a pattern."""
        node = self.node[index, : int(self.count[index])]
        return self.reflections.hkl[node if isinstance(node, np.ndarray) else node.cpu().numpy()]

    def images(
        self,
        *,
        pixel_size_inv_angstrom: float,
        size: int = IMAGE_SIZE,
        spot_sigma_px: float = 2.0,
        direct_beam: float = 3.0,
    ) -> Any:
        """Draw the patterns, all at once: see `simulate_images` for more than memory holds.

        Parameters
        ----------
        pixel_size_inv_angstrom : float
            Size of a pixel [1/Å].
        size : int
            Rows and columns [px].
        spot_sigma_px : float
            Standard deviation of the Gaussian spots [px].
        direct_beam : float
            Height of the direct beam over that of the strongest diffracted beam.

        Returns
        -------
        (b, size, size) array
            Strongest diffracted beam = 1, direct beam at ``(size - 1) / 2``.
        """
        check_range("pixel_size_inv_angstrom", pixel_size_inv_angstrom, 0, 1, "1/Å", low_inclusive=False)
        check_range("size", size, 16, 8192, "px")
        check_range("spot_sigma_px", spot_sigma_px, 0, size, "px", low_inclusive=False)
        xy = self.g_xy / pixel_size_inv_angstrom
        shape = (len(self), xy.shape[1] + 1)
        # one more spot, the first, for the direct beam
        if isinstance(xy, np.ndarray):
            rc, height = np.empty((*shape, 2), xy.dtype), np.empty(shape, xy.dtype)
        else:
            rc, height = xy.new_empty((*shape, 2)), xy.new_empty(shape)
        rc[...] = beam_position(size)
        rc[:, 1:, 0] -= xy[..., 1]  # rows count downwards, y upwards
        rc[:, 1:, 1] += xy[..., 0]
        height[:, :1], height[:, 1:] = direct_beam, self.intensity
        if not isinstance(xy, np.ndarray):
            return render_gaussians(rc, height, spot_sigma_px, (size, size))
        images = np.empty((len(self), size, size), xy.dtype)
        # those of like numbers of spots together, so that there is little padding
        order = np.argsort(self.count, kind="stable")
        for start in range(0, len(order), _DRAWN_TOGETHER):
            some = order[start : start + _DRAWN_TOGETHER]
            n = 1 + int(self.count[some[-1]])
            images[some] = render_gaussians(rc[some, :n], height[some, :n], spot_sigma_px, (size, size))
        return images


def simulate_orientations(
    crystal: Crystal,
    frames: np.ndarray,
    *,
    voltage_kv: float | np.ndarray = 200.0,
    thickness_nm: float | np.ndarray = 10.0,
    g_max_inv_angstrom: float = 1.5,
    relrod: Relrod = "gaussian",
    s_max_inv_angstrom: float | None = None,
    tilt_mrad: tuple[float, float] | np.ndarray = (0.0, 0.0),
    min_intensity: float = 1e-6,
    device: str = "cpu",
    dtype: Precision = "float32",
) -> OrientationSpots:
    """Simulate the kinematic patterns of a crystal in any orientations.

    The reflections are worked out once for a crystal; an orientation costs a dot product for each, a weight and a mask.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    frames : (b, 3, 3) ndarray of float
        Orientations; see `napari_sadp.simulation.frames`: `beam_frames`, `random_frames`, `zone_frame`.
    voltage_kv : float or (b,) ndarray
        Accelerating voltage, 10 to 3000 [kV].
    thickness_nm : float or (b,) ndarray
        Thickness [nm].
    g_max_inv_angstrom : float
        Largest distance from the direct beam in the pattern [1/Å].
    relrod : {"gaussian", "sinc", "none"}
        See `relrod_weight`.
    s_max_inv_angstrom : float, optional
        Largest |s_g| of a beam [1/Å]; by default where a Gaussian relrod has fallen to 1e-12, and the tenth zero of a
        sinc. The relrod ``none`` needs it: it is a box of this half length.
    tilt_mrad : (2,) or (b, 2) array_like of float
        Tilt of the incident beam towards x and y [mrad].
    min_intensity : float
        Beams weaker than this fraction of the strongest are left out.
    device : str
        ``"cpu"`` for numpy, any other name for the torch device of that name, such as ``"cuda"``.
    dtype : {"float32", "float64"}
        Precision; float32 knows excitation errors to 1e-7 1/Å, hence intensities to 1e-4 at 10 nm and to 1e-2 at
        1000 nm.

    Returns
    -------
    OrientationSpots
        Beams of each orientation; where nothing diffracts, none.

    Raises
    ------
    ValueError
        If a parameter is out of range, a frame is no right-handed set of unit vectors, or the sphere holds too many nodes.

    References
    ----------
    Williams & Carter, Transmission Electron Microscopy (2009), chapters 12 and 17. doi:10.1007/978-0-387-76501-3

    Examples
    --------
    >>> from napari_sadp.simulation.catalogue import find_structure
    >>> from napari_sadp.simulation.frames import random_frames
    >>> silicon = find_structure("Si", 227).crystal()
    >>> spots = simulate_orientations(silicon, random_frames(100, np.random.default_rng(0)))
    >>> spots.images(pixel_size_inv_angstrom=0.0125).shape
    (100, 256, 256)
    """
    frames = check_frames(frames)
    n = len(frames)
    voltage = _per_pattern("voltage_kv", voltage_kv, n, 10, 3000, "kV")
    thickness = _per_pattern("thickness_nm", thickness_nm, n, 1e-3, 1e4, "nm")
    check_range("g_max_inv_angstrom", g_max_inv_angstrom, 0, _LARGEST_G, "1/Å", low_inclusive=False)
    check_range("min_intensity", min_intensity, 0, 1)
    check_option("relrod", relrod, RELRODS)
    check_option("dtype", dtype, PRECISIONS)
    tilt = np.asarray(tilt_mrad, dtype=float)
    if tilt.shape not in ((2,), (n, 2)) or not (np.abs(tilt) <= MAX_TILT_MRAD).all():
        raise ValueError(
            f"tilt_mrad has shape {tilt.shape}, expected (2,) or ({n}, 2) numbers in [-{MAX_TILT_MRAD:g}, {MAX_TILT_MRAD:g}] mrad"
        )
    tilt = np.broadcast_to(tilt, (n, 2))
    s_max = _largest_errors(s_max_inv_angstrom, thickness, relrod)
    nodes = reflections(crystal, _radius(g_max_inv_angstrom, float(s_max.max(initial=0)), voltage, tilt))
    step = max(1, _CHUNK // max(1, len(nodes)))
    to = _placer(device, dtype)
    g, strength = to(nodes.g), to(nodes.strength)
    parts = []
    for start in range(0, n, step):
        part = slice(start, start + step)
        beams = diffracted_beams(
            g,
            strength,
            to(frames[part]),
            to(incident_waves(voltage[part], tilt[part])),
            to(thickness[part]),
            relrod=relrod,
            s_max=to(s_max[part]),
            g_max=g_max_inv_angstrom,
        )
        parts.append(_padded(beams, len(frames[part]), min_intensity))
    count, node, g_xy, intensity, errors = _joined(parts)
    return OrientationSpots(nodes, frames, voltage, thickness, count, node, g_xy, intensity, errors)


def simulate_images(
    crystal: Crystal,
    frames: np.ndarray,
    *,
    pixel_size_inv_angstrom: float,
    size: int = IMAGE_SIZE,
    spot_sigma_px: float = 2.0,
    direct_beam: float = 3.0,
    workers: int = 1,
    device: str = "cpu",
    **options: Any,
) -> Iterator[tuple[int, Any]]:
    """Simulate and draw any number of orientations, a few at a time, so that memory stays bounded.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    frames : (b, 3, 3) ndarray of float
        Orientations.
    pixel_size_inv_angstrom, size, spot_sigma_px, direct_beam
        As `OrientationSpots.images`.
    workers : int
        Threads, each at images of its own; numpy lets them run at the same time. Best with ``OMP_NUM_THREADS=1``.
    device : str
        As `simulate_orientations`, where the images stay.
    **options
        Further options of `simulate_orientations`; arrays of b values are those of the patterns.

    Yields
    ------
    start : int
        Number of the first orientation of the images.
    images : (k, size, size) array
        k images in the order of `frames`.

    Raises
    ------
    ValueError
        As `simulate_orientations`, at the first step.
    """
    check_range("workers", workers, 1, 256)
    frames = check_frames(frames)
    step = _IMAGES if device == "cpu" else _IMAGES_OF_DEVICE
    per_pattern = {
        name: np.asarray(options.pop(name))
        for name, ndim in (("voltage_kv", 1), ("thickness_nm", 1), ("tilt_mrad", 2))
        if np.ndim(options.get(name, 0.0)) == ndim
    }
    for name, values in per_pattern.items():
        if len(values) != len(frames):
            raise ValueError(f"{name} has {len(values)} values, expected one or {len(frames)}")

    def draw(start: int) -> tuple[int, Any]:
        part = slice(start, start + step)
        mine = {name: values[part] for name, values in per_pattern.items()}
        spots = simulate_orientations(crystal, frames[part], device=device, **mine, **options)
        return start, spots.images(
            pixel_size_inv_angstrom=pixel_size_inv_angstrom,
            size=size,
            spot_sigma_px=spot_sigma_px,
            direct_beam=direct_beam,
        )

    starts = range(0, len(frames), step)
    if workers == 1 or len(starts) < 2:
        yield from map(draw, starts)
        return
    yield draw(0)  # the reflections are worked out once, not by every thread
    with ThreadPoolExecutor(int(workers)) as pool:
        waiting = deque(pool.submit(draw, start) for start in starts[1 : 1 + 2 * int(workers)])
        for start in [*starts[1 + 2 * int(workers) :], *[None] * len(waiting)]:
            done = waiting.popleft().result()
            if start is not None:
                waiting.append(pool.submit(draw, start))
            yield done


def _per_pattern(name: str, value: Any, n: int, low: float, high: float, unit: str) -> np.ndarray:
    """Return n values of a parameter given as one or n of them."""
    array = np.asarray(value, dtype=float)
    if array.shape not in ((), (n,)):
        raise ValueError(f"{name} has shape {array.shape}, expected one value or ({n},)")
    for extreme in (array.min(), array.max()):
        check_range(name, float(extreme), low, high, unit)
    return np.broadcast_to(array, (n,))


def _largest_errors(s_max: float | None, thickness_nm: np.ndarray, relrod: Relrod) -> np.ndarray:
    """Return the largest |s_g| of each pattern [1/Å]."""
    if s_max is not None:
        check_range("s_max_inv_angstrom", s_max, 0, 1, "1/Å", low_inclusive=False)
        return np.full(len(thickness_nm), float(s_max))
    if relrod == "none":
        raise ValueError(
            "s_max_inv_angstrom is None, expected a number of 1/Å with relrod 'none', which has no end"
        )
    if relrod == "sinc":
        return 1.0 / thickness_nm  # ten zeros of 1 / t, in 1/Å
    return largest_excitation_error(thickness_nm, relrod)


def _radius(g_max: float, s_max: float, voltage_kv: np.ndarray, tilt_mrad: np.ndarray) -> float:
    """Return the |g| up to which nodes may reach a pattern [1/Å]."""
    sagitta = 0.6 * g_max**2 * electron_wavelength(float(voltage_kv.min()))  # g^2 / 2K, and some room
    height = s_max + sagitta + 1.1e-3 * g_max * float(np.linalg.norm(tilt_mrad, axis=1).max())
    return min(_LARGEST_G, float(np.hypot(g_max, height)))


def _placer(device: str, dtype: Precision) -> Any:
    """Return the function that brings a numpy array to a device."""
    if device == "cpu":
        return lambda array: np.asarray(array, dtype=dtype)
    import torch

    # a copy: torch warns of read-only arrays
    return lambda array: torch.tensor(np.array(array), dtype=getattr(torch, dtype), device=device)


def _padded(beams: Any, n: int, min_intensity: float) -> tuple[Any, ...]:
    """Return counts (n,), and nodes, places, relative intensities, errors (n, most), of the beams strong enough."""
    pattern, node, g_xy, errors, intensity = beams
    if isinstance(pattern, np.ndarray):
        strongest = np.zeros(n, intensity.dtype)
        np.maximum.at(strongest, pattern, intensity)
        bincount, zeros, arange = np.bincount, np.zeros, np.arange(len(pattern))
    else:
        import torch

        strongest = intensity.new_zeros(n).scatter_reduce(0, pattern, intensity, "amax")
        bincount, arange = torch.bincount, torch.arange(len(pattern), device=pattern.device)

        def zeros(shape: tuple[int, ...], dtype: Any) -> Any:
            return torch.zeros(shape, dtype=dtype, device=pattern.device)

    keep = (intensity > min_intensity * strongest[pattern]) & (intensity > 0)
    pattern, node, g_xy, errors, intensity = (a[keep] for a in (pattern, node, g_xy, errors, intensity))
    count = bincount(pattern, minlength=n)
    place = pattern, arange[: len(pattern)] - (count.cumsum(0) - count)[pattern]
    most = int(count.max())
    columns = []
    for values in (node + 1, g_xy, intensity / strongest[pattern], errors):
        column = zeros((n, most, *values.shape[1:]), dtype=values.dtype)
        column[place] = values
        columns.append(column)
    columns[0] -= 1
    return count, *columns


def _joined(parts: list[tuple[Any, ...]]) -> list[Any]:
    """Return the columns of all chunks as one, padded to the same number of beams."""
    if len(parts) == 1:
        return list(parts[0])
    most = max(part[1].shape[1] for part in parts)
    joined = []
    for index, column in enumerate(zip(*parts, strict=True)):
        shape = (sum(map(len, column)), *((most, *column[0].shape[2:]) if index else ()))
        first = column[0]
        whole = np.zeros(shape, first.dtype) if isinstance(first, np.ndarray) else first.new_zeros(shape)
        if index == 1:
            whole -= 1
        start = 0
        for part in column:
            rows = whole[start : start + len(part)]
            if index:
                rows[:, : part.shape[1]] = part
            else:
                rows[:] = part
            start += len(part)
        joined.append(whole)
    return joined
