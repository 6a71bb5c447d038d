"""The layers of the *Simulate* widget: made once, updated in place, made again when the user removed them.

Only the GUI thread comes here. What the user sets on a layer (colours, contrast, visibility, name) stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Points
from napari.layers.base import ActionType

from napari_sadp.io.rosetta import PatternStack, StackAxis
from napari_sadp.labels.spacegroups import zone_name
from napari_sadp.napari_io import METADATA_KEY, layer_from_stack
from napari_sadp.widgets._layers import BEAM_COLOUR, INDEXED_COLOUR
from napari_sadp.widgets._simulate_labels import LINE, choose_labels, hkl_labels

if TYPE_CHECKING:
    import napari.viewer
    from napari.layers import Layer

    from napari_sadp.simulation.zone_pattern import SimulatedPattern
    from napari_sadp.widgets._simulate_work import Answer

IMAGE_NAME, SPOTS_NAME, BEAM_NAME = "simulated pattern", "simulated spots", "simulated beam"
LABEL_COLOUR = "#ffe08a"
FONT_SIZE = 10
#: Spots weaker than this part of the strongest are in the saved list, but not in the layer.
WEAKEST = 1e-5

_RING_OF_SPACING = 0.4  # diameter of the rings over the distance of neighbours ...
_RING_OF_FRAME = (0.012, 0.045)  # ... within these parts of the frame
_SMALLEST_RING = 0.35  # diameter of the weakest over the strongest


def image_placement(layer: Image) -> dict[str, Any]:
    """Return the keywords that put a two-dimensional layer on the rows and columns of an image layer."""
    leading = (0.0,) * (layer.ndim - 2)
    corner, row, col = (
        np.array(layer.data_to_world((*leading, *position)))[-2:] for position in ((0, 0), (1, 0), (0, 1))
    )
    matrix = np.column_stack([row - corner, col - corner])
    about = {
        "units": tuple(str(unit) for unit in layer.units[-2:]),
        "axis_labels": tuple(layer.axis_labels[-2:]),
    }
    if np.allclose(matrix, np.diag(np.diag(matrix)), atol=1e-9 * np.abs(matrix).max()):
        return about | {"scale": np.diag(matrix), "translate": corner, "affine": np.eye(3)}
    affine = np.eye(3)
    affine[:2, :2], affine[:2, 2] = matrix, corner
    return about | {"scale": np.ones(2), "translate": np.zeros(2), "affine": affine}


class SimulatedLayers:
    """Image, spots and beam of one widget in one viewer.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer.
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self.image: Image | None = None
        self.spots: Points | None = None
        self.beam: Points | None = None
        self._limits: dict[bool, tuple[float, float]] = {}
        self._degraded = False
        self._shown: tuple[Answer, np.ndarray, float, tuple[int, int]] | None = None

    def has(self, layer: Layer | None) -> bool:
        """Tell whether a layer is (still) in the viewer."""
        return layer is not None and layer in self._viewer.layers

    # ---- image ---------------------------------------------------------------------------------------------------

    def show_image(self, answer: Answer, gamma: float) -> bool:
        """Show the image of an answer, return whether the layer is new."""
        made = answer.made
        data, keywords, _ = layer_from_stack(_stack(made), IMAGE_NAME, _truth(answer))
        degraded = answer.request.imperfections is not None
        # 1 is the strongest diffracted beam; counts of a camera have a range of their own
        limits = keywords["contrast_limits"] if degraded else (0.0, 1.0)
        if not self.has(self.image):
            self.image = self._add(Image(data, **keywords | {"contrast_limits": limits, "gamma": gamma}))
            self._degraded = degraded
            return True
        layer = self.image
        layer.data = data
        _place(layer, {name: keywords[name] for name in ("scale", "translate")})
        layer.metadata = keywords["metadata"]
        if degraded != self._degraded:
            self._limits[self._degraded] = tuple(layer.contrast_limits)
            low, high = self._limits.get(degraded, limits)
            layer.contrast_limits_range = (min(low, limits[0]), max(high, limits[1]))
            layer.contrast_limits = (low, high)
            self._degraded = degraded
        return False

    # ---- spots ---------------------------------------------------------------------------------------------------

    def show_spots(self, answer: Answer, where: dict[str, Any], count: int) -> None:
        """Show the spots of an answer.

        Parameters
        ----------
        answer : Answer
            The spots.
        where : dict
            Placement of the image that they belong to.
        count : int
            At most so many labels.
        """
        keep = answer.spots.intensity >= WEAKEST
        rc, intensity = answer.rc[keep], answer.spots.intensity[keep]
        overlay = answer.request.overlay
        shape = overlay.shape if overlay is not None else answer.made.pattern.shape
        diameter = _ring_diameter(answer, min(shape))
        self._shown = (answer, keep, diameter, shape)
        step = self._pixel_step(overlay)
        points = (rc + 0.5) * step - 0.5
        sizes = diameter * (_SMALLEST_RING + (1 - _SMALLEST_RING) * intensity**0.25)
        features, raise_by = self._features(where, count)
        if not self.has(self.spots):
            text = {
                "string": "{label}",
                "size": FONT_SIZE,
                "color": LABEL_COLOUR,
                "translation": np.array([-raise_by, 0.0]),
            }
            self.spots = self._add(
                Points(
                    points,
                    features=features,
                    text=text,
                    size=sizes,
                    name=SPOTS_NAME,
                    metadata={METADATA_KEY: {"role": "simulated spots"}},
                    symbol="disc",
                    face_color="transparent",
                    border_color=INDEXED_COLOUR,
                    border_width=0.08,
                    **where,
                )
            )
            return
        layer = self.spots
        colours = np.array(layer.border_color[:1]), np.array(layer.face_color[:1])
        grows = len(points) > len(layer.data)
        # each of these would draw the layer anew
        with layer.events.blocker_all(), layer.text.events.blocker_all():
            layer.data = points
            layer.size = sizes
            if grows and len(colours[0]):
                # new points have the colours of the layer controls, which are those of the selected ones
                layer.border_color, layer.face_color = colours
        self._set_texts(features, raise_by)
        every = tuple(range(len(points)))
        layer.events.data(
            value=layer.data, action=ActionType.CHANGED, data_indices=every, vertex_indices=((),)
        )
        _place(layer, where)

    def relabel(self, where: dict[str, Any], count: int) -> None:
        """Choose the labels anew, as for another zoom."""
        if self._shown is None or not self.has(self.spots) or len(self.spots.data) != self._shown[1].sum():
            return
        self._set_texts(*self._features(where, count))

    def _features(self, where: dict[str, Any], count: int) -> tuple[dict[str, np.ndarray], float]:
        """Return the features of the spots, and how far above them the labels stand [px]."""
        answer, keep, diameter, _ = self._shown
        spots, rc = answer.spots, answer.rc[keep]
        texts = hkl_labels(spots.hkl[keep])
        zoom = max(float(self._viewer.scene.camera.zoom) * float(np.abs(where["scale"]).min()), 1e-6)
        chosen = choose_labels(rc, spots.intensity[keep], texts, count=count, font_size=FONT_SIZE, zoom=zoom)
        features = {
            "label": np.where(chosen, texts, ""),
            "h": spots.hkl[keep, 0],
            "k": spots.hkl[keep, 1],
            "l": spots.hkl[keep, 2],
            "g_inv_angstrom": spots.g[keep],
            "intensity": spots.intensity[keep],
            "excitation_error_inv_angstrom": spots.excitation_error[keep],
        }
        return features, 0.5 * diameter + 0.5 * LINE * FONT_SIZE / zoom

    def _set_texts(self, features: dict[str, np.ndarray], raise_by: float) -> None:
        """Set features and labels, and how far above the spots these stand [px]."""
        layer = self.spots
        # napari draws texts at once, also those of a hidden layer, whose points it does not know yet
        with layer.events.blocker_all(), layer.text.events.blocker_all():
            layer.features = features
            layer.text.translation = np.array([-raise_by, 0.0])
        layer.refresh()
        layer.events.features()

    # ---- beam of the overlay -------------------------------------------------------------------------------------

    def show_beam(self, point: np.ndarray, where: dict[str, Any], size: float) -> bool:
        """Show the beam point (row, col) [px of the layer], return whether the layer is new."""
        if not self.has(self.beam):
            self.beam = self._add(
                Points(
                    point[None],
                    name=BEAM_NAME,
                    metadata={METADATA_KEY: {"role": "simulated beam"}},
                    symbol="cross",
                    face_color=BEAM_COLOUR,
                    border_color="black",
                    border_width=0.04,
                    size=size,
                    **where,
                )
            )
            self.beam.mode = "select"  # a click and a drag move it
            return True
        if self.beam.data.shape != (1, 2) or not np.allclose(self.beam.data[0], point, atol=1e-6):
            self.beam.data = point[None]
        _place(self.beam, where)
        return False

    def remove_beam(self) -> None:
        """Take the beam point away."""
        if self.has(self.beam):
            self._viewer.layers.remove(self.beam)
        self.beam = None

    def raise_above(self, image: Image) -> None:
        """Draw spots and beam over an image layer that lies on them."""
        layers = self._viewer.layers
        for layer in (self.spots, self.beam):
            if self.has(layer) and layers.index(layer) < layers.index(image):
                layers.move(layers.index(layer), len(layers))

    # ---- parts ---------------------------------------------------------------------------------------------------

    def _add(self, layer: Layer) -> Layer:
        """Add a layer without taking the selection from others."""
        selected = set(self._viewer.layers.selection)
        added = self._viewer.add_layer(layer)
        if selected:
            self._viewer.layers.selection = selected
        return added

    def _pixel_step(self, overlay: Any) -> np.ndarray:
        return np.ones(2) if overlay is None else np.asarray(overlay.pixel_step)


