"""Structures times regimes of thickness as the rows of one table: the hypotheses about a crystal, without its axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.ensemble.views import NO_CLASS, NO_LATTICE

if TYPE_CHECKING:
    from napari_sadp.ensemble.views import ViewTable
    from napari_sadp.labels.scheme import PatternScheme

#: Share of the structure that is like any of its group on each axis independently.
BLEND = 0.2
#: Regimes and thresholds this much less likely than the best are left out.
FAINT_REGIME = 1e-2
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


def counting(weight: np.ndarray) -> list[int]:
    """Return the thresholds that count."""
    return np.flatnonzero(weight > FAINT_REGIME * weight.max()).tolist()


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
        self.usable = label != NO_LATTICE  # (k, z, t, d)
        # one place more than the classes and the class that is none, for what cannot be seen: likelihood zero
        label = np.where(label == NO_CLASS, len(scheme), label)
        self.label = np.where(self.usable, label, len(scheme) + 1)
        size, inverse = np.unique(square, return_inverse=True)
        self.size_index = inverse.reshape(square.shape)
        self.axes_seen = self.usable.sum(axis=1).astype(float)  # (k, t, d)
        self.log_size = 0.5 * np.log(np.maximum(size, 1))
        self.blended = table.edge is None
        behaviour = np.concatenate([table.behaviour, np.arange(self.n_behaviours)])
        self.behaviour = np.repeat(behaviour, self.n_regimes)
        number = [scheme.groups.index(b.number) for b in scheme.all_behaviours]
        self.group = np.array(number)[self.behaviour]
        self.n_groups = len(scheme.groups)
        # how often each class is seen, over all behaviours, structures, axes, thresholds and regimes
        share = np.repeat(table.weight, label[0].size) * self.usable.ravel() / self.n_behaviours
        usual = np.bincount(self.label.ravel(), share, minlength=len(scheme) + 2)[:-1]
        self.usual = (1 - FOREIGN) * usual / usual.sum()
        # mean over the structures of a behaviour, regime by regime
        self.mean = np.zeros((self.n_behaviours, len(table.label)))
        self.mean[table.behaviour, np.arange(len(table.label))] = table.weight

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

    def by_zone(self, values: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """Return the mean over the thresholds of what a pattern says, (cells, n_zones), axes of equal prior."""
        values, total = np.append(values, 0.0), 0.0
        for t in counting(weight):
            total = total + weight[t] * values[self.label[:, :, t]]  # (k, z, d)
        # a structure is seen on an axis where it shows a lattice at all
        return self.with_blends(total.transpose(0, 2, 1) / self.seen(weight)[..., None])

    def seen(self, weight: np.ndarray) -> np.ndarray:
        """Return the number of axes on which a structure shows a lattice (k, d), at least a tiny one."""
        return np.maximum(np.einsum("ktd,t->kd", self.axes_seen, weight), 1e-9)

    def zones_by_size(
        self, likelihood: np.ndarray, weight: np.ndarray, by_size: np.ndarray, some: np.ndarray
    ) -> np.ndarray:
        """Return the zone axes of one pattern for some cells, with the weight (cells, n_sizes) that the scale gives."""
        values, rows = np.append(likelihood, 0.0), np.zeros((len(some), self.n_zones))
        k, d = np.divmod(some, self.n_regimes)
        own = np.flatnonzero(k < len(self.label))
        label, size = self.label[k[own], :, :, d[own]], self.size_index[k[own], :, :, d[own]]  # (cells, z, t)
        fit = values[label] * by_size[own][np.arange(len(own))[:, None, None], size]
        rows[own] = fit @ weight
        for row in np.flatnonzero(k >= len(self.label)):
            # a blend is the mean over the structures of its behaviour
            of = np.flatnonzero(self.table.behaviour == k[row] - len(self.label))
            label, size = self.label[of, :, :, d[row]], self.size_index[of, :, :, d[row]]
            rows[row] = self.table.weight[of] @ ((values[label] * by_size[row][size]) @ weight)
        return normalised(rows)

    def with_blends(self, value: np.ndarray) -> np.ndarray:
        """Append the blends of the behaviours to an array (structures, regimes, ...) and return it as (cells, ...)."""
        blends = np.tensordot(self.mean, value, axes=(1, 0))
        return np.concatenate([value, blends]).reshape(-1, *value.shape[2:])
