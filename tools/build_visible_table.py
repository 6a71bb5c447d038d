"""Work out what each structure of the catalogue shows on each zone axis, for the group likelihoods of the bundled scheme.

    python tools/build_visible_table.py

Takes the training formulas alone (held-out ones stay unseen), real structures before decorated ones, 60 for each extinction
behaviour; writes ``src/napari_sadp/data/visible_classes.npz``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_sadp._atomic import atomic_path
from napari_sadp.dataset.crystals import choose_crystals
from napari_sadp.dataset.library import build_library
from napari_sadp.labels.scheme import build_scheme

TARGET = Path(__file__).resolve().parents[1] / "src" / "napari_sadp" / "data" / "visible_classes.npz"
THRESHOLDS = (2e-3, 1e-2, 3e-2)


def main() -> None:
    """Build the table and write it."""
    scheme = build_scheme()
    crystals = choose_crystals(scheme, validation=False, per_behaviour=60, rng=np.random.default_rng(0))
    library = build_library(crystals, scheme, thresholds=THRESHOLDS)
    names = [name for name, _ in crystals]
    # counts of the visible classes of one crystal at one threshold over the zone axes; axes without a class stay out
    counts = np.zeros((len(crystals), len(THRESHOLDS), len(scheme)), dtype=np.uint8)
    row = np.searchsorted(THRESHOLDS, library.threshold - 1e-9)
    np.add.at(counts, (library.crystal, row, library.label), 1)
    with atomic_path(TARGET) as temporary:
        np.savez_compressed(
            temporary,
            version=scheme.version,
            counts=counts,
            behaviour=np.array(names),
            thresholds=np.array(THRESHOLDS),
        )
    print(
        f"{counts.shape} {TARGET.stat().st_size / 1024:.0f} KiB, classes seen {int((counts.sum((0, 1)) > 0).sum())}"
    )


if __name__ == "__main__":
    main()
