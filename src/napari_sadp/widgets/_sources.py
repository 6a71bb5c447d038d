"""From an image layer of the viewer to diffraction patterns, one frame at a time.

The layer is read in the GUI thread and only there; what comes out holds the array and numbers, so that a worker may use
it. What the viewer says counts: whoever corrects scale or units of a layer has calibrated the pattern.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from napari_sadp._units import is_real_space, normalise_unit, to_inv_angstrom
from napari_sadp.io._meta import oblong
from napari_sadp.io._pixels import colour_to_grey, to_real
from napari_sadp.io.rosetta import PatternStack, StackAxis
from napari_sadp.napari_io import METADATA_KEY
from napari_sadp.pattern import PatternKind

if TYPE_CHECKING:
    from napari.layers import Image

    from napari_sadp.pattern import DiffractionPattern


@dataclass(frozen=True, eq=False)
class Source:
    """The frames of one image layer that are to be analysed.

    Parameters
    ----------
    layer_id : str
        `unique_id` of the layer.
    name : str
        Name of the layer.
    stack : PatternStack
        Its frames; loaded one at a time.
    frames : tuple of int
        Flat indices of the frames to analyse.
    layer_data : array-like, optional
        The data of the layer itself, where `stack` may hold them converted.
    """

    layer_id: str
    name: str
    stack: PatternStack
    frames: tuple[int, ...]
    layer_data: Any = None

    def same_frames(self, other: Source) -> bool:
        """Tell whether another source has the very same frames: data replaced, or pixels of other proportions, make other frames."""
        return (
            self.layer_data is other.layer_data
            and self.stack.data.shape == other.stack.data.shape
            and bool(np.allclose(self.pixel_step, other.pixel_step))
        )

    def load(self, frame: int) -> DiffractionPattern:
        """Load a frame, with square pixels.

        Raises
        ------
        UnreadableFileError
            If it is still on disk and cannot be read.
        """
        return self.stack[frame]

    def label(self, frame: int) -> str:
        """Name a frame for the table: the layer, and the frame if it has several."""
        where = self.stack.navigation_shape
        if not where:
            return self.name
        index = np.unravel_index(frame, where)
        return f"{self.name} [{', '.join(str(int(i)) for i in index)}]"

    def navigation_index(self, frame: int) -> tuple[int, ...]:
        """Return the leading coordinates of a frame in the layer."""
        where = self.stack.navigation_shape
        return tuple(int(i) for i in np.unravel_index(frame, where)) if where else ()

    @property
    def pixel_step(self) -> np.ndarray:
        """Size of a square pixel of the loaded frames along rows and columns [px of the layer], shape (2,)."""
        rows, cols = self.stack.axes[-2:]
        if not oblong(rows, cols):
            return np.ones(2)
        scales = np.abs([rows.scale, cols.scale])
        return scales.min() / scales

    def to_layer(self, rc: np.ndarray) -> np.ndarray:
        """Map positions (n, 2) in a loaded frame [px] to positions in the layer [px]."""
        # resampling keeps the outer edge of the first pixel, at -0.5
        return (np.asarray(rc, dtype=float) + 0.5) * self.pixel_step - 0.5

    def from_layer(self, position: np.ndarray) -> np.ndarray:
        """Map positions (n, 2) in the layer [px] to positions in a loaded frame [px]."""
        return (np.asarray(position, dtype=float) + 0.5) / self.pixel_step - 0.5


def source_from_layer(layer: Image, frames: tuple[int, ...] | None = None) -> Source:
    """Describe the frames of an image layer.

    Parameters
    ----------
    layer : napari.layers.Image
        Real or colour data with rows and columns as last two axes.
    frames : tuple of int, optional
        Flat indices of frames; all by default.

    Returns
    -------
    Source
        Holds the array of the layer, which is never written to.

    Raises
    ------
    ValueError
        If the layer holds no two-dimensional real data.
    """
    data = _real_data(layer)
    # napari keeps pint units; "~" gives the symbol ("1 / nm", "mrad") where str() gives words ("1 / nanometer")
    units = [normalise_unit(f"{unit:~}") for unit in layer.units]
    scale = [float(s) for s in layer.scale]
    kept = layer.metadata.get(METADATA_KEY)
    about = kept if isinstance(kept, dict) else {}
    axes = tuple(
        StackAxis(str(label), int(size), unit, step)
        for label, size, unit, step in zip(layer.axis_labels, data.shape, units, scale, strict=True)
    )
    voltage = about.get("voltage_kv")
    sizes = [to_inv_angstrom(abs(axis.scale), axis.units, voltage) for axis in axes[-2:]]
    stack = PatternStack(
        data,
        pixel_size_inv_angstrom=None if None in sizes else float(min(sizes)),
        axes=axes,
        voltage_kv=voltage,
        camera_length_mm=about.get("camera_length_mm"),
        kind=_kind(units[-2:], sizes, about.get("kind", "unknown")),
        source=str(about.get("path") or layer.name),
        title=str(about.get("title") or ""),
        notes=tuple(about.get("notes") or ()),
        stage_deg=_stage(about.get("stage_deg")),
    )
    wanted = tuple(range(len(stack))) if frames is None else frames
    return Source(str(layer.unique_id), layer.name, stack, wanted, layer.data)


def _stage(told: object) -> tuple[float, float] | None:
    """Return the tilts of the stage that the metadata of a layer give, None where they are no two numbers."""
    try:
        alpha, beta = (float(angle) for angle in told)
    except (TypeError, ValueError):
        return None
    return (alpha, beta) if np.isfinite([alpha, beta]).all() else None


def _real_data(layer: Image) -> Any:
    """Return the data of a layer as real numbers, without touching more than the array's description."""
    data = layer.data[0] if layer.multiscale else layer.data
    if data.ndim - bool(layer.rgb) < 2:
        raise ValueError(f"layer {layer.name!r} has shape {data.shape}, expected rows and columns")
    if layer.rgb or data.dtype.kind not in "uif":
        import dask.array  # napari depends on it

        # conversions wait until a frame is asked for, also for data in memory
        lazy = data if hasattr(data, "dask") else dask.array.from_array(np.asarray(data))
        data = colour_to_grey(lazy) if layer.rgb else to_real(lazy)[0]
    if data is None:
        raise ValueError(f"layer {layer.name!r} holds no numbers")
    return data


def _kind(units: list[str], sizes: list[float | None], told: str) -> PatternKind:
    if None not in sizes:
        return "diffraction"
    if all(is_real_space(unit) for unit in units):
        return "image"
    return told if told in get_args(PatternKind) else "unknown"
