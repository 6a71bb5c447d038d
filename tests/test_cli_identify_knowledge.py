"""What the user knows besides the patterns, on the command line; and a stage tilt from a file."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from napari_sadp.cli import main
from napari_sadp.cli._identify import _names, _tilt
from napari_sadp.io._meta import stage_deg
from napari_sadp.io.write import write_patterns
from napari_sadp.samples import simulated_sample


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("knowledge")
    paths = []
    for number, zone in enumerate([(0, 0, 1), (0, 1, 3)]):
        path = folder / f"{number}.hspy"
        write_patterns(path, [simulated_sample("Al", 225, zone, seed=1)])
        paths.append(str(path))
    return paths


def identify(capsys, *arguments):
    status = main(["identify", "--json", *arguments])
    output = capsys.readouterr()
    return status, json.loads(output.out), output.err


def test_every_key_of_the_answer(capsys, files):
    status, found, _ = identify(capsys, *files, "--thickness-nm", "10", "--tilt", "18.4")
    assert status == 0
    assert found["indistinguishable"] == [225, 196, 202, 209, 216]
    assert found["extinction_classes"][0]["groups"] == found["indistinguishable"]
    assert "give the same patterns on every axis" in found["indistinguishable_text"]
    assert 0 <= found["none_of_these"] < 0.1
    assert {"zone", "gain_bits", "tilt_deg"} == set(found["next_zone_axes"][0])
    assert [entry["zone_axes"][0]["zone"] for entry in found["patterns"]] == [[0, 0, 1], [0, 1, 3]]


def test_intensities_are_an_option(capsys, files):
    _, plain, _ = identify(capsys, files[0])
    _, weighed, _ = identify(capsys, files[0], "--intensities")
    assert plain["messages"] == []
    assert "Spots and gaps alone say" in weighed["messages"][0]


def test_what_does_not_exist_is_named_and_the_rest_answered(capsys, files):
    status, found, _ = identify(
        capsys, *files, "--elements", "Al,Qq", "--candidates", "225,231,Unobtainium", "--tilt", "1,2", "--tilt", "3,4",
        "--tilt", "5,6",
    )  # fmt: skip
    assert status == 0
    text = " ".join(found["messages"])
    for words in (
        "'Qq' is no chemical element",
        "231: there is no such space group",
        "Unobtainium",
        "tilts were given",
    ):
        assert words in text
    assert found["space_groups"][0]["number"] == 225


def test_a_thickness_that_cannot_be_is_status_2(capsys, files):
    assert main(["identify", files[0], "--thickness-nm", "-3"]) == 2
    assert "--thickness-nm is -3.0" in capsys.readouterr().err


def test_lists_and_tilts():
    assert _names(" Fe, Al ,") == ("Fe", "Al")
    assert (_tilt("18.4"), _tilt("-12,3.5")) == (18.4, (-12.0, 3.5))
    for wrong in ("a", "1,2,3", "200", "nan"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected an angle"):
            _tilt(wrong)


def test_stage_of_a_file():
    def signal(**stage):
        return {"metadata": {"Acquisition_instrument": {"TEM": {"Stage": stage}}}}

    assert stage_deg(signal(tilt_alpha=-12.5, tilt_beta=3)) == (-12.5, 3.0)
    assert stage_deg(signal(tilt_alpha=-12.5)) is None
    assert stage_deg(signal(tilt_alpha=0.0, tilt_beta=0.0)) is None  # never read out
    assert stage_deg(signal(tilt_alpha=np.nan, tilt_beta=1)) is None
    assert stage_deg({}) is None
    mapped = {
        "original_metadata": {"a": {"alpha": 10.0, "beta": -4.0}},
        "mapping": {
            "a.alpha": ("Acquisition_instrument.TEM.Stage.tilt_alpha", None),
            "a.beta": ("Acquisition_instrument.TEM.Stage.tilt_beta", None),
        },
    }
    assert stage_deg(mapped) == (10.0, -4.0)
