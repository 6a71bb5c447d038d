"""The part of the *Identify* widget where the user chooses how a run is made."""

from __future__ import annotations

from pathlib import Path

import magicgui.widgets as mw

from napari_sadp.ensemble.combine import RULES
from napari_sadp.models.registry import BUNDLED, list_weights
from napari_sadp.widgets._shared import follow_networks, row_of
from napari_sadp.widgets._work import MAX_KEPT_IMAGES, RunOptions

_DEVICES = ("auto", "cpu", "cuda", "mps")
_TIPS = {
    "rule": "How patterns on different zone axes are combined:\n"
    "product: the patterns are independent evidence for one crystal\n"
    "mean: the average of the single answers, as in the article",
    "min_snr": "Smallest signal to noise ratio of a spot (height over the local noise, no unit).\n"
    "Lower finds weaker spots, and more that are none.",
    "faintest": "Spots below this share of the strongest diffracted beam do not count [%].\n"
    "0: all that stand out. Double diffraction, or traces of order, may light up what tables call absent.",
    "pixel_size": "Pixel size for the spacings in this widget, where the image has none or a wrong one [1/Å];\n"
    "of oblong pixels the smaller side. 0: that of the image.",
    "network": "sadp_resnet18 sees the frame, turned and scaled by its lattice; sadp_resnet18_rendered sees the measured spots alone,\n"
    "drawn anew, which helps against unusual backgrounds. Or one of your own: `napari-sadp weights --add` takes one in.",
    "weights": "Weight file (.safetensors, with its .json card beside it) of another network.\n"
    "Empty: the network above.",
    "device": "Where the network runs; auto takes a GPU if there is one",
    "nodes": "Add a layer with all nodes of the fitted lattice: present green, absent red, not to be known grey",
    "covers": "Look for beam stops, margins and bars, and leave them out.\n"
    "Off: only what you paint in a mask is left out, where a dark part of the pattern is taken for a beam stop.",
    "left_out": "Add a layer with the pixels that did not count: behind a beam stop, bars and margins, values that are no numbers,\n"
    f"and those of your mask (up to {MAX_KEPT_IMAGES} patterns). Hot and dead pixels are repaired, and saturated ones say how\n"
    "bright they are at least: both count and are not drawn; the tooltip of a pattern in the table tells of them.",
}


class OptionsPanel:
    """Rule, limits and network of a run.

    Attributes
    ----------
    widgets : list of magicgui widgets
        Rows in their order.
    """

    def __init__(self) -> None:
        self.rule = mw.ComboBox(
            label="Combine by", choices=list(RULES), value="product", tooltip=_TIPS["rule"]
        )
        self.min_snr = mw.FloatSpinBox(
            label="Minimum S/N", value=6.0, min=1.0, max=1000.0, step=0.5, tooltip=_TIPS["min_snr"]
        )
        self.faintest = mw.FloatSpinBox(
            label="Faintest / %", value=0.0, min=0.0, max=50.0, step=0.1, tooltip=_TIPS["faintest"]
        )
        self.pixel_size = mw.FloatSpinBox(
            label="Pixel / 1/Å", value=0.0, min=0.0, max=1.0, step=1e-3, tooltip=_TIPS["pixel_size"]
        )
        self.pixel_size.native.setDecimals(6)
        self.network = mw.ComboBox(
            label="Network", choices=lambda _: list(list_weights()), value=BUNDLED, tooltip=_TIPS["network"]
        )
        follow_networks(self.network)
        self.weights = mw.FileEdit(
            label="or its file",
            mode="r",
            filter="*.safetensors",
            nullable=True,
            value=None,
            tooltip=_TIPS["weights"],
        )
        self.device = mw.ComboBox(
            label="Device", choices=list(_DEVICES), value="auto", tooltip=_TIPS["device"]
        )
        self.nodes = mw.CheckBox(text="show lattice nodes", value=False, tooltip=_TIPS["nodes"])
        self.left_out = mw.CheckBox(text="show what is left out", value=False, tooltip=_TIPS["left_out"])
        self.covers = mw.CheckBox(text="mask beam stops and bars", value=True, tooltip=_TIPS["covers"])
        self.widgets = [
            self.rule,
            self.min_snr,
            self.faintest,
            self.pixel_size,
            self.network,
            self.weights,
            self.device,
            row_of("", self.nodes, self.left_out),
            row_of("", self.covers),
        ]

    def read(self) -> RunOptions:
        """Return what is chosen now."""
        weights = self.weights.value
        return RunOptions(
            rule=self.rule.value,
            min_snr=float(self.min_snr.value),
            faintest=float(self.faintest.value) / 100,
            pixel_size=float(self.pixel_size.value),
            weights=self.network.value if weights in (None, Path()) else Path(weights),
            device=self.device.value,
            nodes=bool(self.nodes.value),
            left_out=bool(self.left_out.value),
            find_covers=bool(self.covers.value),
        )
