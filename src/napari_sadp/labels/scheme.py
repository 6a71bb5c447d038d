"""The classes of zone-axis patterns: which (space group, zone axis) look alike, and how the classes are named.

A pattern is what a camera shows of the zero-order Laue zone, up to rotation, mirror and scale: the reduced lattice
that its *present* spots span, and the set of nodes of that lattice that are absent within the field of view. Two
(behaviour, axis) pairs with the same pair of these are one class. The label is the article's: lattice type, number
of the shape within the type by its angles, number of the absence pattern within the shape (``A1-0``, ``B3-1``).

References
----------
Ra et al., RSC Adv. 11, 38307 (2021), section 3.1. doi:10.1039/d1ra07156d
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from napari_sadp._validate import check_zone_axis
from napari_sadp.labels.lattice2d import (
    congruent_bases,
    gauss_reduce,
    gram,
    lattice_type,
    planar_basis,
    shape_angles,
    shape_key,
    span,
)
from napari_sadp.labels.spacegroups import (
    ARTICLE_GROUPS,
    CUBIC_GROUPS,
    CUBIC_ZONE_AXES,
    Behaviour,
    behaviours,
    is_allowed,
)

#: Changes whenever the order or the meaning of the classes changes; weights carry it.
SCHEME_VERSION = "1"
#: Field of view in units of the shortest lattice vector; from 7 on all 60 classes of the article's groups differ.
FIELD_OF_VIEW = 8.0

Nodes = frozenset[tuple[int, int]]
Zone = tuple[int, int, int]


@dataclass(frozen=True)
class Appearance:
    """What a zone-axis pattern looks like, exactly.

    Parameters
    ----------
    shape : tuple of 3 int
        Reduced Gram matrix of the present lattice without its scale.
    absent : tuple of (int, int)
        Nodes (m, n) of that lattice without a spot, in the canonical basis, within the field of view.
    hand : {0, 1, -1}
        Handedness; 0 where chirality does not count.
    """

    shape: tuple[int, int, int]
    absent: tuple[tuple[int, int], ...]
    hand: int = 0


@dataclass(frozen=True)
class PatternClass:
    """One class of the scheme.

    Parameters
    ----------
    index : int
        Position in the scheme, the index of a network's output.
    label : str
        Article-style label, such as ``"B3-1"``.
    appearance : Appearance
        Shape and absences.
    members : tuple of (Behaviour, zone axis)
        All that look like this.
    """

    index: int
    label: str
    appearance: Appearance
    members: tuple[tuple[Behaviour, Zone], ...]

    @property
    def type(self) -> str:
        """Lattice type A, B, C or D."""
        return lattice_type(self.appearance.shape)

    @property
    def angles_deg(self) -> tuple[float, ...]:
        """Angles of the label [deg]."""
        return shape_angles(self.appearance.shape)

    @cached_property
    def ratio(self) -> float:
        """Length ratio of the reduced basis, >= 1."""
        g11, _, g22 = self.appearance.shape
        return float(np.sqrt(g22 / g11))

    @cached_property
    def angle_deg(self) -> float:
        """Angle between the vectors of the reduced basis, 60 to 90 [deg]."""
        g11, g12, g22 = self.appearance.shape
        return float(np.degrees(np.arccos(g12 / np.sqrt(g11 * g22))))


def disc_nodes(form: tuple[int, int, int], radius: float) -> np.ndarray:
    """Return the nodes (m, n) of a reduced lattice within `radius` times its shortest vector.

    Parameters
    ----------
    form : tuple of 3 int
        Reduced Gram matrix.
    radius : float
        In units of the shortest lattice vector.

    Returns
    -------
    (k, 2) ndarray of int
        Nodes, the origin included.
    """
    g11, g12, g22 = form
    determinant = g11 * g22 - g12 * g12
    limit = radius * radius * g11
    m_max = int(np.sqrt(limit * g22 / determinant)) + 1
    n_max = int(np.sqrt(limit * g11 / determinant)) + 1
    m, n = (axis.ravel() for axis in np.mgrid[-m_max : m_max + 1, -n_max : n_max + 1])
    inside = g11 * m * m + 2 * g12 * m * n + g22 * n * n <= limit + 1e-9
    return np.stack([m[inside], n[inside]], axis=1)


def canonical_appearance(
    basis: np.ndarray, metric: np.ndarray, absent: np.ndarray, *, chirality: bool = False
) -> Appearance:
    """Return the appearance of a lattice with absent nodes, the same for every equivalent choice of basis.

    Parameters
    ----------
    basis : (2, d) ndarray of int
        Reduced basis of the present lattice, rows.
    metric : (d, d) ndarray of int
        Metric of its coordinates.
    absent : (k, 2) ndarray of int
        Absent nodes (m, n) in `basis`.
    chirality : bool
        Whether mirror images count as different.

    Returns
    -------
    Appearance
        Canonical form.
    """
    candidates = congruent_bases(basis, metric)
    hand = 0
    if chirality:
        # a basis with a.b >= 0 in the sense of rotation of `basis` exists unless the lattice is oblique and left-handed
        proper = [c for c in candidates if round(np.linalg.det(c)) == 1]
        hand = 1 if proper else -1
        candidates = proper or candidates
    keys = []
    for candidate in candidates:
        inverse = np.rint(np.linalg.inv(candidate)).astype(int)
        keys.append(tuple(sorted(map(tuple, (absent @ inverse).tolist()))))
    g11, g12, g22 = gram(basis, metric)
    return Appearance(shape_key((g11, abs(g12), g22)), min(keys), hand)


def present_basis(behaviour: Behaviour, zone: Zone) -> np.ndarray:
    """Return the reduced basis of the lattice that the present spots of a cubic zone-axis pattern span.

    Parameters
    ----------
    behaviour : Behaviour
        Space group and extinction behaviour; cubic.
    zone : tuple of 3 int
        Zone axis.

    Returns
    -------
    (2, 3) ndarray of int
        Two vectors (h, k, l), the second anticlockwise of the first when the zone axis points at the viewer.
    """
    plane = planar_basis(zone)
    # every condition of the 36 cubic groups repeats within multiples of 4 of the plane's basis
    m, n = (axis.ravel() for axis in np.mgrid[-8:9, -8:9])
    nodes = np.stack([m, n], axis=1)
    lattice = span(nodes[is_allowed(behaviour, nodes @ plane)])
    if lattice is None:
        raise AssertionError(f"{behaviour.name} shows no planar lattice along {zone}")
    reduced = gauss_reduce(lattice @ plane, np.eye(3, dtype=int))
    if np.dot(np.cross(*reduced), zone) < 0:
        reduced = np.stack([reduced[0], -reduced[1]])
    return reduced


def zone_axis_appearance(
    behaviour: Behaviour, zone: Zone, *, field_of_view: float = FIELD_OF_VIEW, chirality: bool = False
) -> Appearance:
    """Return what a cubic crystal shows on a zone axis, from symmetry alone.

    Parameters
    ----------
    behaviour : Behaviour
        Space group and extinction behaviour; cubic.
    zone : tuple of 3 int
        Zone axis.
    field_of_view : float
        Radius in units of the shortest lattice vector of the present spots.
    chirality : bool
        Whether mirror images count as different.

    Returns
    -------
    Appearance
        Shape and absences.
    """
    metric = np.eye(3, dtype=int)
    basis = present_basis(behaviour, zone)
    nodes = disc_nodes(gram(basis, metric), field_of_view)
    absent = nodes[~is_allowed(behaviour, nodes @ basis)]
    return canonical_appearance(basis, metric, absent, chirality=chirality)


@dataclass(frozen=True)
class PatternScheme:
    """The classes of a list of space groups on a list of zone axes.

    Parameters
    ----------
    groups : tuple of int
        Space groups, in the order of the columns of every table.
    zones : tuple of zone axes
        Zone axes.
    field_of_view : float
        See `FIELD_OF_VIEW`.
    classes : tuple of PatternClass
        In the order of the indices.
    chirality : bool
        Whether mirror images count as different.
    general : bool
        Whether every group has its general reflection conditions alone, 227 those of 227g.
    """

    groups: tuple[int, ...]
    zones: tuple[Zone, ...]
    field_of_view: float
    classes: tuple[PatternClass, ...]
    chirality: bool = False
    general: bool = False

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels in the order of the indices."""
        return tuple(item.label for item in self.classes)

    @property
    def version(self) -> str:
        """Identifies order and meaning of the classes; weights made for another version are refused."""
        groups = ",".join(map(str, self.groups))
        options = (":chiral" if self.chirality else "") + (":general" if self.general else "")
        # the sixteen axes by their number alone, other lists in full
        axes = ",".join("_".join(map(str, zone)) for zone in self.zones)
        axes = str(len(self.zones)) if self.zones == CUBIC_ZONE_AXES else axes
        return f"{SCHEME_VERSION}:{groups}:{axes}:{self.field_of_view:g}:{len(self)}{options}"

    @cached_property
    def index_of(self) -> dict[tuple[str, Zone], int]:
        """Class index of (behaviour name, zone axis)."""
        return {(b.name, zone): item.index for item in self.classes for b, zone in item.members}

    @cached_property
    def all_behaviours(self) -> tuple[Behaviour, ...]:
        """Extinction behaviours of the groups, in the order of `groups`; the rows of `class_table`."""
        return tuple(item for number in self.groups for item in self.behaviours_of(number))

    def behaviours_of(self, number: int) -> tuple[Behaviour, ...]:
        """Extinction behaviours of a group that the scheme tells apart."""
        return behaviours(number)[-1:] if self.general else behaviours(number)

    @cached_property
    def shapes(self) -> tuple[tuple[tuple[int, int, int], ...], np.ndarray, np.ndarray]:
        """Shapes of the classes.

        Returns
        -------
        shapes : tuple of tuple of 3 int
            Each once, in the order of the classes.
        number : (n_classes,) ndarray of int
            Which of them a class has.
        target : (n_shapes, 2) ndarray of float64
            Natural logarithm of the length ratio, and angle [rad], of the reduced bases.
        """
        first: dict[tuple[int, int, int], PatternClass] = {}
        for item in self.classes:
            first.setdefault(item.appearance.shape, item)
        order = {shape: i for i, shape in enumerate(first)}
        number = np.array([order[item.appearance.shape] for item in self.classes])
        target = np.array([[np.log(item.ratio), np.radians(item.angle_deg)] for item in first.values()])
        return tuple(first), number, target

    @cached_property
    def class_table(self) -> np.ndarray:
        """Class index of every behaviour on every zone axis.

        Returns
        -------
        (n_behaviours, n_zones) ndarray of int
            Rows as in `all_behaviours`, columns as in `zones`.
        """
        return np.array([[self.index_of[b.name, zone] for zone in self.zones] for b in self.all_behaviours])

    @cached_property
    def class_given_behaviour(self) -> dict[str, np.ndarray]:
        """P(class | behaviour) by its name, equal prior over the zone axes; each (n_classes,), sums to 1."""
        counts = (np.bincount(row, minlength=len(self)) for row in self.class_table)
        return {b.name: row / len(self.zones) for b, row in zip(self.all_behaviours, counts, strict=True)}

    @cached_property
    def class_given_group(self) -> np.ndarray:
        """P(class | space group), equal prior over the zone axes and over the behaviours of a group.

        Returns
        -------
        (n_groups, n_classes) ndarray of float64
            Rows sum to 1.
        """
        rows = [[self.class_given_behaviour[b.name] for b in self.behaviours_of(n)] for n in self.groups]
        return np.array([np.mean(row, axis=0) for row in rows])


