"""The images of a data set, each a pure function of the configuration and its number."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_sadp.dataset.beams import BeamMaker, excitation
from napari_sadp.dataset.config import MAX_IMAGES, DatasetConfig, config_to_dict
from napari_sadp.dataset.structures import DatasetStructure, select_structures
from napari_sadp.geometry.convention import IMAGE_CONVENTION, beam_position
from napari_sadp.geometry.draw import TAIL, render_gaussians
from napari_sadp.labels.scheme import PatternScheme, build_scheme
from napari_sadp.simulation.imperfections import FrameParameters, draw_frames, draw_parameters, draw_specimen
from napari_sadp.simulation.kinematic import relrod_weight

if TYPE_CHECKING:
    from napari_sadp.labels.scheme import Zone

#: Changes whenever the same configuration would give other images or another manifest.
GENERATOR_VERSION = "2"
#: Columns of the manifest; `DatasetPlan.columns` has those of the imperfections too.
COLUMNS: tuple[str, ...] = (
    "number", "file", "index", "split", "label", "class_index", "group", "behaviour", "zone", "structure", "formula",
    "voltage_kv", "camera_length_mm", "pixel_size_inv_angstrom", "thickness_nm", "spot_sigma_px", "rotation_deg",
    "n_spots", "seed",
)  # fmt: skip
#: Columns of a manifest with imperfections, before the fields of `FrameParameters` that are not among `COLUMNS`.
_FRAME_COLUMNS: tuple[str, ...] = ("tilt_x_mrad", "tilt_y_mrad", "beam_row", "beam_col", "white")
#: Factor of the intensity by the excitation error below which a beam does not exist, as in the kinematic engine.
_NO_BEAM = 1e-12
#: Beams weaker than this, over the strongest, are left out of frames with imperfections: they drown in the noise.
_FAINTEST = 1e-6


@dataclass(frozen=True, eq=False)
class _Drawn:
    """What is drawn for one image: thickness [nm], spot size [px], rotation [deg], tilt [mrad], and what is wrong with it."""

    thickness: float
    sigma: float
    rotation: float
    tilt: tuple[float, float] = (0.0, 0.0)
    frame: FrameParameters | None = None


@dataclass(frozen=True, eq=False)
class DatasetPlan:
    """What every image number of a configuration means.

    Parameters
    ----------
    config : DatasetConfig
        The configuration.
    scheme : PatternScheme
        Classes of its groups and zones.
    structures : tuple of DatasetStructure
        Its structures.
    """

    config: DatasetConfig
    scheme: PatternScheme
    structures: tuple[DatasetStructure, ...]

    def __len__(self) -> int:
        config = self.config
        return len(self.structures) * len(config.zones) * len(config.settings) * config.repeats

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """Columns of the manifest."""
        if self.config.imperfection_ranges is None:
            return COLUMNS
        drawn = (field.name for field in fields(FrameParameters))
        return (*COLUMNS, *_FRAME_COLUMNS, *(name for name in drawn if name not in COLUMNS))

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """Labels of the classes in the order of their indices."""
        return self.scheme.labels

    @property
    def n_chunks(self) -> int:
        """Number of tasks, and of shards."""
        return -(-len(self) // self.config.shard_size)

    def chunk(self, index: int) -> range:
        """Return the image numbers of a task."""
        start = index * self.config.shard_size
        return range(start, min(start + self.config.shard_size, len(self)))

    def place(self, number: int) -> tuple[DatasetStructure, Zone, int]:
        """Return structure, zone axis, and index into ``config.settings`` of an image."""
        config = self.config
        rest, setting = divmod(number // config.repeats, len(config.settings))
        structure, zone = divmod(rest, len(config.zones))
        return self.structures[structure], config.zones[zone], setting

    def class_index(self, number: int) -> int:
        """Return the class of an image in the scheme, by symmetry."""
        structure, zone, _ = self.place(number)
        return self.scheme.index_of[structure.behaviour.name, zone]

    def file(self, number: int) -> tuple[str, int]:
        """Return the file of an image, relative to the data set, and its index in the file."""
        if self.config.format == "shards":
            shard, index = divmod(number, self.config.shard_size)
            return f"shards/{shard:06d}.npy", index
        part = "validation" if self.place(number)[0].validation else "train"
        return f"{part}/{self.labels[self.class_index(number)]}/{number:08d}.png", 0

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that the images depend on."""
        content = [
            config_to_dict(self.config),
            [(s.identifier, s.behaviour.name, s.validation, s.digest) for s in self.structures],
            [self.scheme.version, IMAGE_CONVENTION, GENERATOR_VERSION],
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @cached_property
    def g_max(self) -> float:
        """Largest |g| that any image can show [1/Å]."""
        config = self.config
        reach = np.hypot(1, 1) * (config.size / 2 + 6 * config.spot_sigma_px[1])
        ranges = config.imperfection_ranges
        if ranges is not None:
            # a beam off the centre brings far spots into the frame, distortions a little more
            reach *= 1.1 * (1 + 2 * ranges.offset[1])
        largest = min(4.0, float(reach) * max(pixel for _, _, pixel in config.settings))
        # beyond this the Ewald sphere is too far even for the thinnest crystal at the highest voltage
        g = np.linspace(0.0, largest, 2001)
        s = excitation(g**2, max(config.voltages_kv))
        thinnest = (ranges and ranges.thickness_nm) or config.thickness_nm
        tilt = 1e-3 * ranges.tilt_mrad[1] if ranges else 0.0
        seen = relrod_weight(np.minimum(s + tilt * g, 0.0), thinnest[0], config.relrod) > _NO_BEAM
        return float(g[np.flatnonzero(seen)[-1]])


@lru_cache(maxsize=4)
def plan_dataset(config: DatasetConfig) -> DatasetPlan:
    """Return the plan of a configuration.

    Parameters
    ----------
    config : DatasetConfig
        What to make.

    Returns
    -------
    DatasetPlan
        Structures and meaning of the image numbers.

    Raises
    ------
    ValueError
        If structures are missing, or there are more than `MAX_IMAGES` images.
    StructureError
        If a CIF cannot be read.
    """
    plan = DatasetPlan(config, build_scheme(config.groups, config.zones), select_structures(config))
    n_images = len(plan.structures) * len(config.zones) * len(config.settings) * config.repeats
    if not 0 < n_images <= MAX_IMAGES:
        raise ValueError(f"the configuration makes {n_images} images, expected 1 to {MAX_IMAGES}")
    return plan


class ImageMaker:
    """Makes images.

    Parameters
    ----------
    plan : DatasetPlan
        What the numbers mean.
    """

    def __init__(self, plan: DatasetPlan) -> None:
        self.plan = plan
        config = plan.config
        self.levels = 2**config.bit_depth - 1
        #: Intensity that rounds to black; spots below it are left out.
        self.faintest = (0.5 / self.levels) ** (1 / config.gamma)
        self.beams = BeamMaker(config, plan.g_max)

    def make(self, number: int) -> tuple[np.ndarray, dict[str, Any]]:
        """Make an image.

        Parameters
        ----------
        number : int
            0 to ``len(plan) - 1``.

        Returns
        -------
        image : (size, size) ndarray of uint8 or uint16
            Without imperfections: beam at ``(size - 1) / 2``, strongest diffracted beam white.
        row : dict
            Its row in the manifest, see `DatasetPlan.columns`.
        """
        config = self.plan.config
        structure, zone, setting = self.plan.place(number)
        kv, camera_length, pixel = config.settings[setting]
        drawn = self._draw_parameters(number)
        g_xy, intensity, direct_beam = self._beams(number, drawn)
        if drawn.frame is None:
            rc, height = self._visible(g_xy / pixel, intensity, drawn.sigma, np.radians(drawn.rotation))
            image, extra = self._draw(rc, height, drawn.sigma, direct_beam), {}
        else:
            rc, image, extra = self._draw_frame(g_xy / pixel, intensity, direct_beam, drawn)
        file, index = self.plan.file(number)
        label = self.plan.class_index(number)
        inside = (np.abs(rc - beam_position(config.size)) <= config.size / 2).all(axis=1)
        row = dict(zip(COLUMNS, (
            number, file, index, "validation" if structure.validation else "train", self.plan.labels[label], label,
            structure.behaviour.number, structure.behaviour.name, " ".join(map(str, zone)), structure.identifier,
            structure.formula, kv, "" if camera_length is None else camera_length, pixel, drawn.thickness, drawn.sigma,
            drawn.rotation, int(inside.sum()), f"{config.seed}:{number}",
        ), strict=True))  # fmt: skip
        return image, row | extra

    def _draw_parameters(self, number: int) -> _Drawn:
        """Draw what the number of an image fixes."""
        config = self.plan.config
        rng = np.random.default_rng(np.random.SeedSequence([config.seed, number]))
        thickness, sigma, rotation = (
            float(rng.uniform(*bounds))
            for bounds in (config.thickness_nm, config.spot_sigma_px, config.rotation_deg)
        )
        ranges = config.imperfection_ranges
        if ranges is None:
            return _Drawn(thickness, sigma, rotation)
        thickness, tilt = draw_specimen(ranges, rng, thickness)
        frame = draw_parameters(ranges, 1, rng)
        frame = replace(frame, rotation_deg=frame.rotation_deg + rotation)
        return _Drawn(thickness, sigma, float(frame.rotation_deg[0]), tilt, frame)

    def _beams(self, number: int, drawn: _Drawn) -> tuple[np.ndarray, np.ndarray, float]:
        """Return g_xy (n, 2) [1/Å], intensity (n,), and the direct beam over the strongest diffracted one."""
        config = self.plan.config
        structure, zone, setting = self.plan.place(number)
        kv = config.settings[setting][0]
        if config.engine == "kinematic":
            g_xy, intensity = self.beams.kinematic(structure, zone, kv, drawn.thickness, drawn.tilt)
            return g_xy, intensity, config.direct_beam
        thicknesses, index = (drawn.thickness,), 0
        if not any(drawn.tilt):
            same = self._same_waves(number)
            thicknesses = tuple(self._draw_parameters(other).thickness for other in same)
            index = same.index(number)
        return self.beams.dynamical(structure, zone, kv, thicknesses, index, drawn.tilt)

    def _same_waves(self, number: int) -> range:
        """Return the images that differ from one in thickness, camera length and drawn values alone."""
        config = self.plan.config
        per_voltage = config.repeats * (len(config.settings) // len(config.voltages_kv))
        start = number - number % per_voltage
        return range(start, start + per_voltage)

    def _draw_frame(
        self, xy: np.ndarray, intensity: np.ndarray, direct_beam: float, drawn: _Drawn
    ) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
        """Return (row, col) [px] of the spots, the image, and the further columns of the manifest."""
        import torch

        config, frame = self.plan.config, drawn.frame
        strongest = intensity.max(initial=0.0)
        seen = intensity > _FAINTEST * strongest
        height = intensity[seen] / strongest if strongest > 0 else np.empty(0)
        offset = np.stack([-xy[seen, 1], xy[seen, 0]], axis=1)
        frames = draw_frames(
            torch.as_tensor(offset, dtype=torch.float32)[None],
            torch.as_tensor(height, dtype=torch.float32)[None],
            torch.tensor([direct_beam], dtype=torch.float32),
            frame,
            config.size,
            spot_sigma_px=drawn.sigma,
        )
        white = 255.0 if frame.eight_bit[0] else float(frame.dose[0]) or 1.0
        relative = np.clip(frames.image[0].numpy() / np.float32(white), 0, 1) ** np.float32(config.gamma)
        image = (relative * self.levels + 0.5).astype(np.uint8 if config.bit_depth == 8 else np.uint16)
        beam = frames.beam_rc[0].tolist()
        extra = dict(zip(_FRAME_COLUMNS, (*drawn.tilt, *beam, white), strict=True))
        values = frame.row(0)
        return (
            frames.rc[0].numpy(),
            image,
            extra | {name: values[name] for name in values if name not in COLUMNS},
        )

    def _visible(
        self, xy: np.ndarray, intensity: np.ndarray, sigma: float, turn: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return (row, col) [px] and heights of the spots that leave a trace in the image, the direct beam left out."""
        strongest = intensity.max(initial=0.0)
        if strongest <= 0:
            return np.empty((0, 2)), np.empty(0)
        size = self.plan.config.size
        seen = intensity > self.faintest * strongest
        x, y = xy[seen].T
        height = intensity[seen] / strongest
        # the same turn as render.spot_positions: anticlockwise on the screen, rows downwards
        rc = np.stack([-(np.sin(turn) * x + np.cos(turn) * y), np.cos(turn) * x - np.sin(turn) * y], axis=1)
        reach = size / 2 + sigma * np.sqrt(2 * np.log(height / self.faintest))
        near = np.abs(rc).max(axis=1) <= reach
        return rc[near] + beam_position(size), height[near]

    def _draw(self, rc: np.ndarray, height: np.ndarray, sigma: float, direct_beam: float) -> np.ndarray:
        """Return the image.

        Single scattering exactly on the zone axis gives g and -g alike, so half of it is drawn and turned by 180 degrees.
        """
        config = self.plan.config
        size, centre = config.size, beam_position(config.size)
        half = (size + 1) // 2 if config.engine == "kinematic" else size
        rc = np.concatenate([rc, [(centre, centre)]])
        height = np.concatenate([height, [direct_beam]])
        near = rc[:, 0] < half + np.sqrt(-2 * TAIL) * sigma
        rc, height = rc[near].astype(np.float32), height[near].astype(np.float32)
        image = render_gaussians(rc, height, sigma, (half, size))
        np.clip(image, np.float32(1e-30), np.float32(1.0), out=image)
        if config.gamma == 0.5:
            np.sqrt(image, out=image)
        elif config.gamma != 1:
            # x ** gamma; log and exp of float32 are several times faster than its power
            np.log(image, out=image)
            image *= np.float32(config.gamma)
            np.exp(image, out=image)
        image *= np.float32(self.levels)
        image += np.float32(0.5)
        whole = np.empty((size, size), np.uint8 if config.bit_depth == 8 else np.uint16)
        whole[:half] = image
        whole[half:] = whole[: size - half][::-1, ::-1]
        return whole
