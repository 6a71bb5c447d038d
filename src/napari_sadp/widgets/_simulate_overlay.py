"""The part of the *Simulate* widget that lays a simulation over a measured pattern."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import magicgui.widgets as mw
import numpy as np
from napari.layers import Image

from napari_sadp.widgets._layers import derived_from, role_of
from napari_sadp.widgets._shared import row_of, shown_frame, wrap_text
from napari_sadp.widgets._simulate_align import CALIBRATION_ERROR, signed
from napari_sadp.widgets._simulate_work import Overlay
from napari_sadp.widgets._sources import source_from_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import napari.viewer
    from napari.layers import Layer

    from napari_sadp.widgets._simulate_work import Aligned
    from napari_sadp.widgets._sources import Source

_TIPS = {
    "layer": "A measured pattern: the simulated spots are drawn over it instead of an image of their own",
    "centre": "Direct beam in the measured frame, row and column in pixels; or drag the point 'simulated beam'",
    "pixel": "Size of a pixel of the measured frame",
    "align": "Rotate and scale the simulation so that its lattice falls on that of the measured spots.\n"
    "Takes the lattice that Identify fitted, or measures it now.",
}


@dataclass(frozen=True, eq=False)
class Target:
    """The measured frame that is overlaid.

    Parameters
    ----------
    layer : napari.layers.Image
        Its layer.
    source : Source
        The layer as patterns.
    frame : int
        Flat index of the frame.
    basis_px : (2, 2) ndarray of float or None
        Lattice vectors (row, col), if they are known [px].
    """

    layer: Image
    source: Source
    frame: int
    basis_px: np.ndarray | None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the frame with square pixels."""
        shape = np.rint(np.array(self.source.stack.frame_shape) / self.source.pixel_step)
        return int(shape[0]), int(shape[1])


