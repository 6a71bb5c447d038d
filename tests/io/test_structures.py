from __future__ import annotations

import pytest
from support.cifs import write_cif

from napari_sadp.errors import StructureError
from napari_sadp.io.structures import load_structure


def test_every_way_to_name_a_structure(tmp_path):
    path = write_cif(tmp_path / "fluorite.cif")
    assert load_structure(path).n_atoms == load_structure(str(path)).n_atoms == 12
    renamed = path.rename(tmp_path / "fluorite")  # a file is a file, whatever it is called
    assert load_structure(str(renamed)).n_atoms == 12
    assert load_structure("CsCl").name == load_structure("ClCs").name == "CsCl"
    assert load_structure("ZnV2O4:227").n_atoms == 56
    by_id = load_structure("mp-570845")
    assert (by_id.name, by_id.space_group) == ("ZnGa3Ni3", 230)


@pytest.mark.parametrize("name", ["Unobtainium", "Si:221", "none.cif", ""])
def test_what_is_not_there(name):
    with pytest.raises(StructureError):
        load_structure(name)


@pytest.mark.parametrize("name", ["Si:", "Si:Qd-3m", "Si:0"])
def test_what_is_no_group(name):
    with pytest.raises(ValueError, match="expected"):
        load_structure(name)
