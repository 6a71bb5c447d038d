from __future__ import annotations

import gzip
import json
from collections import Counter

import numpy as np
import pytest

from napari_sadp.errors import StructureError
from napari_sadp.simulation.catalogue import (
    CATALOGUE_VARIABLE,
    composition,
    find_source,
    find_structure,
    load_catalogue,
    search_catalogue,
)
from napari_sadp.simulation.crystal import DEFAULT_B_ISO


def test_every_entry_names_source_and_licence():
    catalogue = load_catalogue()
    assert len(catalogue) > 2000
    assert all(e.source and e.source_id and e.licence for e in catalogue)
    counts = Counter(e.space_group for e in catalogue)
    assert min(counts[g] for g in (213, 221, 225, 227, 229)) >= 50
    assert {e.behaviour.name for e in catalogue if e.space_group == 227} == {"227a", "227b", "227g"}


def test_expanded_cells_have_the_stated_number_of_sites():
    catalogue = load_catalogue()
    for entry in catalogue[:: len(catalogue) // 60]:
        crystal = entry.crystal()
        assert len(np.unique(crystal.positions.round(3) % 1, axis=0)) == entry.n_atoms


def test_unknown_structure_is_an_error_that_helps():
    with pytest.raises(StructureError, match="give a CIF"):
        find_structure("Unobtainium")
    assert find_structure("Al", 225).space_group == 225


def mine(**changes):
    """An entry of a user's catalogue, as the file has it."""
    return {
        "formula": "Po", "group": 221, "cell": [3.36, 3.36, 3.36, 90, 90, 90], "n_atoms": 1, "source": "CIF", "id": "my-po",
        "licence": "own", "mirrored": False, "sites": [[[["Po", 1.0]], 1, "a", [0.0, 0.0, 0.0]]],
    } | changes  # fmt: skip


def write_own(path, *entries):
    path.write_bytes(gzip.compress(json.dumps(entries).encode()))
    return path


def test_ones_own_is_merged(tmp_path, monkeypatch):
    package = load_catalogue()
    own = write_own(tmp_path / "own.json.gz", mine())
    assert load_catalogue(own)[:-1] == package
    assert load_catalogue(own)[-1].crystal().n_atoms == 1
    assert find_source("my-po") is None
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(own))
    assert find_structure("Po", 221).key == "my-po"
    assert find_source("my-po").formula == "Po"
    # written anew: the change is seen
    write_own(own, mine(id="other", formula="At", sites=[[[["At", 1.0]], 1, "a", [0.0, 0.0, 0.0]]]), mine())
    import os

    os.utime(own, ns=(0, own.stat().st_mtime_ns + 10**9))
    assert [entry.key for entry in load_catalogue()[len(package) :]] == ["other", "my-po"]
    monkeypatch.delenv(CATALOGUE_VARIABLE)
    assert load_catalogue() == package


def test_displacements_are_kept_where_they_are_given(tmp_path):
    sites = [[[["Po", 0.5, 1.7], ["At", 0.5]], 1, "a", [0.0, 0.0, 0.0]]]
    crystal = load_catalogue(write_own(tmp_path / "own.json.gz", mine(sites=sites)))[-1].crystal()
    assert dict(zip(crystal.elements, crystal.b_iso.tolist(), strict=True)) == {
        "Po": 1.7,
        "At": DEFAULT_B_ISO,
    }


@pytest.mark.parametrize(
    "content",
    [b"", b"text", gzip.compress(b"{", mtime=0), gzip.compress(b"[{}]", mtime=0), gzip.compress(b"[1]", mtime=0), gzip.compress(b"[]", mtime=0)[:-4]]
    + [gzip.compress(json.dumps([mine(**c)]).encode(), mtime=0) for c in ({"group": 231}, {"cell": [1]}, {"sites": [[1]]})],
)  # fmt: skip
def test_what_is_no_catalogue_is_named(tmp_path, content):
    path = tmp_path / "bad.json.gz"
    path.write_bytes(content)
    with pytest.raises(StructureError, match=r"bad\.json\.gz"):
        load_catalogue(path)


def test_a_catalogue_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(tmp_path / "none.json.gz"))
    with pytest.raises(StructureError, match=f"none.json.gz.*{CATALOGUE_VARIABLE}"):
        load_catalogue()


def test_searches_agree_with_the_list():
    catalogue = load_catalogue()
    assert search_catalogue() == catalogue
    found = search_catalogue(elements=("Ti", "O"), space_group=221)
    assert found == tuple(
        e
        for e in catalogue
        if e.space_group == 221 and {"Ti", "O"} <= {s for site in e.sites for s, _ in site[0]}
    )
    assert {e.behaviour.name for e in search_catalogue(behaviour="227b")} == {"227b"}
    assert (
        search_catalogue(space_group="Fd-3m")
        == search_catalogue(space_group=227)
        == search_catalogue(space_group="227")
    )
    for wrong in ("Xx-3m", "231", 0, ""):
        with pytest.raises(ValueError, match="space group is"):
            search_catalogue(space_group=wrong)
    keys = [entry.key for entry in catalogue]
    assert all(find_source(key).key == key for key in keys[::97])


def test_compositions():
    assert composition("MgAl2O4") == composition("Al16 Mg8 O32") == composition("O4MgAl2")
    assert composition("Li0.5La0.5TiO3") == composition("LiLaTi2O6")
    assert composition("CO") != composition("Co")
    assert composition("Ca(OH)2") is None
    assert composition("") is None
    assert all(composition(e.formula) for e in load_catalogue())