def build_scheme(
    groups: tuple[int, ...] = ARTICLE_GROUPS,
    zones: tuple[Zone, ...] = CUBIC_ZONE_AXES,
    *,
    field_of_view: float = FIELD_OF_VIEW,
    chirality: bool = False,
    general: bool = False,
) -> PatternScheme:
    """Compute the pattern classes of cubic space groups.

    Parameters
    ----------
    groups : tuple of int
        Cubic space groups, 195 to 230.
    zones : tuple of zone axes
        Coprime axes [u, v, w].
    field_of_view : float
        Radius in units of the shortest lattice vector within which absences are seen.
    chirality : bool
        Whether mirror images count as different classes.
    general : bool
        Whether to take the general reflection conditions of each group alone; otherwise 227 has three behaviours.

    Returns
    -------
    PatternScheme
        Classes in a stable order: type, then angles, then number and place of the absent nodes.

    Raises
    ------
    ValueError
        If a group is not cubic, a zone axis is none, or there is no group or axis.

    Examples
    --------
    >>> len(build_scheme())
    60
    """
    for number in groups:
        if number not in CUBIC_GROUPS:
            raise ValueError(f"space group is {number!r}, expected a cubic one, 195 to 230")
    if not groups or not zones:
        raise ValueError(f"groups is {groups!r} and zones is {zones!r}, expected at least one of each")
    axes = tuple(check_zone_axis(zone) for zone in zones)
    return _build_scheme(tuple(groups), axes, float(field_of_view), bool(chirality), bool(general))


