"""Space groups from selected-area electron diffraction patterns.

The names below are loaded upon first use, so that importing the package loads neither torch nor napari nor hyperspy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

_PUBLIC = {
    "Crystal": "simulation.crystal",
    "DiffractionPattern": "pattern",
    "Identification": "identify",
    "PatternResult": "identify",
    "SpotLattice": "geometry.results",
    "analyse_pattern": "geometry.analyse",
    "beam_frames": "simulation.frames",
    "calibrated_lattice": "geometry.calibrated",
    "camera_constant": "geometry.calibrated",
    "build_scheme": "labels.scheme",
    "combine_results": "identify",
    "combine_signals": "signals.combine",
    "find_structure": "simulation.catalogue",
    "identify_patterns": "identify",
    "load_catalogue": "simulation.catalogue",
    "load_classifier": "models.predict",
    "load_crystal": "io.cif",
    "load_structure": "io.structures",
    "random_frames": "simulation.frames",
    "read_patterns": "io.rosetta",
    "read_stacks": "io.rosetta",
    "render_pattern": "simulation.render",
    "search_catalogue": "simulation.catalogue",
    "simulate_bloch": "simulation.bloch",
    "simulate_images": "simulation.orientations",
    "simulate_imperfect": "simulation.imperfections",
    "simulate_kinematic": "simulation.kinematic",
    "simulate_orientations": "simulation.orientations",
    "simulate_pattern": "simulation.zone_pattern",
    "simulated_signal": "signals.simulate",
    "to_training_image": "geometry.convention",
    "write_patterns": "io.write",
    "zone_frame": "simulation.frames",
}

__all__ = [
    "Crystal",
    "DiffractionPattern",
    "Identification",
    "PatternResult",
    "SpotLattice",
    "__version__",
    "analyse_pattern",
    "beam_frames",
    "build_scheme",
    "calibrated_lattice",
    "camera_constant",
    "combine_results",
    "combine_signals",
    "find_structure",
    "identify_patterns",
    "load_catalogue",
    "load_classifier",
    "load_crystal",
    "load_structure",
    "random_frames",
    "read_patterns",
    "read_stacks",
    "render_pattern",
    "search_catalogue",
    "simulate_bloch",
    "simulate_images",
    "simulate_imperfect",
    "simulate_kinematic",
    "simulate_orientations",
    "simulate_pattern",
    "simulated_signal",
    "to_training_image",
    "write_patterns",
    "zone_frame",
]

if TYPE_CHECKING:
    from napari_sadp.geometry.analyse import analyse_pattern
    from napari_sadp.geometry.calibrated import calibrated_lattice, camera_constant
    from napari_sadp.geometry.convention import to_training_image
    from napari_sadp.geometry.results import SpotLattice
    from napari_sadp.identify import Identification, PatternResult, combine_results, identify_patterns
    from napari_sadp.io.cif import load_crystal
    from napari_sadp.io.rosetta import read_patterns, read_stacks
    from napari_sadp.io.structures import load_structure
    from napari_sadp.io.write import write_patterns
    from napari_sadp.labels.scheme import build_scheme
    from napari_sadp.models.predict import load_classifier
    from napari_sadp.pattern import DiffractionPattern
    from napari_sadp.signals.combine import combine_signals
    from napari_sadp.signals.simulate import simulated_signal
    from napari_sadp.simulation.bloch import simulate_bloch
    from napari_sadp.simulation.catalogue import find_structure, load_catalogue, search_catalogue
    from napari_sadp.simulation.crystal import Crystal
    from napari_sadp.simulation.frames import beam_frames, random_frames, zone_frame
    from napari_sadp.simulation.imperfections import simulate_imperfect
    from napari_sadp.simulation.kinematic import simulate_kinematic
    from napari_sadp.simulation.orientations import simulate_images, simulate_orientations
    from napari_sadp.simulation.render import render_pattern
    from napari_sadp.simulation.zone_pattern import simulate_pattern


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"napari_sadp.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
