"""Several signals of one crystal, one space-group table."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from napari_sadp.identify import Identification, combine_results

if TYPE_CHECKING:
    from napari_sadp.identify import Knowledge
    from napari_sadp.signals.sad_pattern2d import SADPattern2D


def combine_signals(
    *signals: SADPattern2D | Identification,
    rule: str = "product",
    knowledge: Knowledge | None = None,
    **options: Any,
) -> Identification:
    """Combine signals, or what `SADPattern2D.identify` gave for them, as patterns of one crystal.

    Parameters
    ----------
    *signals : SADPattern2D or Identification
        Any number of each; results are combined as they are, signals are identified first.
    rule : {"product", "mean"}
        How the patterns combine.
    knowledge : napari_sadp.identify.Knowledge, optional
        Elements, candidates, thickness or tilts, where they are known.
    **options
        Options of `SADPattern2D.identify` for the signals.

    Returns
    -------
    Identification
        Results of all frames of all signals, and the space groups.

    Raises
    ------
    ValueError
        If there is no signal, results come from different class schemes, or options are given where nothing is to be identified.
    """
    for item in signals:
        if not isinstance(item, Identification) and not hasattr(item, "to_stack"):
            raise ValueError(f"{item!r} is no pattern signal; call its set_signal_type('sadp') first")
    if options and signals and all(isinstance(item, Identification) for item in signals):
        raise ValueError(
            f"{', '.join(options)} given, expected none: results are combined as they are, and there is no signal to identify"
        )
    found = [item if isinstance(item, Identification) else item.identify(**options) for item in signals]
    return combine_results(
        chain.from_iterable(item.patterns for item in found), rule=rule, knowledge=knowledge
    )
