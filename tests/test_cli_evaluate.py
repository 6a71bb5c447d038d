"""``napari-sadp evaluate`` from the command to the report."""

from __future__ import annotations

import csv
import dataclasses

import numpy as np
import pytest

from napari_sadp.cli import main
from napari_sadp.evaluate import parts
from napari_sadp.evaluate import run as evaluation
from napari_sadp.evaluate.frames import SWEEPS
from napari_sadp.evaluate.parts import NONE, REFUSED
from napari_sadp.evaluate.report import write_report
from napari_sadp.evaluate.run import Evaluation, EvaluationConfig
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models.predict import load_classifier
from napari_sadp.models.resnet import build_resnet
from napari_sadp.models.weights import WeightsCard, save_weights


@pytest.fixture
def short(monkeypatch):
    """A few frames of everything."""
    monkeypatch.setattr(parts, "SWEEPS", {name: SWEEPS[name] for name in ("tilt / mrad",)})
    monkeypatch.setattr(parts, "CONDITIONS", parts.CONDITIONS[:2])
    some = evaluation.held_out_structures
    monkeypatch.setattr(evaluation, "held_out_structures", lambda *a: some(*a)[::80])


@pytest.mark.slow
def test_a_report_of_everything(short, tmp_path, weights_file, capsys):
    words = [
        "evaluate",
        "--weights",
        str(weights_file),
        "--patterns",
        "20",
        "--device",
        "cpu",
        "--out",
        str(tmp_path),
    ]
    every = ["--parts", "aligned,frames,sweeps,groups,foreign", "--compare", str(weights_file)]
    assert main([*words, *every]) == 0
    # a network beside itself, on the same images
    compared = next((tmp_path / "rows").glob("aligned test *.csv"))
    assert compared.read_text() == (tmp_path / "rows" / "aligned.csv").read_text()
    text = (tmp_path / "README.md").read_text()
    assert "**Training may have known these structures**" in text  # the card has no record
    assert "test.safetensors --compare test.safetensors --patterns 20" in text
    assert str(tmp_path) not in text
    for part in (
        "network alone",
        "camera frame",
        "What matters",
        "Space groups",
        "None of these",
        "no outlier score",
    ):
        assert part in text
    assert "| 3 |" in text or "| 2 |" in text
    for name in ("confusion.png", "calibration.png", "sweeps.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "confusion.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 61
    assert sum(int(n) for row in rows[1:] for n in row[1:]) == 20
    shown = capsys.readouterr()
    assert str(tmp_path / "README.md") in shown.out
    assert "device: cpu" in shown.err
    # of a network whose rows are there the card is enough
    card = weights_file.with_suffix(".json")
    assert main([*words, "--parts", "aligned", "--compare", str(card)]) == 0
    compared.unlink()
    assert main([*words, "--parts", "aligned", "--compare", str(card)]) == 1
    assert "a card without rows here" in capsys.readouterr().err
    # nothing is measured twice
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    assert main([*words, "--parts", "groups"]) == 0
    assert before[tmp_path / "rows" / "frames.csv"] == (tmp_path / "rows" / "frames.csv").stat().st_mtime_ns
    # of what was measured before nothing is lost from the report
    again = (tmp_path / "README.md").read_text()
    sections = [part.partition("\n## Architectures")[0].splitlines() for part in (text, again)]
    assert [a for a, b in zip(*sections, strict=True) if a != b and not a.startswith("`napari-sadp")] == []
    assert (
        "test.safetensors --patterns 20 --seed 0 --parts aligned,frames,sweeps,groups,foreign --device cpu` makes"
        in again
    )
    # rows of another seed are not lost by a mistake
    assert main([*words, "--parts", "groups", "--seed", "1"]) == 2
    assert "groups.csv, sweeps.csv: seed 0, here 1" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "rows").iterdir()}
    assert main([*words, "--parts", "groups", "--seed", "1", "--replace"]) == 0
    again = (tmp_path / "README.md").read_text()
    assert "Space groups" in again
    assert "camera frame" not in again
    changed = [path.name for path, at in before.items() if path.stat().st_mtime_ns != at]
    assert sorted(changed) == ["groups.csv", "settings.json"]


def test_wrong_usage_is_named(tmp_path, capsys):
    assert main(["evaluate", "--parts", "everything", "--out", str(tmp_path)]) == 2
    assert "part is 'everything', expected one of 'aligned'" in capsys.readouterr().err
    assert main(["evaluate", "--patterns", "1", "--out", str(tmp_path)]) == 2
    assert "patterns is 1, expected a number in [20" in capsys.readouterr().err
    assert main(["evaluate", "--weights", "nothing", "--out", str(tmp_path)]) == 1
    assert "nothing: no such weight file" in capsys.readouterr().err


