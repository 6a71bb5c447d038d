"""CIF files into complete conventional cells. The only module that knows diffpy.structure.

diffpy.structure reads the file and expands the asymmetric unit. Two of its habits need care: it takes origin choice 1 when a
file names a two-origin group by number alone, and it renames its functions between versions. So symmetry operations
that a file leaves out are written into it first (from gemmi's tables), and primitive or P1 cells are turned into the conventional
cell by spglib, so that [001] is what a crystallographer calls [001].
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gemmi
import numpy as np

from napari_sadp.errors import StructureError
from napari_sadp.simulation.crystal import DEFAULT_B_ISO, Crystal

if TYPE_CHECKING:
    import os

#: Two atoms of different sites closer than this [Å] mean a wrong origin or setting, not a crystal.
_CLOSEST = 0.6
#: Tolerance of positions when symmetry is looked for [Å].
_SYMPREC = 0.01
#: More atoms in a cell than this are no crystal structure that a pattern of a few hundred pixels can resolve.
MAX_ATOMS = 20_000
#: Fractional coordinates beyond this are a mistake.
_FARTHEST = 1000
_CELL_TAGS = tuple(
    f"_cell_{name}"
    for name in ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
)
_OPERATION_TAGS = (
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_operation_xyz",
    "_space_group_symop.operation_xyz",
)
_NAME_TAGS = ("_symmetry_space_group_name_H-M", "_space_group_name_H-M_alt", "_space_group.name_H-M_alt")
_HALL_TAGS = ("_symmetry_space_group_name_Hall", "_space_group_name_Hall")
_NUMBER_TAGS = ("_symmetry_Int_Tables_number", "_space_group_IT_number", "_space_group.IT_number")


def load_crystal(path: str | os.PathLike[str]) -> Crystal:
    """Read a crystal structure from a CIF.

    Parameters
    ----------
    path : path-like
        CIF with an asymmetric unit and its symmetry (operations, Hall or Hermann-Mauguin symbol, or number), or with all
        atoms in P1; primitive or conventional cell.

    Returns
    -------
    Crystal
        Complete conventional cell.

    Raises
    ------
    StructureError
        If the file cannot be read, gives no cell, names no atom or more than `MAX_ATOMS`, gives coordinates that are no
        numbers or a group that does not exist, or its atoms overlap.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        document = gemmi.cif.read_string(text)
    except OSError as error:
        raise StructureError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise StructureError(f"{path}: not a CIF ({str(error).splitlines()[0]})") from None
    block = next(
        (b for b in document if b.find_values("_atom_site_label") or b.find_values("_atom_site_fract_x")),
        None,
    )
    if block is None:
        raise StructureError(f"{path}: no data block with atoms (_atom_site_fract_x)")
    _check_cell(block, path)
    xyz = _coordinates(block, path)
    problems = []
    for group in _candidate_groups(block, path):
        _check_size(block, group, xyz, path)
        try:
            crystal = _expand(block, group, path)
        except StructureError as error:
            problems.append(str(error))
            continue
        return _conventional(crystal)
    raise StructureError(problems[0] if problems else f"{path}: its space group is unknown")


def _value(block: gemmi.cif.Block, tags: tuple[str, ...]) -> str | None:
    for tag in tags:
        found = block.find_value(tag)
        if found and found not in ("?", "."):
            return gemmi.cif.as_string(found)
    return None


