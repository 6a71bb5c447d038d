"""Classes outside of the cubic system, by symmetry alone."""

from __future__ import annotations

import numpy as np
import pytest

from napari_sadp.labels.planar import PlanarClass, planar_class, planar_classes
from napari_sadp.labels.spacegroups import Behaviour, behaviours, is_allowed


def look(number, zone, reach=3):
    return planar_class(behaviours(number)[-1], zone, reach=reach)


@pytest.mark.parametrize(
    ("number", "zone", "lattice", "symmetry"),
    [
        (2, (0, 0, 1), "oblique", "2"),
        (14, (0, 1, 0), "oblique", "2"),  # unique axis: h0l with the c glide is a primitive net again
        (14, (1, 0, 0), "rectangular", "2mm"),
        (15, (0, 0, 1), "centred", "2mm"),
        (62, (0, 0, 1), "rectangular", "2mm"),
        (62, (1, 0, 0), "centred", "2mm"),  # 0kl: k + l = 2n
        (62, (1, 1, 1), "oblique", "2"),
        (136, (0, 0, 1), "square", "4mm"),
        (87, (0, 0, 1), "square", "4"),
        (148, (0, 0, 1), "hexagonal", "6"),
        (194, (0, 0, 1), "hexagonal", "6mm"),
        (225, (1, 1, 1), "hexagonal", "6mm"),
        (225, (0, 1, 1), "centred", "2mm"),
    ],
)
def test_type_and_symmetry(number, zone, lattice, symmetry):
    found = look(number, zone)
    assert (found.lattice, found.symmetry) == (lattice, symmetry)


def test_absent_rows_of_known_groups():
    row = ((-3, 0), (-1, 0), (1, 0), (3, 0))
    both = tuple(sorted([*row, *((0, n) for n in (-3, -1, 1, 3))]))
    # P2_1/c along a: 0k0 k = 2n by the screw axis, 00l l = 2n by the glide plane
    assert look(14, (1, 0, 0)).absent == both
    assert look(14, (0, 1, 0)).absent == ()
    # P4_2/mnm along c: h00 and 0k0; P6_3/mmc along a: 000l
    assert look(136, (0, 0, 1)).absent == both
    assert look(194, (1, 0, 0)).absent == row
    # diamond along [011]: 200 and what goes with it
    assert look(227, (0, 0, 1)).absent == ()


@pytest.mark.parametrize("number", [14, 62, 167, 194, 205, 225])
def test_equivalent_axes_look_the_same(number):
    """Axes that the point group maps on each other, whatever basis of the plane was found."""
    from napari_sadp.labels.spacegroups import operations_of

    for zone in [(0, 0, 1), (1, 0, 0), (1, 1, 0), (1, 1, 1), (1, 2, 3)]:
        axes = {tuple((op @ np.array(zone)).tolist()) for op in operations_of(number)}
        assert {look(number, axis) for axis in axes} == {look(number, zone)}


def test_absences_are_those_of_the_space_group():
    """The count of absent nodes does not depend on the choice of a rectangle's sides."""
    behaviour = Behaviour("62", 62)
    dark = [k for k in range(-6, 7) if k and not is_allowed(behaviour, np.array([[0, k, 0]]))[0]]
    assert len(look(62, (0, 0, 1), reach=6).absent) == len(dark)


def test_groups_of_different_systems_meet_in_one_class():
    found = planar_classes(
        [Behaviour("62", 62), Behaviour("14", 14), Behaviour("225", 225)], [(0, 0, 1), (1, 0, 0)]
    )
    members = {item.lattice: {(b.name, zone) for b, zone in shown} for item, shown in found.items()}
    assert members["square"] == {("225", (0, 0, 1)), ("225", (1, 0, 0))}
    assert members["centred"] == {("62", (1, 0, 0))}
    rows = PlanarClass("rectangular", "2mm", look(62, (0, 0, 1), reach=6).absent)
    assert {("62", (0, 0, 1)), ("14", (0, 0, 1))} <= {(b.name, z) for b, z in found[rows]}
    assert sum(map(len, found.values())) == 6


def test_no_axis_is_refused():
    with pytest.raises(ValueError, match="zone is"):
        look(62, (0, 0, 0))
