"""The part of the *Simulate* widget with zone axis, beam, camera and engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import magicgui.widgets as mw

from napari_sadp.napari_io import DISPLAY_GAMMA
from napari_sadp.simulation.imperfections import PRESETS
from napari_sadp.simulation.zone_pattern import ENGINES, PatternSettings
from napari_sadp.widgets._shared import row_of

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_IMPERFECTIONS = "none"
#: Ways to give the scale: label, field of `PatternSettings`, first value, step.
_SCALES = {
    "camera length, mm": ("camera_length_mm", 400.0, 10.0, 1),
    "pixel size, 1/Å": ("pixel_size_inv_angstrom", 0.0125, 0.0005, 6),
    "largest g, 1/Å": ("g_max_inv_angstrom", 1.5, 0.1, 3),
}
_TIPS = {
    "zone": "Zone axis u v w: the direction that points at the viewer, against the beam",
    "kv": "Accelerating voltage",
    "thickness": "Thickness of the crystal along the beam",
    "scale": "camera length: 30 mm of camera are in the frame\npixel size: in the pattern\nlargest g: just fits into the frame",
    "engine": "kinematic: single scattering with relrods and the first-order Laue zones\n"
    "dynamical: Bloch waves of the zero-order zone, in the background",
    "tilt": "Tilt of the incident beam to the right and upwards in the pattern before the rotation",
    "rotation": "Anticlockwise rotation of the pattern, also over a measured one",
    "sigma": "Standard deviation of the Gaussian spots",
    "size": "Rows and columns of the image",
    "gamma": "Exponent of the displayed intensity, also of a saved png; the data stay linear",
    "labels": "At most so many spots get their indices written; the strongest, where they do not overlap. Zoom in for more.",
    "imperfections": "What real cameras and specimens add, in one random choice for each seed",
}


class SettingsPanel:
    """Everything that says how a pattern is simulated.

    Attributes
    ----------
    widgets : list of magicgui widgets
        Rows in their order.
    """

    def __init__(self) -> None:
        self.zone = [mw.SpinBox(value=value, min=-99, max=99, tooltip=_TIPS["zone"]) for value in (0, 0, 1)]
        self.voltage = _number(200.0, 1e5, 10, 1, _TIPS["kv"])
        self.thickness = _number(10.0, 1e6, 1, 2, _TIPS["thickness"])
        self.scale_kind = mw.ComboBox(choices=list(_SCALES), tooltip=_TIPS["scale"])
        self._scales = {kind: first for kind, (_, first, _, _) in _SCALES.items()}
        self._kind = self.scale_kind.value
        self.scale = _number(self._scales[self._kind], 1e6, 10, 1, _TIPS["scale"])
        self.engine = mw.ComboBox(label="Engine", choices=list(ENGINES), tooltip=_TIPS["engine"])
        self.tilt = [_number(0.0, 1e4, 0.5, 2, _TIPS["tilt"], low=-1e4) for _ in "xy"]
        self.rotation = _number(0.0, 3600, 1, 2, _TIPS["rotation"], low=-3600)
        self.sigma = _number(2.0, 1e3, 0.25, 2, _TIPS["sigma"])
        self.size = mw.SpinBox(value=256, min=0, max=99999, step=64, tooltip=_TIPS["size"])
        self.gamma = mw.FloatSpinBox(
            value=DISPLAY_GAMMA, min=0.05, max=5.0, step=0.05, tooltip=_TIPS["gamma"]
        )
        self.labels = mw.SpinBox(value=40, min=0, max=500, step=5, tooltip=_TIPS["labels"])
        self.imperfections = mw.ComboBox(choices=[NO_IMPERFECTIONS, *PRESETS], tooltip=_TIPS["imperfections"])
        self.seed = mw.SpinBox(value=0, min=0, max=2**31 - 1, tooltip="Seed of the random choice")
        self.widgets = [
            row_of("Zone axis", *self.zone),
            row_of("Voltage kV", self.voltage, "thickness nm", self.thickness),
            row_of("Scale", self.scale_kind, self.scale),
            row_of("Engine", self.engine, "rotation °", self.rotation),
            row_of("Tilt mrad", *self.tilt),
            row_of("Size px", self.size, "spot sigma px", self.sigma),
            row_of("Gamma", self.gamma, "labels", self.labels),
            row_of("Flaws", self.imperfections, "seed", self.seed),
        ]
        self.scale_kind.changed.connect(self._kind_changed)

    def inputs(self) -> Iterator[Any]:
        """Iterate over the widgets whose change asks for a new simulation."""
        yield from (*self.zone, self.voltage, self.thickness, self.scale, self.engine, *self.tilt)
        yield from (self.rotation, self.sigma, self.size, self.imperfections, self.seed)

    def zone_axis(self) -> tuple[int, int, int]:
        """Return u, v, w as they stand there."""
        return tuple(int(index.value) for index in self.zone)

    def settings(self) -> PatternSettings:
        """Return the settings.

        Raises
        ------
        ValueError
            If a value is out of range.
        """
        field, *_ = _SCALES[self.scale_kind.value]
        return PatternSettings(
            voltage_kv=float(self.voltage.value),
            thickness_nm=float(self.thickness.value),
            engine=self.engine.value,
            size=int(self.size.value),
            tilt_mrad=(float(self.tilt[0].value), float(self.tilt[1].value)),
            spot_sigma_px=float(self.sigma.value),
            rotation_deg=float(self.rotation.value),
            **{field: float(self.scale.value)},
        )

    def preset(self) -> str | None:
        """Return the preset of the imperfections, None for a clean pattern."""
        return None if self.imperfections.value == NO_IMPERFECTIONS else self.imperfections.value

    def _kind_changed(self, kind: str) -> None:
        """Show the value that this way had; every way keeps its own."""
        self._scales[self._kind] = float(self.scale.value)
        self._kind = kind
        _, _, step, decimals = _SCALES[kind]
        with self.scale.changed.blocked():
            self.scale.native.setDecimals(decimals)
            self.scale.step = step
            self.scale.value = self._scales[kind]
        self.scale.changed.emit(self.scale.value)


def _number(
    value: float, high: float, step: float, decimals: int, tip: str, low: float = 0.0
) -> mw.FloatSpinBox:
    """Return a box for a number; its limits are wide, the simulation says what is right."""
    box = mw.FloatSpinBox(value=value, min=low, max=high, step=step, tooltip=tip)
    box.native.setDecimals(decimals)
    return box