def _ring_diameter(answer: Answer, side: int) -> float:
    """Return the diameter of the ring around the strongest spot [px]."""
    overlay = answer.request.overlay
    pixel = (
        answer.made.pattern.pixel_size_inv_angstrom if overlay is None else overlay.pixel_size_inv_angstrom
    )
    visible = answer.spots.g[answer.spots.intensity >= WEAKEST]
    nearest = float(visible.min()) / pixel if len(visible) else side
    low, high = _RING_OF_FRAME
    return float(np.clip(_RING_OF_SPACING * nearest, low * side, high * side))


def _place(layer: Layer, where: dict[str, Any]) -> None:
    """Set what differs, and tell the viewer once: every assignment makes it draw anew."""
    changed = {name: value for name, value in where.items() if _differs(getattr(layer, name), value)}
    *first, last = changed.items() if changed else [None]
    if last is None:
        return
    with layer.events.blocker_all():
        for name, value in first:
            setattr(layer, name, value)
    setattr(layer, *last)


def _differs(old: Any, new: Any) -> bool:
    """Tell whether an attribute of a layer is another one: transforms up to rounding, units and names exactly."""
    if isinstance(new, tuple) and new and isinstance(new[0], str):
        return tuple(str(item) for item in old) != new
    return not np.allclose(getattr(old, "affine_matrix", old), new, rtol=1e-9, atol=1e-12)


