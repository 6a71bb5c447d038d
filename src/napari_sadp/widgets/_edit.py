"""What follows when the user changes a result layer or the mask: the frame is analysed again, and everything after it.

The layers are compared with what was last written to them, so that undo, scripts and other plugins count like the mouse, and
what this module writes does not. Changes are collected for a moment, the work is done in another thread, and of two results for one frame
the later counts. GUI thread only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import QTimer

from napari_sadp.geometry.edit import Edits
from napari_sadp.geometry.results import SpotList
from napari_sadp.identify import UNREADABLE
from napari_sadp.widgets._latest import LatestRunner
from napari_sadp.widgets._work import Ticket, reanalyse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from napari_sadp.widgets._result_layers import ResultLayers
    from napari_sadp.widgets._sources import Source
    from napari_sadp.widgets._work import FrameResult, Outcome, RunOptions

#: Changes within this time are one [ms].
PATIENCE_MS = 300
#: With more patterns a stroke in a mask would keep the machine busy; the mask then waits for the next run.
MAX_LIVE_MASKS = 64
_SAME_PX = 1e-3
_TYPICAL_SIGMA_PX = 2.0  # of a spot added by hand where none was found

Positions = dict[str, np.ndarray]


@dataclass(eq=False)
class _Frame:
    """One frame: what the user wants, and what its layers held when that was read."""

    layers: ResultLayers
    edits: Edits
    seen: Positions


class Editor:
    """Follows the user's changes of the results of one run.

    Parameters
    ----------
    mask_of : callable
        Returns the user's mask of a frame of a source, None where there is none.
    on_result : callable
        Gets position and result of a frame that was analysed again.
    on_outcome : callable
        Gets what all patterns say together, once every change is followed.
    on_error : callable
        Gets an exception.
    on_change : callable
        Called without arguments when work begins or ends.
    """

    def __init__(
        self,
        *,
        mask_of: Callable[[Source, int], np.ndarray | None],
        on_result: Callable[[int, FrameResult], None],
        on_outcome: Callable[[Outcome], None],
        on_error: Callable[[Exception], None],
        on_change: Callable[[], None],
    ) -> None:
        self._mask_of, self._on_result, self._on_outcome = mask_of, on_result, on_outcome
        self._on_error = on_error
        self._runner = LatestRunner(self._returned, on_error, on_change)
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(PATIENCE_MS)
        self._timer.timeout.connect(self.follow)
        self._ticket = Ticket()
        self._frames: list[FrameResult] = []
        self._states: dict[int, _Frame] = {}
        self._options: RunOptions | None = None
        self._closed = False
        #: Of each frame, when following was interrupted; None where nothing is.
        self._at_hold: dict[int, Edits] | None = None

    @property
    def busy(self) -> bool:
        """Whether a change waits or is being followed."""
        return self._runner.busy or self._timer.isActive()

    @property
    def layers(self) -> list[ResultLayers]:
        """The layers of each source of the run."""
        return list({id(state.layers): state.layers for state in self._states.values()}.values())

    # ---- begin and end -------------------------------------------------------------------------------------------

    def begin(
        self,
        frames: list[FrameResult],
        layers: list[ResultLayers],
        options: RunOptions,
        changes: Iterable[tuple[Source, int, Edits]] = (),
    ) -> None:
        """Follow the results of a run from now on.

        Parameters
        ----------
        frames : list of FrameResult
            All results. Replaced in place when a frame is analysed again.
        layers : list of ResultLayers
            Of each source that is still in the viewer.
        options : RunOptions
            How the run was made.
        changes : iterable of (Source, int, Edits)
            What `changes` gave before these layers took the place of others.
        """
        carried = {(source.layer_id, frame): edits for source, frame, edits in changes}
        self.end()
        self._frames, self._options = frames, options
        own = {item.source.layer_id: item for item in layers}
        held = {key: item.positions() for key, item in own.items()}
        for number, item in enumerate(frames):
            key = item.source.layer_id
            if key in own and item.result.reason != UNREADABLE:
                edits = carried.get((key, item.frame), item.edits)
                self._states[number] = _Frame(own[key], edits, _of_frame(held[key], item.frame))
        self.schedule()  # a mask may have been painted during the run

    def end(self) -> None:
        """Follow nothing any more."""
        self.cancel()
        for layers in self.layers:
            layers.release()
        self._frames, self._states, self._at_hold = [], {}, None

    @property
    def held(self) -> bool:
        """Whether `hold` was called, and neither `resume` nor `begin` after it."""
        return self._at_hold is not None

    def hold(self) -> None:
        """Analyse nothing again until `resume` or `begin`; what is changed meanwhile is in `changes`."""
        self.cancel()
        self._at_hold = {number: state.edits for number, state in self._states.items()}

    def changes(self) -> list[tuple[Source, int, Edits]]:
        """Return what the user gave in the frames that changed since `hold`."""
        before = self._at_hold or {}
        found = zip(self.read(), self._states.items(), strict=True)
        return [given for given, (number, state) in found if state.edits is not before.get(number)]

    def resume(self) -> None:
        """Go on after `hold` with the results that there were."""
        self._at_hold = None
        self.schedule()

    def cancel(self) -> None:
        """Forget changes that are being followed; the next one takes them up again."""
        self._timer.stop()
        self._ticket.wanted = False
        self._runner.cancel()

    def close(self) -> None:
        """End for good."""
        self._closed = True
        self.end()
        self._runner.close()

    # ---- following -----------------------------------------------------------------------------------------------

    def schedule(self, _: object = None) -> None:
        """Look for changes in a moment."""
        if self._states and not self._closed and not self.held:
            self._timer.start()

    def read(self) -> list[tuple[Source, int, Edits]]:
        """Take up what the layers hold now, without analysing it.

        Returns
        -------
        list of (Source, int, Edits)
            Frames that are followed, and what the user gave in each.
        """
        held = {id(layers): layers.positions() for layers in self.layers}
        live_masks = len(self._frames) <= MAX_LIVE_MASKS
        for number, state in self._states.items():
            item = self._frames[number]
            now = _of_frame(held[id(state.layers)], item.frame)
            state.edits = changed_edits(state.edits, item, state.seen, now)
            state.seen = now
            if live_masks:
                mask = self._mask_of(item.source, item.frame)
                if not _same_mask(mask, state.edits.mask):
                    state.edits = replace(state.edits, mask=mask)
        return self.given()

    def given(self) -> list[tuple[Source, int, Edits]]:
        """Return what the user gave in each frame that is followed, as far as it was read."""
        found = ((self._frames[number], state.edits) for number, state in self._states.items())
        return [(item.source, item.frame, edits) for item, edits in found]

    def follow(self) -> None:
        """Look for changes now, and analyse again what changed."""
        self._timer.stop()
        if self._closed:
            return
        self.read()
        self._submit()

    def reset(self, beams: Mapping[tuple[str, int], np.ndarray | None]) -> None:
        """Drop what the user changed in the layers of some frames, and analyse these again.

        Parameters
        ----------
        beams : mapping of (layer id, frame) to (2,) ndarray of float or None
            The frames, and the direct beam that another layer gives. Masks stay.
        """
        self.read()  # what waits to be followed is dropped too
        for number, state in self._states.items():
            item = self._frames[number]
            key = item.source.layer_id, item.frame
            if key in beams:
                state.edits = Edits(beam_rc=beams[key], mask=state.edits.mask)
        self._timer.stop()
        self._submit()

    def _submit(self) -> None:
        """Analyse the frames again whose edits are not those of their result."""
        changes = {
            number: state.edits
            for number, state in self._states.items()
            if state.edits is not self._frames[number].edits
        }
        if not changes:
            return
        self._ticket.wanted = False
        self._ticket = Ticket()
        self._runner.submit(reanalyse, tuple(self._frames), changes, self._options, self._ticket)

    def _returned(self, answer: tuple[dict[int, FrameResult], Outcome] | None) -> None:
        if answer is None or not self._ticket.wanted or self._closed:
            return
        new, outcome = answer
        for number, item in new.items():
            state = self._states.get(number)
            if state is None or state.edits is not item.edits:
                continue
            now = _of_frame(state.layers.positions(), item.frame)
            if not _same_positions(now, state.seen):
                # changed meanwhile: the user's hand may still be on it, and what follows comes later
                self._timer.start()
                continue
            before, self._frames[number] = self._frames[number], item
            state.layers.show(item, before)
            state.seen = _of_frame(state.layers.positions(), item.frame)
            self._on_result(number, item)
        if all(state.edits is self._frames[number].edits for number, state in self._states.items()):
            self._on_outcome(outcome)


def changed_edits(edits: Edits, item: FrameResult, seen: Positions, now: Positions) -> Edits:
    """Return what the user gave, from what the layers hold now.

    Parameters
    ----------
    edits : Edits
        What was given until now.
    item : FrameResult
        The result that the layers show.
    seen, now : dict of str to (n, 2) ndarray of float
        Positions by role [px of the square frame], when `edits` were read and now; roles whose layer is gone are missing.

    Returns
    -------
    Edits
        The same object where nothing changed.
    """
    changed = [role for role in now if role in seen and not _same(seen[role], now[role])]
    if "beam" in changed:
        fresh = [row for row in now["beam"] if not _among(row, seen["beam"])]
        if fresh:
            edits = replace(edits, beam_rc=fresh[-1])
        elif not len(now["beam"]):
            # taken away: find it; vectors start from it, and go with it
            edits = replace(edits, beam_rc=None, basis_px=None)
        else:
            edits = replace(edits)
    if "spots" in changed:
        edits = replace(edits, **_spots(item, now["spots"]))
    if "vectors" in changed:
        edits = _with_tips(edits, item, now["vectors"], len(seen["vectors"]))
    elif "beam" in changed and _tips_waited(edits, item, now):
        edits = replace(edits, basis_px=now["vectors"] - edits.beam_rc)
    return edits


def _with_tips(edits: Edits, item: FrameResult, tips: np.ndarray, n_before: int) -> Edits:
    """Return edits with the lattice that changed tips of vectors give."""
    origin = edits.beam_rc
    if origin is None and item.result.beam is not None:
        origin = item.result.beam.rc
    if len(tips) == 2 and origin is not None:
        return replace(edits, beam_rc=origin, basis_px=tips - origin)
    if len(tips) < n_before:
        return replace(edits, basis_px=None)
    return replace(edits) if len(tips) > 2 else edits  # a third tip says nothing: show two again


def _tips_waited(edits: Edits, item: FrameResult, now: Positions) -> bool:
    """Tell whether two tips were put before there was a beam to start from, and now there is one."""
    if edits.beam_rc is None or edits.basis_px is not None or item.result.lattice is not None:
        return False
    return len(now.get("vectors", ())) == 2


def _spots(item: FrameResult, now: np.ndarray) -> dict[str, object]:
    """Return spots and deleted places as fields of `Edits`."""
    shown = item.result.spots
    if shown is None:
        shown = SpotList(np.zeros((0, 2)), np.zeros(0), np.zeros(0), _TYPICAL_SIGMA_PX)
    miss = np.linalg.norm(now[:, None] - shown.rc, axis=2)
    mate = np.argmin(miss, axis=1) if len(shown) else np.zeros(len(now), dtype=int)
    known = miss.min(axis=1) < _SAME_PX if len(shown) else np.zeros(len(now), bool)
    rc, intensity, snr = now.copy(), np.full(len(now), np.nan), np.full(len(now), np.nan)
    rc[known], intensity[known], snr[known] = (
        values[mate[known]] for values in (shown.rc, shown.intensity, shown.snr)
    )
    gone = shown.rc[~np.isin(np.arange(len(shown)), mate[known])]
    before = item.edits.removed_rc
    return {
        "spots": replace(shown, rc=rc, intensity=intensity, snr=snr),
        "removed_rc": gone if before is None else np.concatenate([before, gone]),
    }


def _of_frame(held: dict[str, dict[int, np.ndarray]], frame: int) -> Positions:
    return {role: rows.get(frame, np.zeros((0, 2))) for role, rows in held.items()}


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool(np.all(np.abs(one - other) < _SAME_PX))


def _same_positions(one: Positions, other: Positions) -> bool:
    return all(_same(one[role], other[role]) for role in one.keys() & other.keys())


def _same_mask(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    return (one is None) == (other is None) and (one is None or np.array_equal(one, other))


def _among(row: np.ndarray, rows: np.ndarray) -> bool:
    return bool(np.any(np.all(np.abs(rows - row) < _SAME_PX, axis=1)))
