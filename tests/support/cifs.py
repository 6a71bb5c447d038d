"""CIFs as text, for tests that need a structure file of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

_TAGS = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")

#: Fluorite: three kinds of intensity (sum, difference, calcium alone) tell wrong factors and wrong sites apart.
FLUORITE = ("Ca1 Ca 0 0 0 0.5", "F1 F 0.25 0.25 0.25 0.8")


def write_cif(
    path: Path,
    atoms: tuple[str, ...] = FLUORITE,
    *,
    cell: str = "5.463 5.463 5.463 90 90 90",
    group: str = "F m -3 m",
) -> Path:
    """Write a CIF; atoms are ``"label element x y z B"``."""
    values = zip(_TAGS, cell.split(), strict=False)
    lines = ["data_test", *(f"_cell_{tag} {value}" for tag, value in values)]
    lines += [
        f"_symmetry_space_group_name_H-M '{group}'",
        "loop_",
        "_atom_site_label",
        "_atom_site_type_symbol",
    ]
    lines += [f"_atom_site_fract_{axis}" for axis in "xyz"]
    lines += ["_atom_site_B_iso_or_equiv", *atoms]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_giant_cif(path: Path, count: int = 1_000_000) -> Path:
    """Write a CIF of very many atoms in P1."""
    xyz = np.random.default_rng(0).random((count, 3)).round(5).astype(str)
    atoms = tuple(f"Si{k} Si {x} {y} {z} 1" for k, (x, y, z) in enumerate(xyz))
    return write_cif(path, atoms, cell="300 300 300 90 90 90", group="P 1")
