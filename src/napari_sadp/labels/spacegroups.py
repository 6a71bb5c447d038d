"""Which reflections a space group lets through: general conditions, and those of occupied special positions.

A *behaviour* is a space group with an extinction behaviour of its own. Most groups have one. Group 227 (Fd-3m) has
three, by its Wyckoff positions: **227a** only 8a, 8b, 48f (diamond, LiGa), **227b** with 16c or 16d too (MgCu2,
pyrochlore), **227g** any of the general kind (32e, 96g, 96h: spinel), for which only the general conditions hold.
The conditions are computed: a reflection of a behaviour is absent where the structure factor of every orbit that it
allows vanishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import gemmi
import numpy as np

#: The groups of the article, Ra et al. (2021), doi:10.1039/d1ra07156d
ARTICLE_GROUPS: tuple[int, ...] = (213, 221, 225, 227, 229)
CUBIC_GROUPS: tuple[int, ...] = tuple(range(195, 231))

#: The sixteen shortest cubic zone axes, u2 + v2 + w2 <= 22; every axis that the article names is one of them.
CUBIC_ZONE_AXES: tuple[tuple[int, int, int], ...] = (
    (0, 0, 1), (0, 1, 1), (1, 1, 1), (0, 1, 2), (1, 1, 2), (1, 2, 2), (0, 1, 3), (1, 1, 3),
    (0, 2, 3), (1, 2, 3), (0, 1, 4), (2, 2, 3), (1, 1, 4), (1, 3, 3), (1, 2, 4), (2, 3, 3),
)  # fmt: skip

# Representatives (origin choice 2) of the special orbits that a behaviour may occupy; the free coordinates are
# numbers without meaning, so that no accidental zero can be taken for a symmetry-forced one.
_X = 0.1370419
_SPECIAL_ORBITS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "227a": ((1 / 8, 1 / 8, 1 / 8), (3 / 8, 3 / 8, 3 / 8), (_X, 1 / 8, 1 / 8)),  # 8a 8b 48f
    "227b": (
        (1 / 8, 1 / 8, 1 / 8), (3 / 8, 3 / 8, 3 / 8), (_X, 1 / 8, 1 / 8),
        (0.0, 0.0, 0.0), (0.5, 0.5, 0.5),  # 16c 16d
    ),
}  # fmt: skip
_VARIANTS: dict[int, tuple[str, ...]] = {227: ("227a", "227b", "227g")}
#: Wyckoff letters of group 227 that the first two behaviours allow
_WYCKOFF_OF_227 = {"227a": frozenset("abf"), "227b": frozenset("abfcd")}


@dataclass(frozen=True)
class Behaviour:
    """A space group with one extinction behaviour.

    Parameters
    ----------
    name : str
        ``"225"``, or ``"227a"`` where a group has several.
    number : int
        Number of the space group, 1 to 230.
    """

    name: str
    number: int


def behaviours(number: int) -> tuple[Behaviour, ...]:
    """Return the extinction behaviours of a space group.

    Parameters
    ----------
    number : int
        Number of the space group, 1 to 230.

    Returns
    -------
    tuple of Behaviour
        One for most groups, three for 227.

    Raises
    ------
    ValueError
        If there is no such group.
    """
    _spacegroup(number)
    return tuple(Behaviour(name, number) for name in _VARIANTS.get(number, (str(number),)))


@lru_cache(maxsize=256)
def _spacegroup(number: int) -> gemmi.SpaceGroup:
    """Return the reference setting (origin choice 2 where there are two) of a space group."""
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= 230:
        raise ValueError(f"space group is {number!r}, expected a number from 1 to 230")
    return gemmi.get_spacegroup_reference_setting(number)


@lru_cache(maxsize=256)
def operations_of(number: int) -> tuple[np.ndarray, ...]:
    """Return the rotation parts of a space group in its reference setting, each (3, 3) int, on columns of coordinates."""
    group = _spacegroup(number).operations()
    return tuple(np.array(op.rot, dtype=int) // op.DEN for op in group.sym_ops)


def symbol(number: int) -> str:
    """Return the short Hermann-Mauguin symbol of a space group, such as ``"Fm-3m"``."""
    return _spacegroup(number).short_name()


def zone_name(zone: tuple[int, int, int]) -> str:
    """Return a zone axis as text: ``"[013]"``, and ``"[1 -1 0]"`` or ``"[1 0 12]"`` where digits would run together."""
    separator = "" if all(0 <= index <= 9 for index in zone) else " "
    return f"[{separator.join(map(str, zone))}]"


def behaviour_of_wyckoff(number: int, letters: frozenset[str] | set[str]) -> Behaviour:
    """Return the behaviour of a structure from the Wyckoff letters that it occupies.

    Parameters
    ----------
    number : int
        Number of the space group.
    letters : set of str
        Wyckoff letters.

    Returns
    -------
    Behaviour
        The first whose allowed positions hold all of them.
    """
    for behaviour in behaviours(number):
        allowed = _WYCKOFF_OF_227.get(behaviour.name)
        if allowed is None or set(letters) <= allowed:
            return behaviour
    raise AssertionError("the last behaviour of a group allows every position")


def is_allowed(behaviour: Behaviour, hkl: np.ndarray) -> np.ndarray:
    """Tell which reflections a behaviour lets through.

    Parameters
    ----------
    behaviour : Behaviour
        Space group and positions.
    hkl : (n, 3) ndarray of int
        Miller indices in the conventional cell.

    Returns
    -------
    (n,) ndarray of bool
        False where symmetry makes the structure factor zero.

    References
    ----------
    International Tables for Crystallography A (2016), section 1.6.3, reflection conditions.
    """
    hkl = np.ascontiguousarray(np.asarray(hkl, dtype=np.int32).reshape(-1, 3))
    operations = _spacegroup(behaviour.number).operations()
    allowed = ~np.asarray(operations.systematic_absences(hkl), dtype=bool)
    orbits = _SPECIAL_ORBITS.get(behaviour.name)
    if orbits is None or not allowed.any():
        return allowed
    excited = np.zeros(len(hkl), dtype=bool)
    for representative in orbits:
        positions = np.array([op.apply_to_xyz(list(representative)) for op in operations])
        amplitude = np.abs(np.exp(2j * np.pi * (hkl @ positions.T)).mean(axis=1))
        excited |= amplitude > 1e-9
    return allowed & excited
