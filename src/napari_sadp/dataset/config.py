"""What a data set on disk is made of: a frozen `DatasetConfig`, read from TOML, every value checked.

Units are in the names of the keys: kV, mm, um, 1/Angstrom, nm, px, degrees. Two configurations ship with the package:
``article`` reproduces the numbers of Ra et al. (2021), ``quick`` makes a small set in seconds.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_sadp._units import electron_wavelength
from napari_sadp._validate import check_option, check_range, check_zone_axis
from napari_sadp.geometry.convention import GAMMA, IMAGE_SIZE
from napari_sadp.labels.spacegroups import ARTICLE_GROUPS, CUBIC_GROUPS, CUBIC_ZONE_AXES, behaviours
from napari_sadp.simulation.imperfections import PRESETS, Imperfections, choose_imperfections
from napari_sadp.simulation.kinematic import RELRODS
from napari_sadp.simulation.zone_pattern import ENGINES

if TYPE_CHECKING:
    import os

    from napari_sadp.labels.scheme import Zone

Format = Literal["png", "shards"]
FORMATS: tuple[str, ...] = ("png", "shards")
SPLITS: tuple[str, ...] = ("formula", "seed")
#: Most images of one configuration; more are a typing error.
MAX_IMAGES = 100_000_000

_IMPERFECTIONS = "imperfections"
#: The sections of the TOML file and the keys in each; the keys are the fields of `DatasetConfig`. The section
#: ``[imperfections]`` has ``strength`` and any field of `napari_sadp.simulation.imperfections.Imperfections`.
SECTIONS: dict[str, tuple[str, ...]] = {
    "classes": ("groups", "zones"),
    "structures": ("counts", "per_group", "max_atoms", "cif_folder", "split", "validation_share"),
    "microscope": (
        "engine", "voltages_kv", "camera_lengths_mm", "camera_pixel_um", "pixel_sizes_inv_angstrom", "thickness_nm", "relrod",
    ),
    "image": (
        "size", "spot_sigma_px", "direct_beam", "rotation_deg", "repeats", "gamma", "bit_depth",
    ),
    "output": ("seed", "format", "shard_size"),
}  # fmt: skip


@dataclass(frozen=True)
class DatasetConfig:
    """All parameters of a data set; two equal configurations give the same images, byte for byte.

    Parameters
    ----------
    groups : tuple of int
        Cubic space groups, 195 to 230.
    zones : tuple of zone axes
        Zone axes [u, v, w].
    counts : tuple of (str, int, int)
        (behaviour, training structures, validation structures) from the catalogue; ``{"225" = [43, 7]}`` in TOML. Every
        behaviour of the groups, or empty: then `per_group` counts.
    per_group : int
        Structures of a group from the catalogue where `counts` is empty, shared among its behaviours and split by
        `validation_share`; 0 for none.
    max_atoms : int
        Catalogue structures with more atoms in the cell are left out.
    cif_folder : str
        Folder of CIF files to add, relative to the TOML file; empty for none.
    split : {"formula", "seed"}
        ``formula``: the fixed hash that `napari_sadp.dataset.crystals.is_formula_held_out` gives too, so that what the bundled
        network has not seen is validation here; ``seed``: a hash with the seed. Either way a formula is in one part only.
    validation_share : float
        Share of the structures for validation; with ``split = "formula"`` it is that of the hash for CIFs.
    engine : {"kinematic", "dynamical"}
        Single scattering, or Bloch waves with beams up to 2 1/Å.
    voltages_kv : tuple of float
        Accelerating voltages [kV].
    camera_lengths_mm : tuple of float
        Camera lengths [mm]; with `camera_pixel_um` they give the pixel size ``p / (wavelength L)``.
    camera_pixel_um : float
        Pixel of the camera, after binning to `size` pixels [um].
    pixel_sizes_inv_angstrom : tuple of float
        Pixel sizes [1/Å], instead of camera lengths.
    thickness_nm : tuple of 2 float
        Range of the thickness [nm], drawn uniformly; one number in TOML fixes it.
    relrod : {"gaussian", "sinc", "none"}
        See `napari_sadp.simulation.kinematic.relrod_weight`.
    size : int
        Rows and columns of an image [px].
    spot_sigma_px : tuple of 2 float
        Range of the standard deviation of the spots [px], drawn uniformly.
    direct_beam : float
        Height of the direct beam over the strongest diffracted beam; the image is clipped at the latter. 0 leaves it out.
    rotation_deg : tuple of 2 float
        Range of the anticlockwise rotation [deg], drawn uniformly.
    repeats : int
        Images for each (structure, axis, voltage, camera length), with thickness, sigma and rotation of their own.
    gamma : float
        Exponent of the intensities.
    bit_depth : {8, 16}
        Bits of a pixel.
    imperfections : {"none", "mild", "medium", "strong"}
        What the frames suffer from; ``strength`` in TOML. Intensities are then counts, white is the strongest diffracted beam
        without its background, or 255 of a frame of 8 bits; the manifest has all parameters of each frame.
    changed_imperfections : tuple of (str, value)
        Fields of `Imperfections` that differ from those of the strength; their spot size and thickness, where they have
        one, go before `spot_sigma_px` and `thickness_nm`, and rotations add.
    seed : int
        Seed of the images, of the choice of structures, and of ``split = "seed"``.
    format : {"png", "shards"}
        One PNG for each image in ``part/class/``, or arrays ``.npy`` of `shard_size` images.
    shard_size : int
        Images of a shard; for PNG those that one task makes.

    Raises
    ------
    ValueError
        If a value is wrong; the message names the key, the value and what would be right.
    """

    groups: tuple[int, ...] = ARTICLE_GROUPS
    zones: tuple[Zone, ...] = CUBIC_ZONE_AXES
    counts: tuple[tuple[str, int, int], ...] = ()
    per_group: int = 10
    max_atoms: int = 250
    cif_folder: str = ""
    split: str = "formula"
    validation_share: float = 0.15
    voltages_kv: tuple[float, ...] = (200.0,)
    camera_lengths_mm: tuple[float, ...] = (300.0,)
    camera_pixel_um: float = 100.0
    pixel_sizes_inv_angstrom: tuple[float, ...] = ()
    engine: str = "kinematic"
    thickness_nm: tuple[float, float] = (10.0, 10.0)
    relrod: str = "gaussian"
    size: int = IMAGE_SIZE
    spot_sigma_px: tuple[float, float] = (2.0, 2.0)
    direct_beam: float = 3.0
    rotation_deg: tuple[float, float] = (0.0, 30.0)
    repeats: int = 1
    gamma: float = GAMMA
    bit_depth: int = 8
    imperfections: str = "none"
    changed_imperfections: tuple[tuple[str, Any], ...] = ()
    seed: int = 0
    format: str = "png"
    shard_size: int = 640

    def __post_init__(self) -> None:
        self._check_classes()
        self._check_structures()
        self._check_microscope()
        self._check_image()
        self._check_imperfections()
        for name, low, high in (("seed", 0, 2**32 - 1), ("shard_size", 1, 100_000)):
            self._integer(name, low, high)
        check_option("format", self.format, FORMATS)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _integer(self, name: str, low: int, high: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{name} is {value!r}, expected an integer from {low} to {high}")

    def _floats(self, name: str, low: float, high: float, unit: str, *, empty: bool = False) -> None:
        """Check a list of different numbers above `low`."""
        value = getattr(self, name)
        if not isinstance(value, (list, tuple)) or not (value or empty):
            raise ValueError(f"{name} is {value!r}, expected a list of numbers in ({low:g}, {high:g}] {unit}")
        numbers = tuple(check_range(name, item, low, high, unit, low_inclusive=False) for item in value)
        if len(set(numbers)) != len(numbers):
            raise ValueError(f"{name} is {value!r}, expected each value once")
        self._set(name, numbers)

    def _pair(self, name: str, low: float, high: float, unit: str, *, low_inclusive: bool) -> None:
        """Check a range; one number is a range of no width."""
        value = getattr(self, name)
        pair = value if isinstance(value, (list, tuple)) else (value, value)
        if len(pair) != 2:
            raise ValueError(f"{name} is {value!r}, expected a number or [smallest, largest] in {unit}")
        first, last = (check_range(name, item, low, high, unit, low_inclusive=low_inclusive) for item in pair)
        if first > last:
            raise ValueError(f"{name} is {value!r}, expected [smallest, largest] in {unit}")
        self._set(name, (first, last))

    def _check_classes(self) -> None:
        groups = self.groups
        if not isinstance(groups, (list, tuple)) or not groups:
            raise ValueError(f"groups is {groups!r}, expected a list of cubic space groups, 195 to 230")
        for number in groups:
            if isinstance(number, bool) or number not in CUBIC_GROUPS:
                raise ValueError(f"groups holds {number!r}, expected cubic space groups, 195 to 230")
        zones = self.zones
        if not isinstance(zones, (list, tuple)) or not zones:
            raise ValueError(
                f"zones is {zones!r}, expected a list of zone axes such as [[0, 0, 1], [0, 1, 1]]"
            )
        axes = tuple(check_zone_axis(zone) for zone in zones)
        for name, given, found in (("groups", groups, set(groups)), ("zones", zones, set(axes))):
            if len(found) != len(given):
                raise ValueError(f"{name} is {given!r}, expected each one once")
        largest = max(abs(index) for axis in axes for index in axis)
        if largest > 12:
            raise ValueError(f"zones holds the index {largest}, expected indices from -12 to 12")
        self._set("groups", tuple(groups))
        self._set("zones", axes)

    def _check_structures(self) -> None:
        names = [item.name for number in self.groups for item in behaviours(number)]
        counts = self.counts
        if isinstance(counts, dict):
            wrong = {
                key: pair for key, pair in counts.items() if not isinstance(pair, list) or len(pair) != 2
            }
            if wrong:
                raise ValueError(f"counts holds {wrong!r}, expected [training, validation] structures")
            counts = tuple((key, *pair) for key, pair in counts.items())
        if not isinstance(counts, tuple):
            raise ValueError(f"counts is {counts!r}, expected a table such as {{225 = [43, 7]}}")
        for name, *pair in counts:
            check_option("behaviour in counts", name, names)
            for value in pair:
                if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10_000:
                    raise ValueError(f"counts of {name} is {value!r}, expected an integer from 0 to 10000")
        self._set("counts", counts)
        for name, low, high in (("per_group", 0, 10_000), ("max_atoms", 1, 10_000)):
            self._integer(name, low, high)
        if not isinstance(self.cif_folder, str):
            raise ValueError(f"cif_folder is {self.cif_folder!r}, expected a path as text")
        check_option("split", self.split, SPLITS)
        self._set("validation_share", check_range("validation_share", self.validation_share, 0, 0.9))
        if not (self.cif_folder or self.per_group or any(train + held for _, train, held in counts)):
            raise ValueError("per_group is 0, expected structures: per_group, counts or cif_folder")

    def _check_microscope(self) -> None:
        self._floats("voltages_kv", 10, 3000, "kV")
        self._floats("pixel_sizes_inv_angstrom", 0, 0.2, "1/Å", empty=True)
        if not self.pixel_sizes_inv_angstrom:
            self._floats("camera_lengths_mm", 1, 100_000, "mm")
        elif self.camera_lengths_mm:
            if tuple(self.camera_lengths_mm) != DatasetConfig.camera_lengths_mm:
                raise ValueError(
                    f"camera_lengths_mm is {self.camera_lengths_mm!r}, expected none beside pixel_sizes_inv_angstrom"
                )
            self._set("camera_lengths_mm", ())
        name = "camera_pixel_um"
        self._set(name, check_range(name, self.camera_pixel_um, 0, 10_000, "um", low_inclusive=False))
        self._pair("thickness_nm", 0, 1000, "nm", low_inclusive=False)
        check_option("relrod", self.relrod, RELRODS)
        check_option("engine", self.engine, ENGINES)

    def _check_image(self) -> None:
        self._integer("size", 16, 4096)
        self._pair("spot_sigma_px", 0, self.size / 4, "px", low_inclusive=False)
        self._set("direct_beam", check_range("direct_beam", self.direct_beam, 0, 1e6))
        self._pair("rotation_deg", -360, 360, "deg", low_inclusive=True)
        self._integer("repeats", 1, 10_000)
        self._set("gamma", check_range("gamma", self.gamma, 0.05, 2))
        check_option("bit_depth", self.bit_depth, (8, 16))
        # the corner of the widest image must lie within the tables of the scattering factors
        for kv, mm, pixel in self.settings:
            field = pixel * self.size / 2
            if not 0.05 <= field <= 4.0:
                where = f"{kv:g} kV" + (f", {mm:g} mm" if mm is not None else "")
                raise ValueError(
                    f"pixel size at {where} is {pixel:.4g} 1/Å, which makes half an image {field:.3g} 1/Å, expected 0.05 to 4"
                )

    def _check_imperfections(self) -> None:
        check_option("strength of the imperfections", self.imperfections, ("none", *PRESETS))
        changes = self.changed_imperfections
        if isinstance(changes, dict):
            changes = tuple((name, _frozen(value)) for name, value in changes.items())
        if not isinstance(changes, tuple):
            raise ValueError(
                f"changed_imperfections is {changes!r}, expected a table such as {{beam_stop = 0}}"
            )
        self._set("changed_imperfections", changes)
        _ = self.imperfection_ranges

    @cached_property
    def imperfection_ranges(self) -> Imperfections | None:
        """What may be wrong with a frame; None when nothing is."""
        if self.imperfections == "none" and not self.changed_imperfections:
            return None
        return choose_imperfections(self.imperfections, **dict(self.changed_imperfections))

    @cached_property
    def settings(self) -> tuple[tuple[float, float | None, float], ...]:
        """Every (voltage [kV], camera length [mm] or None, pixel size [1/Å]), voltages outermost."""
        if self.pixel_sizes_inv_angstrom:
            return tuple((kv, None, p) for kv in self.voltages_kv for p in self.pixel_sizes_inv_angstrom)
        um_per_mm = 1e3
        return tuple(
            (kv, mm, self.camera_pixel_um / (electron_wavelength(kv) * um_per_mm * mm))
            for kv in self.voltages_kv
            for mm in self.camera_lengths_mm
        )


def config_from_dict(content: dict[str, Any], folder: str | os.PathLike[str] = ".") -> DatasetConfig:
    """Return the configuration of parsed TOML.

    Parameters
    ----------
    content : dict
        Sections ``classes``, ``structures``, ``microscope``, ``image``, ``output``, see `SECTIONS`; what is missing has
        its default.
    folder : path-like
        Where a relative `cif_folder` starts.

    Returns
    -------
    DatasetConfig
        Checked.

    Raises
    ------
    ValueError
        If a section, key or value is unknown or wrong.
    """
    values: dict[str, Any] = {}
    for section, table in content.items():
        check_option("section of the configuration", section, (*SECTIONS, _IMPERFECTIONS))
        if not isinstance(table, dict):
            raise ValueError(f"{section} is {table!r}, expected a section [{section}]")
        if section == _IMPERFECTIONS:
            changes = dict(table)
            values["imperfections"] = changes.pop("strength", "none")
            values["changed_imperfections"] = changes
            continue
        for key, value in table.items():
            check_option(f"key in section [{section}]", key, SECTIONS[section])
            values[key] = tuple(map(_frozen, value)) if isinstance(value, list) else value
    cifs = values.get("cif_folder")
    if cifs and isinstance(cifs, str):
        values["cif_folder"] = str(Path(folder, cifs).absolute())
    return DatasetConfig(**values)


def _frozen(value: Any) -> Any:
    """Return lists within lists as tuples, so that configurations can be hashed."""
    return tuple(value) if isinstance(value, list) else value


def config_to_dict(config: DatasetConfig) -> dict[str, Any]:
    """Return plain values in the order of the fields, without the place of the CIF files."""
    return {field.name: getattr(config, field.name) for field in fields(config) if field.name != "cif_folder"}


def shipped_configs() -> tuple[str, ...]:
    """Return the names of the configurations in the package."""
    folder = files("napari_sadp").joinpath("data/configs")
    return tuple(sorted(Path(item.name).stem for item in folder.iterdir() if item.name.endswith(".toml")))


def load_config(name: str | os.PathLike[str]) -> DatasetConfig:
    """Read a configuration.

    Parameters
    ----------
    name : str or path-like
        A TOML file, or the name of a shipped configuration: ``article`` or ``quick``.

    Returns
    -------
    DatasetConfig
        Checked.

    Raises
    ------
    ValueError
        If there is no such file, it is no TOML, or a value is wrong.

    Examples
    --------
    >>> len(load_config("article").settings)
    20
    """
    path = Path(name)
    if str(name) in shipped_configs():
        text, folder = files("napari_sadp").joinpath(f"data/configs/{name}.toml").read_text("utf-8"), Path()
    else:
        try:
            text, folder = path.read_text(encoding="utf-8"), path.parent
        except (OSError, UnicodeDecodeError) as error:
            known = ", ".join(shipped_configs())
            raise ValueError(
                f"CONFIG is {str(name)!r}, expected a readable TOML file or one of {known} ({error})"
            ) from None
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{name}: not TOML ({error})") from None
    try:
        return config_from_dict(content, folder)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
