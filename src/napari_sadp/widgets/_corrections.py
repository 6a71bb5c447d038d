"""Corrections by hand, kept from one run to the next.

A run starts from what the user changed in the results of earlier runs of the same frames: spots, lattice vectors and direct beam.
Masks, and beams that a layer of the user gives, are no corrections: they are read anew for each run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.geometry.edit import Edits

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from napari_sadp.widgets._sources import Source

    Key = tuple[str, int]  # unique_id of the image layer, flat frame

_SAME_PX = 1e-3


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Parameters
    ----------
    edits : dict of (layer id, frame) to Edits
        Frames for which something is given.
    n_kept : int
        Frames of the run that start from corrections.
    n_waiting : int
        Frames of the same images that have corrections and are not in the run.
    changed : tuple of str
        Names of the images whose corrections do not fit any more, since they hold other data now, or pixels of other proportions.
    """

    edits: dict[Key, Edits]
    n_kept: int = 0
    n_waiting: int = 0
    changed: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What is to be said of it, one line or none."""
        if not self.n_kept and not self.n_waiting:
            return ""
        text = f"Corrections by hand of {_frames(self.n_kept)} kept"
        if self.n_waiting:
            text += f", of {_frames(self.n_waiting)} outside of this run remembered"
        return f"{text}; Reset drops them."


@dataclass(frozen=True, eq=False)
class _Correction:
    """What the user changed in one frame of a source, without the mask."""

    source: Source
    edits: Edits


class Corrections:
    """What the user changed in frames, whether or not their layers are still there."""

    def __init__(self) -> None:
        self._kept: dict[Key, _Correction] = {}
        # beams that a layer gave: those that differ from them were dragged
        self._given_rc: dict[Key, np.ndarray] = {}

    def read(self, followed: Iterable[tuple[Source, int, Edits]]) -> None:
        """Take over what the user changed until now.

        Parameters
        ----------
        followed : iterable of (Source, int, Edits)
            Frames whose layers are followed, with everything that is given there; other frames keep what they have.
        """
        for source, frame, edits in followed:
            key = source.layer_id, frame
            if _is_correction(edits, self._given_rc.get(key)):
                self._kept[key] = _Correction(source, replace(edits, mask=None))
            else:
                self._kept.pop(key, None)

    def start(self, sources: Sequence[Source], given: Mapping[Key, Edits]) -> Start:
        """Return what a run starts from.

        Of a beam that was dragged and one that a layer gives now, the later counts: the one of the layer where it is another than before.

        Parameters
        ----------
        sources : sequence of Source
            Layers and frames of the run.
        given : mapping of (layer id, frame) to Edits
            Masks and beams from other layers.

        Returns
        -------
        Start
            Beams and masks with the corrections.
        """
        changed = self._forget_changed(sources)
        edits = dict(given)
        keys = {(source.layer_id, frame) for source in sources for frame in source.frames}
        n_kept = 0
        for key in keys:
            asked = given.get(key, Edits())
            own = self._kept.get(key)
            if own is None:
                self._note(key, asked.beam_rc)
                continue
            merged = self._merged(key, own.edits, asked)
            edits[key] = merged
            if _is_correction(merged, self._given_rc.get(key)):
                n_kept += 1
            else:
                del self._kept[key]
        own_layers = {source.layer_id for source in sources}
        waiting = sum(key[0] in own_layers and key not in keys for key in self._kept)
        return Start(edits, n_kept, waiting, changed)

    def copy(self) -> Corrections:
        """Return what is held now, to come back to: a run may end without results."""
        other = Corrections()
        other._kept, other._given_rc = dict(self._kept), dict(self._given_rc)
        return other

    def keep_only(self, layer_ids: Collection[str]) -> None:
        """Drop what belongs to other image layers: those that were removed, whose data would stay in memory."""
        for held in (self._kept, self._given_rc):
            for key in [key for key in held if key[0] not in layer_ids]:
                del held[key]

    def of_layers(self, layer_ids: Collection[str]) -> bool:
        """Tell whether a frame of these image layers has corrections."""
        return any(layer_id in layer_ids for layer_id, _ in self._kept)

    def forget(
        self, sources: Sequence[Source], beams: Mapping[Key, np.ndarray]
    ) -> dict[Key, np.ndarray | None]:
        """Drop the corrections of frames.

        Parameters
        ----------
        sources : sequence of Source
            Layers and frames.
        beams : mapping of (layer id, frame) to (2,) ndarray of float64
            Direct beams that other layers give.

        Returns
        -------
        dict of (str, int) to (2,) ndarray of float64 or None
            Layer and frame of those that had some, and the beam that is given there.
        """
        keys = [(source.layer_id, frame) for source in sources for frame in source.frames]
        dropped = {key: beams.get(key) for key in keys if self._kept.pop(key, None) is not None}
        for key, beam_rc in dropped.items():
            self._note(key, beam_rc)
        return dropped

    # ---- parts ---------------------------------------------------------------------------------------------------

    def _forget_changed(self, sources: Sequence[Source]) -> tuple[str, ...]:
        """Drop the corrections of images that are others now; return their names."""
        names = []
        for source in sources:
            stale = [
                key
                for key, own in self._kept.items()
                if key[0] == source.layer_id and not own.source.same_frames(source)
            ]
            for key in stale:
                del self._kept[key]
            names += [source.name] if stale else []
        return tuple(names)

    def _merged(self, key: Key, own: Edits, asked: Edits) -> Edits:
        """Return the corrections of a frame with mask and beam of now."""
        before, beam = self._given_rc.get(key), own.beam_rc
        if _same(own.beam_rc, before):
            # not dragged; vectors that were placed by hand cannot do without the beam they start from
            if asked.beam_rc is not None or own.basis_px is None:
                beam = asked.beam_rc
                self._note(key, beam)
        elif asked.beam_rc is not None and not any(
            _same(asked.beam_rc, other) for other in (before, own.beam_rc)
        ):
            beam = asked.beam_rc
            self._note(key, beam)
        return replace(own, beam_rc=beam, mask=asked.mask)

    def _note(self, key: Key, beam_rc: np.ndarray | None) -> None:
        if beam_rc is None:
            self._given_rc.pop(key, None)
        else:
            self._given_rc[key] = beam_rc


def _is_correction(edits: Edits, given_rc: np.ndarray | None) -> bool:
    by_hand = (edits.spots, edits.removed_rc, edits.basis_px)
    return any(value is not None for value in by_hand) or not _same(edits.beam_rc, given_rc)


def _same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.abs(one - other).max() < _SAME_PX)


def _frames(number: int) -> str:
    return f"{number} frame{'s' * (number != 1)}"


__all__ = ["Corrections", "Start"]
