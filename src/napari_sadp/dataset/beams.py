"""The beams behind the images of a data set: worked out once for what several images share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp._units import electron_wavelength
from napari_sadp.simulation.kinematic import relrod_weight, simulate_kinematic
from napari_sadp.simulation.zone_pattern import DYNAMICAL_REACH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.dataset.config import DatasetConfig
    from napari_sadp.dataset.structures import DatasetStructure
    from napari_sadp.labels.scheme import Zone


def excitation(g_squared: np.ndarray, voltage_kv: float) -> np.ndarray:
    """Return s_g [1/Å] of nodes of the zero-order Laue zone on the exact axis, ``-wavelength g^2 / 2``."""
    return -0.5 * electron_wavelength(voltage_kv) * g_squared


class BeamMaker:
    """Works out beams; keeps those of the last (structure, zone axis), which its images share.

    Parameters
    ----------
    config : DatasetConfig
        Engine and relrods.
    g_max : float
        Largest |g| that an image can show [1/Å].
    """

    def __init__(self, config: DatasetConfig, g_max: float) -> None:
        self.config, self.g_max = config, g_max
        self._crystal: tuple[Any, Any] = (None, None)
        self._zone: tuple[Any, Any] = (None, None)
        self._waves: tuple[Any, Any] = (None, None)

    def kinematic(
        self,
        structure: DatasetStructure,
        zone: Zone,
        voltage_kv: float,
        thickness_nm: float,
        tilt_mrad: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the beams of single scattering.

        Returns
        -------
        g_xy : (n, 2) ndarray of float64
            [1/Å]; none where nothing lies within the field of view.
        intensity : (n,) ndarray of float64
            In any unit.
        """
        key = (id(structure), zone)
        if self._zone[0] != key:
            try:
                spots = simulate_kinematic(
                    self._crystal_of(structure),
                    zone,
                    g_max_inv_angstrom=self.g_max,
                    relrod="none",
                    laue_zones=0,
                    min_intensity=1e-12,
                )
                self._zone = (key, (spots.g_xy, spots.intensity))
            except ValueError:  # nothing within the field of view; n_spots says so in the manifest
                self._zone = (key, (np.empty((0, 2)), np.empty(0)))
        g_xy, factor = self._zone[1]
        s = excitation((g_xy**2).sum(axis=1), voltage_kv)
        if any(tilt_mrad):
            s = s - 1e-3 * (g_xy @ np.asarray(tilt_mrad))
        return g_xy, factor * relrod_weight(s, thickness_nm, self.config.relrod)

    def dynamical(
        self,
        structure: DatasetStructure,
        zone: Zone,
        voltage_kv: float,
        thicknesses_nm: Sequence[float],
        index: int,
        tilt_mrad: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return the beams of Bloch waves at one of the thicknesses; all of these come of one eigenvalue problem.

        Returns
        -------
        g_xy : (n, 2) ndarray of float64
            [1/Å].
        intensity : (n,) ndarray of float64
            Over the strongest.
        direct_beam : float
            The direct beam over the strongest.
        """
        from napari_sadp.simulation.bloch import simulate_bloch

        key = (id(structure), zone, voltage_kv, tuple(thicknesses_nm), tilt_mrad)
        if self._waves[0] != key:
            try:
                result = simulate_bloch(
                    self._crystal_of(structure),
                    zone,
                    voltage_kv=voltage_kv,
                    thickness_nm=thicknesses_nm,
                    g_max_inv_angstrom=DYNAMICAL_REACH,
                    tilt_mrad=tilt_mrad,
                )
            except ValueError:  # fewer than two reflections: nothing to couple
                result = None
            self._waves = (key, result)
        result = self._waves[1]
        if result is None:
            return np.empty((0, 2)), np.empty(0), 1.0
        spots = result.pattern(index)
        return spots.g_xy, spots.intensity, result.direct_ratio(index)

    def _crystal_of(self, structure: DatasetStructure) -> Any:
        if self._crystal[0] is not structure:
            self._crystal = (structure, structure.crystal())
        return self._crystal[1]
