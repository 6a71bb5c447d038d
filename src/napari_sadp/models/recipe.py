"""What a training run is made of: a frozen `TrainConfig`, read from TOML, every value checked.

Recipes that ship with the package: ``default``, patterns simulated on the training device; ``rendered``, the same for measured nodes
that are drawn anew; ``article``, that of Ra et al.; and
``gpu_resnet18``, ``34``, ``50``, ``101`` and ``152`` for ten minutes on a GPU.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_sadp._validate import (
    check_file_name,
    check_integer,
    check_option,
    check_range,
    check_zone_axis,
)
from napari_sadp.dataset.crystals import SPLITS
from napari_sadp.geometry.conversions import PATTERN_CONVERSIONS
from napari_sadp.labels.spacegroups import ARTICLE_GROUPS, CUBIC_ZONE_AXES
from napari_sadp.models.architectures import ARCHITECTURES

if TYPE_CHECKING:
    import os

    from napari_sadp.labels.scheme import Zone

OPTIMISERS: tuple[str, ...] = ("adamw", "sgd")
SCHEDULES: tuple[str, ...] = ("cosine", "step")
#: Of the networks' arithmetic; the weights are always in single precision.
TRAIN_PRECISIONS: tuple[str, ...] = ("auto", "single", "half")
#: The data source that needs no files.
STREAM = "stream"
#: Initial weights that torchvision downloads.
IMAGENET = "imagenet"

#: Files of a run folder that the weights must not be called like.
_RESERVED = ("checkpoint", "best")

#: The sections of the TOML file and the keys in each; the keys are the fields of `TrainConfig`.
SECTIONS: dict[str, tuple[str, ...]] = {
    "network": ("name", "architecture", "groups", "zones", "size", "initial"),
    "data": (
        "source", "conversion", "split", "crystals_per_behaviour", "dynamical_nm", "validation_samples", "outlier_images",
    ),
    "schedule": (
        "optimiser", "learning_rate", "momentum", "weight_decay", "schedule", "step_samples", "step_factor",
        "label_smoothing", "average", "batch_size", "parts", "minutes", "samples", "precision",
    ),
    "run": ("seed", "device", "compiled", "checkpoint_minutes", "validations"),
}  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run.

    Parameters
    ----------
    name : str
        Name of the weights.
    architecture : str
        One of the five ResNets.
    groups : tuple of int
        Space groups of the scheme.
    zones : tuple of zone axes
        Zone axes of the scheme [u, v, w].
    size : int
        Image size [px]; of a data set on disk a random crop of it.
    initial : str
        Network to start from, by its name or weight file; or ``"imagenet"`` for the weights of torchvision, downloaded by it, or a file
        ``.pth`` of them; from scratch if empty.
    source : str
        ``"stream"`` for patterns simulated on the training device, or the folder of a data set.
    conversion : {"aligned", "article", "rendered"}
        What the images of a stream look like, see `napari_sadp.geometry.conversions.convert_pattern`. A data set on disk is *article*.
    split : {"formula", "type"}
        What decides whether a structure of a stream is held out, see `napari_sadp.dataset.crystals.is_held_out`.
    crystals_per_behaviour : int
        Training crystals of each extinction behaviour, of a stream.
    dynamical_nm : tuple of 2 float, optional
        Range of the thickness for patterns by Bloch waves beside the kinematic ones, of a stream [nm]; None, ``[]`` in TOML, leaves
        them out.
    validation_samples : int
        Patterns of held-out formulas; of a data set at most so many.
    outlier_images : int
        Images of the classes, and as many of none, that the outlier score is fitted on at the end of a stream; 0 for no score. *rendered*
        images hold nothing but the nodes of a lattice, which tell no second crystal, rings or noise: they get no score.
    optimiser : {"adamw", "sgd"}
        Optimiser.
    learning_rate : float
        Peak of the schedule.
    momentum : float
        Of SGD.
    weight_decay : float
        Of weights with more than one axis.
    schedule : {"cosine", "step"}
        Linear warm-up over 5 % of the budget and cosine to zero; or `step_factor` after every `step_samples` images.
    step_samples : int
        See `schedule`.
    step_factor : float
        See `schedule`.
    label_smoothing : float
        Of the cross entropy.
    average : float
        Decay of the moving average of the weights; 0 for none.
    batch_size : int
        Images per step.
    parts : int
        Parts of a batch with a batch normalisation of its own each; several processes share them.
    minutes : float
        Time budget for the steps of the optimiser, over all resumptions [min]. The spots of the crystals, validations, checkpoints and the
        outlier score come on top: `napari_sadp.models.train.TrainProgress` tells how long they take.
    samples : int, optional
        Budget in images instead of minutes; then the run depends on the seed alone.
    precision : {"auto", "single", "half"}
        ``"half"`` computes in bfloat16 where torch holds that for safe; ``"auto"`` does so on CUDA.
    seed : int
        Seed of everything.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``.
    compiled : bool
        Have torch compile the network, which needs a C++ compiler, on CUDA Triton too.
    checkpoint_minutes : float
        Time between checkpoints [min].
    validations : int
        How often the network is measured on held-out structures on the way, the last time at the end; the best one is kept.

    Raises
    ------
    ValueError
        If a value is wrong; the message names it.
    """

    name: str = "sadp_resnet18"
    architecture: str = "resnet18"
    groups: tuple[int, ...] = ARTICLE_GROUPS
    zones: tuple[Zone, ...] = CUBIC_ZONE_AXES
    size: int = 96
    initial: str = ""
    source: str = STREAM
    conversion: str = "aligned"
    split: str = "formula"
    crystals_per_behaviour: int = 120
    dynamical_nm: tuple[float, float] | None = (4.0, 80.0)
    validation_samples: int = 4000
    outlier_images: int = 3000
    optimiser: str = "adamw"
    learning_rate: float = 1.5e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    schedule: str = "cosine"
    step_samples: int = 480_000
    step_factor: float = 0.1
    label_smoothing: float = 0.0
    average: float = 0.998
    batch_size: int = 64
    parts: int = 1
    minutes: float = 40.0
    samples: int | None = None
    precision: str = "auto"
    seed: int = 0
    device: str = "auto"
    compiled: bool = False
    checkpoint_minutes: float = 2.0
    validations: int = 10

    def __post_init__(self) -> None:
        check_option("architecture", self.architecture, ARCHITECTURES)
        check_option("optimiser", self.optimiser, OPTIMISERS)
        check_option("schedule", self.schedule, SCHEDULES)
        check_option("conversion", self.conversion, PATTERN_CONVERSIONS)
        check_option("split", self.split, SPLITS)
        check_option("precision", self.precision, TRAIN_PRECISIONS)
        check_option("compiled", self.compiled, (True, False))
        self._check_names()
        self._check_numbers()
        self._check_thickness()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_names(self) -> None:
        for name in ("initial", "source", "device"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected a text")
        check_file_name("name", self.name)
        if self.name in _RESERVED or self.name.startswith("spots_"):
            raise ValueError(f"name is {self.name!r}, expected one that no file of a run folder has")
        groups = (self.groups,) if isinstance(self.groups, int) else self.groups
        if not isinstance(groups, (tuple, list)) or not groups:
            raise ValueError(f"groups is {groups!r}, expected cubic space groups, 195 to 230")
        # the same scheme whatever their order
        numbers = sorted(check_integer("groups", number, 195, 230) for number in groups)
        if len(set(numbers)) < len(numbers):
            raise ValueError(f"groups is {groups!r}, expected each one once")
        self._set("groups", tuple(numbers))
        if not isinstance(self.zones, (tuple, list)) or not self.zones:
            raise ValueError(f"zones is {self.zones!r}, expected zone axes such as [[0, 0, 1], [0, 1, 1]]")
        zones = tuple(check_zone_axis(zone) for zone in self.zones)
        if len(set(zones)) < len(zones):
            raise ValueError(f"zones is {self.zones!r}, expected each one once")
        self._set("zones", zones)

    def _check_numbers(self) -> None:
        for name, low, high in (
            ("size", 32, 1024), ("batch_size", 2, 100_000), ("parts", 1, 100_000), ("step_samples", 1, 10**12),
            ("crystals_per_behaviour", 1, 1_000_000), ("validation_samples", 2, 10**9), ("validations", 1, 10_000),
            ("outlier_images", 0, 10**7), ("seed", 0, 2**32 - 1),
        ):  # fmt: skip
            self._set(name, check_integer(name, getattr(self, name), low, high))
        if self.batch_size % self.parts or self.batch_size < 2 * self.parts:
            raise ValueError(
                f"parts is {self.parts}, expected a divisor of batch_size {self.batch_size} that leaves two images or more"
            )
        check_range("minutes", self.minutes, 0, 1e6, "min", low_inclusive=False)
        check_range("checkpoint_minutes", self.checkpoint_minutes, 0, 1e6, "min", low_inclusive=False)
        check_range("learning_rate", self.learning_rate, 0, 10, low_inclusive=False)
        for name in ("momentum", "weight_decay", "average", "step_factor"):
            check_range(name, getattr(self, name), 0, 1)
        check_range("label_smoothing", self.label_smoothing, 0, 0.9)
        if 0 < self.outlier_images < 10:
            raise ValueError(
                f"outlier_images is {self.outlier_images}, expected 0 for no score, or 10 or more"
            )
        if self.samples is not None:
            self._set("samples", check_integer("samples", self.samples, 1, 10**12))

    def _check_thickness(self) -> None:
        pair = self.dynamical_nm
        if pair is None or (isinstance(pair, (tuple, list)) and not pair):  # TOML knows no nothing
            self._set("dynamical_nm", None)
            return
        wrong = f"dynamical_nm is {pair!r}, expected two thicknesses up to 1000 nm, or none for single scattering alone"
        try:
            first, last = (
                check_range("dynamical_nm", value, 0, 1e3, "nm", low_inclusive=False) for value in pair
            )
        except (TypeError, ValueError):
            raise ValueError(wrong) from None
        if first > last:
            raise ValueError(wrong)
        self._set("dynamical_nm", (first, last))


def shipped_recipes() -> tuple[str, ...]:
    """Return the names of the recipes in the package."""
    folder = files("napari_sadp").joinpath("data/recipes")
    return tuple(sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".toml")))