def _candidate_groups(block: gemmi.cif.Block, path: Path) -> list[gemmi.SpaceGroup | None]:
    """Return the settings that the file allows, most explicit first; None where the file lists its operations."""
    if any(len(block.find_values(tag)) for tag in _OPERATION_TAGS):
        return [None]
    hall, name, number = (_value(block, tags) for tags in (_HALL_TAGS, _NAME_TAGS, _NUMBER_TAGS))
    if hall is not None:
        try:
            found = gemmi.find_spacegroup_by_ops(gemmi.symops_from_hall(hall))
        except (ValueError, RuntimeError):  # gemmi's words for a symbol that is none
            found = None
        if found is not None:
            return [found]
    if name is not None:
        found = gemmi.find_spacegroup_by_name(name)
        if found is not None:
            # "F d -3 m" without ":1" or ":2" says nothing about the origin: the one without overlaps is right
            explicit = ":" in name
            return (
                [found] if explicit else [g for g in gemmi.spacegroup_table() if _same_but_origin(g, found)]
            )
    if number is not None and number.isdigit() and 1 <= int(number) <= 230:
        reference = gemmi.get_spacegroup_reference_setting(int(number))
        return [g for g in gemmi.spacegroup_table() if _same_but_origin(g, reference)]
    stated = hall or name or number
    if stated is not None:  # atoms of an asymmetric unit read as if they were all would give wrong absences
        raise StructureError(f"{path}: its space group {stated!r} is unknown, and it lists no operations")
    return [gemmi.find_spacegroup_by_name("P 1")]


def _check_cell(block: gemmi.cif.Block, path: Path) -> None:
    """Refuse a block whose cell is missing or has no volume, for which the parser would take a cube of 1 Å."""
    texts = [_value(block, (tag, tag.replace("_cell_", "_cell."))) for tag in _CELL_TAGS]
    values = [gemmi.cif.as_number(text) if text else np.nan for text in texts]
    for tag, text, value in zip(_CELL_TAGS, texts, values, strict=True):
        limit = 180.0 if "angle" in tag else 1e4
        if not 0 < value < limit:
            raise StructureError(
                f"{path}: {tag} is {'missing' if text is None else repr(text)}, expected 0 to {limit:g}"
            )


def _coordinates(block: gemmi.cif.Block, path: Path) -> np.ndarray:
    """Return the fractional coordinates (n, 3) of the sites, or refuse those that are no numbers.

    The parser would take ``?`` for 0. The number of sites is checked here, before a long list becomes an array.
    """
    columns = {axis: block.find_values(f"_atom_site_fract_{axis}") for axis in "xyz"}
    count = len(columns["x"])
    if count > MAX_ATOMS:
        raise _too_many(path, count)
    labels = list(block.find_values("_atom_site_label")) or [""] * count
    xyz = np.full((count, 3), np.nan)
    for index, (axis, column) in enumerate(columns.items()):
        if len(column) != count:
            raise StructureError(
                f"{path}: _atom_site_fract_{axis} has {len(column)} values, expected {count} as for x"
            )
        xyz[:, index] = [gemmi.cif.as_number(text) for text in column]
        wrong = np.flatnonzero(~(np.abs(xyz[:, index]) <= _FARTHEST))
        if len(wrong):
            raise StructureError(
                f"{path}: _atom_site_fract_{axis} of {labels[wrong[0]] or f'site {wrong[0] + 1}'} is {column[int(wrong[0])]!r}, "
                f"expected a number in [-{_FARTHEST}, {_FARTHEST}]"
            )
    return xyz


