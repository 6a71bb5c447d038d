"""Spot lists: columns, round trip, refusals, and no half files."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from napari_sadp.errors import UnreadableFileError
from napari_sadp.io.spots_csv import read_spots, write_spots

RC = np.array([[127.5, 127.5], [100.123456789, 140.0], [1e-7, 255.0]])


def test_round_trip(tmp_path):
    columns = {"g_inv_angstrom": [0.0, 0.5, 1.0], "intensity": [1e6, 2.5, -3.0], "snr": [50.0, 5.0, np.nan]}
    path = write_spots(
        tmp_path / "s.csv", RC, indices=[[0, 0], [1, -1], [9, 9]], indexed=[True, True, False], **columns
    )
    table = read_spots(path)
    assert list(table) == ["row_px", "col_px", "m", "n", "g_inv_angstrom", "intensity", "snr"]
    np.testing.assert_allclose(np.stack([table["row_px"], table["col_px"]], axis=1), RC, rtol=1e-9)
    np.testing.assert_array_equal(table["m"], [0, 1, np.nan])
    np.testing.assert_array_equal(table["n"], [0, -1, np.nan])
    for name, values in columns.items():
        np.testing.assert_allclose(table[name], values)


def test_what_a_spreadsheet_sees(tmp_path):
    path = write_spots(
        tmp_path / "s.csv", RC[:2], indices=[[0, 0], [1, -1]], extra={"grain": ["a,b", "c"], "run": [1, 2]}
    )
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["row_px", "col_px", "m", "n", "grain", "run"]
    assert lines[2] == ["100.1234568", "140", "1", "-1", "c", "2"]
    assert read_spots(path)["grain"].tolist() == ["a,b", "c"]


def test_empty_list(tmp_path):
    table = read_spots(write_spots(tmp_path / "s.csv", np.empty((0, 2)), snr=[]))
    assert {name: values.shape for name, values in table.items()} == {
        "row_px": (0,),
        "col_px": (0,),
        "snr": (0,),
    }
    assert list(read_spots(write_spots(tmp_path / "t.csv", []))) == ["row_px", "col_px"]


@pytest.mark.parametrize(
    "more",
    [
        {"snr": [1.0]},
        {"indices": [[0, 0]]},
        {"indices": np.zeros((3, 2)), "indexed": [True]},
        {"extra": {"row_px": [1, 2, 3]}},
        {"extra": {"x": [[1], [2], [3]]}},
    ],
)
def test_columns_that_do_not_fit(tmp_path, more):
    with pytest.raises(ValueError, match=r"expected|already"):
        write_spots(tmp_path / "s.csv", RC, **more)
    assert list(tmp_path.iterdir()) == []


def test_positions_that_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="rc has shape"):
        write_spots(tmp_path / "s.csv", np.zeros((3, 3)))


class Bad:
    def __str__(self):
        raise RuntimeError("half way")


def test_exception_in_the_middle_keeps_the_old_list(tmp_path):
    path = write_spots(tmp_path / "s.csv", RC)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="half way"):
        write_spots(path, RC, extra={"name": np.array(["a", Bad(), "c"], dtype=object)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.csv"]


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n1,2\n", "row_px,col_px\n1\n", "row_px,row_px,col_px\n1,2,3\n", "\x00\x01"],
)
def test_no_spot_list(tmp_path, text):
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(UnreadableFileError, match=r"s\.csv"):
        read_spots(path)


def test_unreadable(tmp_path):
    with pytest.raises(UnreadableFileError):
        read_spots(tmp_path / "absent.csv")
    (tmp_path / "s.csv").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UnreadableFileError):
        read_spots(tmp_path / "s.csv")


def test_byte_order_mark_and_order_of_columns(tmp_path):
    path = tmp_path / "s.csv"
    path.write_bytes("\ufeffcol_px,row_px\r\n2,1\r\n".encode())
    table = read_spots(path)
    assert (table["row_px"][0], table["col_px"][0]) == (1, 2)
