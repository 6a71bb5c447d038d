from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from napari_sadp.errors import StructureError
from napari_sadp.simulation.catalogue import find_structure, load_catalogue


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