def _check_size(block: gemmi.cif.Block, group: gemmi.SpaceGroup | None, xyz: np.ndarray, path: Path) -> None:
    """Refuse cells of too many atoms before anything expands them, which would take minutes."""
    if group is not None:
        operations = list(group.operations())
    else:
        triplets = next(c for tag in _OPERATION_TAGS if len(c := block.find_values(tag)))
        try:
            operations = [gemmi.Op(gemmi.cif.as_string(text)) for text in triplets]
        except (ValueError, RuntimeError):
            return  # the parser will name what is wrong with them
    if len(xyz) * len(operations) <= MAX_ATOMS:
        return
    rotation = np.array([op.rot for op in operations]) / gemmi.Op.DEN
    shift = np.array([op.tran for op in operations]) / gemmi.Op.DEN
    count = 0
    for part in np.array_split(xyz, 1 + len(xyz) * len(operations) // 1_000_000):
        orbits = np.rint(1000 * (np.einsum("oij,sj->soi", rotation, part) + shift)).astype(np.int64) % 1000
        keys = np.sort(orbits @ (1_000_000, 1000, 1), axis=1)
        count += len(part) + int(np.count_nonzero(np.diff(keys, axis=1)))
    if count > MAX_ATOMS:
        raise _too_many(path, count)


def _too_many(path: Path, count: int) -> StructureError:
    return StructureError(f"{path}: the cell holds {count} atoms or more, expected at most {MAX_ATOMS}")


def _same_but_origin(group: gemmi.SpaceGroup, other: gemmi.SpaceGroup) -> bool:
    return group.number == other.number and group.hm == other.hm and group.ext in (other.ext, "1", "2")


def _expand(block: gemmi.cif.Block, group: gemmi.SpaceGroup | None, path: Path) -> Crystal:
    """Let diffpy.structure expand the block, with the operations of `group` written into it."""
    if group is not None:
        copy = gemmi.cif.read_string(block.as_string()).sole_block()
        loop = copy.init_loop("_symmetry_equiv_pos_", ["as_xyz"])
        for operation in group.operations():
            loop.add_row([gemmi.cif.quote(operation.triplet())])
        block = copy
    structure, operations = _parse(block.as_string(), path)
    if len(structure) == 0:
        raise StructureError(f"{path}: holds no atom")
    found = (
        gemmi.find_spacegroup_by_ops(gemmi.GroupOps([gemmi.Op(text) for text in operations]))
        if operations
        else None
    )
    lattice = structure.lattice
    elements = tuple(_element(atom.element, path) for atom in structure)
    b_iso = np.array([_b_iso(atom) for atom in structure])
    crystal = Crystal(
        _value(block, ("_chemical_formula_sum", "_chemical_name_common")) or path.stem,
        (lattice.a, lattice.b, lattice.c, lattice.alpha, lattice.beta, lattice.gamma),
        elements,
        np.array([atom.xyz for atom in structure]) % 1.0,
        np.array([atom.occupancy for atom in structure], dtype=float),
        b_iso,
        1 if found is None else found.number,
        str(path),
    )
    _require_no_overlap(crystal, path)
    return crystal


def _parse(text: str, path: Path) -> tuple[Any, list[str]]:
    """Call diffpy.structure, whose names differ between the versions 3.3 and 3.4."""
    from diffpy.structure.parsers import p_cif

    get_parser = getattr(p_cif, "get_parser", None) or p_cif.getParser
    parser = get_parser()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            structure = parser.parse(text)
    except Exception as error:  # noqa: BLE001  a foreign parser may fail with anything on a damaged file
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise StructureError(f"{path}: diffpy.structure cannot read it ({first})") from None
    operations = []
    if parser.spacegroup is not None:
        iterate = getattr(parser.spacegroup, "iter_symops", None) or parser.spacegroup.iterSymops
        operations = [_triplet(op.R, op.t) for op in iterate()]
    return structure, operations


def _triplet(rotation: np.ndarray, translation: np.ndarray) -> str:
    """Return an operation as ``x,y,z`` text."""
    operation = gemmi.Op()
    operation.rot = (np.rint(np.asarray(rotation) * gemmi.Op.DEN).astype(int)).tolist()
    operation.tran = (np.rint(np.asarray(translation) * gemmi.Op.DEN).astype(int) % gemmi.Op.DEN).tolist()
    return operation.triplet()


def _element(symbol: str, path: Path) -> str:
    """Return the bare element of a site type such as ``"Fe3+"``."""
    name = "".join(c for c in symbol if c.isalpha()).capitalize()
    for length in (2, 1):
        if gemmi.Element(name[:length]).atomic_number:
            return "H" if name[:length] == "D" else name[:length]
    raise StructureError(f"{path}: {symbol!r} is no chemical element")


def _b_iso(atom: Any) -> float:
    """Return B [Å^2] of an atom, the package's default where the file gives none."""
    value = float(getattr(atom, "Bisoequiv", 0.0))
    return value if np.isfinite(value) and value > 0 else DEFAULT_B_ISO


def _require_no_overlap(crystal: Crystal, path: Path) -> None:
    """Refuse cells in which full sites sit on top of each other; shared sites are one position."""
    sites = np.unique(np.round(crystal.positions, 4) % 1.0, axis=0)
    if len(sites) < 2:
        return
    basis = crystal.direct_basis()
    for start in range(0, len(sites), 200):
        delta = sites[start : start + 200, None] - sites[None]
        delta -= np.rint(delta)
        distance = np.linalg.norm(delta @ basis, axis=2)
        distance[np.arange(len(distance)), start + np.arange(len(distance))] = np.inf
        # sites with partial occupancy may be split over near positions
        full = crystal.occupancies.min() > 0.99
        if full and distance.min() < _CLOSEST:
            raise StructureError(
                f"{path}: atoms are {distance.min():.2f} Å apart, expected more than {_CLOSEST} Å; wrong origin choice or setting?"
            )


def _conventional(crystal: Crystal) -> Crystal:
    """Return the conventional cell and its space group, found by spglib where the file gives a smaller cell."""
    import spglib

    positions, contents = site_contents(crystal)
    kinds = sorted({species_of(site) for site in contents})
    numbers = [kinds.index(species_of(site)) + 1 for site in contents]
    cell = (crystal.direct_basis(), positions, numbers)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = spglib.get_symmetry_dataset(cell, symprec=_SYMPREC)
    if dataset is None:
        return crystal
    reference = gemmi.get_spacegroup_reference_setting(dataset.number)
    n_standard = len(dataset.std_types)
    if crystal.space_group == dataset.number and n_standard == len(positions):
        return crystal
    rows: list[np.ndarray] = []
    atoms: list[tuple[str, float, float]] = []
    for xyz, first in zip(dataset.std_positions, standard_origins(dataset), strict=True):
        same = np.flatnonzero(dataset.crystallographic_orbits == dataset.crystallographic_orbits[first])
        for place, (element, occupancy, _) in enumerate(contents[first]):
            rows.append(xyz % 1.0)
            atoms.append((element, occupancy, float(np.mean([contents[i][place][2] for i in same]))))
    elements, occupancies, b_iso = zip(*atoms, strict=True)
    lengths = np.linalg.norm(dataset.std_lattice, axis=1)
    unit = dataset.std_lattice / lengths[:, None]
    angles = [
        float(np.degrees(np.arccos(np.clip(unit[i] @ unit[j], -1, 1)))) for i, j in ((1, 2), (0, 2), (0, 1))
    ]
    return Crystal(
        crystal.name,
        (*(float(x) for x in lengths), *(round(x, 6) for x in angles)),
        elements,
        np.array(rows),
        np.array(occupancies),
        np.array(b_iso),
        reference.number,
        crystal.source,
    )


def site_contents(crystal: Crystal) -> tuple[np.ndarray, list[tuple[tuple[str, float, float], ...]]]:
    """Return the distinct positions (n, 3) of a crystal, and (element, occupancy, B) of what shares each, in order."""
    sites: dict[tuple[float, ...], list[tuple[str, float, float]]] = {}
    for element, xyz, occupancy, b in zip(
        crystal.elements, crystal.positions, crystal.occupancies, crystal.b_iso, strict=True
    ):
        key = tuple((np.round(xyz, 4) % 1.0).tolist())
        sites.setdefault(key, []).append((element, float(round(occupancy, 6)), float(b)))
    return np.array(list(sites)), [tuple(sorted(value)) for value in sites.values()]


def species_of(site: tuple[tuple[str, float, float], ...]) -> tuple[tuple[str, float], ...]:
    """Return what makes two sites the same to a symmetry operation: displacements are measured, and may differ a little."""
    return tuple((element, occupancy) for element, occupancy, _ in site)


def standard_origins(dataset: Any) -> np.ndarray:
    """Return the site of the given cell that each site of spglib's standard cell is a copy of."""
    first = {
        int(primitive): site for site, primitive in reversed(list(enumerate(dataset.mapping_to_primitive)))
    }
    return np.array([first[int(primitive)] for primitive in dataset.std_mapping_to_primitive])