def load_recipe(name: str | os.PathLike[str], /, **changes: Any) -> TrainConfig:
    """Read a recipe.

    Parameters
    ----------
    name : str or path-like
        A TOML file, or the name of a shipped recipe, see `shipped_recipes`.
    **changes
        Fields of `TrainConfig` that differ.

    Returns
    -------
    TrainConfig
        Checked.

    Raises
    ------
    ValueError
        If there is no such file, it is no TOML, or a section, key or value is wrong.

    Examples
    --------
    >>> load_recipe("article").optimiser
    'sgd'
    """
    if str(name) in shipped_recipes():
        text = files("napari_sadp").joinpath(f"data/recipes/{name}.toml").read_text("utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(shipped_recipes())
            raise ValueError(
                f"recipe is {str(name)!r}, expected a readable TOML file or one of {known} ({error})"
            ) from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name}: not TOML ({error})") from None
    values: dict[str, Any] = {}
    try:
        for section, table in content.items():
            check_option("section of the recipe", section, SECTIONS)
            if not isinstance(table, dict):
                raise ValueError(f"{section} is {table!r}, expected a section [{section}]")
            for key, value in table.items():
                check_option(f"key in section [{section}]", key, SECTIONS[section])
                values[key] = tuple(value) if isinstance(value, list) else value
        return TrainConfig(**(values | changes))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from None
