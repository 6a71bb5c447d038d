"""The zone-axis spots that training patterns are drawn from, worked out once.

A row is a crystal on a zone axis, seen down to a threshold: kinematic, or by Bloch waves at some thickness.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from napari_sadp._atomic import atomic_path
from napari_sadp._validate import check_range
from napari_sadp.dataset.processes import share_among_processes
from napari_sadp.errors import UnreadableFileError
from napari_sadp.geometry.convention import G1_FRACTION
from napari_sadp.labels.lattice2d import gauss_reduce, gram, planar_basis, span
from napari_sadp.labels.scheme import PatternScheme, disc_nodes
from napari_sadp.labels.visible import deciding_spots, visible_pattern
from napari_sadp.simulation.scattering import structure_factors

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator, Sequence

    from napari_sadp.simulation.crystal import Crystal

#: Radius of the spots kept, in |g1|: the corner of the image, and a margin for jitter.
FIELD_RADIUS = 0.5 * np.sqrt(2) / G1_FRACTION + 1.0
#: Largest |g| of a training spot [1/Å].
G_MAX = 2.2
#: Visibility thresholds: intensity of the weakest spot that counts, over the strongest.
THRESHOLDS: tuple[float, ...] = (2e-4, 2e-3, 1e-2)
#: Those of dynamical rows, where weak beams are rare.
DYNAMICAL_THRESHOLDS: tuple[float, ...] = (2e-3, 1e-2)
#: Cells with more atoms get no dynamical rows: hundreds of beams take seconds.
_DYNAMICAL_ATOMS = 120
#: Vectors this close to the shortest may be taken for it by a lattice fit.
TIE = 1.03
#: Intensity over the strongest up to which a lattice fit may miss spots.
_MISSED = 0.03
#: Index of the lattice that is left, at most: a fit does not miss three spots of four, and weak spots of another grain between those of
#: a lattice must not look to the network like these.
_MOST_MISSED = 3
#: Rows aligned by a coarser lattice that have more spots are left out: a few of them would double the width of the whole library.
_MOST_SPOTS = 320
#: Bits of `SpotLibrary.evidence`; torch has signed integers only.
_MAX_COARSER = 31


@dataclass(frozen=True, eq=False)
class SpotLibrary:
    """Spots of many (crystal, zone axis, threshold), aligned by their visible lattice.

    Parameters
    ----------
    position : (n, k, 2) ndarray of float32
        (row, col) over |g1|, g1 along the row axis; padded with zeros.
    intensity : (n, k) ndarray of float32
        Over the strongest; zero below the threshold and in the padding.
    evidence : (n, k) ndarray of int32
        Bits of the sets of `napari_sadp.labels.visible.deciding_spots`: while one spot of every set is seen, the pattern is the
        one of `label`.
    n_deciding : (n,) ndarray of int32
        How many sets there are.
    g1 : (n,) ndarray of float32
        Length of the shortest visible vector [1/Å].
    turns : (n, 6) ndarray of float32
        Rotations [rad] that bring another (nearly) shortest vector on to the row axis; repeated to fill.
    threshold : (n,) ndarray of float32
        Visibility threshold.
    label : (n,) ndarray of int64
        Class of the visible pattern.
    symmetry_label : (n,) ndarray of int64
        Class by symmetry.
    crystal : (n,) ndarray of int64
        Index of the crystal, to draw intervals over structures.
    zone : (n,) ndarray of int64
        Index of the zone axis in the scheme; -1 for what is on none.
    thickness_nm : (n,) ndarray of float32
        Thickness of dynamical rows [nm]; 0 for kinematic ones, |F|^2.
    coarse : (n,) ndarray of bool
        Rows that are aligned by the coarser lattice of the stronger spots, which a fit finds where it misses the weakest.
    """

    position: np.ndarray
    intensity: np.ndarray
    evidence: np.ndarray
    n_deciding: np.ndarray
    g1: np.ndarray
    turns: np.ndarray
    threshold: np.ndarray
    label: np.ndarray
    symmetry_label: np.ndarray
    crystal: np.ndarray
    zone: np.ndarray
    thickness_nm: np.ndarray
    coarse: np.ndarray

    def __len__(self) -> int:
        return len(self.label)

    def save(self, path: str | os.PathLike[str], key: str = "") -> None:
        """Write the library to a file.

        Parameters
        ----------
        path : path-like
            Ending in ``.npz``.
        key : str
            What the library was made from; `load_library` compares it.
        """
        with atomic_path(path) as temporary:
            np.savez(temporary, key=np.array(key), **vars(self))


def load_library(path: str | os.PathLike[str], key: str = "") -> SpotLibrary | None:
    """Read a library that `SpotLibrary.save` wrote.

    Parameters
    ----------
    path : path-like
        The file.
    key : str
        What it must have been made from.

    Returns
    -------
    SpotLibrary or None
        None where there is no such file, or it was made from something else.

    Raises
    ------
    UnreadableFileError
        If the file is damaged.
    """
    try:
        # a file that is open is closed whatever numpy finds in it
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            # that of another version may have other columns
            if str(content["key"]) != key or any(item.name not in content for item in fields(SpotLibrary)):
                return None
            return SpotLibrary(**{field.name: content[field.name] for field in fields(SpotLibrary)})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise UnreadableFileError(f"{path}: damaged, remove it to have it made again ({error})") from error


def build_library(
    crystals: Sequence[tuple[str, Crystal]],
    scheme: PatternScheme,
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    dynamical_nm: tuple[float, float] | None = None,
    n_thicknesses: int = 2,
    seed: int = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> SpotLibrary:
    """Work out the spots of every crystal on every zone axis of a scheme.

    Parameters
    ----------
    crystals : sequence of (behaviour name, Crystal)
        Cubic crystals.
    scheme : PatternScheme
        Zone axes and classes.
    thresholds : tuple of float
        Visibility thresholds of the kinematic rows; a pattern that looks the same at two of them is kept for both, since the
        noise of the images follows the threshold.
    dynamical_nm : tuple of 2 float, optional
        Range of the thickness, for rows by Bloch waves too [nm]; drawn uniformly in its logarithm.
    n_thicknesses : int
        Thicknesses of each crystal and zone axis, from one calculation.
    seed : int
        Seed of the thicknesses.
    workers : int
        Processes; 1 stays in this one. The result is the same. A script that asks for more must do its work under
        ``if __name__ == "__main__":``, since they import it.
    progress : callable, optional
        Called with (done, total) after each crystal; an exception that it raises stops the work.

    Returns
    -------
    SpotLibrary
        Patterns whose visible lattice has a class in the scheme.
    """
    steps = build_library_steps(
        crystals,
        scheme,
        thresholds=thresholds,
        dynamical_nm=dynamical_nm,
        n_thicknesses=n_thicknesses,
        seed=seed,
        workers=workers,
    )
    while True:
        try:
            done, total = next(steps)
        except StopIteration as end:
            return end.value
        if progress is not None:
            progress(done, total)


def build_library_steps(
    crystals: Sequence[tuple[str, Crystal]],
    scheme: PatternScheme,
    *,
    thresholds: tuple[float, ...] = THRESHOLDS,
    dynamical_nm: tuple[float, float] | None = None,
    n_thicknesses: int = 2,
    seed: int = 0,
    workers: int = 1,
) -> Generator[tuple[int, int], None, SpotLibrary]:
    """Do the work of `build_library`; yields (done, total) after each crystal, and returns the library."""
    check_range("workers", workers, 1, 1024)
    tasks = []
    for number, (name, crystal) in enumerate(crystals):
        nanometres = None
        if dynamical_nm is not None and crystal.n_atoms <= _DYNAMICAL_ATOMS:
            rng = np.random.default_rng([seed, number])
            nanometres = np.exp(rng.uniform(*np.log(dynamical_nm), n_thicknesses))
        tasks.append((number, name, crystal, scheme, thresholds, nanometres))
    if workers == 1:
        results = ((number, crystal_rows(*task)) for number, task in enumerate(tasks))
    else:
        results = share_among_processes(crystal_rows, tasks, workers)
    found: list[list[dict[str, Any]]] = [[] for _ in tasks]
    with closing(results):
        for done, (number, rows) in enumerate(results, 1):
            found[number] = rows
            yield done, len(tasks)
    return collect_rows([row for rows in found for row in rows])


def crystal_rows(
    number: int,
    name: str,
    crystal: Crystal,
    scheme: PatternScheme,
    thresholds: tuple[float, ...],
    nanometres: np.ndarray | None,
) -> list[dict[str, Any]]:
    """Return the rows of one crystal.

    Parameters
    ----------
    number : int
        Its index.
    name : str
        Its behaviour.
    crystal : Crystal
        The crystal.
    scheme : PatternScheme
        Zone axes and classes.
    thresholds : tuple of float
        Visibility thresholds of the kinematic rows.
    nanometres : ndarray, optional
        Thicknesses of the dynamical ones [nm]; None leaves them out.

    Returns
    -------
    list of dict
        The columns of `SpotLibrary` by name, without padding.
    """
    rows = []
    for place, zone in enumerate(scheme.zones):
        found = _kinematic_rows(crystal, zone, scheme, thresholds)
        if nanometres is not None:
            found += _dynamical_rows(crystal, zone, scheme, nanometres)
        about = {"symmetry_label": scheme.index_of[name, zone], "crystal": number, "zone": place}
        rows += [row | about for row in found]
    return rows


def collect_rows(rows: list[dict[str, Any]]) -> SpotLibrary:
    """Return a library of rows, their spots padded to one width.

    Parameters
    ----------
    rows : list of dict
        The columns of `SpotLibrary` by name, without padding.

    Returns
    -------
    SpotLibrary
        In the order of the rows.
    """
    width = max((len(row["intensity"]) for row in rows), default=0)
    position = np.zeros((len(rows), width, 2), dtype=np.float32)
    intensity = np.zeros((len(rows), width), dtype=np.float32)
    evidence = np.zeros((len(rows), width), dtype=np.int32)
    for i, row in enumerate(rows):
        n = len(row["intensity"])
        position[i, :n], intensity[i, :n], evidence[i, :n] = (
            row["position"],
            row["intensity"],
            row["evidence"],
        )

    def column(name: str, kind: type) -> np.ndarray:
        return np.array([row[name] for row in rows], dtype=kind)

    return SpotLibrary(
        position=position,
        intensity=intensity,
        evidence=evidence,
        n_deciding=column("n_deciding", np.int32),
        g1=column("g1", np.float32),
        turns=column("turns", np.float32).reshape(len(rows), 6),
        threshold=column("threshold", np.float32),
        label=column("label", np.int64),
        symmetry_label=column("symmetry_label", np.int64),
        crystal=column("crystal", np.int64),
        zone=column("zone", np.int64),
        thickness_nm=column("thickness_nm", np.float32),
        coarse=column("coarse", bool),
    )


def _kinematic_rows(
    crystal: Crystal, zone: tuple[int, int, int], scheme: PatternScheme, thresholds: tuple[float, ...]
) -> list[dict[str, Any]]:
    """Return one row for each threshold at which the pattern has a class."""
    plane = gauss_reduce(planar_basis(zone), np.eye(3, dtype=int))
    form = gram(plane, np.eye(3, dtype=int))
    a = crystal.cell[0]
    # the visible lattice may be a few times coarser than that of all integers, never more than this for 16 axes
    nodes = disc_nodes(form, min(G_MAX * a / np.sqrt(form[0]), 4 * FIELD_RADIUS))
    nodes = nodes[np.any(nodes != 0, axis=1)]
    intensity = np.abs(structure_factors(crystal, nodes @ plane)) ** 2
    return _rows(nodes, intensity, plane @ plane.T, a, scheme, thresholds)


def _dynamical_rows(
    crystal: Crystal, zone: tuple[int, int, int], scheme: PatternScheme, nanometres: np.ndarray
) -> list[dict[str, Any]]:
    """Return rows of Bloch waves at some thicknesses."""
    from napari_sadp.simulation.bloch import simulate_bloch

    plane = gauss_reduce(planar_basis(zone), np.eye(3, dtype=int))
    try:
        waves = simulate_bloch(crystal, zone, thickness_nm=nanometres, n_beams_max=200, dtype="float32")
    except ValueError:  # fewer than two reflections in reach
        return []
    nodes = np.rint(waves.hkl @ np.linalg.pinv(plane)).astype(int)
    found = []
    for thickness, intensity in zip(nanometres, waves.intensity, strict=True):
        rows = _rows(nodes, intensity, plane @ plane.T, crystal.cell[0], scheme, DYNAMICAL_THRESHOLDS)
        found += [row | {"thickness_nm": thickness} for row in rows]
    return found


def _rows(
    nodes: np.ndarray,
    intensity: np.ndarray,
    metric: np.ndarray,
    cell_length: float,
    scheme: PatternScheme,
    thresholds: tuple[float, ...],
) -> list[dict[str, Any]]:
    """Return one row for each threshold at which the visible pattern of nodes (n, 2) has a class."""
    strongest = intensity.max(initial=0.0)
    if strongest <= 0:
        return []
    relative = intensity / strongest
    to_xy = np.linalg.cholesky(metric)
    xy = nodes @ to_xy
    found = []
    for threshold in thresholds:
        seen = visible_pattern(nodes, relative > threshold, metric, scheme)
        if seen is None or seen.class_index is None:
            continue
        coarser = _coarser_basis(nodes, relative, threshold, seen.basis, metric)
        for basis in (seen.basis, coarser):
            if basis is None:
                continue
            first = basis[0] @ to_xy
            length = float(np.hypot(*first))
            # complex division turns the shortest vector on to the row axis and scales it to 1
            turned = (xy[:, 0] + 1j * xy[:, 1]) / (first[0] + 1j * first[1])
            inside = np.abs(turned) <= FIELD_RADIUS
            strong = relative / relative[inside].max(initial=1e-30)
            keep = inside & (strong > threshold)
            if basis is coarser and keep.sum() > _MOST_SPOTS:
                continue
            masks = deciding_spots(nodes[keep], seen, metric, scheme)
            # those that the weakest spots decide, should there ever be more than there are bits
            masks = sorted(masks, key=lambda mask: strong[keep][mask].max())[:_MAX_COARSER]
            found.append(
                {
                    "position": np.stack([turned[keep].real, turned[keep].imag], axis=1),
                    "intensity": strong[keep],
                    "evidence": sum(mask.astype(np.uint32) << number for number, mask in enumerate(masks)),
                    "n_deciding": len(masks),
                    "g1": length / cell_length,
                    "turns": _shortest_turns(basis, metric, length),
                    "threshold": threshold,
                    "label": seen.class_index,
                    "thickness_nm": 0.0,
                    "coarse": basis is coarser,
                }
            )
    return found


def _coarser_basis(
    nodes: np.ndarray, relative: np.ndarray, threshold: float, basis: np.ndarray, metric: np.ndarray
) -> np.ndarray | None:
    """Return the reduced basis of the lattice that is left where the weakest spots are missed, None where there is none."""
    index = abs(round(np.linalg.det(basis)))
    level = 2 * threshold
    while level < _MISSED:
        lattice = span(nodes[relative > level])
        if lattice is None:
            return None
        times = abs(round(np.linalg.det(lattice))) // index
        if times > _MOST_MISSED:
            return None
        if times > 1:
            return gauss_reduce(lattice, metric)
        level *= 2
    return None


def _shortest_turns(basis: np.ndarray, metric: np.ndarray, length: float) -> np.ndarray:
    """Return the angles of the (nearly) shortest vectors from the first, six of them by repetition [rad]."""
    small = np.array([(m, n) for m in (-1, 0, 1) for n in (-1, 0, 1) if (m, n) != (0, 0)]) @ basis
    xy = small @ np.linalg.cholesky(metric)
    near = xy[np.hypot(*xy.T) <= TIE * length]
    first = basis[0] @ np.linalg.cholesky(metric)
    angle = np.arctan2(near[:, 1], near[:, 0]) - np.arctan2(first[1], first[0])
    return np.resize(angle, 6)
