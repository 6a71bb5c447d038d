"""Rows of an evaluation on the disk: what is kept, what is refused, what is replaced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_sadp.errors import UnreadableFileError
from napari_sadp.evaluate.parts import aligned_part, is_part
from napari_sadp.evaluate.rows import RowStore, column
from napari_sadp.evaluate.run import EvaluationConfig, row_settings
from napari_sadp.evaluate.structures import PACKAGE_ALONE
from napari_sadp.models.registry import bundled_path
from napari_sadp.models.weights import read_card

KEPT = Path(__file__).parents[2] / "docs" / "evaluation" / "rows"
OLD, NEW = {"seed": 0, "sha256": "a" * 64}, {"seed": 1, "sha256": "b" * 64}


def store_of(folder, settings, replace=False):
    return RowStore(folder, settings, is_part, replace)


def filled(folder, settings, *parts):
    store = store_of(folder, settings)
    for part in parts:
        store.write(part, [{"made with": f"seed {settings['seed']}"}])
    return store


def text_of(folder):
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_rows_are_kept_and_work_goes_on(tmp_path):
    made = []

    def make(item):
        made.append(item)
        return {"item": item, "half": item / 2, "right": bool(item % 2), "name": f"n{item}"}

    store = store_of(tmp_path, {"seed": 0})
    steps = store.complete("groups", [1, 2, 3, 4], make, save_every=2)
    assert [next(steps) for _ in range(3)] == [(1, 4), (2, 4), (3, 4)]
    steps.close()  # as if it were killed: what was written is there
    again = store_of(tmp_path, {"seed": 0})
    assert list(again.complete("groups", [1, 2, 3, 4], make)) == [(3, 4), (4, 4)]
    assert made == [1, 2, 3, 3, 4]
    rows = again.read("groups")
    assert column(rows, "half").tolist() == [0.5, 1.0, 1.5, 2.0]
    assert column(rows, "right").tolist() == [1, 0, 1, 0]
    assert rows[0]["name"] == "n1"


def test_damaged_rows_are_named(tmp_path):
    store = filled(tmp_path, OLD, "frames")
    (tmp_path / "frames.csv").write_text("a,b\n1,2\n3\n")
    with pytest.raises(UnreadableFileError, match=r"frames\.csv: line 3 is damaged"):
        store.read("frames")


def test_rows_of_other_settings_are_an_error(tmp_path):
    filled(tmp_path, OLD, "frames", "aligned")
    before = text_of(tmp_path)
    with pytest.raises(
        ValueError, match=r"aligned\.csv, frames\.csv: seed 0, here 1, network a{12}\.\.\., here b{12}"
    ) as error:
        store_of(tmp_path, NEW)
    assert "--out" in str(error.value)
    assert "--replace" in str(error.value)
    assert text_of(tmp_path) == before
    with pytest.raises(ValueError, match="catalogue none, here c"):
        store_of(tmp_path, OLD | {"catalogue": "c"})


def test_replacing_goes_part_by_part(tmp_path):
    filled(tmp_path, OLD, "frames", "aligned")
    (tmp_path / "mydata.csv").write_text("mine\n")
    before = text_of(tmp_path)
    store = store_of(tmp_path, NEW, replace=True)
    assert store.read("frames") == []
    assert text_of(tmp_path) == before  # nothing was measured yet
    store.write("frames", [{"made with": "seed 1"}])
    assert store.read("frames") == [{"made with": "seed 1"}]
    assert (tmp_path / "aligned.csv").read_text() == before["aligned.csv"]
    # what is left of the old ones is neither taken for new ones nor lost, whoever comes back
    with pytest.raises(ValueError, match=r"\(aligned\.csv: seed 0, here 1"):
        store_of(tmp_path, NEW)
    again = store_of(tmp_path, NEW, replace=True)
    assert again.read("frames")
    assert again.read("aligned") == []
    back = store_of(tmp_path, OLD, replace=True)
    assert back.read("frames") == []
    assert back.read("aligned") == [{"made with": "seed 0"}]
    again.write("aligned", [{"made with": "seed 1"}])
    assert store_of(tmp_path, NEW).read("aligned") == [{"made with": "seed 1"}]
    assert json.loads((tmp_path / "settings.json").read_text()) == NEW
    assert (tmp_path / "mydata.csv").read_text() == "mine\n"


def test_a_run_killed_while_it_replaces_leaves_no_rows_of_wrong_settings(tmp_path, monkeypatch):
    filled(tmp_path, OLD, "frames")
    store = store_of(tmp_path, NEW, replace=True)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_sadp.evaluate.rows.write_table", killed)
    with pytest.raises(KeyboardInterrupt):
        store.write("frames", [{"made with": "seed 1"}])
    for settings in (OLD, NEW):
        assert store_of(tmp_path, settings, replace=True).read("frames") == []
        with pytest.raises(ValueError, match=r"frames\.csv: settings unknown"):
            store_of(tmp_path, NEW)


@pytest.mark.parametrize("settings", [None, "{", "[]", '{"other_rows": 3}'])
@pytest.mark.parametrize("name", ["mydata", "frames"])
def test_files_of_unknown_origin_are_an_error(settings, name, tmp_path):
    (tmp_path / f"{name}.csv").write_text("mine\n1\n")
    if settings:
        (tmp_path / "settings.json").write_text(settings)
    before = text_of(tmp_path)
    with pytest.raises(ValueError, match=rf"{name}\.csv in .*, and no settings\.json .*--out.*--replace"):
        store_of(tmp_path, NEW)
    store = store_of(tmp_path, NEW, replace=True)
    assert store.read("frames") == []
    assert text_of(tmp_path) == before
    store.write("frames", [{"made with": "seed 1"}])
    assert store_of(tmp_path, NEW).read("frames")
    if name == "mydata":
        assert (tmp_path / "mydata.csv").read_text() == before["mydata.csv"]


def test_files_of_others_beside_ones_own_do_not_matter(tmp_path):
    filled(tmp_path, OLD, "groups")
    (tmp_path / "groups.csv").unlink()
    (tmp_path / "mydata.csv").write_text("mine\n")
    store_of(tmp_path, NEW).write("frames", [{"made with": "seed 1"}])
    assert (tmp_path / "mydata.csv").read_text() == "mine\n"
    assert json.loads((tmp_path / "settings.json").read_text()) == NEW
    assert is_part(aligned_part(read_card(bundled_path())))
    assert not any(map(is_part, ("mydata", "aligned copy", "Frames")))


def test_the_rows_of_the_report_in_the_repository_count(tmp_path):
    """Its settings name the device and no weights; the default network is these weights."""
    written = json.loads((KEPT / "settings.json").read_text())
    card = read_card(bundled_path())
    of_report = {"patterns": written["patterns"]}
    for names in ({}, {"weights": "sadp_resnet18", "device": "cpu", "workers": 2}):
        config = EvaluationConfig(**of_report, **names)
        settings = row_settings(config, card, PACKAGE_ALONE) | {"catalogue": written["catalogue"]}
        store = store_of(KEPT, settings)
        assert len(store.read("groups")) == config.count("groups")
    with pytest.raises(ValueError, match=f"catalogue {written['catalogue'][:12]}.*, here none"):
        store_of(KEPT, row_settings(EvaluationConfig(**of_report), card, PACKAGE_ALONE))
