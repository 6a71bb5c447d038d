"""``napari-sadp classes`` and the sheet of thumbnails."""

from __future__ import annotations

import json
from collections import Counter
from itertools import product
from math import gcd

import pytest

from napari_sadp.cli import main
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.labels.spacegroups import CUBIC_GROUPS, zone_name
from napari_sadp.report_classes import behaviour_names, format_classes, plot_classes, thumbnail_radius


def listed(capsys, *arguments):
    assert main(["classes", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_json_of_the_article_s_groups(capsys):
    found = listed(capsys)
    assert len(found) == 60
    assert Counter(item["type"] for item in found) == {"A": 2, "B": 30, "C": 1, "D": 27}
    assert {frozenset(item) for item in found} == {frozenset({"label", "type", "angles_deg", "members"})}
    assert [len(item["angles_deg"]) for item in found if item["type"] in "AC"] == [0, 0, 0]
    by_label = {item["label"]: item for item in found}
    assert by_label["A1-1"]["members"] == [{"group": "213", "zone": [0, 0, 1]}]
    assert by_label["D4-3"]["members"] == [{"group": "227a", "zone": [0, 1, 1]}]
    assert by_label["D4-3"]["angles_deg"] == pytest.approx([70.529, 54.736], abs=1e-3)
    assert by_label["B14-0"]["angles_deg"] == pytest.approx([35.264], abs=1e-3)
    assert sum(len(item["members"]) for item in found) == 112


@pytest.mark.parametrize(("radius", "count"), [("2", 46), ("3", 54), ("4", 57), ("6", 59), ("7", 60)])
def test_field_of_view(capsys, radius, count):
    assert len(listed(capsys, "--field-of-view", radius)) == count


def test_chirality_and_lists_of_groups(capsys):
    assert len(listed(capsys, "--chirality")) == 61
    found = listed(capsys, "--groups", "229,221,229")
    assert {member["group"] for item in found for member in item["members"]} == {"221", "229"}
    assert listed(capsys, "--groups", "221,229") == found


def test_axes_of_one_s_own(capsys):
    found = listed(capsys, "--groups", "225,229", "--zones", "001,1 -1 0,002")
    assert [member for item in found for member in item["members"] if member["group"] == "225"] == [
        {"group": "225", "zone": [0, 0, 1]},
        {"group": "225", "zone": [1, -1, 0]},
    ]


def test_groups_and_axes_that_do_not_exist_are_named_and_the_rest_answered(capsys):
    assert main(["classes", "--json", "--groups", "231,225,62", "--zones", "001,000,xyz,0 1"]) == 0
    output = capsys.readouterr()
    assert [item["members"] for item in json.loads(output.out)] == [[{"group": "225", "zone": [0, 0, 1]}]]
    for words in (
        "space group 231 does not exist, expected 195 to 230; it is left out",
        "space group 62 is Pnma, not cubic, expected 195 to 230; it is left out",
        "'000' is no zone axis",
        "'xyz' is no zone axis",
        "'0 1' is no zone axis, expected three whole numbers, not all zero, such as 013 or '1 -1 0'; it is left out",
    ):
        assert words in output.err


def test_all_cubic_groups_and_where_132_classes_become_143(capsys):
    """One general behaviour a group gives 132 classes; 227a and 227b bring the 11 that no general conditions give."""
    whole = listed(capsys, "--groups", "cubic", "--field-of-view", "6")
    assert len(whole) == len(listed(capsys, "--groups", "cubic")) == 132
    assert len({member["group"] for item in whole for member in item["members"]}) == 36
    found = listed(capsys, "--groups", "cubic", "--no-general", "--field-of-view", "6")
    assert len(found) == 143
    names = [{member["group"] for member in item["members"]} for item in found]
    assert sum(members <= {"227a", "227b"} for members in names) == 11
    assert sum(bool(members - {"227a", "227b"}) for members in names) == 132


def test_all_cubic_groups_on_30_axes_are_cached():
    axes = {tuple(sorted(axis)) for axis in product(range(8), repeat=3) if gcd(*axis) == 1}
    axes = tuple(sorted(axes, key=lambda axis: (sum(x * x for x in axis), axis))[:30])
    scheme = build_scheme(CUBIC_GROUPS, axes)
    assert scheme.class_table.shape == (38, 30)
    assert build_scheme(CUBIC_GROUPS, axes) is scheme


def test_table(capsys):
    assert main(["classes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if line.startswith("A1-")] == [
        ["A1-0", "A", "-", "0", "[001]", "221", "225", "227", "229"],
        ["A1-1", "A", "-", "24", "[001]", "213"],
    ]
    assert any(line.startswith("60 classes (A 2, B 30, C 1, D 27) of 112 pairs") for line in lines)
    assert max(map(len, lines)) <= 115
    assert "227a" not in format_classes(build_scheme((225,)))


@pytest.mark.parametrize("extension", ["png", "pdf", "svg"])
def test_sheet_is_written_whole(tmp_path, capsys, extension):
    path = tmp_path / f"sheet.{extension}"
    assert main(["classes", "--groups", "213,229", "--sheet", str(path)]) == 0
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[extension]
    assert path.read_bytes().startswith(start)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_sheet_shows_every_class_once_and_inside():
    scheme = build_scheme(chirality=True)
    figure = plot_classes(scheme)
    [axes] = figure.axes
    texts = [text.get_text() for text in axes.texts]
    assert all(texts.count(label) == 1 for label in scheme.labels)
    assert "[001] 213" in texts
    figure.draw_without_rendering()
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    for spots in axes.collections:
        x, y = spots.get_offsets().T
        assert ((x > 0) & (x < width) & (y > 0.3) & (y < height)).all()


def test_classes_of_one_shape_look_different_in_their_thumbnails():
    scheme = build_scheme()
    seen = set()
    for item in scheme.classes:
        g11, g12, g22 = item.appearance.shape
        radius = thumbnail_radius(scheme, item)
        limit = radius**2 * g11
        absent = [
            (m, n) for m, n in item.appearance.absent if g11 * m * m + 2 * g12 * m * n + g22 * n * n <= limit
        ]
        seen.add((item.appearance.shape, tuple(absent)))
    assert len(seen) == 60


def test_names():
    assert behaviour_names(["227a", "227b"]) == "227a 227b"
    assert behaviour_names(["196", "195", "227g"]) == "195 196 227g"
    assert behaviour_names(["228", "227a", "227b", "227g", "226"]) == "226-228"
    assert [zone_name(zone) for zone in [(0, 1, 3), (1, -1, 0), (1, 0, 12)]] == [
        "[013]",
        "[1 -1 0]",
        "[1 0 12]",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--groups", "62"], "space group is 62, expected a cubic one"),
        (["--zones", "000,9"], "--zones: '000' is no zone axis, expected three whole numbers"),
        (["--field-of-view", "0"], "--field-of-view is 0.0, expected a number in [1, 20] shortest spacings"),
        (["--field-of-view", "nan"], "--field-of-view is nan"),
        (["--sheet", "a.txt"], "--sheet is 'a.txt', expected a file name ending in .png, .pdf, .svg"),
        (["--sheet", "/nowhere/at/all.png"], "--sheet"),
    ],
)
def test_options_that_cannot_be_are_status_2(arguments, message, capsys):
    assert main(["classes", *arguments]) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert output.out == ""


def test_wrong_group_list_is_status_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["classes", "--groups", "fcc"])
    assert caught.value.code == 2
    assert (
        "'fcc': expected space-group numbers such as 221,225, or article, or cubic" in capsys.readouterr().err
    )
