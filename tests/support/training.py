"""Small trainings: a few structures and axes, tiny images."""

from __future__ import annotations

from napari_sadp.models.recipe import TrainConfig

AXES = ((0, 0, 1), (0, 1, 1), (1, 1, 1), (0, 1, 2))
SMALL = {
    "groups": (225, 229),
    "zones": AXES,
    "size": 32,
    "crystals_per_behaviour": 1,
    "batch_size": 8,
    "validation_samples": 24,
    "validations": 2,
    "outlier_images": 0,
    "dynamical_nm": None,
}


def config(**changes):
    """Return the settings of a small training, with changes."""
    return TrainConfig(**(SMALL | {"samples": 32, "device": "cpu", "name": "tiny"} | changes))