def test_networks_of_other_groups_are_no_match(tmp_path, weights_file, capsys):
    scheme = build_scheme((225, 229))
    card = WeightsCard("two", "resnet18", 96, scheme.groups, scheme.labels, scheme.version)
    other = save_weights(tmp_path, card, build_resnet("resnet18", len(scheme)))
    words = ["evaluate", "--weights", str(weights_file), "--compare", str(other), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert (
        "trained on the groups 225, 229, expected 213, 221, 225, 227, 229 as test" in capsys.readouterr().err
    )


def frame_row(number, found, visible, **changes):
    row = {
        "condition": "mild", "structure": f"s{number % 5}", "behaviour": "225", "zone": 0, "new_type": 0,
        "visible": visible, "symmetry": visible, "found": found, "network": found, "lattice": found,
        "confidence": 0.9, "none": 0.1, "lattice_none": 0.1, "reason": "rings" if found == REFUSED else "",
    }  # fmt: skip
    return row | changes


def test_the_report_counts_right(tmp_path, weights_file):
    """Tables from rows whose answer is known."""
    classifier = load_classifier(weights_file, "cpu")
    found = Evaluation(EvaluationConfig(), classifier, ())
    answers = [3] * 6 + [4] * 2 + [REFUSED] * 2
    above = {"above": 3, "confidence_above": 0.9}
    # of the frames used, the class of half hangs on noise
    found.rows["frames"] = [
        frame_row(i, answer, 3) | above | {"settled": i % 2} for i, answer in enumerate(answers)
    ]
    # refused with or without faint spots
    for row in found.rows["frames"][-2:]:
        row |= {"above": REFUSED, "confidence_above": 0.0}
    # nothing can be seen in this one: it does not count
    found.rows["frames"].append(frame_row(10, 5, NONE) | above | {"settled": 1})
    found.rows["groups"] = [
        {"structure": f"s{i}", "group": 225, "tried": 3, "group_1": 225 if i < 3 else 221, "stated_1": 0.5,
         "group_2": REFUSED, "stated_2": 0.0, "group_3": REFUSED, "stated_3": 0.0}
        for i in range(4)
    ]  # fmt: skip
    inside = [{"kind": "inside"} | frame_row(i, 3, 3, none=0.2, lattice_none=0.3) for i in range(4)]
    outside = [
        {"kind": "rings"} | frame_row(i, NONE, 3, none=n, lattice_none=0.1) for i, n in enumerate([0.1, 1.0])
    ]
    found.rows["foreign"] = inside + outside
    text = write_report(found, tmp_path).read_text()
    line = next(line for line in text.splitlines() if line.startswith("| mild, 10 of 11 | 80.0 % |"))
    cells = [cell.strip().split(" (")[0] for cell in line.split("|")]
    assert cells[3] == "100.0 %"  # 8 of 8 that are used, faint spots left out
    assert cells[4] == "75.0 %"  # 6 of these, with all spots
    assert cells[10] == "80.0 %"  # 8 of all 10
    assert "Refused: rings 2." in text
    assert "above 0.2 %: mild 100.0 % (" in text
    assert ") of 4, by the network alone " in text
    assert "| 1 | 4 | 75.0 % (" in text
    assert "50.0 % | 55.0 % |" in text  # stated, ceiling
    assert "| rings | 2 | 0 % | 0.500 | 0.000 | 0.0 % |" in text


def test_groups_are_drawn_with_equal_chances():
    @dataclasses.dataclass
    class Stub:
        behaviour: str
        space_group: int

        @property
        def crystal(self):
            return self

    many = tuple(Stub(name, int(name[:3])) for name in ["221"] * 30 + ["227a", "227b", "227b"])
    rng = np.random.default_rng(0)
    drawn = [parts.draw_structure(many, rng).behaviour for _ in range(4000)]
    shares = {name: drawn.count(name) / 4000 for name in ("221", "227a", "227b")}
    assert shares == pytest.approx({"221": 0.5, "227a": 0.25, "227b": 0.25}, abs=0.03)


def test_the_report_says_how_many_structures_a_group_has(tmp_path, weights_file):
    found = Evaluation(EvaluationConfig(), load_classifier(weights_file, "cpu"), ())
    about = {"condition": "article", "above": 3, "confidence_above": 0.9, "settled": 1}
    rows = [frame_row(i, 3, 3, **about) for i in range(6)]  # of five structures
    rows.append(frame_row(7, REFUSED, 3, structure="refused", **about))
    rows.append(frame_row(8, 3, NONE, structure="shows nothing", **about))
    rows.append(frame_row(9, 4, 3, behaviour="227b", new_type=1, **about))
    found.rows["frames"] = rows
    text = write_report(found, tmp_path).read_text()
    assert "until 100 frames of each space group show the lattice of a class" in text
    assert "| 225 | 7 | 6 | 6 | 100.0 % (" in text
    assert "| 227 | 1 | 1 | 1 | 100.0 % (" in text
    assert "| structure types of training | 7 | 6 | 6 | " in text
