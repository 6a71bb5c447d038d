"""``napari-sadp catalogue``: what is listed, and a catalogue of one's own from CIFs to a simulated pattern."""

from __future__ import annotations

import json

import pytest
from support.cifs import write_cif

from napari_sadp.cli import main
from napari_sadp.simulation.catalogue import CATALOGUE_VARIABLE, load_catalogue


def listed(capsys, *arguments):
    status = main(["catalogue", "--json", *arguments])
    output = capsys.readouterr()
    return status, json.loads(output.out), output.err


@pytest.fixture
def folder(tmp_path):
    """Two good CIFs, one in a subfolder, and one without a cell."""
    cifs = tmp_path / "cifs"
    (cifs / "more").mkdir(parents=True)
    write_cif(cifs / "fluorite.cif")
    write_cif(
        cifs / "more" / "diamond.CIF", ("C1 C 0 0 0 0.5",), cell="3.57 3.57 3.57 90 90 90", group="F d -3 m:1"
    )
    write_cif(cifs / "broken.cif", cell="")
    return cifs


def test_everything_and_its_parts(capsys):
    status, everything, _ = listed(capsys)
    assert status == 0
    assert len(everything) == len(load_catalogue()) > 2000
    assert all(entry["source"] and entry["licence"] and len(entry["cell"]) == 6 for entry in everything)
    _, spinels, _ = listed(capsys, "--behaviour", "227g")
    assert spinels == [entry for entry in everything if entry["behaviour"] == "227g"]
    _, some, _ = listed(capsys, "--elements", "O, Ti", "--group", "221")
    assert 0 < len(some) < 60
    assert all(entry["space_group"] == 221 and "Ti" in entry["formula"] for entry in some)


def test_a_formula_in_any_order(capsys):
    assert listed(capsys, "--formula", "CsCl")[1] == listed(capsys, "--formula", "ClCs")[1]
    _, [silicon], _ = listed(capsys, "--formula", "Si")
    assert (silicon["space_group"], silicon["behaviour"], silicon["n_atoms"]) == (227, "227a", 8)
    assert silicon["cell"][0] == pytest.approx(5.4687, abs=1e-3)
    assert silicon["source_id"] == "mp-149"


def test_table(capsys):
    assert main(["catalogue", "--formula", "Si"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["formula", "group", "behaviour", "a", "[Å]", "atoms", "source", "id", "licence"]
    assert row.split() == ["Si", "227", "227a", "5.4687", "8", "mp-149", "CC", "BY", "4.0"]


def test_nothing_found_is_status_1(capsys):
    status, found, error = listed(capsys, "--formula", "Unobtainium")
    assert (status, found) == (1, [])
    assert "no such structure" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--group", "231"], "231"),
        (["--behaviour", "227x"], "behaviour is '227x', expected one of '227a'"),
        (["--behaviour", "cubic"], "behaviour is 'cubic'"),
        (["--elements", "Si,Qq"], "'Qq'"),
        (["--build", "somewhere"], "--build is 'somewhere', expected together with --out"),
        (["-o", "a.json.gz"], "--out is 'a.json.gz', expected together with --build"),
        (["--build", ".", "-o", "a.txt"], "--out is 'a.txt'"),
        (["--build", ".", "-o", "/nowhere/a.json.gz"], "/nowhere/a.json.gz"),
    ],
)
def test_wrong_usage_is_status_2(capsys, arguments, message):
    assert main(["catalogue", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_ones_own_from_cifs_to_a_pattern(tmp_path, capsys, folder, monkeypatch):
    own = tmp_path / "own.json.gz"
    assert main(["catalogue", "--build", str(folder), "-o", str(own), "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == {"out": str(own), "n_entries": 2, "n_failed": 1}
    [line] = output.err.splitlines()
    assert "broken.cif" in line
    assert "_cell_length_a is missing" in line

    assert listed(capsys, "--formula", "CaF2", "--group", "225")[1] == [
        entry for entry in listed(capsys)[1] if entry["formula"] == "CaF2" and entry["space_group"] == 225
    ]
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(own))
    status, found, _ = listed(capsys, "--formula", "C")
    assert status == 0
    [mine] = [entry for entry in found if entry["source"] == "CIF"]
    assert (mine["source_id"], mine["behaviour"], mine["n_atoms"]) == ("diamond", "227a", 8)
    arguments = ["simulate", "diamond", "--zone", "0", "1", "1", "--json", "-o", str(tmp_path / "a.hspy")]
    assert main(arguments) == 0
    assert json.loads(capsys.readouterr().out)["structure"]["cell"][0] == pytest.approx(3.57)


def test_building_twice_gives_the_same_bytes(tmp_path, capsys, folder):
    for name in ("a.json.gz", "b.json.gz"):
        assert main(["catalogue", "--build", str(folder), "-o", str(tmp_path / name)]) == 0
    assert "2 structures, 1 left out" in capsys.readouterr().out
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_folders_that_give_nothing_are_status_1(tmp_path, capsys, folder):
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "own.json.gz"
    assert main(["catalogue", "--build", str(empty), "-o", str(out)]) == 1
    assert "holds no .cif" in capsys.readouterr().err
    write_cif(empty / "broken.cif", cell="")
    assert main(["catalogue", "--build", str(empty), "-o", str(out)]) == 1
    assert "none of 1 CIFs" in capsys.readouterr().err
    assert not out.exists()


def test_a_catalogue_that_is_none_is_named(tmp_path, capsys, monkeypatch):
    bad = tmp_path / "bad.json.gz"
    bad.write_text("no gzip")
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(bad))
    assert main(["catalogue"]) == 1
    error = capsys.readouterr().err
    assert "bad.json.gz" in error
    assert error.count("\n") == 1
