"""Lattices through a direct beam that is known: given, or shown by all but the spots."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry._search import grow, search
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import prepare_image
from napari_sadp.geometry.center import beam_beside_lattice
from napari_sadp.geometry.lattice import fit_lattice
from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList
from napari_sadp.pattern import DiffractionPattern

BEAM = np.array([131.0, 124.0])
BASIS = np.array([[6.0, 38.0], [33.0, -5.0]])
SIZE = 256
SHIFT = (0.3, 0.45)


def spot_list(rc, intensity=None):
    n = len(rc)
    return SpotList(
        np.asarray(rc, float),
        np.full(n, 100.0) if intensity is None else intensity,
        np.full(n, 50.0),
        1.5,
    )


def net(shift=(0.0, 0.0), reach=3):
    m, n = (axis.ravel() for axis in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    rc = BEAM + (np.column_stack([m, n]) + shift) @ BASIS
    return rc[np.all((rc > 6) & (rc < SIZE - 7), axis=1)]


def given(rc):
    return DirectBeam(np.asarray(rc, float), 1.0, "given")


def random_spots(seed, n):
    return spot_list(np.random.default_rng(seed).uniform(10, SIZE - 10, (n, 2)))


def two_nets():
    """A few spots about the beam, and more of them far off on the same net, shifted."""
    rc, far = net(), net(shift=SHIFT)
    inner = rc[np.linalg.norm(rc - BEAM, axis=1) < 60]
    return inner, far[np.linalg.norm(far - BEAM, axis=1) > 75]


def frame(places, heights, seed=0):
    row, col = np.mgrid[:SIZE, :SIZE]
    r = np.hypot(row - BEAM[0], col - BEAM[1])
    light = 20 + 150 * np.exp(-((r / 30) ** 2)) + 60 * np.exp(-(((r - 80) / 14) ** 2))
    for (y, x), height in zip(places, heights, strict=True):
        light += height * np.exp(-((row - y) ** 2 + (col - x) ** 2) / (2 * 1.8**2))
    return DiffractionPattern(np.random.default_rng(seed).poisson(light).astype(float))


def same_lattice(lattice):
    change = np.stack([lattice.g1_px, lattice.g2_px]) @ np.linalg.inv(BASIS)
    return np.abs(change - np.round(change)).max() < 0.02 and abs(np.linalg.det(change)) == pytest.approx(
        1, abs=0.02
    )


def test_a_beam_on_no_net_is_refused_with_its_distance():
    with pytest.raises(
        PatternRefusedError, match=r"the given beam lies 0\.\d\d of the shortest spacing"
    ) as info:
        fit_lattice(spot_list(net()), given(BEAM + np.array([0.5, 0.5]) @ BASIS))
    assert info.value.reason == "no lattice"


def test_fewer_spots_are_needed_where_the_beam_is_known():
    """Chance puts three spots on some lattice at once, but hardly on one that goes through a given place."""
    rc = BEAM + np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [1, -1]]) @ BASIS
    rng = np.random.default_rng(4)
    rc = np.concatenate([rc, rng.uniform(10, SIZE - 10, (3, 2))])
    spots = spot_list(rc)
    free, through = search(spots), search(spots, BEAM)
    assert through.log_nfa < free.log_nfa - 1
    assert np.abs(np.linalg.norm(through.origin - BEAM)) < 40  # some node of it
    n_nodes = np.count_nonzero(through.inlier)
    assert n_nodes >= 5


def test_the_odds_of_a_known_node_are_the_closed_form():
    """All of six spots on nodes: C(6, 3) of them span a lattice, the others and the known node hit by chance with p each.

    Each of nine tolerances was a trial.
    """
    rc = BEAM + np.array([[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1]]) @ BASIS
    weight = np.ones(len(rc))
    fit = grow(rc, weight, BASIS, BEAM, BEAM)
    p = np.pi * fit.tolerance**2 / abs(np.linalg.det(BASIS))
    assert fit.log_nfa == pytest.approx(np.log10(20 * 9) + 4 * np.log10(p), abs=1e-6)
    # a spot at the beam itself says nothing
    with_beam = grow(np.vstack([rc, BEAM]), np.ones(len(rc) + 1), BASIS, BEAM, BEAM)
    assert with_beam.log_nfa == pytest.approx(fit.log_nfa, abs=1e-6)
    free = grow(rc, weight, BASIS, BEAM)
    assert free.log_nfa == pytest.approx(np.log10(20 * 9) + 3 * np.log10(p), abs=1e-6)


@pytest.mark.parametrize("n", [8, 14, 25])
def test_random_spots_make_no_lattice_through_a_place(n):
    """About as often as the odds say: of 60 tries with odds of 1 in 1 000 each, hardly one."""
    found = [search(random_spots(seed, n), BEAM) for seed in range(60)]
    assert sum(fit is not None and fit.log_nfa < -3 for fit in found) <= 1


def beside(frame, places, origin):
    """Ask for a beam beside the net that a place and the basis span, with spots at places."""
    prepared = prepare_image(frame)
    spots = spot_list(places, np.where(np.linalg.norm(places - BEAM, axis=1) < 1, 3000.0, 500.0))
    nodes = np.round((places - origin) @ np.linalg.inv(BASIS))
    indexed = np.linalg.norm(places - origin - nodes @ BASIS, axis=1) < 2
    lattice = SpotLattice(origin, *BASIS, 1e-4 * np.eye(4), 0.1, spots, nodes.astype(int), indexed)
    return beam_beside_lattice(prepared, lattice, DirectBeam(origin, 0.8, "lattice"))


def test_a_bright_beam_beside_a_net_is_seen():
    """The light is round about the beam, where the strongest spot is; the outer net does not hold it."""
    _, far = two_nets()
    places = np.vstack([far, BEAM])
    pattern = frame(places, [*[500.0] * len(far), 3000.0])
    found = beside(pattern, places, far[np.argmin(np.linalg.norm(far - BEAM, axis=1))])
    assert np.linalg.norm(found.rc - BEAM) < 1
    assert beside(pattern, places, BEAM + np.array([0.02, -0.01]) @ BASIS) is None


def test_a_bright_diffracted_beam_is_no_beam_beside():
    """A spot of a second grain may outshine all: the light is not round about it."""
    inner, _ = two_nets()
    stray = BEAM + np.array([1.4, 0.6]) @ BASIS
    places = np.vstack([inner, stray])
    assert beside(frame(places, [*[400.0] * len(inner), 2000.0]), places, BEAM) is None


@pytest.mark.parametrize("seed", range(4))
def test_stray_spots_about_a_clear_beam_are_refused(seed):
    stray = np.random.default_rng(seed).uniform(15, SIZE - 15, (12, 2))
    with pytest.raises(PatternRefusedError):
        analyse_pattern(frame(np.vstack([BEAM, stray]), [3000.0, *[300.0] * 12], seed))
