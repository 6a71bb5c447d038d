"""The architecture as a test: who may import whom, and what a plain import may load."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "napari_sadp"

#: Layers from the bottom up; a module may import from its own layer's entry and from those above it in this list.
LAYERS = [
    {"_units", "_validate", "errors", "_atomic"},
    {"pattern"},
    {"labels"},
    {"geometry"},
    {"simulation"},
    {"io"},
    {"dataset"},
    {"ensemble"},
    {"models"},
    {"identify"},
    {"report", "report_classes", "report_lattice", "samples", "evaluate"},
    # front ends: side by side, none imports another; napari's is the reader and the widgets
    {"signals", "napari_io", "widgets", "cli"},
]
FRONT_ENDS = {"signals": "hyperspy", "napari_io": "napari", "widgets": "napari", "cli": "terminal"}
#: Below these the core is numpy, scipy, scikit-image, gemmi and readers.
HEAVY = {"torch", "torchvision", "napari", "hyperspy", "magicgui", "qtpy"}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def part_of(module: str) -> str:
    return module.split(".")[1]


def imports(path: Path):
    """Yield (module, at run time) for every import of a file, functions included."""
    package = ["napari_sadp", *path.relative_to(PACKAGE).parent.parts]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = ".".join([*base, node.module] if node.module else base)
            names = (
                [prefix] if prefix != "napari_sadp" else [f"{prefix}.{alias.name}" for alias in node.names]
            )
        for name in names:
            yield name, id(node) not in typing_only


def modules():
    return [p for p in sorted(PACKAGE.rglob("*.py")) if p != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_downwards(path):
    ours = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert ours in LEVEL, f"{ours} has no place in the architecture"
    for name, at_run_time in imports(path):
        if name.startswith("napari_sadp.") and name != "napari_sadp.__version__" and at_run_time:
            theirs = part_of(name)
            assert LEVEL[theirs] <= LEVEL[ours], f"{ours} imports {theirs}"
            same = FRONT_ENDS.get(theirs) == FRONT_ENDS.get(ours)
            assert theirs not in FRONT_ENDS or same, f"{ours} imports the front end {theirs}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_the_core_knows_no_front_end_library(path):
    ours = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    allowed = {
        "models": {"torch", "torchvision"},
        "dataset": {"torch"},
        "simulation": {"torch"},
        "signals": {"hyperspy"},
        "napari_io": {"napari"},
        "widgets": {"napari", "magicgui", "qtpy"},
    }.get(ours, set())
    found = {name.split(".")[0] for name, at_run_time in imports(path) if at_run_time}
    assert not (found & HEAVY) - allowed


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    environment = os.environ | {"QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("statement", "forbidden"),
    [
        ("import napari_sadp", HEAVY | {"skimage", "scipy", "rsciio", "matplotlib"}),
        ("import napari_sadp.napari_io", {"torch", "hyperspy"}),
        ("import napari_sadp.widgets.identify", {"torch", "hyperspy"}),
        ("import napari_sadp.signals.sad_pattern2d", {"torch", "napari", "PyQt6", "PyQt5", "PySide6"}),
        ("import napari_sadp.identify, napari_sadp.report", {"torch", "napari", "hyperspy", "matplotlib"}),
        ("import hyperspy.api", {"napari_sadp", "torch", "napari"}),
    ],
)
def test_imports_stay_light(statement, forbidden):
    assert not loaded_by(statement) & forbidden


def test_public_names_exist_and_are_listed():
    import napari_sadp

    assert set(napari_sadp.__all__) == {*napari_sadp._PUBLIC, "__version__"}
    for name in napari_sadp.__all__:
        assert getattr(napari_sadp, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        _ = napari_sadp.nonsense
