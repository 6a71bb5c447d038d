"""Structures times regimes of thickness as the rows of one table: the hypotheses about a crystal, without its axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.ensemble.views import NO_CLASS, NO_LATTICE

if TYPE_CHECKING:
    from napari_sadp.ensemble.views import ViewTable
    from napari_sadp.labels.scheme import PatternScheme

#: Share of the structure that is like no known one: on each axis, independently, it shows spots and gaps as any of its group does, and
#: how bright they are says nothing.
BLEND = 0.05
#: Regimes and thresholds this much less likely than the best are left out.
FAINT_REGIME = 1e-2
#: Classes this much less likely than the best are left out.
FAINT_CLASS = 1e-5
#: How alike the contrasts (natural logarithm) of two structures are that show a class for the same reason, and the share of
#: patterns whose contrast is that of no known structure. By the log loss of training formulas, each left out in turn.
CONTRAST_WIDTH, CONTRAST_FOREIGN = 0.5, 0.03
#: A contrast that so few structures show says nothing at all.
_RARE_CONTRAST = 0.02
#: Share of foreign patterns whose lattice is that of no class.
FOREIGN = 0.2


def normalised(rows: np.ndarray) -> np.ndarray:
    """Return rows that sum to 1; equal values where all are zero."""
    total = rows.sum(axis=-1, keepdims=True)
    return np.divide(rows, total, out=np.full(rows.shape, 1 / rows.shape[-1]), where=total > 0)


_cells_kept: dict[tuple[int, int, tuple[int, ...]], tuple[ViewTable, PatternScheme, Cells]] = {}


def cells_of(table: ViewTable, scheme: PatternScheme, regimes: tuple[int, ...]) -> Cells:
    """Return the cells of a table, worked out once; table and scheme are kept, so that their ids stay theirs."""
    key = id(table), id(scheme), regimes
    if key not in _cells_kept:
        while len(_cells_kept) >= 8:
            del _cells_kept[next(iter(_cells_kept))]
        _cells_kept[key] = table, scheme, Cells(table, scheme, regimes)
    return _cells_kept[key][2]


@dataclass(frozen=True, eq=False)
class Entries:
    """What one pattern says about the structures that show a likely class, sparse.

    Parameters
    ----------
    cell : (n,) ndarray of int
        Structure times regime, blends left out.
    zone : (n,) ndarray of int
        Zone axis on which the structure shows it.
    size : (n,) ndarray of int
        Its size there, row of `Cells.log_size`.
    value : (n,) ndarray of float64
        Likelihood, with the prior of the axis and the weight of the threshold.
    plain : (n,) ndarray of float64
        The same, by spots and gaps alone.
    """

    cell: np.ndarray
    zone: np.ndarray
    size: np.ndarray
    value: np.ndarray
    plain: np.ndarray


class Cells:
    """Structures times regimes as rows, with the blends of each behaviour at the end.

    Parameters
    ----------
    table : ViewTable
        What structures show.
    scheme : PatternScheme
        The classes.
    regimes : tuple of int
        Regimes of the table that count.
    """

    def __init__(self, table: ViewTable, scheme: PatternScheme, regimes: tuple[int, ...]) -> None:
        self.table, self.n_zones = table, len(scheme.zones)
        self.n_behaviours = len(scheme.all_behaviours)
        self.n_regimes = len(regimes)
        label, square = table.label[..., list(regimes)], table.square[..., list(regimes)]
        usable = label != NO_LATTICE  # (k, z, t, d)
        # one place more than the classes and the class that is none, for what cannot be seen: likelihood zero
        label = np.where(label == NO_CLASS, len(scheme), label)
        label = np.where(usable, label, len(scheme) + 1)
        size, inverse = np.unique(square, return_inverse=True)
        self.size_index = inverse.reshape(square.shape)
        self.size_used = np.unique(self.size_index[usable])
        self.axes_seen = usable.sum(axis=1).astype(float)  # (k, t, d)
        self.log_size = 0.5 * np.log(np.maximum(size, 1))
        self.blended = table.edge is None
        behaviour = np.concatenate([table.behaviour, np.arange(self.n_behaviours)])
        self.behaviour = np.repeat(behaviour, self.n_regimes)
        number = [scheme.groups.index(b.number) for b in scheme.all_behaviours]
        self.group = np.array(number)[self.behaviour]
        self.n_groups = len(scheme.groups)
        # how often each class is seen, over all behaviours, structures, axes, thresholds and regimes
        share = np.repeat(table.weight, label[0].size) * usable.ravel() / self.n_behaviours
        usual = np.bincount(label.ravel(), share, minlength=len(scheme) + 2)[:-1]
        self.usual = (1 - FOREIGN) * usual / usual.sum()
        # mean over the structures of a behaviour, regime by regime
        self.mean = np.zeros((self.n_behaviours, len(table.label)))
        self.mean[table.behaviour, np.arange(len(table.label))] = table.weight
        # places of the table by class, so that a pattern asks for those of its likely classes alone
        self._order = np.argsort(label, axis=None, kind="stable")
        self._start = np.searchsorted(label.ravel()[self._order], np.arange(len(scheme) + 2))
        k, zone, t, d = np.unravel_index(self._order, label.shape)
        self._cell, self._zone, self._threshold = k * self.n_regimes + d, zone, t
        self._size, self._share = self.size_index.ravel()[self._order], table.weight[k]
        self._contrast = None
        if table.contrast is not None:
            self._contrast = table.contrast[..., list(regimes), :].reshape(-1, 4)[self._order]

    def prior(self, group_prior: np.ndarray | None, regime: np.ndarray) -> np.ndarray:
        """Return the logarithms of the prior probabilities of the cells."""
        group = np.full(self.n_groups, 1 / self.n_groups) if group_prior is None else np.asarray(group_prior)
        present = np.unique(self.table.behaviour)
        number = self.group[:: self.n_regimes][-self.n_behaviours :]
        kinds = np.bincount(number[present], minlength=self.n_groups)
        share = np.where(
            np.isin(np.arange(self.n_behaviours), present), 1 / np.maximum(kinds[number], 1), 0.0
        )
        share = share * group[number]
        blend = BLEND if self.blended else 0.0
        rows = np.concatenate([(1 - blend) * share[self.table.behaviour] * self.table.weight, blend * share])
        with np.errstate(divide="ignore"):
            return np.log(np.outer(rows / rows.sum(), regime).ravel())

    def entries(
        self, likelihood: np.ndarray, weight: np.ndarray, contrast: np.ndarray | None = None
    ) -> Entries:
        """Return what a pattern says about each structure.

        Parameters
        ----------
        likelihood : (n_classes + 1,) ndarray of float
            Likelihood of each class; the last, of a lattice of no class.
        weight : (n_thresholds,) ndarray of float
            How much each visibility threshold counts.
        contrast : (4,) ndarray of float, optional
            Contrast of the cosets; nothing is said by it where None, or where the table has none.

        Returns
        -------
        Entries
            For the classes that count.
        """
        some = np.flatnonzero(likelihood > FAINT_CLASS * likelihood.max())
        parts = [np.arange(self._start[c], self._start[c + 1]) for c in some]
        rows = np.concatenate(parts) if parts else np.zeros(0, dtype=int)
        value = np.repeat(likelihood[some], [len(part) for part in parts])
        heavy = np.where(weight > FAINT_REGIME * weight.max(), weight, 0.0)[self._threshold[rows]]
        rows, value = rows[heavy > 0], (value * heavy)[heavy > 0]
        cell = self._cell[rows]
        # a structure is seen on an axis where it shows a lattice at all
        plain = value / self.seen(weight).ravel()[cell]
        value = plain
        if contrast is not None and self._contrast is not None and len(rows):
            value = plain * self._likeness(rows, plain, contrast)
        return Entries(cell, self._zone[rows], self._size[rows], value, plain)

    def _likeness(self, rows: np.ndarray, value: np.ndarray, contrast: np.ndarray) -> np.ndarray:
        """Return how well contrasts agree, over the mean of all that show these classes: the classes keep their likelihood."""
        distance = ((self._contrast[rows] - contrast.astype(np.float32)) ** 2).sum(axis=1) / CONTRAST_WIDTH**2
        near = np.exp(-0.5 * distance.astype(float))
        share = value * self._share[rows]
        share /= share.sum()
        near += CONTRAST_FOREIGN * max(float(share @ near), _RARE_CONTRAST)
        return near / float(share @ near)

    def by_zone(self, said: Entries) -> np.ndarray:
        """Return what a pattern says about each cell and zone axis, (cells, n_zones), axes of equal prior."""
        return self._table(said, said.zone, self.n_zones)

    def by_size(self, said: Entries) -> np.ndarray:
        """Return what a pattern says about each cell and size of the lattice, summed over the axes, (cells, n_sizes)."""
        return self._table(said, said.size, len(self.log_size))

    def _table(self, said: Entries, column: np.ndarray, n_columns: int) -> np.ndarray:
        shape = len(self.mean[0]), self.n_regimes, n_columns
        place, n = said.cell * n_columns + column, int(np.prod(shape))
        own, plain = (
            np.bincount(place, value, minlength=n).reshape(shape) for value in (said.value, said.plain)
        )
        return self.with_blends(own, plain)

    def seen(self, weight: np.ndarray) -> np.ndarray:
        """Return the number of axes on which a structure shows a lattice (k, d), at least a tiny one."""
        return np.maximum(np.einsum("ktd,t->kd", self.axes_seen, weight), 1e-9)

    def zones_by_size(self, said: Entries, by_size: np.ndarray, some: np.ndarray) -> np.ndarray:
        """Return the zone axes of one pattern for some cells, with the weight (cells, n_sizes) that the scale gives."""
        n_own = len(self.mean[0]) * self.n_regimes
        place = np.full(n_own + 1, -1)
        own = np.flatnonzero(some < n_own)
        place[some[own]] = own
        row = place[said.cell]
        mine = np.flatnonzero(row >= 0)
        value = said.value[mine] * by_size[row[mine], said.size[mine]]
        n = len(some) * self.n_zones
        rows = np.bincount(row[mine] * self.n_zones + said.zone[mine], value, minlength=n).reshape(
            -1, self.n_zones
        )
        k, d = np.divmod(said.cell, self.n_regimes)
        for blend in np.flatnonzero(some >= n_own):
            # a blend is the mean over the structures of its behaviour
            cell = some[blend]
            mine = np.flatnonzero(
                (d == cell % self.n_regimes) & (self.table.behaviour[k] == self.behaviour[cell])
            )
            value = said.plain[mine] * self.table.weight[k[mine]] * by_size[blend][said.size[mine]]
            rows[blend] = np.bincount(said.zone[mine], value, minlength=self.n_zones)
        return normalised(rows)

    def with_blends(self, own: np.ndarray, plain: np.ndarray | None = None) -> np.ndarray:
        """Append the blends of the behaviours to an array (structures, regimes, ...) and return it as (cells, ...).

        Blends are means of `plain`, where that is not the same.
        """
        blends = np.tensordot(self.mean, own if plain is None else plain, axes=(1, 0))
        return np.concatenate([own, blends]).reshape(-1, *own.shape[2:])
