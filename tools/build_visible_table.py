"""Work out what each structure of the catalogue shows on each zone axis, for the group likelihoods of the bundled scheme.

    python tools/build_visible_table.py [--processes 2]

Takes the training formulas alone (held-out ones stay unseen): up to 130 real structures of each extinction behaviour, and decorated
copies where there are fewer than 64; kinematic intensities, and dynamical ones for the thicknesses of `napari_sadp.ensemble.views`.
Writes ``src/napari_sadp/data/visible_classes.npz``; some five minutes. Needed again when the scheme or the exact engine changes.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import groupby
from multiprocessing import Pool
from operator import itemgetter
from pathlib import Path

import numpy as np

from napari_sadp._atomic import atomic_path
from napari_sadp.dataset.crystals import choose_crystals
from napari_sadp.ensemble.observed import zone_intensities
from napari_sadp.ensemble.views import CONTRAST_STEP, THICKNESS_NM, THRESHOLDS, visible_views
from napari_sadp.labels.scheme import build_scheme

TARGET = Path(__file__).resolve().parents[1] / "src" / "napari_sadp" / "data" / "visible_classes.npz"
#: Real structures of a behaviour at most, and structures at least.
MOST, LEAST = 130, 64
#: Weight of a decorated copy: it stands in where few structures are known, but is made up.
DECORATED = 0.25


def is_made_up(crystal) -> bool:
    """Tell whether a crystal is a decorated copy."""
    return crystal.name.endswith("decorated")


def crystal_views(item, zones, scheme):
    """Return labels, squared lengths and contrasts of one crystal, (n_zones, n_thresholds, n_regimes, ...) each."""
    _, crystal = item
    found = [visible_views(zone_intensities(crystal, zone, THICKNESS_NM[1:]), scheme) for zone in zones]
    return tuple(
        np.array([getattr(view, name) for view in found]) for name in ("label", "square", "contrast")
    )


def main() -> None:
    """Build the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    scheme = build_scheme()
    rng = np.random.default_rng(0)
    crystals = []
    chosen = choose_crystals(scheme, validation=False, per_behaviour=MOST, rng=rng)
    for name, members in groupby(chosen, key=itemgetter(0)):
        kept = [crystal for _, crystal in members]
        real = sum(not is_made_up(crystal) for crystal in kept)
        crystals += [(name, crystal) for crystal in kept[: max(real, LEAST)]]
    with Pool(options.processes) as pool:
        views = pool.map(partial(crystal_views, zones=scheme.zones, scheme=scheme), crystals, chunksize=4)
    label, square, contrast = (np.array(part) for part in zip(*views, strict=True))
    if square.max() > np.iinfo(np.uint8).max or label.max() > np.iinfo(np.int8).max:
        raise AssertionError("a label or a length does not fit into a byte")
    made_up = np.array([is_made_up(crystal) for _, crystal in crystals])
    with atomic_path(TARGET) as temporary:
        np.savez_compressed(
            temporary,
            version=scheme.version,
            zones=np.array(scheme.zones, dtype=np.int8),
            label=label.astype(np.int8),
            square=square.astype(np.uint8),
            contrast=np.clip(np.rint(contrast / CONTRAST_STEP), -127, 127).astype(np.int8),
            behaviour=np.array([name for name, _ in crystals]),
            formula=np.array([crystal.name.removesuffix(" decorated") for _, crystal in crystals]),
            weight=np.where(made_up, DECORATED, 1.0),
            thresholds=np.array(THRESHOLDS),
            thickness_nm=np.array(THICKNESS_NM),
        )
    seen = len(np.unique(label[label >= 0]))
    print(
        f"{label.shape} {TARGET.stat().st_size / 1024:.0f} KiB, {made_up.sum()} decorated, classes seen {seen}"
    )


if __name__ == "__main__":
    main()
