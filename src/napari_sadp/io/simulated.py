"""A simulated pattern into files: the image, and the list of its spots. Shared by the terminal and the viewer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_sadp.io.spots_csv import write_spots
from napari_sadp.io.write import write_patterns

if TYPE_CHECKING:
    import os

    from napari_sadp.simulation.imperfections import ImperfectPattern
    from napari_sadp.simulation.zone_pattern import SimulatedPattern


def write_simulated(
    path: str | os.PathLike[str],
    made: SimulatedPattern | ImperfectPattern,
    *,
    table: str | os.PathLike[str] | None = None,
    full_scale: float | None = 1.0,
) -> tuple[Path, Path]:
    """Write the image of a simulated pattern and the table of its spots.

    Parameters
    ----------
    path : path-like
        Image file: ``.png``, ``.tif``, ``.tiff``, ``.hspy`` or ``.emd``.
    made : SimulatedPattern or ImperfectPattern
        The pattern; what is wrong with it goes into the metadata of a hspy file.
    table : path-like, optional
        CSV of the spots: position [px], g [1/Å], intensity, h, k, l, excitation error [1/Å]; by default beside the
        image, with ``.csv``.
    full_scale : float, optional
        Intensity that becomes 255 in a png: 1, the strongest diffracted beam; None for the brightest pixel.

    Returns
    -------
    tuple of 2 Path
        The image and the table.

    Raises
    ------
    ValueError
        If the extension is another one, or the table is the image.
    OSError
        If a file cannot be written.
    """
    path = Path(path)
    table = path.with_suffix(".csv") if table is None else Path(table)
    if table.absolute() == path.absolute():
        raise ValueError(f"table is {str(table)!r}, expected another file than the image")
    spots = made.spots
    crystal = spots.crystal
    structure = {"name": crystal.name, "space_group": crystal.space_group, "source": crystal.source}
    about = {"zone_axes": [list(spots.zone)], "structure": structure}
    parameters = getattr(made, "parameters", None)
    if parameters is not None:
        about |= {"imperfections": parameters, "beam_rc": [float(x) for x in made.beam_rc]}
    write_patterns(path, [made.pattern], metadata={"Sadp": about}, full_scale=full_scale)
    indices = dict(zip("hkl", spots.hkl.T, strict=True))
    write_spots(
        table,
        made.rc,
        g_inv_angstrom=spots.g,
        intensity=spots.intensity,
        extra=indices | {"excitation_error_inv_angstrom": spots.excitation_error},
    )
    return path, table
