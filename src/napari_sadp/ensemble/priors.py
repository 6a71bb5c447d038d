"""What is known about the crystal beforehand: elements in it, or the groups or phases that it may have.

A scheme speaks of classes of groups that look alike on every axis, so that a candidate counts for the group of the scheme
that has its patterns: sphalerite (216) for 225.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import gemmi
import numpy as np

from napari_sadp.ensemble.ambiguity import same_patterns
from napari_sadp.labels.spacegroups import CUBIC_GROUPS, symbol
from napari_sadp.simulation.catalogue import composition, find_source, load_catalogue, search_catalogue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.labels.scheme import PatternScheme

#: Weight of a phase that is not in the catalogue, in phases, shared by all groups: a catalogue is never complete.
_UNKNOWN_PHASES = 2.0


@dataclass(frozen=True, eq=False)
class GroupPrior:
    """Prior probabilities of the groups of a scheme.

    Parameters
    ----------
    probabilities : (n_groups,) ndarray of float64
        In the order of the scheme; sum to 1.
    phases : tuple of str
        Known phases that the prior rests on, such as ``"Si (227)"``.
    messages : tuple of str
        What could not be used, and why.
    """

    probabilities: np.ndarray
    phases: tuple[str, ...] = ()
    messages: tuple[str, ...] = ()


def group_prior(
    scheme: PatternScheme, *, elements: Sequence[str] = (), candidates: Sequence[str | int] = ()
) -> GroupPrior:
    """Return the prior of the groups from what the user knows.

    Parameters
    ----------
    scheme : PatternScheme
        The classes.
    elements : sequence of str
        Chemical symbols of the elements in the specimen; a phase need not hold all of them. A group counts by the number of
        its catalogue structures made of these elements alone, plus a share for phases that no catalogue knows.
    candidates : sequence of str or int
        Space groups by number or Hermann-Mauguin symbol, formulas, or source ids of the catalogue; nothing else is then
        considered.

    Returns
    -------
    GroupPrior
        Equal where nothing is given or nothing of it can be used; `messages` says what.
    """
    messages: list[str] = []
    equal = np.full(len(scheme.groups), 1 / len(scheme.groups))
    stands_for = {same: i for i, number in enumerate(scheme.groups) for same in _alike(number)}
    weight, phases = equal, []
    known = [e for e in (_element(item, messages) for item in elements) if e is not None]
    if known:
        count = np.zeros(len(scheme.groups))
        for entry in load_catalogue():
            if entry.elements <= set(known) and entry.space_group in stands_for:
                count[stands_for[entry.space_group]] += 1
                phases.append(f"{entry.formula} ({entry.space_group})")
        if not count.any():
            names = ", ".join(known)
            messages.append(
                f"the catalogue holds no structure of these groups made of {names} alone; all stay equal"
            )
        else:
            weight = count + _UNKNOWN_PHASES / len(count)
    if candidates:
        allowed = np.zeros(len(scheme.groups))
        for item in candidates:
            for number, name in _candidate(item, messages):
                if number in stands_for:
                    allowed[stands_for[number]] = 1.0
                    phases += [name] if name else []
                else:
                    groups = ", ".join(map(str, scheme.groups))
                    messages.append(
                        f"candidate {item}: group {number} shows other patterns than the groups of the weights ({groups}) and "
                        "those like them; it is left out"
                    )
        if allowed.any():
            weight = weight * allowed
        else:
            messages.append("no candidate could be used; all groups are considered")
    return GroupPrior(weight / weight.sum(), tuple(dict.fromkeys(phases)), tuple(messages))


def _alike(number: int) -> tuple[int, ...]:
    return (number, *same_patterns(number)) if number in CUBIC_GROUPS else (number,)


def _element(item: str, messages: list[str]) -> str | None:
    name = str(item).strip().capitalize()
    if gemmi.Element(name).atomic_number == 0:
        messages.append(f"element {item!r} is no chemical element; it is left out")
        return None
    return name


def _candidate(item: str | int, messages: list[str]) -> list[tuple[int, str]]:
    """Return (group, phase) for a candidate, nothing where it names none."""
    text = str(item).strip()
    if text.lstrip("+-").isdigit():
        if 1 <= int(text) <= 230:
            return [(int(text), "")]
        messages.append(f"candidate {text}: there is no such space group, expected a number from 1 to 230")
        return []
    by_symbol = [
        n for n in range(1, 231) if symbol(n).replace(" ", "").lower() == text.replace(" ", "").lower()
    ]
    entry = find_source(text)
    found = (
        [entry] if entry is not None else list(search_catalogue(formula=text) if composition(text) else ())
    )
    if by_symbol:
        return [(by_symbol[0], "")]
    if not found:
        messages.append(
            f"candidate {text!r} is no space group and no structure of the catalogue; expected a number such as 225, a symbol, "
            "a formula or a source id"
        )
    return [(entry.space_group, f"{entry.formula} ({entry.space_group})") for entry in found]
