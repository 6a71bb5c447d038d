"""Make the files of sample_data/ with the simulator, and their registry.

    python tools/make_sample_data.py

One stack: three zone axes of aluminium as a camera would record them (off centre, rotated, noisy), with calibration, beam
energy and camera length. Same version of the package, same counts.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import hyperspy.api as hs
import numpy as np

from napari_sadp.samples import SAMPLES, sample_stack
from napari_sadp.simulation.catalogue import find_structure

FOLDER = Path(__file__).resolve().parents[1] / "sample_data"
ZONES = [(0, 0, 1), (0, 1, 1), (0, 1, 3)]
NAME = "three_zone_axes.hspy"


def main() -> None:
    """Write the stack and REGISTRY.json."""
    sample = SAMPLES["al"]
    patterns = sample_stack(sample, ZONES)
    signal = hs.signals.Signal2D(np.stack([p.data for p in patterns]).astype(np.uint16))
    signal.set_signal_type("sadp")
    signal.axes_manager.navigation_axes[0].name = "pattern"
    for axis, name in zip(signal.axes_manager.signal_axes, ("kx", "ky"), strict=True):
        axis.name, axis.units = name, "1/nm"
        axis.scale = 10 * patterns[0].pixel_size_inv_angstrom
        axis.offset = -axis.scale * (axis.size - 1) / 2
    signal.metadata.set_item("General.title", "Three zone axes of one crystal, simulated")
    signal.metadata.set_item("Acquisition_instrument.TEM.beam_energy", patterns[0].voltage_kv)
    path = FOLDER / NAME
    path.unlink(missing_ok=True)
    signal.save(path, compression="gzip")
    entry = find_structure(sample.formula, sample.space_group)
    registry = {
        NAME: {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "licence": "CC0-1.0",
            "source": f"simulated by napari-sadp from {entry.source} {entry.source_id} ({entry.licence})",
            "crystal": f"{sample.formula}, space group {sample.space_group}",
            "zone_axes": ZONES,
            "voltage_kv": patterns[0].voltage_kv,
            "pixel_size_inv_angstrom": patterns[0].pixel_size_inv_angstrom,
        }
    }
    (FOLDER / "REGISTRY.json").write_text(json.dumps(registry, indent=1) + "\n", encoding="utf-8")
    print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
