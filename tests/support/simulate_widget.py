"""What the tests of the *Simulate* widget do again and again."""

from __future__ import annotations

import numpy as np

from napari_sadp.simulation.catalogue import find_structure
from napari_sadp.simulation.render import render_pattern
from napari_sadp.simulation.zone_pattern import simulate_pattern

PATIENCE_MS = 30_000
BEAM, TURN, PIXEL = (118.0, 134.5), 37.0, 0.0131


def wait(qtbot, condition):
    qtbot.waitUntil(lambda: bool(condition()), timeout=PATIENCE_MS)


def settle(qtbot, widget):
    """Wait until nothing is left to do."""
    wait(
        qtbot,
        lambda: (
            not widget._change_timer.isActive() and not any(r.busy or r.stopping for r in widget._runners())
        ),
    )


def change(qtbot, widget, box, value):
    """Change one value, wait for the layers."""
    before = widget.answer
    box.value = value
    wait(qtbot, lambda: widget.answer is not before)
    settle(qtbot, widget)


def set_zone(widget, zone):
    for box, index in zip(widget.settings.zone, zone, strict=True):
        box.value = index


def direct(widget, **changes):
    """What the core says for the values in the widget."""
    return simulate_pattern(
        widget.crystal, widget.settings.zone_axis(), widget.settings.settings(), **changes
    )


def measured_pattern(zone=(0, 1, 1), *, mirror=False) -> np.ndarray:
    """Silicon as a camera sees it: turned, scaled, off the centre, with noise."""
    spots = simulate_pattern(find_structure("Si", 227).crystal(), zone, pixel_size_inv_angstrom=0.02).spots
    image = render_pattern(
        spots, size=256, pixel_size_inv_angstrom=PIXEL, rotation_deg=TURN, beam_rc=BEAM, direct_beam=4.0
    ).data
    image = image[:, ::-1] if mirror else image
    return np.random.default_rng(1).poisson(2000 * image + 10).astype(np.float32)


def add_measured(viewer, data, pixel=PIXEL, **keywords):
    calibration = {} if pixel is None else {"scale": (10 * pixel,) * 2, "units": ("1/nm", "1/nm")}
    return viewer.add_image(data, name="measured", **calibration, **keywords)


def overlay_on(qtbot, widget, layer):
    widget.overlay.layer.reset_choices()
    widget.overlay.layer.value = layer
    wait(qtbot, lambda: widget.answer.request.overlay is not None)
    settle(qtbot, widget)
