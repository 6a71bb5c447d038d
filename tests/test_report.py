"""What a person reads of measured lattices, and the remarks beside them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_sadp.geometry.grains import Leftover
from napari_sadp.identify import combine_results, identify_pattern
from napari_sadp.models.predict import load_classifier
from napari_sadp.report import format_table, remarks
from napari_sadp.report_lattice import lattice_texts, leftover_text, with_error
from napari_sadp.samples import simulated_sample


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.51703, 0.0026, "0.517(3)"),
        (90.02, 0.14, "90.02(14)"),
        (2.0, 0.0195, "2.00(2)"),
        (1234.0, 56.0, "1230(60)"),
        (41.36, 1.2, "41.4(12)"),
        (3.1, 2e-7, "3.1000"),
        (3.1, 0.0, "3.1"),
        (3.1, float("nan"), "3.1"),
    ],
)
def test_the_uncertainty_is_in_units_of_the_last_digit(value, error, text):
    assert with_error(value, error) == text


@pytest.fixture(scope="module")
def results():
    """[001] and [111] of silicon, the first calibrated."""
    square = replace(simulated_sample("Si", 227, (0, 0, 1), seed=1), pixel_size_inv_angstrom=0.0125)
    hexagon = replace(
        simulated_sample("Si", 227, (1, 1, 1), seed=1), pixel_size_inv_angstrom=None, source="111"
    )
    classifier = load_classifier(None, "cpu")
    return [identify_pattern(pattern, classifier) for pattern in (square, hexagon)]


def test_spacings_and_lattice_types_are_in_the_table(results):
    text = format_table(combine_results(results))
    d = 5.431 / np.sqrt(8)  # 220
    [spacings] = [line for line in text.splitlines() if "camera constant" in line]
    assert float(spacings.split()[1].partition("(")[0]) == pytest.approx(d, rel=0.01)
    assert "camera constant 80 px Å" in spacings
    first, second = [line.split()[1:3] for line in text.splitlines() if line.startswith("    type ")]
    assert (first[0], second[0]) == ("A", "C")
    assert "units of the last digit" in text


def test_lengths_of_a_pattern_without_calibration_are_in_pixels_alone(results):
    texts = lattice_texts(results[1])
    assert texts.d_angstrom == texts.g_inv_angstrom == ()
    g1, g2 = (float(text.partition("(")[0]) for text in texts.g_px)
    assert g1 == pytest.approx(g2, rel=0.01)
    assert "C hexagonal: 0.9" in texts.kinds


def test_hexagonal_nets_are_named_also_among_others(results):
    name = results[1].pattern.name
    assert remarks(combine_results(results))[-1].startswith(f"{name}: hexagonal and trigonal crystals")
    assert remarks(combine_results(results[1:]))[-1].startswith(f"{name}: hexagonal and trigonal crystals")
    assert not any("trigonal" in line for line in remarks(combine_results(results[:1])))


def test_spots_left_over_are_in_table_and_json(results):
    assert results[0].leftover.n_spots == 0
    assert leftover_text(results[0].leftover) == ""
    nothing = {
        "n_spots": 0,
        "share": 0.0,
        "g1_px": None,
        "g2_px": None,
        "turned_deg": None,
        "foreign_share": 0.0,
    }
    assert results[0].to_dict()["leftover"] == nothing
    grain = replace(results[0], leftover=Leftover(0.2, 12, np.array([[20.0, 0.0], [0.0, 30.0]]), -20.0))
    assert "12 spots on no node, 20 % of the amplitude" in format_table(combine_results([grain]))
    assert "a second lattice, |g1| 20.0 px, |g2| 30.0 px" in leftover_text(grain.leftover)
    assert grain.to_dict()["leftover"]["g2_px"] == [0.0, 30.0]
    assert "no second lattice" in leftover_text(Leftover(0.1, 3))
    turned = Leftover(0.2, 12, turned_deg=31.24, foreign_share=0.0)
    assert leftover_text(turned).endswith(
        "a second grain of the same crystal, turned by 31.2 deg, leaves 0 % over"
    )
    assert replace(results[0], leftover=turned).to_dict()["leftover"]["turned_deg"] == 31.24