@lru_cache(maxsize=32)
def _build_scheme(
    groups: tuple[int, ...], zones: tuple[Zone, ...], field_of_view: float, chirality: bool, general: bool
) -> PatternScheme:
    members: dict[Appearance, list[tuple[Behaviour, Zone]]] = defaultdict(list)
    for number in groups:
        for behaviour in behaviours(number)[-1 if general else 0 :]:
            for zone in zones:
                look = zone_axis_appearance(behaviour, zone, field_of_view=field_of_view, chirality=chirality)
                members[look].append((behaviour, zone))
    geometry = sorted(
        {(look.shape, look.hand) for look in members},
        key=lambda item: (lattice_type(item[0]), shape_angles(item[0]), item),
    )
    classes: list[PatternClass] = []
    counter: dict[str, int] = defaultdict(int)
    for shape, hand in geometry:
        kind = lattice_type(shape)
        counter[kind] += 1
        looks = [look for look in members if (look.shape, look.hand) == (shape, hand)]
        for number, look in enumerate(sorted(looks, key=lambda item: (len(item.absent), item.absent))):
            label = f"{kind}{counter[kind]}-{number}"
            classes.append(PatternClass(len(classes), label, look, tuple(members[look])))
    return PatternScheme(groups, zones, field_of_view, tuple(classes), chirality, general)
