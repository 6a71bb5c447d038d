"""All patterns of one crystal together: space groups, zone axes, and what does not fit.

A hypothesis is a structure (one of the known ones of a group, standing for others like it), a regime of thickness that all
patterns share, and a zone axis for each pattern. Its likelihood is the product over the patterns of what the engine says about
the class that this structure shows on that axis, times what else is known:

- a *shared camera constant*: lengths in different patterns have the ratios that the axes demand. Whether the patterns share
  it is itself a hypothesis, with the prior that the caller gives;
- *tilt angles* between the patterns: the angles between the axes must be these;
- the *contrast* of the cosets, where a pattern brings it: structures that show the same spots differ in how bright they are;
- an *outlier*: any pattern may have nothing to do with the crystal (`SURPRISE`), so that one wrong pattern among several lowers a group
  and does not rule it out.

Everything else is summed out. The mean over known structures alone would trust their sample too much: a share (`cells.BLEND`) goes
to a structure that shows on each axis, independently, what any of its group does.

References
----------
Jaynes, Probability Theory (2003), chapter 4, on multiple hypotheses. doi:10.1017/CBO9780511790423
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from napari_sadp.ensemble.cells import FAINT_REGIME, FOREIGN, cells_of, normalised
from napari_sadp.ensemble.oriented import oriented_states
from napari_sadp.ensemble.views import view_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_sadp.ensemble.cells import Cells, Entries
    from napari_sadp.ensemble.views import ViewTable
    from napari_sadp.labels.scheme import PatternScheme

#: Prior probability that a pattern has nothing to do with the crystal: another grain, or a lattice that is wrong. Of the order of the
#: share of patterns with a wrong lattice (see the end-to-end benchmark); where more is known of a pattern the caller says so.
SURPRISE = 0.07
#: Width of the prior of the scale of a pattern (natural logarithm).
_SCALE_RANGE = np.log(30.0)
#: Steps of the scale per standard deviation of a length.
_STEPS_PER_SIGMA = 1.0
#: Cells less likely than the best by more than what lengths may say, and this much besides, are left out of a shared scale.
_LOG_FAINT = 7.0
#: Sizes of the lattice this much less likely than the best do not say which scales to look at.
_FAINT_SIZE = 1e-4
#: Smallest likelihood that has a logarithm here, and the logarithm of one that is out of the question.
_TINY, _HOPELESS = 1e-300, -1e6
#: Cells this much less likely than the best do not speak about zone axes.
_FAINT_CELL = 3e-4
#: Joint orientations that are followed.
_MAX_STATES = 600


@dataclass(frozen=True, eq=False)
class Evidence:
    """What one pattern says.

    Parameters
    ----------
    likelihood : (n_classes + 1,) ndarray of float
        Likelihood of each class; the last, of a lattice that belongs to no class. A common factor does not matter.
    log_length : float or None
        Natural logarithm of the length of the shortest vector, in units that the patterns share.
    length_error : float
        Its standard deviation.
    weakest : float or None
        Intensity of the weakest spot that would be seen, over the strongest.
    weakest_error : float
        Its standard deviation (natural logarithm): how well it says what was seen.
    contrast : (4,) ndarray of float or None
        How bright the cosets of the lattice are, see `napari_sadp.ensemble.contrast`: what speaks for typical structures, besides
        spots and gaps. None where that is not to count.
    """

    likelihood: np.ndarray
    log_length: float | None = None
    length_error: float = 0.01
    weakest: float | None = None
    weakest_error: float = 0.5
    contrast: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Joint:
    """What all patterns say together.

    Parameters
    ----------
    groups : (n_groups,) ndarray of float64
        Probabilities in the order of the scheme; sum to 1.
    structures : (n_structures,) ndarray of float64
        Probabilities of the structures of the table, those that stand for others included; sum to at most 1.
    zones : (n_patterns, n_zones) ndarray of float64
        Zone axis of each pattern; rows sum to 1.
    zones_of_group : (n_groups, n_patterns, n_zones) ndarray of float64
        The same, given each group.
    outlier : (n_patterns,) ndarray of float64
        Probability that a pattern has nothing to do with the crystal.
    shared_scale : float or None
        Probability that the patterns share a camera constant; None where that was no question.
    regimes : (n_regimes,) ndarray of float64
        Probabilities of the thicknesses of the table.
    """

    groups: np.ndarray
    structures: np.ndarray
    zones: np.ndarray
    zones_of_group: np.ndarray
    outlier: np.ndarray
    shared_scale: float | None
    regimes: np.ndarray


def joint_posterior(
    evidence: Sequence[Evidence],
    scheme: PatternScheme,
    *,
    table: ViewTable | None = None,
    group_prior: np.ndarray | None = None,
    thickness_nm: float | None = None,
    shared_scale: float = 0.0,
    tilt_deg: np.ndarray | None = None,
    tilt_error_deg: float = 1.0,
    surprise: float | Sequence[float] = SURPRISE,
) -> Joint:
    """Weigh all hypotheses about one crystal.

    Parameters
    ----------
    evidence : sequence of Evidence
        At least one pattern, on different zone axes.
    scheme : PatternScheme
        The classes.
    table : ViewTable, optional
        What structures show; that of the package by default.
    group_prior : (n_groups,) ndarray of float, optional
        Prior probabilities in the order of the scheme; equal by default. The behaviours of a group share it equally.
    thickness_nm : float, optional
        Thickness of the crystal [nm].
    shared_scale : float
        Prior probability that the patterns share a camera constant; 0 where their lengths do not compare.
    tilt_deg : (n_patterns, n_patterns) ndarray of float, optional
        Angles between the patterns [deg], NaN where not known.
    tilt_error_deg : float
        Their standard deviation [deg].
    surprise : float or sequence of float
        Prior probability of an outlier, for each pattern or the same for all.

    Returns
    -------
    Joint
        Probabilities.
    """
    table = view_table(scheme) if table is None else table
    n_zones = len(scheme.zones)
    regime = table.regime_prior(thickness_nm)
    # regimes that are out of the question cost time and change nothing
    used = regime > FAINT_REGIME * regime.max()
    cells = cells_of(table, scheme, tuple(np.flatnonzero(used).tolist()))
    surprise = np.broadcast_to(np.asarray(surprise, float), len(evidence))
    prior = cells.prior(group_prior, regime[used] / regime[used].sum())
    shared = shared_scale if len(evidence) > 1 and all(e.log_length is not None for e in evidence) else 0.0
    weights = [table.threshold_weights(item.weakest, item.weakest_error) for item in evidence]
    said = [
        cells.entries(item.likelihood, weight, item.contrast)
        for item, weight in zip(evidence, weights, strict=True)
    ]
    # a pattern of something else: what any other crystal shows on any axis, or a lattice of no class
    odd = [float(cells.usual @ e.likelihood + FOREIGN * e.likelihood[-1]) for e in evidence]
    parts: list[tuple[float, _Part]] = []
    if (
        tilt_deg is not None
        and len(evidence) > 1
        and np.isfinite(tilt_deg[~np.eye(len(evidence), dtype=bool)]).any()
    ):
        part = _by_orientation(
            evidence, scheme, cells, said, weights, odd, surprise, tilt_deg, tilt_error_deg, shared
        )
        parts.append((1.0, part))
    else:
        if shared < 1:
            parts.append((1 - shared, _independent(cells, said, odd, surprise)))
        if shared > 0:
            parts.append((shared, _one_scale(evidence, cells, said, odd, surprise)))
    log = np.array([np.log(share) + logsumexp(part.log + prior) for share, part in parts])
    mix = np.exp(log - logsumexp(log))
    posterior = [np.exp(part.log + prior - logsumexp(part.log + prior)) for _, part in parts]
    cell = sum(m * p for m, p in zip(mix, posterior, strict=True))
    by_group = np.zeros((len(evidence), len(scheme.groups), n_zones))
    outlier = np.zeros(len(evidence))
    for m, p, (_, part) in zip(mix, posterior, parts, strict=True):
        outlier += m * (part.outlier @ p)
        # the axes of cells that hardly count are not worked out
        some = np.flatnonzero(p > _FAINT_CELL * p.max())
        for i in range(len(evidence)):
            axes = part.zones(i, some)
            for g in range(len(scheme.groups)):
                rows = cells.group[some] == g
                by_group[i, g] += m * (p[some][rows] @ axes[rows])
    groups = np.bincount(cells.group, cell, minlength=len(scheme.groups))
    zones = normalised(by_group.sum(axis=1))
    by_regime = cell.reshape(-1, cells.n_regimes)
    structures = by_regime.sum(axis=1)[: len(table.label)]
    regimes = np.zeros(len(regime))
    regimes[used] = by_regime.sum(axis=0)
    return Joint(
        groups / groups.sum(),
        structures,
        zones,
        normalised(by_group.transpose(1, 0, 2)),
        outlier,
        float(mix[-1]) if 0 < shared < 1 and len(parts) > 1 else (None if not shared else 1.0),
        regimes,
    )


@dataclass(frozen=True, eq=False)
class _Part:
    """Likelihoods of all cells under one assumption, with what it says about each pattern."""

    log: np.ndarray  # (cells,)
    zones: Callable[[int, np.ndarray], np.ndarray]  # pattern, cells -> (cells, n_zones), rows sum to 1
    outlier: np.ndarray  # (n_patterns, cells)


def _independent(cells: Cells, said: list[Entries], odd: list[float], surprise: np.ndarray) -> _Part:
    """Every pattern with a scale of its own."""
    log, fits, outlier = 0.0, [], []
    for item, strange, s in zip(said, odd, surprise, strict=True):
        fit = cells.by_zone(item)
        total = (1 - s) * fit.sum(axis=1) + s * strange
        log = log + np.log(np.maximum(total, _TINY))
        fits.append(fit)
        outlier.append(s * strange / np.maximum(total, _TINY))
    return _Part(log, lambda i, some: normalised(fits[i][some]), np.array(outlier))


def _one_scale(
    evidence: Sequence[Evidence], cells: Cells, said: list[Entries], odd: list[float], surprise: np.ndarray
) -> _Part:
    """All patterns with one scale, which is summed out on a grid."""
    length = np.array([item.log_length for item in evidence])
    sigma = np.array([item.length_error for item in evidence])
    used = cells.log_size[cells.size_used]
    low, high = length.min() - used.max() - 4 * sigma.max(), length.max() - used.min() + 4 * sigma.max()
    grid = np.arange(low, high, sigma.min() / _STEPS_PER_SIGMA)
    spreads = [cells.by_size(item) for item in said]
    # lengths that agree speak for a cell by this factor at most for each pattern after the first
    bound = (len(evidence) - 1) * np.log(_SCALE_RANGE / (np.sqrt(2 * np.pi) * sigma.min())) + _LOG_FAINT
    free = sum(
        np.log(np.maximum((1 - s) * spread.sum(axis=1) + s * strange, _TINY))
        for spread, strange, s in zip(spreads, odd, surprise, strict=True)
    )
    likely = np.flatnonzero(free > free.max() - bound)
    spreads = [spread[likely] for spread in spreads]
    # scales at which hardly any pattern has a lattice that fits are left out: they need several outliers
    all_bands = [_bands(cells.log_size, item, grid) for item in evidence]
    support = np.zeros(len(grid), dtype=int)
    for spread, bands in zip(spreads, all_bands, strict=True):
        best, there = spread.max(axis=0), np.zeros(len(grid), dtype=bool)
        for size in np.flatnonzero(best > _FAINT_SIZE * best.max()):
            there[bands[size][0]] = True
        support += there
    keep = support >= min(max(2, len(evidence) - 1), support.max())
    number = np.cumsum(keep) - 1
    # many structures show these patterns in the same way: each way is worked out once
    first, way = _same_rows(np.concatenate(spreads, axis=1))
    # scales as rows, since patterns add to whole rows
    at_scale, log, per_pattern = np.ones((int(keep.sum()), len(first))), np.zeros(len(first)), []
    for spread, bands, strange, s in zip(spreads, all_bands, odd, surprise, strict=True):
        mine = (1 - s) * np.ascontiguousarray(spread[first].T)  # (n_sizes, ways)
        fit = np.full(at_scale.shape, max(s * strange, _TINY))
        kept = []
        for size, (part, kernel) in enumerate(bands):
            inside = keep[part]
            kept.append((number[part][inside], kernel[inside]))
            for row, density in zip(*kept[-1], strict=True):
                fit[row] += density * mine[size]
        per_pattern.append((fit, kept))
        at_scale *= fit
        # the largest of each way is taken out, so that a long scan does not underflow
        top = at_scale.max(axis=0)
        at_scale /= top
        log += np.log(top)
    total = at_scale.sum(axis=0)
    log += np.log(total * (grid[1] - grid[0]) / _SCALE_RANGE)
    at_scale /= total
    n_cells = len(cells.behaviour)
    place, whole = np.zeros(n_cells, dtype=int), np.full(n_cells, _HOPELESS)
    place[likely], whole[likely] = way, log[way]
    outlier, by_size = np.zeros((len(evidence), n_cells)), []
    for i, (strange, (fit, kept)) in enumerate(zip(odd, per_pattern, strict=True)):
        rest = at_scale / fit
        outlier[i, likely] = surprise[i] * strange * rest.sum(axis=0)[way]
        # how well each size fits the scale that all patterns say, (ways, n_sizes)
        by_size.append(np.stack([kernel @ rest[rows] for rows, kernel in kept], axis=1))

    def zones(i: int, some: np.ndarray) -> np.ndarray:
        return cells.zones_by_size(said[i], by_size[i][place[some]], some)

    return _Part(whole, zones, outlier)


def _same_rows(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first of each set of equal rows, and for each row the number of its set."""
    # a fixed random projection tells rows apart; rounded, since equal rows may differ in the last bit
    mark = table @ np.random.default_rng(0).uniform(1, 2, table.shape[1])
    mark = np.round(mark / max(float(mark.max()), 1e-300), 11)
    _, first, way = np.unique(mark, return_index=True, return_inverse=True)
    return first, way.ravel()


