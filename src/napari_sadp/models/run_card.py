"""The card of a run: what its network was trained on, how good it is, and what it must not be used for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp.models.sources import trained_on_record
from napari_sadp.models.weights import WeightsCard

if TYPE_CHECKING:
    from napari_sadp.labels.scheme import PatternScheme
    from napari_sadp.models.recipe import TrainConfig
    from napari_sadp.models.run import TrainingRun
    from napari_sadp.models.sources import Source

#: What held-out structures are, in words, by the split that holds them out.
_HELD_OUT = {"formula": "formulas", "type": "structure types"}


def held_out_words(split: str) -> str:
    """Return what a split holds out, in words; ``"structures"`` of a split that is not known."""
    return _HELD_OUT.get(split, "structures")


def truth_words(truth: str) -> str:
    """Return what `WeightsCard.truth` stands for, in words, plural."""
    return {"visible": "visible classes", "symmetry": "classes by symmetry"}[truth]


def card_of_run(
    run: TrainingRun,
    scheme: PatternScheme,
    source: Source,
    metrics: dict[str, Any],
    temperature: float,
    *,
    scored: bool,
) -> WeightsCard:
    """Return the card of a run that has ended.

    Parameters
    ----------
    run : TrainingRun
        The run.
    scheme : PatternScheme
        Classes.
    source : Source
        Its training images.
    metrics : dict
        What was measured.
    temperature : float
        Divides the logits.
    scored : bool
        Whether an outlier score was fitted.

    Returns
    -------
    WeightsCard
        Without the checksum.
    """
    config = run.config
    recipe = asdict(config) | {"images_seen": run.samples, "seconds": round(run.seconds)} | run.origin
    recipe["trained_on"] = trained_on_record(source, run.origin["trained_on"])
    recipe["split"] = source.trained_on.split  # a data set has its own
    return WeightsCard(
        name=config.name,
        architecture=config.architecture,
        size=config.size,
        groups=config.groups,
        zones=config.zones,
        labels=scheme.labels,
        scheme_version=scheme.version,
        conversion=source.conversion,
        temperature=temperature,
        recipe=recipe,
        metrics=metrics,
        data=_data(config, source),
        limits=_limits(config, source, scored=scored),
    )


def _data(config: TrainConfig, source: Source) -> str:
    """Return what a network was trained on, in words."""
    if source.library is None:
        return f"Images of the data set {Path(config.source).name}; its dataset.json names the structures and their licences."
    ways = "single scattering" if config.dynamical_nm is None else "single scattering and Bloch waves"
    own = ", and structures of the user's own catalogue" if source.trained_on.own else ""
    return (
        f"Patterns by {ways} of {len(np.unique(source.structure))} crystals of the package's catalogue (Materials Project, CC BY 4.0; "
        f"Crystallography Open Database, public domain), some with exchanged elements{own}; degraded as by a camera."
    )


def _limits(config: TrainConfig, source: Source, *, scored: bool) -> str:
    """Return what a network must not be used for, in words."""
    foreign = "its outlier score" if scored else "something else: it has no outlier score"
    named = {
        "visible": "It names the class that is visible, which multiple scattering may make another than that of the symmetry.",
        "symmetry": "It names the class by symmetry, also where multiple scattering or weak spots make another one visible.",
    }
    return (
        f"Space groups {', '.join(map(str, config.groups))} on {len(config.zones)} zone axes alone; what is of none of these must be told by "
        f"{foreign}. Images of {config.size} px by the conversion {source.conversion!r}, with a lattice that is right. "
        f"{named[source.truth]} Measured on {held_out_words(source.trained_on.split)} that were held out."
    )
