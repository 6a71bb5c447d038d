"""The terminal, as a user meets it: files of every format, tables, JSON, errors and exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from support.containers import Acquisition, write_container
from support.shared import REAL, needs_real

from napari_sadp.cli import main
from napari_sadp.samples import sample_dir, simulated_sample

PIXEL_SIZE = 0.0125


@pytest.fixture(scope="module")
def silicon():
    """Two zone axes of silicon; together they name the group."""
    return [simulated_sample("Si", 227, zone, seed=11 + i) for i, zone in enumerate([(0, 1, 1), (0, 1, 3)])]


def about():
    return Acquisition(
        scale=(10 * PIXEL_SIZE, 10 * PIXEL_SIZE), units="1/nm", voltage_kv=200.0, camera_length_mm=300.0
    )


def identify(capsys, *arguments):
    """Run the command in this process; return (exit status, parsed JSON, standard error)."""
    status = main(["identify", "--json", *map(str, arguments)])
    output = capsys.readouterr()
    return status, json.loads(output.out), output.err


@pytest.mark.parametrize(
    ("name", "variant"),
    [("a.dm3", None), ("a.dm4", None), ("a.emd", "velox"), ("a.emd", "ncem"), ("a.hspy", None)],
)
def test_containers_end_to_end(tmp_path, capsys, silicon, name, variant):
    paths = []
    for index, pattern in enumerate(silicon):
        path = tmp_path / f"{index}{name}"
        options = {} if variant is None else {"variant": variant}
        write_container(path, pattern.data.astype(np.uint16), about(), **options)
        paths.append(path)
    status, found, _ = identify(capsys, *paths)
    assert status == 0
    assert [p["status"] for p in found["patterns"]] == ["ok", "ok"]
    # shortest vectors: 111 in [011]; in [013] the node 200, absent itself
    for entry, hkl in zip(found["patterns"], (np.sqrt(3), 2.0), strict=True):
        assert entry["g1_inv_angstrom"] == pytest.approx(hkl / 5.46873, rel=0.01)
        assert entry["pixel_size_inv_angstrom"] == pytest.approx(PIXEL_SIZE, rel=1e-6)
        if variant != "ncem":  # that format has no place for them
            assert entry["voltage_kv"] == pytest.approx(200)
            assert entry["camera_length_mm"] == pytest.approx(300)
    assert found["space_groups"][0]["number"] == 227
    assert found["space_groups"][0]["symbol"] == "Fd-3m"


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_plain_images(tmp_path, capsys, silicon, name):
    import imageio.v3 as iio

    path = tmp_path / name
    iio.imwrite(path, silicon[0].data.clip(0, 65535).astype(np.uint16))
    status, found, _ = identify(capsys, path)
    assert status == 0
    [entry] = found["patterns"]
    assert entry["status"] == "ok"
    assert entry["g1_inv_angstrom"] is None
    assert entry["class"]["label"] == "D4-3"


def test_keys_and_sums(tmp_path, capsys, silicon):
    path = tmp_path / "a.dm4"
    write_container(path, silicon[0].data.astype(np.uint16), about())
    _, found, _ = identify(capsys, path)
    [entry] = found["patterns"]
    assert entry["path"] == str(path)
    assert entry["frame"] == 0
    assert entry["reason"] is None
    assert len(entry["beam_rc"]) == 2
    lattice = entry["lattice"]
    assert set(lattice) >= {"g1_px", "g2_px", "ratio", "angle_deg", "rms_px", "n_spots"}
    assert lattice["ratio"] >= 1
    assert 0 <= lattice["angle_deg"] <= 90
    assert sum(entry["class_probabilities"].values()) == pytest.approx(1)
    assert entry["class"]["probability"] == pytest.approx(max(entry["class_probabilities"].values()))
    probabilities = [group["probability"] for group in found["space_groups"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1)


def test_the_sample_stack_of_the_demo(capsys):
    [path] = sample_dir().glob("*.hspy")
    status, found, _ = identify(capsys, path)
    assert status == 0
    assert all(entry["status"] == "ok" for entry in found["patterns"])
    assert found["space_groups"][0]["number"] == 225
    assert found["space_groups"][0]["probability"] > 0.6


def test_frames_beam_and_rule(capsys):
    [path] = sample_dir().glob("*.hspy")
    _, everything, _ = identify(capsys, path)
    entry = everything["patterns"][1]
    row, col = entry["beam_rc"]
    _, one, _ = identify(capsys, path, "--frames", "1", "--beam", row + 0.4, col - 0.4, "--rule", "mean")
    assert [p["frame"] for p in one["patterns"]] == [1]
    assert one["rule"] == "mean"
    assert one["patterns"][0]["beam_rc"] == pytest.approx([row, col], abs=1.0)
    status, none, error = identify(capsys, path, "--frames", "99")
    assert status == 1
    assert none["space_groups"] == []
    assert "has 3 frame(s), --frames asks for 99" in error
    _, bare, _ = identify(capsys, path, "--frames", "0", "--no-masks")
    assert "beam stops, margins and bars are not looked for" in bare["patterns"][0]["notes"]
    assert not any("not looked for" in note for entry in everything["patterns"] for note in entry["notes"])
    # a wide range costs nothing and still uses what is there
    status, some, _ = identify(capsys, path, "--frames", "2-99999999999")
    assert status == 0
    assert [p["frame"] for p in some["patterns"]] == [None, 2]


def test_repeated_patterns_are_no_new_evidence(capsys):
    [path] = sample_dir().glob("*.hspy")
    _, once, _ = identify(capsys, path, "--frames", "1")
    _, often, _ = identify(capsys, *[path] * 4, "--frames", "1")
    assert often["n_used"] == 4
    for first, second in zip(once["space_groups"], often["space_groups"], strict=True):
        assert second["probability"] == pytest.approx(first["probability"], abs=1e-6)


def test_a_beam_far_outside_the_frame_is_refused(capsys):
    [path] = sample_dir().glob("*.hspy")
    status, found, _ = identify(capsys, path, "--frames", "1", "--beam", "900", "-400")
    assert status == 1
    assert "outside the frame" in found["patterns"][0]["detail"]


def test_pixel_size_is_taken_from_the_user(tmp_path, capsys, silicon):
    path = tmp_path / "a.dm3"
    write_container(path, silicon[0].data.astype(np.uint16), about())
    _, first, _ = identify(capsys, path)
    _, second, _ = identify(capsys, path, "--pixel-size", 2 * PIXEL_SIZE)
    ratio = second["patterns"][0]["g1_inv_angstrom"] / first["patterns"][0]["g1_inv_angstrom"]
    assert ratio == pytest.approx(2)


def test_bad_files_are_named_and_the_others_still_done(tmp_path, capsys, silicon):
    good = tmp_path / "good.dm4"
    write_container(good, silicon[1].data.astype(np.uint16), about())
    truncated = tmp_path / "truncated.dm4"
    truncated.write_bytes(good.read_bytes()[:5000])
    text = tmp_path / "text.dm3"
    text.write_text("this is no microscope file")
    empty = tmp_path / "empty.emd"
    write_container(empty, np.full((128, 128), 7, dtype=np.uint16), about(), variant="ncem")
    missing = tmp_path / "missing.dm3"
    status, found, error = identify(capsys, truncated, text, missing, empty, good)
    assert status == 0
    lines = error.strip().splitlines()
    assert len(lines) == 3
    assert all(
        name in line for name, line in zip(("truncated.dm4", "text.dm3", "missing.dm3"), lines, strict=True)
    )
    assert [p["path"].rsplit("/")[-1] for p in found["patterns"]] == [
        "truncated.dm4", "text.dm3", "missing.dm3", "empty.emd", "good.dm4",
    ]  # fmt: skip
    assert len({frozenset(p) for p in found["patterns"]}) == 1  # every entry has every key
    reasons = {p["path"].rsplit("/")[-1]: p["reason"] for p in found["patterns"]}
    assert reasons == {
        "good.dm4": None,
        "empty.emd": "empty",
        "truncated.dm4": "unreadable",
        "text.dm3": "unreadable",
        "missing.dm3": "unreadable",
    }


def test_nothing_usable_is_status_1(tmp_path, capsys):
    image = tmp_path / "micrograph.dm3"
    rng = np.random.default_rng(0)
    data = rng.poisson(100, (128, 128)).astype(np.uint16)
    write_container(image, data, Acquisition(scale=(0.5, 0.5), units="nm"))
    status, found, _ = identify(capsys, image)
    assert status == 1
    assert found["patterns"][0]["reason"] == "image"
    assert found["space_groups"] == []
    assert main(["identify", str(image)]) == 1
    assert "refused (image)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["identify"],
        ["identify", "a.dm3", "--rule", "vote"],
        ["identify", "a.dm3", "--frames", "x"],
        ["classify", "a.dm3"],
        [],
    ],
)
def test_wrong_usage_is_status_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pixel-size", "-1"], "--pixel-size is -1"),
        (["--device", "abacus"], "device is 'abacus'"),
        (["--min-snr", "0"], "min_snr"),
        (["--faintest", "0.9"], "faintest"),
        (["--picture", "/nowhere/at/all.png"], "--picture"),
        (["--picture", "result.xyz"], "expected a file name ending in .png"),
    ],
)
def test_options_that_cannot_be_are_status_2(arguments, message, capsys):
    [path] = sample_dir().glob("*.hspy")
    assert main(["identify", str(path), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_unusable_weights_are_named(tmp_path, capsys):
    [path] = sample_dir().glob("*.hspy")
    assert main(["identify", str(path), "--weights", str(tmp_path / "none.safetensors")]) == 1
    assert "none.safetensors" in capsys.readouterr().err


def test_half_precision_is_another_arithmetic(capsys):
    [path] = sample_dir().glob("*.hspy")
    single, half = (
        identify(capsys, path, "--frames", "1", "--views", "one", "--device", "cpu", "--precision", name)[1]
        for name in ("single", "half")
    )
    first, second = (list(found["patterns"][0]["network_probabilities"].values()) for found in (single, half))
    assert second == pytest.approx(first, abs=0.05)
    assert second != pytest.approx(first, abs=1e-9)


def test_table_and_picture(tmp_path, capsys):
    [path] = sample_dir().glob("*.hspy")
    picture = tmp_path / "result.png"
    assert main(["identify", str(path), "--picture", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "225 Fm-3m" in text
    assert "by lattice" in text
    import imageio.v3 as iio

    assert min(iio.imread(picture).shape[:2]) > 300


@pytest.mark.parametrize("option", ["--recipe", "--config"])
def test_a_recipe_of_train_by_either_option(option, tmp_path, capsys):
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[network]\nsize = 8\n")
    assert main(["train", "--out", str(tmp_path / "run"), option, str(recipe)]) == 2
    assert "size is 8, expected" in capsys.readouterr().err


def test_a_device_that_fails_is_no_traceback(tmp_path, capsys, monkeypatch):
    from napari_sadp.models import train as trainer

    def fail(text):
        def steps(*_, **__):
            raise RuntimeError(text)

        monkeypatch.setattr(trainer, "train", steps)
        return main(["train", "--out", str(tmp_path / "run"), "--device", "cpu"])

    assert fail("CUDA out of memory. Tried to allocate 2 GiB\nmore of it") == 1
    message = capsys.readouterr().err
    assert (
        "the device failed (CUDA out of memory. Tried to allocate 2 GiB); choose smaller batches" in message
    )
    assert fail("CUDA error: device-side assert triggered") == 1
    assert main(["train", "--out", str(tmp_path / "run"), "--device", "cpu:foo"]) == 2
    assert "device is 'cpu:foo', available here" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="a fault of ours"):
        fail("a fault of ours")


@pytest.mark.parametrize("command", ["identify", "train"])
def test_help_names_units(command, capsys):
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert ("1/Angstrom" in text and "pixels" in text) if command == "identify" else "minutes" in text


def test_installed_command_prints_nothing_but_json():
    [path] = sample_dir().glob("*.hspy")
    done = subprocess.run(
        [sys.executable, "-m", "napari_sadp.cli", "identify", "--json", "--frames", "0", str(path)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_used"] == 1
    assert done.stderr == ""


@needs_real
def test_two_silver_grains_are_225(capsys):
    status, found, _ = identify(capsys, REAL / "ag_sped_two_grains.hspy")
    assert status == 0
    for entry in found["patterns"]:
        assert entry["lattice"]["ratio"] == pytest.approx(1.0, abs=0.03)
        assert entry["lattice"]["angle_deg"] == pytest.approx(70.5, abs=1.5)
        assert entry["g1_inv_angstrom"] == pytest.approx(0.4239, rel=0.02)
        assert entry["class"]["label"] == "D4-0"
    assert found["space_groups"][0]["number"] == 225


@needs_real
def test_a_rectangular_net_is_not_forced_into_a_cubic_class(capsys):
    _, found, _ = identify(capsys, REAL / "nanobeam_dd020.dm3")
    [entry] = found["patterns"]
    assert entry["lattice"]["ratio"] == pytest.approx(1.690, rel=0.02)
    assert entry["lattice"]["angle_deg"] == pytest.approx(88.9, rel=0.02)
    assert entry["class"]["label"] == "none"
    assert found["none_of_these"] > 0.5


@needs_real
def test_bismuth_rings_are_refused_alike_from_dm3_and_dm4(capsys):
    status, found, _ = identify(capsys, REAL / "bismuth.dm3", REAL / "bismuth.dm4")
    assert status == 1
    assert [p["reason"] for p in found["patterns"]] == ["rings", "rings"]
    assert found["patterns"][0]["beam_rc"] == found["patterns"][1]["beam_rc"]


@needs_real
def test_real_velox_image_is_refused_as_an_image(capsys):
    status, found, _ = identify(capsys, REAL / "metadata" / "stem_haadf_image.emd")
    assert status == 1
    assert found["patterns"][0]["reason"] == "image"


@needs_real
@pytest.mark.slow
def test_no_kind_of_real_file_crashes(capsys):
    # of each kind the smallest: what becomes of all of them, tests of the geometry ask
    every = sorted(REAL.rglob("*"), key=lambda path: path.stat().st_size)
    paths = list(
        {path.suffix: path for path in every[::-1] if path.suffix not in ("", ".csv", ".md")}.values()
    )
    status, found, _ = identify(capsys, *paths)
    assert status == 0
    assert {p["path"] for p in found["patterns"]} == set(map(str, paths))