def _bands(log_size: np.ndarray, item: Evidence, grid: np.ndarray) -> list[tuple[slice, np.ndarray]]:
    """Return for each size where on the grid of scales a length may come from, and its density over a scale of its own."""
    step = grid[1] - grid[0]
    bands = []
    for centre in item.log_length - log_size:
        middle, half = round(float((centre - grid[0]) / step)), int(np.ceil(4 * item.length_error / step))
        part = slice(max(middle - half, 0), max(min(middle + half + 1, len(grid)), 0))
        z = (centre - grid[part]) / item.length_error
        bands.append((part, np.exp(-0.5 * z**2) * _SCALE_RANGE / (np.sqrt(2 * np.pi) * item.length_error)))
    return bands


def _by_orientation(
    evidence: Sequence[Evidence],
    scheme: PatternScheme,
    cells: Cells,
    said: list[Entries],
    weights: list[np.ndarray],
    odd: list[float],
    surprise: np.ndarray,
    tilt_deg: np.ndarray,
    tilt_error_deg: float,
    shared: float,
) -> _Part:
    """Joint orientations of all patterns, with the angles between them and, where it is shared, the scale."""
    fits = [cells.by_zone(item) for item in said]
    score = np.array([fit.max(axis=0) for fit in fits])
    states, chance = oriented_states(scheme.zones, tilt_deg, tilt_error_deg, score, limit=_MAX_STATES)
    n, n_cells = len(evidence), len(cells.behaviour)
    floor, usual = surprise * np.array(odd), 1 - surprise
    # axes have the equal prior 1 / n_zones within `fits`; a state fixes them all at once
    scale = float(cells.n_zones) ** n
    zones = [np.zeros((n_cells, cells.n_zones)) for _ in range(n)]
    total = np.zeros(n_cells)
    for state, p in zip(states, chance, strict=True):
        value = np.full(n_cells, p * scale)
        for i, z in enumerate(state):
            value = value * (usual[i] * fits[i][:, z])
        if shared:
            value = value * ((1 - shared) + shared * _scale_ratio(evidence, cells, weights, state))
        total += value
        for i, z in enumerate(state):
            zones[i][:, z] += value
    # one pattern may be an outlier; then its angles mean nothing, and the rest stands alone
    alone = np.array([u * fit.sum(axis=1) + f for fit, f, u in zip(fits, floor, usual, strict=True)])
    lost = []
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        if n > 2:
            angles = tilt_deg[np.ix_(rest, rest)]
            rest_part = _by_orientation(
                [evidence[j] for j in rest], scheme, cells, [said[j] for j in rest], [weights[j] for j in rest],
                [odd[j] for j in rest], np.zeros(len(rest)), angles, tilt_error_deg, shared,
            ) if np.isfinite(angles[~np.eye(len(rest), dtype=bool)]).any() else None  # fmt: skip
            without = np.exp(rest_part.log) if rest_part is not None else alone[rest].prod(axis=0)
        else:
            without = alone[rest[0]]
        lost.append(floor[i] * without)
    both = total + np.sum(lost, axis=0) + np.prod(floor)
    outlier = (np.array(lost) + np.prod(floor)) / np.maximum(both, _TINY)
    return _Part(np.log(np.maximum(both, _TINY)), lambda i, some: normalised(zones[i][some]), outlier)


def _scale_ratio(
    evidence: Sequence[Evidence], cells: Cells, weights: list[np.ndarray], state: np.ndarray
) -> np.ndarray:
    """Return the density of the lengths with one scale over that with a scale for each, (cells,)."""
    offset, sigma = [], np.array([item.length_error for item in evidence])
    for item, weight, z in zip(evidence, weights, state, strict=True):
        t = int(np.argmax(weight))
        size = cells.log_size[cells.size_index[:, z, t, :]]
        offset.append(cells.with_blends(item.log_length - size))
    x = np.array(offset)
    inverse = 1 / sigma**2
    mean = inverse @ x / inverse.sum()
    square = (inverse[:, None] * (x - mean) ** 2).sum(axis=0)
    norm = np.log(_SCALE_RANGE) * (len(sigma) - 1) - 0.5 * np.log(2 * np.pi) * (len(sigma) - 1)
    norm += -np.log(sigma).sum() - 0.5 * np.log(inverse.sum())
    return np.exp(norm - 0.5 * square)
