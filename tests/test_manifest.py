"""The manifest: valid, every command there, and the copy on top the same."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_sadp
from napari_sadp import napari_io
from napari_sadp.samples import SAMPLES

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(napari_sadp.__file__).parent


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_distribution("napari-sadp")


def test_the_installed_plugin_imports_all_that_it_promises(manifest):
    manifest.validate_imports()


def test_the_file_itself_is_valid():
    assert PluginManifest.from_file(PACKAGE / "napari.yaml").name == "napari-sadp"


def test_the_copy_on_top_has_the_same_bytes():
    assert (ROOT / "napari.yaml").read_bytes() == (PACKAGE / "napari.yaml").read_bytes()


def test_every_command_is_callable_and_used(manifest):
    for command in manifest.contributions.commands:
        module, name = command.python_name.split(":")
        assert callable(getattr(import_module(module), name)), command.id
    text = (PACKAGE / "napari.yaml").read_text(encoding="utf-8")
    for command in manifest.contributions.commands:
        assert len(re.findall(rf"command: {re.escape(command.id)}\b", text)) >= 1, (
            f"{command.id} leads nowhere"
        )


def test_reader_claims_the_extensions_that_it_accepts(manifest):
    [reader] = manifest.contributions.readers
    assert {pattern.removeprefix("*") for pattern in reader.filename_patterns} == set(napari_io.EXTENSIONS)
    assert not reader.accepts_directories


def test_every_sample_is_in_the_menu(manifest):
    assert {sample.key for sample in manifest.contributions.sample_data} == set(SAMPLES)


def test_every_widget_is_in_the_menu(manifest):
    widgets = {widget.command for widget in manifest.contributions.widgets}
    assert widgets == {"napari-sadp.identify", "napari-sadp.simulate", "napari-sadp.train"}
    assert {item.command for item in manifest.contributions.menus["sadp"]} == widgets


def test_menus_are_ones_that_napari_has(manifest):
    from napari._app_model.constants import MenuId

    known = {str(menu.value) for menu in MenuId}
    ours = {submenu.id for submenu in manifest.contributions.submenus}
    for menu in manifest.contributions.menus:
        assert menu in known | ours, menu


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("napari_sadp.napari_io", {"torch", "torchvision", "hyperspy", "napari", "qtpy", "rsciio"}),
        ("napari_sadp.samples", {"torch", "torchvision", "hyperspy", "napari", "qtpy"}),
        ("napari_sadp.widgets._work", {"torch", "torchvision", "hyperspy", "napari", "qtpy"}),
        ("napari_sadp.widgets.identify", {"torch", "torchvision", "hyperspy"}),
        ("napari_sadp.widgets._simulate_work", {"torch", "torchvision", "hyperspy", "napari", "qtpy"}),
        ("napari_sadp.widgets.simulate", {"torch", "torchvision", "hyperspy", "rsciio"}),
    ],
)
def test_importing_stays_light(module, forbidden):
    code = f"import sys, {module}; print(' '.join(set(sys.modules) & {forbidden!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split(), f"{module} loads {done.stdout}"
