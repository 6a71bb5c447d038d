from __future__ import annotations

import gemmi
import numpy as np
import pytest

from napari_sadp.labels.spacegroups import (
    CUBIC_GROUPS,
    CUBIC_ZONE_AXES,
    behaviour_of_wyckoff,
    behaviours,
    is_allowed,
    symbol,
)
from napari_sadp.simulation.crystal import expand_sites

HKL = np.array([(h, k, l) for h in range(7) for k in range(7) for l in range(7) if h + k + l])


def only(number, name=None):
    return next(b for b in behaviours(number) if name in (None, b.name))


def test_zone_axes_are_the_sixteen_shortest_cubic_ones():
    found = {
        tuple(sorted((u, v, w)))
        for u in range(5)
        for v in range(5)
        for w in range(5)
        if 0 < u * u + v * v + w * w <= 22 and np.gcd.reduce([u, v, w]) == 1
    }
    assert {tuple(sorted(zone)) for zone in CUBIC_ZONE_AXES} == found
    assert len(CUBIC_ZONE_AXES) == 16


@pytest.mark.parametrize(
    ("number", "condition"),
    [
        (221, lambda h, k, l: True),
        (225, lambda h, k, l: h % 2 == k % 2 == l % 2),
        (229, lambda h, k, l: (h + k + l) % 2 == 0),
        # Tables A: h00 with h = 4n for 4_1 axes, nothing else
        (213, lambda h, k, l: sum(x == 0 for x in (h, k, l)) < 2 or (h + k + l) % 4 == 0),
    ],
)
def test_general_conditions_of_the_international_tables(number, condition):
    expected = [condition(*row) for row in HKL.tolist()]
    assert is_allowed(only(number), HKL).tolist() == expected


def test_the_three_behaviours_of_group_227():
    probe = np.array([(2, 0, 0), (2, 2, 2), (6, 2, 2), (4, 4, 2), (1, 1, 1), (2, 2, 0), (4, 2, 0)])
    table = {name: is_allowed(only(227, name), probe).tolist() for name in ("227a", "227b", "227g")}
    assert table["227a"] == [False, False, False, False, True, True, False]
    assert table["227b"] == [False, True, True, False, True, True, False]
    assert table["227g"] == [False, True, True, True, True, True, False]


@pytest.mark.parametrize("number", CUBIC_GROUPS)
def test_conditions_agree_with_the_structure_factor_of_a_general_position(number):
    """A dense set of general atoms shows every reflection that the group allows, and no other."""
    rng = np.random.default_rng(number)
    group = gemmi.get_spacegroup_reference_setting(number)
    atoms = np.concatenate([expand_sites(group, rng.random(3)) for _ in range(3)])
    amplitude = np.abs(np.exp(2j * np.pi * (HKL @ atoms.T)).sum(axis=1)) / len(atoms)
    general = behaviours(number)[-1]
    assert np.array_equal(is_allowed(general, HKL), amplitude > 1e-6)


def test_behaviour_of_occupied_positions():
    assert behaviour_of_wyckoff(227, {"a"}).name == "227a"
    assert behaviour_of_wyckoff(227, {"a", "d"}).name == "227b"
    assert behaviour_of_wyckoff(227, {"a", "d", "e"}).name == "227g"
    assert behaviour_of_wyckoff(225, {"a", "b"}).name == "225"


@pytest.mark.parametrize("number", [0, 231, -1, 225.0, "225", True])
def test_unknown_groups_are_named_in_the_error(number):
    with pytest.raises(ValueError, match="expected a number from 1 to 230"):
        behaviours(number)


def test_symbols():
    assert [symbol(n) for n in (213, 221, 225, 227, 229)] == ["P4132", "Pm-3m", "Fm-3m", "Fd-3m", "Im-3m"]
