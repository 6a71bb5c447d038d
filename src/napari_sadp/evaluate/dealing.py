"""Which structures the frames of an evaluation are of."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_sadp.evaluate.structures import HeldOut

#: Frames made for one that is needed, at most; of a structure, until it goes for one that is never usable.
MOST_TRIES = 3


def deal_structures(structures: Sequence[HeldOut], n: int, rng: np.random.Generator) -> list[HeldOut]:
    """Deal structures: groups in turn, of each its extinction behaviours in turn, and no structure again before all were dealt.

    Parameters
    ----------
    structures : sequence of HeldOut
        What there is.
    n : int
        How many.
    rng : numpy.random.Generator
        Random numbers of the order.

    Returns
    -------
    list of HeldOut
        As many.
    """
    groups = list(_shuffled(structures, rng).values())
    dealt = []
    for number in range(n):
        turn, place = divmod(number, len(groups))
        again, kind = divmod(turn, len(groups[place]))
        order = groups[place][kind]
        dealt.append(order[again % len(order)])
    return dealt


def deal_by_need(
    structures: Sequence[HeldOut], need: int, rng: np.random.Generator
) -> Generator[HeldOut, bool, None]:
    """Deal structures until so many frames of each space group are usable, of as many structures as there are.

    Groups come in turn, and of each its extinction behaviours in turn as long as they have structures. A structure whose frame is not
    usable comes again, for other random numbers, up to `MOST_TRIES` times in all; any other only after all of its group have come. A
    group of which too little is usable ends after `MOST_TRIES` times the frames needed.

    Parameters
    ----------
    structures : sequence of HeldOut
        What there is.
    need : int
        Usable frames of each group.
    rng : numpy.random.Generator
        Random numbers of the order.

    Yields
    ------
    HeldOut
        The next one; what is sent back tells whether its frame is usable.
    """
    orders = {
        group: [item for turn in zip_longest(*kinds) for item in turn if item is not None]
        for group, kinds in _shuffled(structures, rng).items()
    }
    tries, usable = ({group: np.zeros(len(order), int) for group, order in orders.items()} for _ in range(2))

    def lacks(group: int) -> bool:
        return usable[group].sum() < need and tries[group].sum() < MOST_TRIES * need

    while lacking := [group for group in orders if lacks(group)]:
        group = min(lacking, key=lambda item: tries[item].sum())
        made, good = tries[group], usable[group]
        place = int(np.argmin(np.maximum(good, made // MOST_TRIES)))
        is_usable = yield orders[group][place]
        made[place] += 1
        good[place] += is_usable


def _shuffled(structures: Sequence[HeldOut], rng: np.random.Generator) -> dict[int, list[list[HeldOut]]]:
    """Return the structures of each extinction behaviour in random order, by space group."""
    stacks: dict[int, dict[str, list[HeldOut]]] = {}
    for item in structures:
        stacks.setdefault(item.crystal.space_group, {}).setdefault(item.behaviour, []).append(item)
    return {
        group: [[stack[k] for k in rng.permutation(len(stack))] for stack in kinds.values()]
        for group, kinds in stacks.items()
    }
