"""Rings of polycrystals and halos of amorphous matter, from the radial profile about an inversion centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.signal import find_peaks, peak_widths
from skimage.transform import warp_polar

if TYPE_CHECKING:
    from napari_sadp.geometry.background import PreparedImage
    from napari_sadp.geometry.results import DirectBeam

_N_ANGLES = 360
_SHARP = 0.22  # full width over radius: rings of crystals are sharper, halos of amorphous matter are broader


@dataclass(frozen=True, eq=False)
class RadialFeatures:
    """Maxima of the radial profile, the strongest first.

    Parameters
    ----------
    radius_px : (n,) ndarray of float64
        Radii [px].
    sharp : (n,) ndarray of bool
        True for rings of crystals, False for broad halos.
    height : (n,) ndarray of float64
        Prominence of the maxima [counts].
    """

    radius_px: np.ndarray
    sharp: np.ndarray
    height: np.ndarray

    @property
    def rings(self) -> np.ndarray:
        """Radii of sharp rings [px]."""
        return self.radius_px[self.sharp]

    @property
    def halos(self) -> np.ndarray:
        """Radii of broad halos [px]."""
        return self.radius_px[~self.sharp]


def radial_features(prepared: PreparedImage, beam: DirectBeam) -> RadialFeatures:
    """Find rings and halos around a centre.

    The profile is the median over the angle, so that spots, which cover a small part of a circle, leave no trace in
    it, while rings, even spotty ones, do.

    Parameters
    ----------
    prepared : PreparedImage
        The pattern.
    beam : DirectBeam
        Centre of the circles.

    Returns
    -------
    RadialFeatures
        Radii of sharp and of broad maxima.
    """
    shape = np.array(prepared.mask.shape)
    radius = int(np.max(np.abs(np.stack([beam.rc, shape - 1 - beam.rc]))))
    nothing = RadialFeatures(np.zeros(0), np.zeros(0, bool), np.zeros(0))
    if radius < 16 or radius > 3 * shape.max():
        return nothing
    total = prepared.signal + prepared.background
    options = {"center": tuple(beam.rc), "radius": radius, "output_shape": (_N_ANGLES, radius), "order": 1}
    polar = warp_polar(np.where(prepared.mask, 0.0, total), preserve_range=True, **options)
    live = warp_polar((~prepared.mask).astype(float), **options) > 0.999
    polar[~live] = np.nan
    count = live.sum(axis=0)
    keep = count > 0.25 * _N_ANGLES
    last = int(np.flatnonzero(keep)[-1]) + 1 if keep.any() else 0
    if last < 16:
        return nothing
    first = int(np.argmax(keep))
    polar, count = polar[:, first:last], np.maximum(count[first:last], 1)
    profile = np.nanmedian(np.where(count > 4, polar, 0.0), axis=0)
    spread = 1.4826 * np.nanmedian(np.abs(np.where(count > 4, polar, 0.0) - profile), axis=0)
    # a small circle holds fewer pixels than angles
    independent = np.minimum(count, 2 * np.pi * (np.arange(first, last) + 1) * count / _N_ANGLES)
    error = gaussian_filter1d(1.25 * spread / np.sqrt(np.maximum(independent, 1)), 2) + 1e-12
    profile = gaussian_filter1d(profile, max(1.0, radius / 250))
    depth = profile - np.nanmin(profile)
    peaks, found = find_peaks(profile, prominence=0.0)
    height = found["prominences"]
    width = peak_widths(profile, peaks, rel_height=0.5)[0]
    sharp = width < _SHARP * (peaks + first)
    good = (height > 8 * error[peaks]) & (height > 0.03 * depth[peaks])
    # closed: all around the circle, and not the centre itself; stripes of a camera make weak broad maxima
    good &= (height > np.where(sharp, 0.5, 2.0) * spread[peaks]) & (
        peaks + first > max(6, 0.04 * shape.min())
    )
    order = np.argsort(-height[good], kind="stable")
    return RadialFeatures((peaks[good] + first)[order].astype(float), sharp[good][order], height[good][order])
