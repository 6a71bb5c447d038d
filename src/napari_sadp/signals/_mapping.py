"""How a function of one frame is mapped over a signal, with what the user knows of each frame.

Functions are those of `_frames`, the frames those that the package's reader would give.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
from hyperspy.signal import BaseSignal
from hyperspy.signals import Signal2D

from napari_sadp._validate import check_range
from napari_sadp.io.rosetta import stack_from_signal
from napari_sadp.signals import _frames

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_sadp.io.rosetta import PatternStack

    #: One value for all frames, or a signal with one for each.
    Beam = Sequence[float] | np.ndarray | BaseSignal | None
    Mask = np.ndarray | BaseSignal | None


class MappedPatterns(Signal2D):
    """Two-dimensional patterns that functions of single frames are mapped over."""

    def to_stack(self) -> PatternStack:
        """Return the frames as the package's own values, calibration, voltage and camera length included.

        Returns
        -------
        PatternStack
            ``len`` is the number of frames, indexing gives a `DiffractionPattern`; lazy frames stay lazy.

        Raises
        ------
        ValueError
            If the data hold no frame or no numbers; of complex data the magnitude is taken, and a note says so.
        """
        axes = self.axes_manager.as_dictionary()
        stack = stack_from_signal(
            {
                "data": self.data,
                "axes": [axes[f"axis-{index}"] for index in range(len(axes))],
                "metadata": self.metadata.as_dictionary(),
                "original_metadata": self.original_metadata.as_dictionary(),
            },
            source=str(self.metadata.get_item("General.original_filename", "") or self._title()),
        )
        return replace(stack, find_covers=bool(self.metadata.get_item("Sadp.find_covers", True)))

    def _given(self, beam_rc: Beam, mask: Mask, min_snr: float) -> dict[str, Any]:
        """Return what the user knows as arguments for `map`: arrays for all frames, signals for one value each."""
        given: dict[str, Any] = {"min_snr": check_range("min_snr", min_snr, 1, 1e6)}
        axes = self._upright(self.to_stack()).axes_manager
        frame = axes.signal_shape[::-1]
        for name, value, shape in (("beam_rc", beam_rc, (2,)), ("mask", mask, frame)):
            if value is None:
                continue
            navigation = ()
            if isinstance(value, BaseSignal):
                navigation = value.axes_manager.navigation_shape
                # a nested pair of signal axes is (x, y) in HyperSpy, the shape of its array is not
                found = value.axes_manager.signal_shape[::-1]
                if not navigation:
                    value = np.asarray(value.data)
            else:
                value = _as_array(name, value)
                found = value.shape
            if found != shape or navigation not in ((), axes.navigation_shape):
                raise ValueError(
                    f"{name} has navigation shape {navigation} and shape {found}, expected {shape} for all frames, or a signal "
                    f"with the navigation shape {axes.navigation_shape} of the patterns"
                )
            # map may rechunk signals that it iterates in place: the caller's stay as they are
            given[name] = value.deepcopy() if isinstance(value, BaseSignal) and value._lazy else value
        return given

    def _mapped(self, function: Any, **options: Any) -> BaseSignal:
        """Map a function of `_frames` over the frames as `to_stack` gives them: real, grey, unsigned, with their kind."""
        stack = self.to_stack()
        upright = self._upright(stack)
        # a stack has no navigation axes of length 1, the signal keeps them
        frames = upright._deepcopy_with_new_data(stack.data.reshape(upright.data.shape))
        about = _frames.Frame(
            stack.kind, stack.oblong_scale, stack.pixel_size_inv_angstrom, stack.find_covers
        )
        # oblong pixels are resampled, so that unequal scales are no matter
        found = frames.map(function, frame=about, silence_warnings=("scales", "units"), **options)
        found.metadata.set_item("Sadp.notes", list(stack.notes))
        made_with: dict[str, Any] = {
            "min_snr": options["min_snr"],
            "find_covers": stack.find_covers,
            "beam_given": "beam_rc" in options,
            "mask_given": "mask" in options,
        }
        if "faintest" in options:
            made_with["faintest"] = options["faintest"]
        found.metadata.set_item("Sadp.made_with", made_with)
        return found

    def _upright(self, stack: PatternStack) -> MappedPatterns:
        """Return the signal with the axes of the pattern as its signal axes: some files call them those of the scan."""
        if not stack.transposed:
            return self
        return self.transpose(signal_axes=self.axes_manager.navigation_axes)

    def _title(self) -> str:
        return str(self.metadata.get_item("General.title", ""))

    def _map_rows(
        self, function: Any, columns: dict[str, str], what: str, map_options: dict[str, Any], **options: Any
    ) -> BaseSignal:
        """Map a function that gives one number for each column, and name columns and units in the metadata."""
        found = self._mapped(
            function,
            inplace=False,
            ragged=False,
            output_signal_size=(len(columns),),
            output_dtype="float64",
            **map_options,
            **options,
        )
        return self._with_columns(found, columns, what)

    def _with_columns(self, found: BaseSignal, columns: dict[str, str], what: str) -> BaseSignal:
        """Return a signal of rows whose signal axis counts the columns, with their names and units in the metadata."""
        found.set_signal_type("")
        axis = found.axes_manager.signal_axes[0]
        axis.name, axis.units, axis.scale, axis.offset = "column", "", 1.0, 0.0
        found.metadata.set_item("Sadp.columns", list(columns))
        found.metadata.set_item("Sadp.units", list(columns.values()))
        found.metadata.set_item("General.title", f"{self._title()} {what}".strip())
        return found


def _as_array(name: str, value: Any) -> np.ndarray:
    """Return a given beam or mask as an array, or raise `ValueError` if it is none."""
    kind, right = (
        (float, "(row, col) in px") if name == "beam_rc" else (bool, "an array (n_rows, n_cols) of bool")
    )
    try:
        return np.asarray(value, dtype=kind)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} is {value!r}, expected {right} for all frames, or a signal with one for each"
        ) from None


def of_frame(value: np.ndarray | BaseSignal, index: int, n_axes: int) -> np.ndarray:
    """Return what `MappedPatterns._given` gave for the frame of a flat index; arguments as `each_frame`."""
    if not isinstance(value, BaseSignal):
        return value
    data = value.data
    return np.asarray(data.reshape(-1, *data.shape[data.ndim - n_axes :])[index])


def each_frame(value: np.ndarray | BaseSignal, n_axes: int) -> Iterator[np.ndarray]:
    """Return what `MappedPatterns._given` gave for each frame in turn: the same array for all, or those of a signal, whose own axes are the last `n_axes`."""
    if not isinstance(value, BaseSignal):
        return repeat(value)
    data = value.data
    flat = data.reshape(-1, *data.shape[data.ndim - n_axes :])
    return (np.asarray(row) for row in flat)
