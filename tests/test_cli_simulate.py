"""``napari-sadp simulate``: what it writes is right, other commands read it, and wrong input ends in one line."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import gemmi
import numpy as np
import pytest
from support.cifs import FLUORITE, write_cif, write_giant_cif

from napari_sadp.cli import main
from napari_sadp.io.rosetta import read_patterns
from napari_sadp.io.spots_csv import read_spots
from napari_sadp.labels.scheme import build_scheme


@pytest.fixture
def cif(tmp_path):
    return write_cif(tmp_path / "fluorite.cif")


def simulate(capsys, *arguments):
    """Run the command in this process; return the parsed JSON."""
    status = main(["simulate", "--json", *map(str, arguments)])
    output = capsys.readouterr()
    assert status == 0, output.err
    return json.loads(output.out)


@pytest.mark.parametrize("zone", [(0, 0, 1), (-1, 1, 0), (1, 1, -2)])
def test_spots_agree_with_gemmi(tmp_path, capsys, cif, zone):
    options = ["--zone", *zone, "--g-max", 1.2, "--relrod", "none", "-o", tmp_path / "a.tif"]
    made = simulate(capsys, cif, *options)
    spots = read_spots(made["spots"])
    hkl = np.stack([spots[name] for name in "hkl"], axis=1).astype(int)
    # of the zero-order zone and the first ones, which the defaults of the engine take in
    order = hkl @ np.array(zone)
    assert set(order.tolist()) <= {-1, 0, 1}
    small = gemmi.read_small_structure(str(cif))
    small.change_occupancies_to_crystallographic()
    calculator = gemmi.StructureFactorCalculatorE(small.cell)
    expected = np.array(
        [abs(calculator.calculate_sf_from_small_structure(small, h)) ** 2 for h in hkl.tolist()]
    )
    zero = order == 0
    d = np.array([small.cell.calculate_d(h) for h in hkl[zero].tolist()])
    np.testing.assert_allclose(spots["g_inv_angstrom"][zero], 1 / d, rtol=1e-8)
    assert zero.sum() > 8
    # gemmi adds in single precision
    np.testing.assert_allclose(spots["intensity"], expected / expected.max(), rtol=2e-5, atol=2e-7)
    assert made["n_spots"] == len(hkl)


def test_excitation_error_and_place_follow_from_g(tmp_path, capsys, cif):
    made = simulate(
        capsys, cif, "--zone", 0, 0, 1, "--kv", 300, "--pixel-size", 0.01, "-o", tmp_path / "a.hspy"
    )
    spots = read_spots(made["spots"])
    assert (np.diff(spots["g_inv_angstrom"]) > -1e-9).all()
    # exactly on the axis s = -lambda g^2 / 2; lambda is 0.019687 Å at 300 kV
    zero = spots["l"] == 0
    np.testing.assert_allclose(
        spots["excitation_error_inv_angstrom"][zero],
        -0.5 * 0.019687 * spots["g_inv_angstrom"][zero] ** 2,
        rtol=1e-4,
    )
    distance = np.hypot(spots["row_px"] - 127.5, spots["col_px"] - 127.5)
    np.testing.assert_allclose(distance * 0.01, spots["g_inv_angstrom"], rtol=1e-6)
    # and the image is bright where the list says
    [pattern] = read_patterns(made["out"])
    strong = spots["intensity"] > 0.2
    rows, cols = (np.rint(spots[name][strong]).astype(int) for name in ("row_px", "col_px"))
    near = pattern.data[rows, cols] / spots["intensity"][strong]
    assert near.min() > 0.85  # half a pixel from the top of a Gaussian of 2 px
    assert pattern.voltage_kv == 300


@pytest.mark.parametrize("extension", ["hspy", "emd", "tif", "png"])
@pytest.mark.parametrize("zone", [(0, 1, 1), (1, 1, 1)])
def test_identify_reads_what_was_made(tmp_path, capsys, extension, zone):
    # silicon from a CIF, as a user has it
    cif = write_cif(
        tmp_path / "si.cif",
        ("Si1 Si 0.125 0.125 0.125 0.5",),
        cell="5.431 5.431 5.431 90 90 90",
        group="F d -3 m:2",
    )
    out = tmp_path / f"a.{extension}"
    options = ["--zone", *zone, "--camera-length-mm", 400, "--rotation-deg", 20, "-o", out]
    made = simulate(capsys, cif, *options)
    assert made["structure"]["space_group"] == 227
    assert main(["identify", "--json", str(out)]) == 0
    [entry] = json.loads(capsys.readouterr().out)["patterns"]
    scheme = build_scheme((213, 221, 225, 227, 229))
    assert entry["class"]["label"] == scheme.labels[scheme.index_of["227a", zone]]
    assert entry["beam_rc"] == pytest.approx([127.5, 127.5], abs=0.1)
    if extension == "png":
        assert entry["g1_inv_angstrom"] is None
        return
    g1 = np.sqrt(3) if zone == (0, 1, 1) else np.sqrt(8)
    assert entry["g1_inv_angstrom"] == pytest.approx(g1 / 5.431, rel=2e-3)
    assert entry["pixel_size_inv_angstrom"] == pytest.approx(made["pixel_size_inv_angstrom"], rel=1e-6)
    kept = (200.0, 400.0) if extension != "tif" else (None, None)
    assert (entry["voltage_kv"], entry["camera_length_mm"]) == kept


def test_two_axes_name_the_group(tmp_path, capsys):
    paths = [tmp_path / f"{k}.emd" for k in range(2)]
    for path, zone in zip(paths, [(0, 1, 1), (0, 1, 3)], strict=True):
        simulate(capsys, "Si:227", "--zone", *zone, "-o", path)
    assert main(["identify", "--json", *map(str, paths)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["space_groups"][0]["number"] == 227


def test_camera_length_gives_the_scale(tmp_path, capsys, cif):
    options = ["--zone", 0, 0, 1, "--camera-length-mm", 500, "-o", tmp_path / "a.tif"]
    made = simulate(capsys, cif, *options, "--camera-pixel-um", 120)
    # 0.120 mm / (0.025079 Å x 500 mm)
    assert made["pixel_size_inv_angstrom"] == pytest.approx(0.0095697, rel=1e-4)
    by_default = simulate(capsys, cif, *options, "--size", 500)
    assert by_default["pixel_size_inv_angstrom"] == pytest.approx(0.0095697 / 2, rel=1e-4)  # 30 mm / 500


def test_dynamical_is_another_intensity_at_the_same_places(tmp_path, capsys):
    common = ["Si:227", "--zone", 0, 1, 1, "--pixel-size", 0.0125, "--thickness-nm", 20]
    kinematic = read_spots(simulate(capsys, *common, "-o", tmp_path / "k.tif")["spots"])
    made = simulate(capsys, *common, "--dynamical", "-o", tmp_path / "d.tif")
    dynamical = read_spots(made["spots"])
    assert made["engine"] == "dynamical"

    def places(spots):
        return {
            tuple(int(spots[n][k]) for n in "hkl"): (spots["row_px"][k], spots["col_px"][k])
            for k in range(len(spots["h"]))
        }

    first, second = places(kinematic), places(dynamical)
    assert (2, 0, 0) in second
    assert (2, 0, 0) not in first  # forbidden, and filled by multiple scattering
    for hkl in first.keys() & second.keys():
        assert second[hkl] == pytest.approx(first[hkl], abs=1e-6)


def test_gamma_changes_the_image_and_not_the_list(tmp_path, capsys, cif):
    common = [cif, "--zone", 0, 0, 1, "--spots"]
    simulate(capsys, *common, tmp_path / "1.csv", "-o", tmp_path / "1.tif")
    simulate(capsys, *common, tmp_path / "2.csv", "-o", tmp_path / "2.tif", "--gamma", 0.5)
    assert (tmp_path / "1.csv").read_bytes() == (tmp_path / "2.csv").read_bytes()
    linear, root = (read_patterns(tmp_path / f"{k}.tif")[0].data for k in (1, 2))
    np.testing.assert_allclose(root, np.sqrt(linear), rtol=1e-5, atol=1e-20)


def test_rotation_turns_anticlockwise(tmp_path, capsys, cif):
    straight, turned = (
        read_patterns(
            simulate(
                capsys, cif, "--zone", 0, 1, 1, "--rotation-deg", angle, "-o", tmp_path / f"{angle}.tif"
            )["out"]
        )[0].data
        for angle in (0, 90)
    )
    np.testing.assert_allclose(turned, np.rot90(straight), atol=1e-4)


@pytest.mark.parametrize("words", [("-1e-3", "0"), ("-1E-3", "-.0"), ("-0.001", "0.")])
def test_negative_tilts_in_any_notation(tmp_path, capsys, words):
    """argparse takes -1e-3 for an option, up to Python 3.13."""
    plain, tilted = (
        simulate(capsys, "Si", "--zone", 0, 1, 1, "--tilt-mrad", *tilt, "-o", tmp_path / f"{k}.hspy")
        for k, tilt in enumerate([(0, 0), words])
    )
    assert plain["n_spots"] == tilted["n_spots"]
    s = [read_spots(made["spots"])["excitation_error_inv_angstrom"] for made in (plain, tilted)]
    assert 0 < np.abs(s[0] - s[1]).max() < 1e-5


def test_words_for_people(tmp_path, capsys):
    out = tmp_path / "al.png"
    assert main(["simulate", "Al:225", "--zone", "0", "0", "1", "-o", str(out)]) == 0
    text = capsys.readouterr().out
    assert "Al (225 Fm-3m, 4 atoms) on [001], kinematic, 200 kV" in text
    assert {path.name for path in tmp_path.iterdir()} == {"al.png", "al.csv"}


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["Si", "--zone", "0", "0", "0"], 2, "zone is [0, 0, 0]"),
        (["Si", "--zone", "0", "0", "1", "--kv", "-200"], 2, "voltage_kv is -200"),
        (["Si", "--zone", "0", "0", "1", "--thickness-nm", "0"], 2, "thickness_nm is 0"),
        (["Si", "--zone", "0", "0", "1", "--size", "-3"], 2, "size is -3"),
        (["Si", "--zone", "0", "0", "1", "--g-max", "9"], 2, "g_max_inv_angstrom is 9"),
        (["Si", "--zone", "0", "0", "1", "--relrod", "box"], 2, "relrod is 'box'"),
        (["Si", "--zone", "0", "0", "1", "--gamma", "0"], 2, "gamma is 0"),
        (["Si", "--zone", "0", "0", "1", "--camera-length-mm", "0"], 2, "camera_length_mm is 0"),
        (["Si", "--zone", "0", "0", "1", "--camera-pixel-um", "5"], 2, "camera_pixel_um is 5"),
        (["Si", "--zone", "0", "0", "1", "--spots", "/nowhere/a.csv"], 2, "--spots is '/nowhere/a.csv'"),
        (["Si:abc", "--zone", "0", "0", "1"], 2, "'Si:abc'"),
        (["Si:999", "--zone", "0", "0", "1"], 2, "999"),
        (["Si:221", "--zone", "0", "0", "1"], 1, "'Si' in space group 221"),
        (["Unobtainium", "--zone", "0", "0", "1"], 1, "'Unobtainium' is neither"),
        (["none.cif", "--zone", "0", "0", "1"], 1, "none.cif"),
    ],
)
def test_wrong_input_is_named_in_one_line(tmp_path, capsys, arguments, status, message):
    assert main(["simulate", *arguments, "-o", str(tmp_path / "a.png")]) == status
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


def test_unknown_extension(tmp_path, capsys):
    assert main(["simulate", "Si", "--zone", "0", "0", "1", "-o", str(tmp_path / "a.xyz")]) == 2
    error = capsys.readouterr().err
    assert "'.xyz'" in error
    assert "'.emd'" in error


@pytest.mark.parametrize(
    ("cell", "atoms", "message"),
    [
        ("", FLUORITE, "_cell_length_a is missing"),
        ("5 5", FLUORITE, "_cell_length_c is missing"),
        ("5 5 0 90 90 90", FLUORITE, "_cell_length_c is '0'"),
        ("5 5 5 90 90 270", FLUORITE, "_cell_angle_gamma is '270'"),
        ("5 5 5 90 90 90", ("Xx1 Xx 0 0 0 1",), "'Xx' is no chemical element"),
        ("5 5 5 90 90 90", ("Es1 Es 0 0 0 1",), "no electron scattering factor for element 'Es'"),
    ],
)
def test_unusable_cifs_are_status_1(tmp_path, capsys, cell, atoms, message):
    path = write_cif(tmp_path / "bad.cif", atoms, cell=cell)
    assert main(["simulate", str(path), "--zone", "0", "0", "1", "-o", str(tmp_path / "a.png")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_a_quarter_of_a_million_atoms_is_refused_at_once(tmp_path, capsys):
    path = write_giant_cif(tmp_path / "giant.cif", 250_000)
    started = time.monotonic()
    assert main(["simulate", str(path), "--zone", "0", "0", "1", "-o", str(tmp_path / "a.png")]) == 1
    assert time.monotonic() - started < 20
    assert "250000 atoms" in capsys.readouterr().err


def test_symmetry_that_makes_too_many_atoms_is_refused(tmp_path, capsys):
    rng = np.random.default_rng(1)
    atoms = tuple(f"Si{k} Si {x:.4f} {y:.4f} {z:.4f} 1" for k, (x, y, z) in enumerate(rng.random((150, 3))))
    path = write_cif(tmp_path / "many.cif", atoms, cell="300 300 300 90 90 90")
    assert main(["simulate", str(path), "--zone", "0", "0", "1", "-o", str(tmp_path / "a.png")]) == 1
    assert "expected at most 20000" in capsys.readouterr().err


def test_installed_command_prints_nothing_but_json(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "napari_sadp.cli", "simulate", "Al", "--zone", "-1", "1", "0", "--json", "-o", str(tmp_path / "a.hspy")],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["zone"] == [-1, 1, 0]
    assert done.stderr == ""


def test_help_names_units(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["simulate", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert all(unit in text for unit in ("1/Angstrom", "kV", "nm", "mm", "um", "mrad", "degrees", "pixels"))


@pytest.mark.parametrize("engine", [[], ["--dynamical"]])
def test_imperfections_are_seeded_and_the_list_of_spots_follows_them(tmp_path, capsys, cif, engine):
    def run(seed, name):
        options = ["--zone", 0, 0, 1, "--imperfections", "mild", "--seed", seed, "--pixel-size", 0.01]
        return simulate(capsys, cif, *options, *engine, "-o", tmp_path / name)

    one, same, other = run(4, "a.hspy"), run(4, "b.hspy"), run(5, "c.hspy")
    images = [next(iter(read_patterns(made["out"]))).data for made in (one, same, other)]
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])
    assert one["imperfections"] == same["imperfections"] != other["imperfections"]
    assert one["beam_rc"] != [127.5, 127.5]
    spots = read_spots(one["spots"])
    strong = spots["intensity"] > 0.3
    image = np.pad(images[0], 4)
    background = np.median(images[0])
    for row, col in zip(spots["row_px"][strong], spots["col_px"][strong], strict=True):
        r, c = round(row), round(col)
        assert image[r + 2 : r + 7, c + 2 : c + 7].max() > 10 * background + 100


def test_discs_and_measured_spots(tmp_path, capsys, cif):
    import imageio.v3 as iio

    common = ["--zone", 0, 0, 1, "--pixel-size", 0.01]
    disc = simulate(
        capsys, cif, *common, "--disc-radius-px", 6, "--spot-sigma-px", 1, "-o", tmp_path / "d.tif"
    )
    iio.imwrite(tmp_path / "spot.png", np.pad(np.full((9, 9), 200, np.uint8), 3))
    square = simulate(
        capsys,
        cif,
        *common,
        "--spot-profile",
        tmp_path / "spot.png",
        "--spot-sigma-px",
        0.6,
        "-o",
        tmp_path / "s.tif",
    )
    disc_image, square_image = (next(iter(read_patterns(made["out"]))).data for made in (disc, square))
    row, col = np.indices(disc_image.shape) - 127.5
    # the direct beam has three times the height of the strongest diffracted one
    assert np.allclose(disc_image[np.hypot(row, col) < 3], 3.0, atol=0.05)
    assert disc_image[(np.hypot(row, col) > 9) & (np.hypot(row, col) < 11)].max() < 0.01
    assert np.allclose(square_image[np.maximum(abs(row), abs(col)) < 3], 3.0, atol=0.05)
    assert square_image[(np.hypot(row, col) > 5) & (np.hypot(row, col) < 5.7)].max() > 0.5  # its corners


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--imperfections", "awful"], "awful"),
        (["--imperfections", "mild", "--seed", "-1"], "seed"),
        (["--disc-radius-px", "-3"], "disc_radius_px"),
        (["--disc-radius-px", "900"], "disc_radius_px"),
        (["--spot-profile", "missing.png"], "missing.png"),
    ],
)
def test_wrong_shapes_and_imperfections_end_in_one_line(tmp_path, capsys, cif, options, message):
    status = main(["simulate", str(cif), "--zone", "0", "0", "1", *options, "-o", str(tmp_path / "a.tif")])
    output = capsys.readouterr()
    assert status != 0
    assert message in output.err
    assert "Traceback" not in output.err
    assert not (tmp_path / "a.tif").exists()
