"""The network alone, on aligned images drawn from held-out structures as those of training are from theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_sadp.dataset.conversion_stream import conversion_stream
from napari_sadp.dataset.library import build_library_steps

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from napari_sadp.dataset.library import SpotLibrary
    from napari_sadp.evaluate.rows import Row
    from napari_sadp.evaluate.structures import HeldOut
    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.models.predict import Classifier

#: Range of the thickness for patterns by Bloch waves [nm], that of the default recipe.
DYNAMICAL_NM = (4.0, 80.0)
#: Seeds of evaluation images are this far from those of training and validation.
EVALUATION_SEED = 2 * 10**9
_BATCH = 64


def aligned_library(
    structures: Sequence[HeldOut], scheme: PatternScheme, seed: int, workers: int = 1
) -> Generator[tuple[int, int], None, SpotLibrary]:
    """Work out the spots of structures on all zone axes; half of the patterns of small cells are by Bloch waves.

    Parameters
    ----------
    structures : sequence of HeldOut
        Structures to draw from.
    scheme : PatternScheme
        The classes.
    seed : int
        Seed.
    workers : int
        Processes.

    Yields
    ------
    tuple of 2 int
        Structures done, and of all.

    Returns
    -------
    SpotLibrary
        For `aligned_rows`.
    """
    crystals = [(item.behaviour, item.crystal) for item in structures]
    steps = build_library_steps(crystals, scheme, dynamical_nm=DYNAMICAL_NM, seed=seed, workers=workers)
    return (yield from steps)


def aligned_rows(
    classifier: Classifier, structures: Sequence[HeldOut], library: SpotLibrary, n_patterns: int, seed: int
) -> Generator[tuple[int, int], None, list[Row]]:
    """Classify aligned images.

    Parameters
    ----------
    classifier : Classifier
        The network.
    structures : sequence of HeldOut
        Structures that the library is of.
    library : SpotLibrary
        Their spots, from `aligned_library`.
    n_patterns : int
        How many; every visible class with equal chances.
    seed : int
        Seed.

    Yields
    ------
    tuple of 2 int
        Patterns classified, and of all.

    Returns
    -------
    list of dict
        Plain values of each pattern.
    """
    scheme, card = classifier.scheme, classifier.card
    stream = conversion_stream(
        card.conversion,
        library,
        size=card.size,
        n_classes=len(scheme),
        device=classifier.device,
        seed=seed + EVALUATION_SEED,
    )
    rows: list[Row] = []
    while len(rows) < n_patterns:
        images, labels, drawn = stream.draw(min(_BATCH, n_patterns - len(rows)))
        found = classifier.predict(images[:, 0].cpu().numpy())
        for probability, label, row in zip(found.probabilities, labels.tolist(), drawn.tolist(), strict=True):
            item = structures[int(library.crystal[row])]
            best = int(np.argmax(probability))
            rows.append(
                {
                    "structure": item.key,
                    "behaviour": item.behaviour,
                    "zone": int(library.zone[row]),
                    "new_type": item.new_type,
                    "thickness_nm": float(library.thickness_nm[row]),
                    "coarse": int(library.coarse[row]),
                    "visible": label,
                    "symmetry": int(library.symmetry_label[row]),
                    "found": best,
                    "confidence": float(probability[best]),
                }
            )
        yield len(rows), n_patterns
    return rows
