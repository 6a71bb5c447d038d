"""What known structures show: the class and the scale that each of them shows on each zone axis.

By symmetry every reflection that is allowed is there. In a real structure some are too weak to see, and then the crystal
looks like another group on *every* axis: FeCo (221) like a body-centred metal. In a thick specimen multiple scattering
lights what is forbidden, and what is weak. So the likelihood of a group is a mean over structures of the product over
patterns, not a product of means. The table of structures (training formulas of the catalogue, at several visibility
thresholds, kinematic and for several thicknesses) ships with the package.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.ensemble.contrast import coset_contrast
from napari_sadp.ensemble.exact import class_log_likelihood
from napari_sadp.geometry.nodes import NodeMap
from napari_sadp.labels.lattice2d import gauss_reduce, gram, shape_key, span
from napari_sadp.labels.scheme import present_basis

if TYPE_CHECKING:
    from napari_sadp.ensemble.observed import ZoneIntensities
    from napari_sadp.labels.scheme import PatternScheme

#: Thicknesses of the regimes [nm]; the first stands for single scattering.
THICKNESS_NM: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0, 60.0)
#: How likely each is where the user says nothing: specimens for selected-area diffraction are rarely thinner than 10 nm, but
#: bent and tilted enough that less is filled than on an exact axis.
THICKNESS_PRIOR: tuple[float, ...] = (0.3, 0.2, 0.2, 0.15, 0.15)
#: Spread of a thickness that the user gives (natural logarithm).
_THICKNESS_SPREAD = 0.25
#: Visibility thresholds: intensity of the weakest spot that counts, over the strongest.
THRESHOLDS: tuple[float, ...] = (1e-3, 3e-3, 1e-2, 3e-2)
#: Largest |g| that counts for the class of a structure [1/Å].
_VIEW = 1.4

#: Step of the contrasts in the file (natural logarithm).
CONTRAST_STEP = 0.06

#: Labels of axes on which a structure shows a lattice of no class, and too few spots for any.
NO_CLASS, NO_LATTICE = -1, -2


@dataclass(frozen=True, eq=False)
class ViewTable:
    """What structures show, for a scheme.

    Parameters
    ----------
    label : (n_structures, n_zones, n_thresholds, n_regimes) ndarray of int
        Class, `NO_CLASS` or `NO_LATTICE`.
    square : (n_structures, n_zones, n_thresholds, n_regimes) ndarray of int
        Squared length of the shortest vector that is seen, in units of one over the squared cell edge.
    behaviour : (n_structures,) ndarray of int
        Row of ``scheme.all_behaviours``.
    weight : (n_structures,) ndarray of float
        Share of a structure in its behaviour; sum to 1 for each.
    thresholds : tuple of float
        Of the third axis; empty where it does not matter.
    thickness_nm : tuple of float
        Of the last axis [nm].
    edge : (n_structures,) ndarray of float or None
        Cell edges [Å] where the structures are candidates, None where they stand for others like them.
    contrast : (n_structures, n_zones, n_thresholds, n_regimes, 4) ndarray of float32 or None
        How bright the cosets of the lattice are, see `napari_sadp.ensemble.contrast`; None where only symmetry is known.
    formula : tuple of str
        Of each structure; of a decorated copy, that of its origin. Empty where the structures stand for symmetry alone.
    """

    label: np.ndarray
    square: np.ndarray
    behaviour: np.ndarray
    weight: np.ndarray
    thresholds: tuple[float, ...]
    thickness_nm: tuple[float, ...]
    edge: np.ndarray | None = None
    contrast: np.ndarray | None = None
    formula: tuple[str, ...] = ()

    def without(self, formula: str) -> ViewTable:
        """Return the table without the structures of a formula, to judge one of them by the others.

        Parameters
        ----------
        formula : str
            As in `formula`; no error where there is none.

        Returns
        -------
        ViewTable
            Weights sum to 1 for each behaviour again.
        """
        keep = np.array([item != formula for item in self.formula], dtype=bool)
        total = np.bincount(self.behaviour[keep], self.weight[keep], minlength=self.behaviour.max() + 1)
        return replace(
            self,
            label=self.label[keep],
            square=self.square[keep],
            behaviour=self.behaviour[keep],
            weight=self.weight[keep] / total[self.behaviour[keep]],
            contrast=None if self.contrast is None else self.contrast[keep],
            formula=tuple(item for item in self.formula if item != formula),
        )

    def threshold_weights(self, weakest: float | None, error: float = 0.5) -> np.ndarray:
        """Return how much each threshold counts for a pattern whose weakest visible spot is known, or not.

        Parameters
        ----------
        weakest : float or None
            Intensity of the weakest spot that would be seen, over the strongest.
        error : float
            Its standard deviation (natural logarithm).

        Returns
        -------
        (n_thresholds,) ndarray of float64
            Sum 1.
        """
        n = self.label.shape[2]
        if weakest is None or n == 1:
            return np.full(n, 1 / n)
        distance = (np.log(self.thresholds) - np.log(weakest)) / error
        # a threshold outside of the table is taken for the nearest one
        weight = np.exp(-0.5 * (distance**2 - (distance**2).min()))
        return weight / weight.sum()

    def regime_prior(self, thickness_nm: float | None) -> np.ndarray:
        """Return the prior probabilities of the regimes (n_regimes,), by the thickness where the user gives it [nm]."""
        if self.thickness_nm == THICKNESS_NM and thickness_nm is None:
            return np.array(THICKNESS_PRIOR)
        if thickness_nm is None:
            return np.full(len(self.thickness_nm), 1 / len(self.thickness_nm))
        low, high = self.thickness_nm[0], self.thickness_nm[-1]
        distance = np.log(np.clip(thickness_nm, low, high) / np.array(self.thickness_nm)) / _THICKNESS_SPREAD
        weight = np.exp(-0.5 * distance**2)
        return weight / weight.sum()


@dataclass(frozen=True, eq=False)
class Views:
    """What one structure shows on one zone axis, by visibility threshold and row of intensities.

    Parameters
    ----------
    label : (n_thresholds, n_rows) ndarray of int
        Most likely class by its spots and gaps, or `NO_CLASS`, or `NO_LATTICE`.
    square : (n_thresholds, n_rows) ndarray of int
        Squared length of the shortest vector seen, in units of one over the squared cell edge; 0 without a lattice.
    contrast : (n_thresholds, n_rows, 4) ndarray of float64
        How bright the cosets are; 0 without a lattice.
    """

    label: np.ndarray
    square: np.ndarray
    contrast: np.ndarray


def visible_views(
    observed: ZoneIntensities, scheme: PatternScheme, thresholds: tuple[float, ...] = THRESHOLDS
) -> Views:
    """Return what a structure shows on a zone axis.

    Parameters
    ----------
    observed : ZoneIntensities
        What is there.
    scheme : PatternScheme
        The classes.
    thresholds : tuple of float
        Weakest intensities that show, over the strongest.

    Returns
    -------
    Views
        Classes, sizes, contrasts.
    """
    n_rows = len(observed.intensity)
    label = np.full((len(thresholds), n_rows), NO_LATTICE)
    square = np.zeros((len(thresholds), n_rows), dtype=int)
    contrast = np.zeros((len(thresholds), n_rows, 4))
    known_views: dict[bytes, _View | None] = {}
    for row, intensity in enumerate(observed.intensity):
        known = np.isfinite(intensity) & (observed.g <= _VIEW)
        if np.count_nonzero(known) < 4:
            known = np.isfinite(intensity)
        value = np.where(known, intensity, 0.0)
        for t, threshold in enumerate(thresholds):
            floor = threshold * value.max(initial=0.0)
            seen = value > floor
            key = seen.tobytes() + known.tobytes()
            if key not in known_views:
                known_views[key] = _view(observed.nodes[known], seen[known], observed.metric, scheme)
            view = known_views[key]
            if view is not None:
                label[t, row], square[t, row] = view.label, view.square
                # a spot is seen, so that there is a contrast
                contrast[t, row] = coset_contrast(view.index, value[known][view.on], view.metric, floor)
    return Views(label, square, contrast)


@dataclass(frozen=True, eq=False)
class _View:
    label: int
    square: int
    on: np.ndarray  # which of the nodes lie on the lattice that is seen
    index: np.ndarray  # their indices in its reduced basis
    metric: np.ndarray


def _view(nodes: np.ndarray, seen: np.ndarray, metric: np.ndarray, scheme: PatternScheme) -> _View | None:
    lattice = span(nodes[seen]) if seen.any() else None
    if lattice is None:
        return None
    basis = gauss_reduce(lattice, metric)
    form = gram(basis, metric)
    shape = shape_key((form[0], abs(form[1]), form[2]))
    index = np.rint(nodes @ np.linalg.inv(basis)).astype(int)
    on = (index @ basis == nodes).all(axis=1)
    own = basis @ metric @ basis.T
    label = NO_CLASS
    if shape in scheme.shapes[0]:
        there = seen[on]
        none = np.zeros(len(there))
        state = there.astype(np.int8)
        node_map = NodeMap(index[on], index[on] * 1.0, none, none, there.astype(float), state)
        log = class_log_likelihood(node_map, own, {shape: np.eye(2, dtype=int)}, scheme)
        label = int(np.argmax(log))
    return _View(label, form[0], on, index[on], own)


@lru_cache(maxsize=1)
def _packaged() -> dict[str, np.ndarray]:
    path = files("napari_sadp").joinpath("data/visible_classes.npz")
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as packed:
        return {name: packed[name] for name in packed.files}


_views: dict[int, tuple[PatternScheme, ViewTable]] = {}


def view_table(scheme: PatternScheme) -> ViewTable:
    """Return what known structures show; symmetry alone for a scheme that the shipped table does not cover.

    Parameters
    ----------
    scheme : PatternScheme
        The classes.

    Returns
    -------
    ViewTable
        One for each scheme, kept.
    """
    if id(scheme) not in _views:
        while len(_views) >= 8:
            del _views[next(iter(_views))]
        packed = _packaged()
        same = str(packed["version"]) == scheme.version and (packed["zones"] == np.array(scheme.zones)).all()
        _views[id(scheme)] = scheme, _unpack(packed, scheme) if same else symmetry_table(scheme)
    return _views[id(scheme)][1]


def _unpack(packed: dict[str, np.ndarray], scheme: PatternScheme) -> ViewTable:
    names = [item.name for item in scheme.all_behaviours]
    row = np.array([names.index(name) for name in packed["behaviour"].tolist()])
    weight = packed["weight"].astype(float)
    total = np.bincount(row, weight, minlength=len(names))
    return ViewTable(
        packed["label"].astype(np.int64),
        packed["square"].astype(np.int64),
        row,
        weight / total[row],
        tuple(packed["thresholds"].tolist()),
        tuple(packed["thickness_nm"].tolist()),
        contrast=packed["contrast"].astype(np.float32) * CONTRAST_STEP,
        formula=tuple(packed["formula"].tolist()),
    )


def symmetry_table(scheme: PatternScheme) -> ViewTable:
    """Return what ideal crystals show: every allowed spot, or every spot that multiple scattering can reach.

    Parameters
    ----------
    scheme : PatternScheme
        The classes.

    Returns
    -------
    ViewTable
        One structure for each behaviour; two regimes, thin and thick.
    """
    kinematic = scheme.class_table
    looks = [item.appearance for item in scheme.classes]
    fewest: dict[tuple, int] = {}
    for i, look in enumerate(looks):
        key = (look.shape, look.hand)
        if key not in fewest or len(look.absent) < len(looks[fewest[key]].absent):
            fewest[key] = i
    # what multiple scattering fills is taken for the class of this shape with the fewest gaps
    filled = np.array([fewest[look.shape, look.hand] for look in looks])[kinematic]
    metric = np.eye(3, dtype=int)
    square = np.array(
        [[gram(present_basis(b, zone), metric)[0] for zone in scheme.zones] for b in scheme.all_behaviours]
    )
    n = len(scheme.all_behaviours)
    label = np.stack([kinematic, filled], axis=-1)[:, :, None, :]
    return ViewTable(
        label,
        np.repeat(square[:, :, None, None], 2, axis=-1),
        np.arange(n),
        np.ones(n),
        (),
        (THICKNESS_NM[0], THICKNESS_NM[-1]),
    )
