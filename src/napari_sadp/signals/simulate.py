"""Simulated patterns as a HyperSpy signal."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_sadp._validate import check_zone_axis
from napari_sadp.io.write import signal_dictionary
from napari_sadp.labels.spacegroups import zone_name
from napari_sadp.signals.sad_pattern2d import SADPattern2D
from napari_sadp.simulation.imperfections import Imperfections, simulate_imperfect
from napari_sadp.simulation.zone_pattern import PatternSettings, simulate_pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_sadp.simulation.crystal import Crystal
    from napari_sadp.simulation.imperfections import ImperfectPattern
    from napari_sadp.simulation.zone_pattern import SimulatedPattern


def simulated_signal(
    crystal: Crystal,
    zones: Sequence[tuple[int, int, int]],
    settings: PatternSettings | None = None,
    *,
    imperfections: str | Imperfections = "none",
    seed: int = 0,
    **changes: Any,
) -> SADPattern2D:
    """Simulate a crystal on several zone axes.

    Parameters
    ----------
    crystal : Crystal
        What diffracts.
    zones : sequence of tuple of 3 int
        Zone axes [u, v, w], one for each frame.
    settings : PatternSettings, optional
        How; the defaults of that class otherwise.
    imperfections : {"none", "mild", "medium", "strong"} or Imperfections
        What a camera and a microscope add, see `napari_sadp.simulation.imperfections.simulate_imperfect`; the same axis given
        several times makes that many different frames.
    seed : int
        Seed of the imperfections of the first frame; the next one has the next seed.
    **changes
        Fields of `PatternSettings` that differ from `settings`: ``voltage_kv``, ``thickness_nm``, ``engine``,
        ``pixel_size_inv_angstrom``, ``camera_length_mm``, ``size`` and more.

    Returns
    -------
    SADPattern2D
        One navigation axis, none for a single zone axis; signal axes in 1/nm with 0 at the centre of the frame, which is the
        direct beam where nothing is wrong. The metadata hold beam energy [kV], camera length [mm], and under ``Sadp`` the zone
        axes, the structure, the settings, and the direct beam and imperfections of each frame.

    Raises
    ------
    ValueError
        If there is no zone axis, a value is out of range, or nothing diffracts into an image.
    StructureError
        If an element has no electron scattering factor.

    Examples
    --------
    >>> from napari_sadp.simulation.catalogue import find_structure
    >>> crystal = find_structure("Al", 225).crystal()
    >>> simulated_signal(crystal, [(0, 0, 1), (0, 1, 1)], size=128, camera_length_mm=300.0)
    <SADPattern2D, title: Al [001] [011], dimensions: (2|128, 128)>
    """
    axes = [check_zone_axis(zone) for zone in zones]
    if not axes:
        raise ValueError("zones is empty, expected at least one zone axis [u, v, w]")
    made: list[SimulatedPattern] | list[ImperfectPattern]
    if imperfections == "none":
        made = [simulate_pattern(crystal, zone, settings, **changes) for zone in axes]
        wrong = {}
    else:
        made = [
            simulate_imperfect(crystal, zone, settings, imperfections, seed=seed + number, **changes)
            for number, zone in enumerate(axes)
        ]
        wrong = {
            "imperfections": {
                f"frame {number}": item.parameters
                | {"thickness_nm": item.settings.thickness_nm, "tilt_mrad": list(item.settings.tilt_mrad)}
                for number, item in enumerate(made)
            }
        }
    used = {name: value for name, value in asdict(made[0].settings).items() if value is not None}
    about = {
        "zone_axes": [list(zone) for zone in axes],
        "structure": {"name": crystal.name, "space_group": crystal.space_group, "source": crystal.source},
        "simulation": used | {"tilt_mrad": list(used["tilt_mrad"])},
        "beam_rc": [[float(value) for value in item.beam_rc] for item in made],
        **wrong,
    }
    title = " ".join([crystal.name, *map(zone_name, axes)])
    described = signal_dictionary([item.pattern for item in made], title=title, metadata={"Sadp": about})
    return SADPattern2D(described["data"], axes=described["axes"], metadata=described["metadata"])
