"""Patterns into files that other programs read, with what is known about them; the counterpart of `rosetta`.

What each format keeps of pixel size, voltage and camera length:

======  ==========================  ==================================================
format  intensities                 metadata
======  ==========================  ==================================================
hspy    float32                     all, signal type ``sadp``; made by RosettaSciIO
emd     float32                     all, NCEM kind; made by RosettaSciIO
tif     float32                     pixel size (tags of ImageJ and DigitalMicrograph)
png     8 bit, `full_scale` is 255  none
======  ==========================  ==================================================
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp import __version__
from napari_sadp._atomic import atomic_path
from napari_sadp._validate import check_option, check_range
from napari_sadp.io._load import quiet

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from napari_sadp.pattern import DiffractionPattern

#: Extensions that `write_patterns` knows.
WRITE_EXTENSIONS: tuple[str, ...] = (".png", ".tif", ".tiff", ".hspy", ".emd")


def signal_dictionary(
    patterns: Sequence[DiffractionPattern], *, title: str = "", metadata: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Describe patterns the way RosettaSciIO and HyperSpy do.

    Parameters
    ----------
    patterns : sequence of DiffractionPattern
        Of one size, pixel size, voltage and camera length.
    title : str
        Name of the signal; the source of the first pattern by default.
    metadata : mapping, optional
        Further entries, such as ``{"Sadp": {...}}``.

    Returns
    -------
    dict
        ``data`` (rows, cols) or (n, rows, cols) of float32, ``axes`` in the order of the array, in 1/nm with 0 at the
        centre of the frame, ``metadata``, ``original_metadata``.

    Raises
    ------
    ValueError
        If there is no pattern, or they differ in what they must share.
    """
    if not patterns:
        raise ValueError("patterns is empty, expected at least one pattern")
    first = patterns[0]
    for name in ("shape", "pixel_size_inv_angstrom", "voltage_kv", "camera_length_mm"):
        values = {getattr(pattern, name) for pattern in patterns}
        if len(values) > 1:
            raise ValueError(f"patterns have several values of {name} ({values}), expected one")
    several = len(patterns) > 1
    data = np.stack([pattern.data for pattern in patterns]) if several else first.data
    microscope = {"beam_energy": first.voltage_kv, "camera_length": first.camera_length_mm}
    known = {name: float(value) for name, value in microscope.items() if value is not None}
    return {
        "data": data,
        "axes": _axes(data.shape, first.pixel_size_inv_angstrom),
        "metadata": {
            "General": {"title": title or first.source},
            "Signal": {"signal_type": "sadp"},
            **({"Acquisition_instrument": {"TEM": known}} if known else {}),
            **(metadata or {}),
        },
        "original_metadata": {},
    }


def write_patterns(
    path: str | os.PathLike[str],
    patterns: Sequence[DiffractionPattern],
    *,
    title: str = "",
    metadata: Mapping[str, Any] | None = None,
    full_scale: float | None = None,
) -> Path:
    """Write patterns into one file, by its extension.

    Parameters
    ----------
    path : path-like
        ``.png``, ``.tif``, ``.tiff``, ``.hspy`` or ``.emd``; replaced only once the new file is complete.
    patterns : sequence of DiffractionPattern
        Of one size and calibration; several become a stack, one alone in a png.
    title : str
        Name of the signal; the source of the first pattern by default.
    metadata : mapping, optional
        Further metadata, for hspy.
    full_scale : float, optional
        Intensity that becomes 255 in a png, brighter pixels with it; by default the brightest pixel.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    ValueError
        If the extension is another one, the patterns do not fit together, or `full_scale` is not positive.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from napari_sadp.samples import simulated_sample
    >>> write_patterns("al.emd", [simulated_sample("Al", 225, (0, 0, 1))])  # doctest: +SKIP
    """
    path = Path(path)
    check_extension("path", path)
    signal = signal_dictionary(patterns, title=title, metadata=metadata)
    with atomic_path(path) as temporary, quiet():
        _WRITERS[path.suffix.lower()](temporary, signal, full_scale)
    return path


def check_extension(name: str, path: str | os.PathLike[str]) -> None:
    """Raise `ValueError` unless `write_patterns` knows the extension of a path; `name` is for the message."""
    check_option(f"extension of {name} {Path(path).name!r}", Path(path).suffix.lower(), WRITE_EXTENSIONS)


def _axes(shape: tuple[int, ...], pixel_size: float | None) -> list[dict[str, Any]]:
    """Return the axes of the array in its order; 1/nm, which all readers of these formats know."""
    scale = 1.0 if pixel_size is None else 10.0 * pixel_size
    axes = [
        {
            "name": name,
            "size": size,
            "scale": scale,
            "offset": 0.0 if pixel_size is None else -scale * (size - 1) / 2,
            "units": "px" if pixel_size is None else "1/nm",
            "navigate": False,
        }
        for name, size in zip(("ky", "kx"), shape[-2:], strict=True)
    ]
    if len(shape) == 3:
        frames = {
            "name": "pattern",
            "size": shape[0],
            "scale": 1.0,
            "offset": 0.0,
            "units": "",
            "navigate": True,
        }
        axes.insert(0, frames)
    return axes


def _write_png(path: Path, signal: dict[str, Any], full_scale: float | None) -> None:
    import imageio.v3 as iio

    data = signal["data"]
    if data.ndim != 2:
        raise ValueError(f"patterns has {len(data)} patterns, expected one for a png")
    top = float(data.max()) if full_scale is None else check_range("full_scale", full_scale, 0, 1e30)
    relative = np.clip(data / top, 0, 1) if top > 0 else np.zeros_like(data)
    iio.imwrite(path, np.rint(255 * relative).astype(np.uint8), extension=".png")


def _write_tif(path: Path, signal: dict[str, Any], full_scale: float | None) -> None:
    from rsciio.tiff import file_writer

    file_writer(str(path), signal)


def _write_hspy(path: Path, signal: dict[str, Any], full_scale: float | None) -> None:
    from rsciio.hspy import file_writer

    axes = [{"_type": "UniformDataAxis", "is_binned": False, **axis} for axis in signal["axes"]]
    rest = {"tmp_parameters": {}, "learning_results": {}, "attributes": {"_lazy": False}, "models": {}}
    about = {"package_info": {"package": "napari_sadp", "package_version": __version__}}
    file_writer(str(path), signal | rest | about | {"axes": axes}, compression="gzip")


def _write_emd(path: Path, signal: dict[str, Any], full_scale: float | None) -> None:
    from rsciio.emd import file_writer

    known = signal["metadata"].get("Acquisition_instrument", {}).get("TEM", {})
    microscope: dict[str, Any] = {}
    for name, key, units in (("beam_energy", "voltage", "kV"), ("camera_length", "camera_length", "mm")):
        if name in known:
            microscope |= {key: known[name], f"{key}_units": units}
    # the title becomes the name of an HDF5 group, where a slash would open another one
    title = signal["metadata"]["General"]["title"].replace("/", "_")
    general = {"General": {"title": title}, "Signal": {"signal_type": "sadp"}}
    file_writer(str(path), signal | {"metadata": general, "original_metadata": {"microscope": microscope}})


_WRITERS = {
    ".png": _write_png,
    ".tif": _write_tif,
    ".tiff": _write_tif,
    ".hspy": _write_hspy,
    ".emd": _write_emd,
}
