"""What the *Identify* widget says in words about a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_sadp.report import headline, remarks

if TYPE_CHECKING:
    from napari_sadp.widgets._work import Outcome

_MAX_REFUSALS = 3


def summary(outcome: Outcome, *more: str) -> str:
    """Return the answer in a few lines.

    Parameters
    ----------
    outcome : Outcome
        All results.
    *more : str
        Lines to add; empty ones are left out.

    Returns
    -------
    str
        Lines of text.
    """
    found = outcome.found
    lines = [headline(found)]
    if found.n_used:
        lines.append(f"{found.n_used} of {len(found.patterns)} patterns used, {found.space_groups.rule} rule")
        lines += remarks(found)
        if any(result.used and result.g1_inv_angstrom is None for result in found.patterns):
            lines.append("Not calibrated: lengths are in px; classes and space groups do not need it.")
    return "\n".join(line for line in (*lines, *_refusals(outcome), *more) if line)


def _refusals(outcome: Outcome) -> list[str]:
    """Return why patterns were refused, of the first few: the table may be too narrow for a sentence."""
    refused = [item for item in outcome.frames if not item.result.used]
    lines = [
        f"{item.source.label(item.frame)} refused: {item.result.reason}: {item.result.detail}"
        for item in refused[:_MAX_REFUSALS]
    ]
    more = len(refused) - len(lines)
    return [*lines, f"and {more} more refused"] if more else lines
