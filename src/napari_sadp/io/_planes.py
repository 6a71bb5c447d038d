"""tif files whose colours are planes, one behind the other, instead of being side by side in each pixel.

Such a file may be a picture in colour. Just as well it is a stack of three or four patterns: tifffile, and programs upon
it, long called any three planes of bytes red, green and blue. The planes tell: those of a picture resemble each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

_RESEMBLANCE = 0.9  # correlation of the pixels of two planes; patterns of one crystal turned a bit reach 0.8
_MAX_PIXELS = 2**16


def read_planes(path: Path) -> list[dict[str, Any]] | None:
    """Read a tif with colours in planes.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    list of dict
        Signals as RosettaSciIO gives them, with ``notes``: a picture has its colours in the last axis, a stack its planes in
        the first ones. None if no image of the file has its colours in planes.
    """
    from tifffile import TiffFile

    with TiffFile(path) as tif:
        if not any("S" in series.axes[:-1] for series in tif.series):
            return None
        return [_signal(series.asarray(), series.axes) for series in tif.series]


def _signal(data: np.ndarray, axes: str) -> dict[str, Any]:
    notes = ()
    place = axes.find("S")
    if 0 <= place < len(axes) - 1:
        planes = np.moveaxis(data, place, 0)
        if planes_are_colours(planes):
            data = np.moveaxis(data, place, -1)
        else:
            notes = (
                f"the file calls its {len(planes)} planes colours; they do not resemble each other: taken as frames",
            )
    raw = [{"name": "", "size": n, "scale": 1.0, "offset": 0.0, "units": None} for n in data.shape]
    return {"data": data, "axes": raw, "metadata": {}, "original_metadata": {}, "notes": notes}


def planes_are_colours(planes: np.ndarray) -> bool:
    """Tell whether planes are the colours of one picture.

    Parameters
    ----------
    planes : (n_planes, ..., n_rows, n_cols) ndarray
        The planes; a fourth one may be opacity.

    Returns
    -------
    bool
        True if the first three resemble each other; those that are constant do not count.
    """
    pixels = planes[:3].reshape(len(planes[:3]), -1)
    pixels = pixels[:, :: max(1, pixels.shape[1] // _MAX_PIXELS)].astype(float)
    pixels = pixels[np.ptp(pixels, axis=1) > 0]
    return len(pixels) < 2 or bool(np.corrcoef(pixels).min() >= _RESEMBLANCE)