class OverlayPanel:
    """Choice of the layer, and centre and scale of the simulation on it.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    own : callable
        Tells whether a layer is one of the widget's own.

    Attributes
    ----------
    widgets : list of magicgui widgets
        Rows in their order.
    target : Target or None
        What is overlaid.
    centre_given : bool
        Whether the user placed the centre.
    """

    def __init__(self, viewer: napari.viewer.Viewer, own: Callable[[Layer], bool]) -> None:
        self._viewer, self._own = viewer, own
        self.target: Target | None = None
        self.centre_given = False
        self.layer = mw.ComboBox(
            label="Overlay on", choices=self._choices, nullable=True, value=None, tooltip=_TIPS["layer"]
        )
        self.centre = [
            mw.FloatSpinBox(value=127.5, min=-1e5, max=1e5, step=0.5, tooltip=_TIPS["centre"]) for _ in "rc"
        ]
        self.pixel = mw.FloatSpinBox(value=0.0125, min=0.0, max=10.0, step=1e-4, tooltip=_TIPS["pixel"])
        self.pixel.native.setDecimals(6)
        self.align = mw.PushButton(text="Align", tooltip=_TIPS["align"])
        self.fit = mw.Label(value="", label=" ")
        self._rows = [
            row_of("Beam px", *self.centre),
            row_of("Pixel 1/Å", self.pixel, self.align),
            self.fit,
        ]
        self.widgets = [self.layer, *self._rows]

    def finish(self) -> None:
        """Set what needs the widgets in their container."""
        wrap_text(self.fit)
        self._show_rows(False)

    # ---- what is overlaid ----------------------------------------------------------------------------------------

    def choose(self, default_pixel: Callable[[], float]) -> None:
        """Take over the chosen layer: centre, scale and lattice as far as they are known.

        Parameters
        ----------
        default_pixel : callable
            Returns the width of a frame [1/Å] for a layer without calibration.

        Raises
        ------
        ValueError
            If the layer holds no patterns.
        """
        layer = self.layer.value
        self.target, self.centre_given = None, False
        self.fit.value = ""
        self._show_rows(layer is not None)
        if layer is None:
            return
        source = source_from_layer(layer)
        frame = shown_frame(self._viewer, layer, source)
        beam, basis = fitted_geometry(self._viewer.layers, source, frame)
        self.target = Target(layer, source, frame, basis)
        shape = self.target.shape
        centre = (np.array(shape) - 1) / 2 if beam is None else beam
        pixel = source.stack.pixel_size_inv_angstrom
        self.set(centre, default_pixel() / shape[1] if pixel is None else pixel)

    def frame_changed(self) -> bool:
        """Tell whether the viewer shows another frame of the layer than the one that is overlaid."""
        target = self.target
        return target is not None and shown_frame(self._viewer, target.layer, target.source) != target.frame

    def overlay(self) -> Overlay | None:
        """Return where the simulation is to lie, None for an image of its own.

        Raises
        ------
        ValueError
            If the pixel size is zero.
        """
        target = self.target
        if target is None:
            return None
        pixel = float(self.pixel.value)
        if pixel <= 0:
            raise ValueError(f"pixel size of the overlay is {pixel:g} 1/Å, expected a positive number")
        return Overlay(
            target.source.layer_id,
            target.frame,
            target.shape,
            (float(self.centre[0].value), float(self.centre[1].value)),
            pixel,
            (float(target.source.pixel_step[0]), float(target.source.pixel_step[1])),
        )

    # ---- centre and scale ----------------------------------------------------------------------------------------

    def set(self, centre_rc: Iterable[float], pixel: float | None = None) -> None:
        """Set centre [px] and pixel size [1/Å] without a new simulation."""
        for box, value in zip(self.centre, centre_rc, strict=True):
            with box.changed.blocked():
                box.value = float(np.clip(value, box.min, box.max))
        if pixel is not None:
            with self.pixel.changed.blocked():
                self.pixel.value = float(np.clip(pixel, self.pixel.min, self.pixel.max))

    def beam_in_layer(self) -> np.ndarray:
        """Return the centre as a position (2,) in the layer [px]."""
        return self.target.source.to_layer(np.array([[box.value for box in self.centre]]))[0]

    def beam_dragged(self, point: np.ndarray) -> bool:
        """Take the centre from a position in the layer [px], return whether it is another one."""
        centre = (np.asarray(point, dtype=float) + 0.5) / self.target.source.pixel_step - 0.5
        # the boxes round: what they say is not another place
        if np.allclose(centre, [box.value for box in self.centre], atol=0.006):
            return False
        self.centre_given = True
        self.set(centre)
        return True

    def show_alignment(self, aligned: Aligned) -> None:
        """Take over scale and centre of an alignment, and say how well it fits."""
        target, made = self.target, aligned.alignment
        self.target = Target(target.layer, target.source, target.frame, aligned.basis_px)
        known, pixel, text = (
            target.source.stack.pixel_size_inv_angstrom,
            made.pixel_size_inv_angstrom,
            made.text(),
        )
        if known is not None:
            change = f"{signed(100 * (pixel / known - 1))} %"
            if made.fits or abs(np.log(pixel / known)) < CALIBRATION_ERROR:
                text += f"; pixel size {change} off the calibration"
            else:
                # a lattice that does not fit is no reason to doubt the calibration so much
                text += f"; it would need a pixel of {pixel:.4g} 1/Å, {change} off the calibration: scale unchanged"
                pixel = known
        self.set(aligned.centre_rc, pixel)
        self.fit.value = text

    # ---- parts ---------------------------------------------------------------------------------------------------

    def _choices(self, _: Any = None) -> list[tuple[str, Any]]:
        images = [layer for layer in self._viewer.layers if isinstance(layer, Image) and not self._own(layer)]
        return [(layer.name, layer) for layer in images]

    def _show_rows(self, visible: bool) -> None:
        for row in self._rows:
            row.visible = visible


def fitted_geometry(
    layers: Iterable[Layer], source: Source, frame: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return what *Identify* left in layers: direct beam and lattice of a frame.

    Parameters
    ----------
    layers : iterable of napari.layers.Layer
        Layers of the viewer.
    source : Source
        The measured layer.
    frame : int
        Flat index of the frame.

    Returns
    -------
    beam_rc : (2,) ndarray of float64 or None
        Direct beam (row, col) in the frame with square pixels [px].
    basis_px : (2, 2) ndarray of float64 or None
        Lattice vectors (row, col) [px].
    """
    index = np.array(source.navigation_index(frame), dtype=float)
    found: dict[str, np.ndarray] = {}
    for layer in layers:
        if derived_from(layer) != source.layer_id:
            continue
        role = role_of(layer)
        if role not in ("beam", "lattice"):  # a mask of the image may be large
            continue
        data = np.asarray(layer.data, dtype=float)
        if role == "beam" and data.ndim == 2:
            rows = data[np.all(np.round(data[:, :-2]) == index, axis=1)]
            if len(rows):
                found["beam"] = (rows[0, -2:] + 0.5) / source.pixel_step - 0.5
        elif role == "lattice" and data.ndim == 3:
            rows = data[np.all(np.round(data[:, 0, :-2]) == index, axis=1)]
            if len(rows) >= 2:
                found["basis"] = rows[:2, 1, -2:] / source.pixel_step
                found.setdefault("beam", (rows[0, 0, -2:] + 0.5) / source.pixel_step - 0.5)
    return found.get("beam"), found.get("basis")
