"""The geometry layer on acquired patterns, against what is known about them."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import numpy as np
import pytest
from support.shared import needs_real, real_pattern

from napari_sadp.errors import PatternRefusedError
from napari_sadp.geometry.analyse import analyse_pattern
from napari_sadp.geometry.background import prepare_image
from napari_sadp.geometry.center import find_direct_beam
from napari_sadp.geometry.lattice import fit_lattice
from napari_sadp.geometry.spots import find_spots
from napari_sadp.io.rosetta import read_stacks

if TYPE_CHECKING:
    from napari_sadp.geometry.analyse import PatternGeometry
    from napari_sadp.pattern import DiffractionPattern

pytestmark = needs_real


def read(name: str, frame: int = 0) -> DiffractionPattern:
    return read_stacks(real_pattern(name))[0][frame]


def result_or_refusal(pattern: DiffractionPattern) -> PatternGeometry | PatternRefusedError:
    try:
        return analyse_pattern(pattern)
    except PatternRefusedError as error:
        return error


def refusal(name: str, frame: int = 0) -> PatternRefusedError:
    with pytest.raises(PatternRefusedError) as caught:
        analyse_pattern(read(name, frame))
    return caught.value


@pytest.mark.parametrize("frame", [0, 1])
def test_silver_011(frame):
    pattern = read("ag_sped_two_grains.hspy", frame)
    lattice = analyse_pattern(pattern).lattice
    assert lattice.ratio == pytest.approx(1.0, abs=0.03)
    assert lattice.angle_deg == pytest.approx(70.53, abs=1.5)
    # the INDEX allows 0.422 to 0.430 1/A for the shortest vector; theory 3**0.5 / 4.0862 A
    length = np.linalg.norm(lattice.g1_px) * pattern.pixel_size_inv_angstrom
    assert length == pytest.approx(0.4239, rel=0.02)
    assert lattice.n_spots >= 40


def test_nanobeam_net_and_beam():
    result = analyse_pattern(read("nanobeam_dd020.dm3"))
    assert np.linalg.norm(result.lattice.g1_px) == pytest.approx(29.9, rel=0.02)
    assert np.linalg.norm(result.lattice.g2_px) == pytest.approx(50.5, rel=0.02)
    assert result.lattice.ratio == pytest.approx(1.690, rel=0.02)
    assert result.lattice.angle_deg == pytest.approx(88.9, rel=0.02)
    # the INDEX gives "(134,101)", which is (col, row): a disc is there and none at the transposed place
    assert np.linalg.norm(result.beam.rc - [101, 134]) < 3


@pytest.mark.parametrize("frame", range(6))
def test_sped_blo_net(frame):
    lattice = analyse_pattern(read("sped_test1.blo", frame)).lattice
    assert np.linalg.norm(lattice.g1_px) == pytest.approx(20.0, rel=0.025)
    # the INDEX says 33.3 px; the rows of strong spots at -31.4, 0, 32.4 and 64.8 px from the beam say 32.2
    assert np.linalg.norm(lattice.g2_px) == pytest.approx(32.2, rel=0.02)
    assert lattice.angle_deg == pytest.approx(89.2, rel=0.02)


def test_hbn_discs():
    lattice = analyse_pattern(read("hbn_0001.png")).lattice
    assert np.linalg.norm(lattice.g1_px) == pytest.approx(50.88, rel=0.02)
    assert lattice.ratio == pytest.approx(1.0, abs=0.02)
    assert lattice.angle_deg == pytest.approx(60.5, abs=1.0)


def test_aluminium_centre_despite_title_bar():
    pattern = read("al_near111.bmp")
    assert np.linalg.norm(find_direct_beam(pattern).rc - [273, 353]) < 3
    beam = result_or_refusal(pattern).beam
    assert np.linalg.norm(beam.rc - [273, 353]) < 3


def test_glycine_centre_is_the_visible_beam():
    pattern = read("glycine_offzone.tiff")
    beam = find_direct_beam(pattern)
    # the saturated core of the beam, by its centre of area; the INDEX (234.87, 233.17) is (col, row)
    core = np.argwhere(pattern.data > 0.9 * pattern.data.max()).mean(axis=0)
    assert np.linalg.norm(beam.rc - core) < 0.5
    assert np.linalg.norm(beam.rc - [233.17, 234.87]) < 1.6
    result = result_or_refusal(pattern)
    if isinstance(result, PatternRefusedError):
        assert result.reason == "off zone"
        return
    lattice = result.lattice
    # no cubic net: 1.10 and 68.8 degrees
    assert lattice.ratio == pytest.approx(1.10, abs=0.02)
    assert np.linalg.norm(lattice.beam_rc - core) < 1.5


@pytest.mark.parametrize("name", ["au_rings.tif", "au_rings_beamstop.png", "bismuth.dm3", "bismuth.dm4"])
def test_polycrystals_are_refused(name):
    error = refusal(name)
    assert error.reason == "rings"
    assert error.beam is not None
    assert error.spots is not None


def test_amorphous_is_refused():
    assert refusal("amorphous.hspy").reason == "amorphous"


@pytest.mark.parametrize(
    ("name", "reasons"),
    [
        ("metadata/ceta_no_beam.emd", {"empty"}),
        ("metadata/JEOL-SightX-SAED-dummy.tif.gz", {"empty"}),
        ("metadata/stem_haadf_image.emd", {"image"}),
        ("metadata/128x128x5-diffraction_preview.emi", {"empty", "image"}),
        ("metadata/test_diffraction_pattern.dm3", {"empty", "too few spots"}),
    ],
)
def test_frames_without_pattern_are_refused(name, reasons, tmp_path):
    path = real_pattern(name)
    if path.suffix == ".gz":
        unpacked = tmp_path / path.stem
        unpacked.write_bytes(gzip.decompress(path.read_bytes()))
        path = unpacked
    for stack in read_stacks(path):
        with pytest.raises(PatternRefusedError) as caught:
            analyse_pattern(stack[0])
        assert caught.value.reason in reasons


@pytest.mark.parametrize("name", ["gaas_low_dose.png", "fe_bcc_kikuchi.tif", "hotspots.tif", "test.mib"])
def test_difficult_patterns_end_in_result_or_refusal(name):
    result = result_or_refusal(read(name))
    assert result.beam is not None
    assert len(result.spots) > 0
    if not isinstance(result, PatternRefusedError):
        assert result.lattice.n_spots >= 5


def test_beam_under_the_stop_from_the_lattice():
    pattern = read("ewald_walkoff.tif")
    prepared = prepare_image(pattern)
    beam = find_direct_beam(pattern, lattice=fit_lattice(find_spots(pattern)), method="lattice")
    row, col = np.round(beam.rc).astype(int)
    assert prepared.beam_stop[row, col]
    assert np.linalg.norm(beam.rc - [325, 132]) < 15


def test_hot_pixels_are_no_spots():
    pattern = read("hotspots.tif")
    prepared = prepare_image(pattern)
    spots = find_spots(pattern, prepared=prepared)
    assert prepared.hot.sum() > 300
    row, col = np.round(spots.rc).astype(int).T
    assert not prepared.hot[row, col].any()
    assert len(spots) < 20


def test_same_content_gives_the_same_result():
    first, second = refusal("bismuth.dm3"), refusal("bismuth.dm4")
    np.testing.assert_array_equal(first.spots.rc, second.spots.rc)
