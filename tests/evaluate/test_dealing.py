"""Which structures frames are of, and which of their rows are kept."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from napari_sadp.evaluate import parts
from napari_sadp.evaluate.dealing import MOST_TRIES, deal_by_need, deal_structures
from napari_sadp.evaluate.parts import NONE
from napari_sadp.evaluate.rows import RowStore
from napari_sadp.evaluate.run import Evaluation, EvaluationConfig
from napari_sadp.evaluate.structures import HeldOut, held_out_structures
from napari_sadp.labels.scheme import build_scheme

GROUPS = (213, 221, 225, 227, 229)


@pytest.fixture(scope="module")
def structures():
    return held_out_structures(build_scheme())


def test_structures_are_dealt_in_turn(structures):
    dealt = deal_structures(structures, 70, np.random.default_rng(0))
    groups = [item.crystal.space_group for item in dealt]
    assert {number: groups.count(number) for number in set(groups)} == dict.fromkeys(GROUPS, 14)
    of_221 = [item.key for item in dealt if item.crystal.space_group == 221]
    assert len(set(of_221)) == len(of_221)  # there are more of them than were dealt
    kinds = [item.behaviour for item in dealt if item.crystal.space_group == 227]
    assert max(kinds.count(name) for name in set(kinds)) == 5
    again = deal_structures(structures, 70, np.random.default_rng(0))
    assert [item.key for item in again] == [item.key for item in dealt]


def made_up(**counts):
    """Return so many structures of some behaviours, ``s227a=3`` for three of 227a."""
    return [
        HeldOut(f"{name[1:]} {k}", name[1:], SimpleNamespace(space_group=int(name[1:4])), False)
        for name, n in counts.items()
        for k in range(n)
    ]


def dealt_by_need(items, need, is_usable=lambda item, times: True, seed=0):
    """Deal, with an answer by structure and by how often it came before; returns (structure, usable) in their order."""
    deal = deal_by_need(items, need, np.random.default_rng(seed))
    times, dealt, item = Counter(), [], next(deal, None)
    while item is not None:
        usable = is_usable(item.key, times[item.key])
        times[item.key] += 1
        dealt.append((item.key, usable))
        try:
            item = deal.send(usable)
        except StopIteration:
            item = None
    return dealt


def test_by_need_every_structure_comes_before_any_comes_again():
    items = made_up(s213=3, s221=40, s227a=2, s227b=40)
    dealt = [key for key, _ in dealt_by_need(items, 10)]
    of = {group: [key for key in dealt if key.startswith(group)] for group in ("213", "221", "227")}
    assert {group: len(keys) for group, keys in of.items()} == {"213": 10, "221": 10, "227": 10}
    assert sorted(Counter(of["213"]).values()) == [3, 3, 4]
    assert len(set(of["221"])) == len(set(of["227"])) == 10
    # behaviours in turn as long as they have structures
    assert [key[:4] for key in of["227"][:4]] == ["227a", "227b"] * 2
    assert {key[:4] for key in of["227"][4:]} == {"227b"}
    # and groups in turn
    assert [key[:3] for key in dealt[:6]] == ["213", "221", "227"] * 2


def test_by_need_more_are_dealt_where_frames_show_nothing():
    items = made_up(s221=100, s225=12)
    dealt = dealt_by_need(items, 12, lambda key, times: times > 0 or int(key.split()[1]) % 2 == 0)
    usable = {g: [key for key, good in dealt if good and key.startswith(g)] for g in ("221", "225")}
    assert len(usable["221"]) == len(set(usable["221"])) == 12
    assert len(usable["225"]) == len(set(usable["225"])) == 12
    assert sum(key.startswith("225") for key, _ in dealt) == 18
    # a behaviour that seldom shows anything has its share all the same
    kinds = made_up(s227a=7, s227b=50)
    dealt = dealt_by_need(kinds, 40, lambda key, times: key.startswith("227b") or times == 2)
    assert Counter(key[:4] for key, good in dealt if good) == {"227a": 7, "227b": 33}


def test_by_need_tries_are_bounded():
    items = made_up(s213=3, s229=4)
    dealt = dealt_by_need(items, 10, lambda key, times: key.startswith("229") and key != "229 0")
    tries = Counter(key for key, _ in dealt)
    assert sum(n for key, n in tries.items() if key.startswith("213")) == 10 * MOST_TRIES
    usable = Counter(key for key, good in dealt if good)
    assert sum(usable.values()) == 10
    assert (
        max(usable.values()) - min(usable.values()) <= 1
    )  # one that shows nothing does not keep the others back
    assert MOST_TRIES <= tries["229 0"] <= MOST_TRIES * 4


def test_by_need_the_seed_decides():
    items = made_up(s221=40, s225=40)
    assert dealt_by_need(items, 10) == dealt_by_need(items, 10)
    assert dealt_by_need(items, 10) != dealt_by_need(items, 10, seed=1)


@pytest.fixture
def frames(structures, monkeypatch):
    """An evaluation whose frames cost nothing; every third shows no lattice, in its list the calls for frames."""
    made = []

    def frame(found, condition, seed, dealt):
        made.append((condition.name, seed[-1]))
        return dealt, 0, SimpleNamespace(pattern=None, visible=None if seed[-1] % 3 == 2 else 5)

    def row(found, about, item, place, result, acquired):
        visible = NONE if acquired.visible is None else acquired.visible
        return about | {"structure": item.key, "behaviour": item.behaviour, "visible": visible}

    monkeypatch.setattr(parts, "_frame", frame)
    monkeypatch.setattr(parts, "_row", row)
    monkeypatch.setattr(parts, "_with_and_without_faint", lambda *_: (None, {"found": 0, "confidence": 1.0}))
    found = Evaluation(EvaluationConfig(patterns=400), SimpleNamespace(classifier=None), structures)
    return found, made


def measured(found, folder):
    store = RowStore(folder, {"seed": 0}, parts.is_part)
    steps = list(parts.measure(found, store, "frames"))
    return store, steps, found.rows["frames"]


def test_the_frames_of_the_article_are_enough_for_each_group(frames, tmp_path):
    found, _ = frames
    _, steps, rows = measured(found, tmp_path)
    usable = [row for row in rows if row["condition"] == "article" and row["visible"] != NONE]
    assert Counter(str(row["behaviour"])[:3] for row in usable) == {str(group): 20 for group in GROUPS}
    assert Counter(row["condition"] for row in rows)["mild"] == 40
    assert steps[-1] == (5 * 20 + 3 * 40,) * 2


def test_stopped_frames_go_on_as_if_they_were_not(frames, tmp_path):
    found, made = frames
    _, steps, rows = measured(found, tmp_path / "whole")
    n = len(made)
    assert len(steps) == n == len(rows)
    for stop in (50, 170):
        store = RowStore(tmp_path / str(stop), {"seed": 0}, parts.is_part)
        running = parts.measure(found, store, "frames")
        for _ in range(stop):
            next(running)
        running.close()
        found.rows.clear()
        parts.take_kept(found, store, "frames")
        assert not found.rows  # incomplete
        made.clear()
        assert measured(found, tmp_path / str(stop))[2] == rows
        assert len(made) == n - stop // 20 * 20
    made.clear()
    measured(found, tmp_path / "whole")
    assert not made


def test_frames_of_another_deal_are_made_anew_and_those_of_other_conditions_kept(frames, tmp_path):
    found, made = frames
    store, _, rows = measured(found, tmp_path)
    first = sum(row["condition"] == "article" for row in rows)
    other = [row | {"structure": "another"} if 30 <= k < first else row for k, row in enumerate(rows)]
    store.write("frames", other)
    found.rows.clear()
    parts.take_kept(found, store, "frames")
    assert not found.rows
    made.clear()
    running = parts.measure(found, store, "frames")
    for _ in range(60):
        next(running)
    running.close()
    assert [row for row in store.read("frames") if row["condition"] != "article"] == rows[first:]
    assert measured(found, tmp_path)[2] == rows
    assert {name for name, _ in made} == {"article"}
    assert len(made) == first - 30
