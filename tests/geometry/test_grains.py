"""What a lattice leaves over: another crystal's spots, and none where there is one crystal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.geometry.grains import Leftover, leftover_spots, turned_lattice
from napari_sadp.geometry.lattice import fit_lattice
from napari_sadp.geometry.results import DirectBeam, SpotLattice, SpotList, distorted
from napari_sadp.identify._pattern import SECOND_LATTICE_LOG_ODDS, combine_none, leftover_log_odds

BASIS = np.array([[24.0, 3.0], [-4.0, 30.0]])
CENTRE = np.array([127.5, 127.5])


def net(basis, reach=4, shift=(0.0, 0.0)):
    m, n = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return CENTRE + (np.column_stack([m.ravel(), n.ravel()]) + shift) @ basis


def turned(basis, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return basis @ np.array([[c, -s], [s, c]])


def fitted(*nets):
    """The lattice of the first net, each weaker than the one before."""
    rc = np.concatenate(nets)
    intensity = np.concatenate([np.full(len(some), 1000.0 / 3**k) for k, some in enumerate(nets)])
    inside = np.all((rc > 4) & (rc < 251), axis=1)
    jitter = np.random.default_rng(0).normal(0, 0.1, rc.shape)
    spots = SpotList((rc + jitter)[inside], intensity[inside], np.full(inside.sum(), 40.0), 1.5)
    return fit_lattice(spots, DirectBeam(CENTRE, 1.0, "given"), min_explained=0.3)


def test_one_crystal_leaves_nothing_over():
    found = leftover_spots(fitted(net(BASIS)))
    assert (found.share, found.n_spots, found.basis) == (0.0, 0, None)
    assert leftover_log_odds(found) < 0


OTHER = np.array([[19.0, 0.0], [0.0, 27.0]])


@pytest.mark.parametrize("other", [turned(BASIS, 17.0), turned(OTHER, 40.0)])
def test_a_second_crystal_is_found_with_its_lattice(other):
    second = np.array([rc for rc in net(other, 3) if np.linalg.norm(rc - CENTRE) > 5])
    found = leftover_spots(fitted(net(BASIS), second))
    assert found.share > 0.1
    assert found.n_spots > 15
    change = found.basis @ np.linalg.inv(other)
    assert np.abs(change - np.round(change)).max() < 0.05
    assert abs(np.linalg.det(change)) == pytest.approx(1, abs=0.05)


def around(basis, reach=3):
    """The nodes of a net without the direct beam."""
    rc = net(basis, reach)
    return rc[np.linalg.norm(rc - CENTRE, axis=1) > 5]


SQUARE = np.array([[22.0, 0.0], [0.0, 22.0]])
HEXAGONAL = 24.0 * np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
OBLIQUE = np.array([[21.0, 0.0], [7.0, 27.0]])


@pytest.mark.parametrize(
    ("basis", "every"), [(BASIS, 180.0), (OBLIQUE, 180.0), (SQUARE, 90.0), (HEXAGONAL, 60.0)]
)
@pytest.mark.parametrize("degrees", [-71.0, -8.0, 17.0, 55.0, 84.0])
def test_a_second_grain_of_the_same_crystal_is_no_objection(basis, every, degrees):
    found = leftover_spots(fitted(net(basis), around(turned(basis, degrees))))
    assert found.share > 0.1
    # positive from rows to columns, and the test turns the other way; the smallest of those that are the same
    smallest = (every / 2 - degrees) % every - every / 2
    assert found.turned_deg == pytest.approx(smallest, abs=0.2)
    assert found.foreign_share < 0.03
    assert leftover_log_odds(found) < 0.3


def test_a_few_spots_of_a_second_grain_are_enough():
    """A weak grain shows the strongest nodes alone, and they make no lattice."""
    grain = around(turned(BASIS, 31.0), 2)
    step = (grain - CENTRE) @ np.linalg.inv(BASIS)
    few = grain[np.linalg.norm((step - np.round(step)) @ BASIS, axis=1) > 8][[0, 2, 5, 8]]
    found = leftover_spots(fitted(net(BASIS), few))
    assert (found.n_spots, found.basis) == (4, None)
    assert found.turned_deg == pytest.approx(-31.0, abs=0.2)


def test_an_elliptical_distortion_hides_no_second_grain():
    stretch = np.diag([1.012, 0.988])
    found = leftover_spots(fitted(net(BASIS @ stretch), around(turned(BASIS, 40.0) @ stretch)))
    assert found.turned_deg == pytest.approx(-40.0, abs=1.0)
    assert found.foreign_share < 0.05


@pytest.mark.parametrize(
    "other", [OTHER, np.sqrt(2) * SQUARE, 2 * SQUARE, np.sqrt(3) * HEXAGONAL, 1.15 * SQUARE]
)
def test_another_crystal_is_no_second_grain(other):
    """Not though all of its spots lie on nodes of the first lattice that is turned."""
    first = HEXAGONAL if np.array_equal(other, np.sqrt(3) * HEXAGONAL) else SQUARE
    found = leftover_spots(fitted(net(first), around(turned(other, 20.0))))
    assert (found.turned_deg, found.foreign_share) == (None, None)
    assert leftover_log_odds(found) > 2


@pytest.mark.parametrize("basis", [OBLIQUE, SQUARE, HEXAGONAL])
@pytest.mark.parametrize("opposite", [False, True])
def test_chance_turns_no_lattice_on_to_stray_spots(basis, opposite):
    """Not on to pairs of opposite ones either, as those of another crystal are."""
    rng = np.random.default_rng(3)
    lattice, turned_on = fitted(net(basis)), 0
    for _ in range(150):
        step = rng.uniform(-100, 100, (int(rng.integers(2, 7)), 2))
        step = np.concatenate([step, -step + rng.normal(0, 0.2, step.shape)]) if opposite else step
        rc = np.concatenate([lattice.spots.rc, CENTRE + step])
        spots = SpotList(rc, np.ones(len(rc)), np.full(len(rc), 40.0), 1.5)
        indices = np.concatenate([lattice.indices, np.zeros((len(step), 2), int)])
        over = np.arange(len(rc)) >= len(lattice.spots)
        indexed = np.concatenate([lattice.indexed, np.zeros(len(step), bool)])
        strays = replace(lattice, spots=spots, indices=indices, indexed=indexed)
        turned_on += turned_lattice(strays, over) is not None
    assert turned_on <= 2


def test_spots_beside_their_own_nodes_are_no_second_grain():
    rc = net(np.array([[12.0, 0.0], [3.0, 15.0]]), 6)
    far = rc[:, 0] > CENTRE[0] + 45
    azimuth = np.random.default_rng(0).uniform(0, 2 * np.pi, far.sum())
    rc[far] += 2.4 * np.stack([np.cos(azimuth), np.sin(azimuth)], axis=1)
    found = leftover_spots(fitted(rc))
    assert found.n_spots > 5
    assert found.turned_deg is None


def test_a_radial_distortion_hides_no_second_grain():
    nets = [distorted(step - CENTRE, 4e-6) + CENTRE for step in (net(BASIS), around(turned(BASIS, 31.0)))]
    lattice = replace(fitted(*nets), radial_px2=4e-6)
    found = leftover_spots(lattice)
    assert found.turned_deg == pytest.approx(-31.0, abs=0.5)
    assert found.foreign_share < 0.03


def test_stray_spots_beside_a_second_grain_still_object():
    grain = around(turned(BASIS, 31.0))
    stray = CENTRE + np.array(
        [[37.0, 11.0], [-9.0, 51.0], [62.0, -40.0], [-70.0, -31.0], [15.0, -44.0], [-33.0, 64.0]]
    )
    alone = leftover_spots(fitted(net(BASIS), grain))
    found = leftover_spots(fitted(net(BASIS), grain, stray))
    assert found.turned_deg is not None
    assert found.foreign_share > alone.foreign_share
    assert leftover_log_odds(found) > leftover_log_odds(alone)


def test_the_net_of_a_higher_order_laue_zone_is_no_crystal():
    ring = net(BASIS, 6, (0.31, 0.18))
    radius = np.linalg.norm(ring - CENTRE, axis=1)
    inner = net(BASIS)
    inner = inner[np.linalg.norm(inner - CENTRE, axis=1) < 60]
    found = leftover_spots(fitted(inner, ring[(radius > 75) & (radius < 118)]))
    assert found.share == 0
    assert found.basis is None


def test_a_lattice_of_their_own_objects_as_far_as_it_is_certain():
    spots = {"share": 0.05, "n_spots": 6, "basis": BASIS}
    odds = [
        leftover_log_odds(Leftover(**spots, log_nfa=value)) for value in (0.0, -2.0, -4.0, -6.0, -8.0, -40.0)
    ]
    assert odds[0] == odds[1] < odds[2] < odds[3] < odds[4] == odds[5] == SECOND_LATTICE_LOG_ODDS


def test_every_objection_makes_none_more_probable():
    assert combine_none(0.1, None) == pytest.approx(0.1)
    assert combine_none(0.1, None, 3.0) > combine_none(0.1, None, 0.0) > combine_none(0.1, None, -3.0) > 0.1
    assert combine_none(0.1, 2.0, 3.0) > combine_none(0.1, 2.0) > combine_none(0.1, -2.0)
    assert combine_none(1.0, -5.0, -5.0) == pytest.approx(1.0)


@pytest.mark.parametrize("shift", [(0.5, 0.5), (0.5, 0.0), (0.31, 0.18)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_ring_of_weak_spots_does_not_outvote_a_few_strong_ones(shift, seed):
    rng = np.random.default_rng(seed)
    square = turned(np.array([[23.0, 0.0], [0.0, 23.0]]), rng.uniform(0, 90))
    inner = CENTRE + np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]]) @ square
    ring = net(0.5 * square, 14, shift)
    radius = np.linalg.norm(ring - CENTRE, axis=1)
    ring = rng.permutation(ring[np.abs(radius - 115) < 4])[:12]
    rc = np.concatenate([inner, ring]) + rng.normal(0, 0.1, (len(inner) + len(ring), 2))
    intensity = np.concatenate([[6e6], rng.uniform(1.5e5, 3e5, 4), rng.uniform(100, 800, len(ring))])
    spots = SpotList(rc, intensity, np.sqrt(intensity / 10), 1.5)
    found = fit_lattice(spots, centre_rc=CENTRE)
    change = np.stack([found.g1_px, found.g2_px]) @ np.linalg.inv(square)
    assert np.abs(change - np.round(change)).max() < 0.03
    assert abs(np.linalg.det(change)) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("n", [0, 3])
def test_a_lattice_placed_by_hand_may_hold_no_spot(n):
    """Where it says that nodes are, nothing is: all spots there are lie beside it."""
    spots = SpotList(
        CENTRE + 0.4 * BASIS[0] + net(BASIS, 1)[:n] - CENTRE, np.full(n, 10.0), np.full(n, 9.0), 1.5
    )
    nodes = np.zeros((n, 2), int)
    lattice = SpotLattice(CENTRE, *BASIS, np.eye(4), 0.0, spots, nodes, np.zeros(n, bool))
    found = leftover_spots(lattice)
    assert (found.share, found.n_spots, found.basis) == (1.0 if n else 0.0, n, None)