def _stack(made: SimulatedPattern) -> PatternStack:
    pattern = made.pattern
    scale = 10 * pattern.pixel_size_inv_angstrom
    axes = tuple(
        StackAxis(name, n, "1/nm", scale) for name, n in zip(("row", "col"), pattern.shape, strict=True)
    )
    return PatternStack(
        pattern.data,
        pixel_size_inv_angstrom=pattern.pixel_size_inv_angstrom,
        axes=axes,
        voltage_kv=pattern.voltage_kv,
        camera_length_mm=pattern.camera_length_mm,
        kind="diffraction",
        source=pattern.source,
        title=pattern.source,
        notes=pattern.notes,
    )


def _truth(answer: Answer) -> dict[str, Any]:
    """Return what the pattern is, as plain values for the metadata."""
    request, made = answer.request, answer.made
    crystal, settings = request.crystal, made.settings
    return {
        "formula": crystal.name,
        "space_group": f"{crystal.space_group} {crystal.space_group_symbol}",
        "structure": crystal.source,
        "zone_axes": [list(made.spots.zone)],
        "zone_name": zone_name(made.spots.zone),
        "engine": settings.engine,
        "thickness_nm": settings.thickness_nm,
        "tilt_mrad": list(settings.tilt_mrad),
        "rotation_deg": settings.rotation_deg,
        "beam_rc": [float(value) for value in made.beam_rc],
        "imperfections": request.imperfections or "none",
        "seed": request.seed,
    }
