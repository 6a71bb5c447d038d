"""The patterns of `benchmarks/geometry.py` by pyxem and libertem-blobfinder, in an environment of their own.

Run by ``benchmarks/geometry.py --peers PYTHON``: takes a folder of patterns with their truth, prints one line of JSON. The peers
are told the radius of a spot, which the package finds itself. ``pip install pyxem "libertem-blobfinder[hdbscan]"`` makes the
environment; without pyxem only libertem-blobfinder is asked.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np


def pyxem_beam(data: np.ndarray, method: str, **options: float | None) -> np.ndarray:
    """Return the direct beam (row, col) [px] by one of pyxem's methods."""
    from pyxem.signals import Diffraction2D

    found = Diffraction2D(data.astype(np.float64)).get_direct_beam_position(method=method, **options)
    shift = np.ravel(found.data)[::-1]  # pyxem gives (x, y), from the beam to the middle
    return np.array(data.shape) / 2 - shift


def blobfinder(data: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (direct beam, basis) by the peaks and the full-match lattice of libertem-blobfinder."""
    from libertem_blobfinder.common import fullmatch
    from libertem_blobfinder.common.correlation import get_peaks
    from libertem_blobfinder.common.patterns import RadialGradient

    peaks = get_peaks(sum_result=data, match_pattern=RadialGradient(radius=radius), num_peaks=25)
    beam = peaks[0]
    matches, _, _ = fullmatch.FullMatcher(min_points=5).full_match(peaks, zero=beam)
    if not matches:
        return None
    best = max(matches, key=len)
    return np.asarray(best.zero), np.stack([best.a, best.b])


def same_lattice(found: np.ndarray, true: np.ndarray) -> bool:
    """Tell whether the rows span the true lattice (or a finer true one is its multiple), within 1 % and 0.5 deg."""
    whole = np.round(found @ np.linalg.inv(true))
    if abs(round(float(np.linalg.det(whole)))) != 1:
        return False
    aim = whole @ true
    lengths = np.linalg.norm(found, axis=1), np.linalg.norm(aim, axis=1)
    cosine = (found * aim).sum(axis=1) / (lengths[0] * lengths[1])
    return bool(
        np.all(np.abs(lengths[0] / lengths[1] - 1) <= 0.01)
        and np.all(np.degrees(np.arccos(np.clip(cosine, -1, 1))) <= 0.5)
    )


def main() -> None:
    """Print the answers."""
    warnings.simplefilter("ignore")
    # what cannot be imported is no peer that fails: that ends here
    importlib.import_module("libertem_blobfinder.common.fullmatch")
    answers: dict[str, dict[str, bool]] = {}
    for path in sorted(Path(sys.argv[1]).glob("*.npz")):
        file = np.load(path)
        data, beam, basis = file["data"].astype(float), file["beam"], file["basis"]
        radius = float(max(2.0, file.get("radius", 4.0)))
        radii = {"radius_start": 2, "radius_finish": max(6, int(2 * radius))}
        # by default only phases count, those of noise as much as those of spots
        amplitudes = radii | {"normalization": None}
        tries = {
            "pyxem cross_correlate": ("cross_correlate", radii),
            "pyxem cross_correlate, normalization=None": ("cross_correlate", amplitudes),
            "pyxem blur": ("blur", {"sigma": radius}),
            "pyxem center_of_mass": ("center_of_mass", {}),
        }
        for name, (method, options) in tries.items() if find_spec("pyxem") else ():
            try:
                close = bool(np.linalg.norm(pyxem_beam(data, method, **options) - beam) < 1)
            except Exception:  # noqa: BLE001 - a peer that fails has not found the beam
                close = False
            answers.setdefault(f"{name}, beam within 1 px [%]", {})[path.stem] = close
        try:
            found = blobfinder(data, radius)
        except Exception:  # noqa: BLE001
            found = None
        answers.setdefault("libertem-blobfinder, beam within 1 px [%]", {})[path.stem] = bool(
            found is not None and np.linalg.norm(found[0] - beam) < 1
        )
        if abs(float(np.linalg.det(basis))) < 1:
            continue  # too few spots in the frame to say which lattice is right
        answers.setdefault("libertem-blobfinder full match, lattice within 1 % and 0.5 deg [%]", {})[
            path.stem
        ] = bool(found is not None and same_lattice(found[1], basis))
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
