"""What training could have known: structures that a report calls unseen, and networks beside each other."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict, replace

import pytest
import torch
from support.cifs import write_cif

from napari_sadp.dataset.build import build_dataset
from napari_sadp.dataset.config import DatasetConfig
from napari_sadp.dataset.crystals import ELSEWHERE, UNKNOWN, TrainedOn, is_held_out, own_catalogue_sha256
from napari_sadp.errors import StructureError
from napari_sadp.evaluate import parts
from napari_sadp.evaluate.parts import is_part
from napari_sadp.evaluate.report import write_report
from napari_sadp.evaluate.rows import RowStore
from napari_sadp.evaluate.run import EvaluationConfig, evaluate, row_settings
from napari_sadp.evaluate.structures import PACKAGE_ALONE, describe_runs, held_out_keys, held_out_structures
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models import sources
from napari_sadp.models.recipe import TrainConfig
from napari_sadp.models.registry import bundled_path
from napari_sadp.models.resnet import build_resnet
from napari_sadp.models.sources import open_source_steps, trained_on, trained_on_record
from napari_sadp.models.weights import WeightsCard, read_card, save_weights
from napari_sadp.simulation.catalogue import CATALOGUE_VARIABLE, find_structure, load_catalogue

GROUPS = (225, 229)
#: A sha256 that no file has.
SOME = "5" * 64


@pytest.fixture(scope="module")
def scheme():
    return build_scheme(GROUPS)


def entry_of(entry, formula, key, **elements):
    """Return a structure for a catalogue file, with other elements."""
    sites = [
        [[[elements.get(name, name), *rest] for name, *rest in species], *others]
        for species, *others in entry.sites
    ]
    return {
        "formula": formula, "group": entry.space_group, "cell": entry.cell, "n_atoms": entry.n_atoms, "source": "mine",
        "id": key, "licence": "own", "mirrored": False, "sites": sites,
    }  # fmt: skip


def write_entries(path, entries):
    path.write_bytes(gzip.compress(json.dumps(entries).encode()))
    return path


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory):
    """Three structures of one's own, none of a compound of the package but the last, which training draws by its other spelling."""
    carbide = find_structure("TiC", 225)
    rare = ("Xe", "Kr", "Ar", "Ne", "He", "Pm", "Tc", "Ra", "Fr", "At", "Po")
    drawn, held = (
        next(name for name in rare if is_held_out_named(f"Ti{name}") == kept) for kept in (False, True)
    )
    twin = held_out_twin()
    # a name that is no formula: nothing tells that it is the same compound but the structure itself
    names = (f"{twin.formula} sample {n}" for n in range(1, 20))
    spelled = next(name for name in names if not is_held_out_named(name))
    path = tmp_path_factory.mktemp("own") / "mine.json.gz"
    entries = [
        entry_of(carbide, f"Ti{drawn}", "drawn", C=drawn),
        entry_of(carbide, f"Ti{held}", "held", C=held),
        entry_of(twin, spelled, "twin"),
    ]
    return write_entries(path, entries)


def held_out_twin():
    return next(e for e in load_catalogue("") if e.space_group == 225 and e.n_atoms <= 250 and is_held_out(e))


def is_held_out_named(formula):
    return is_held_out(replace(find_structure("TiC", 225), formula=formula))


def own_keys(found):
    return {key.split()[-1] for key in found} & {"drawn", "held", "twin"}


def test_what_training_drew_from_a_catalogue_of_ones_own_is_not_unseen(scheme, catalogue):
    def unseen(*runs):
        return held_out_keys(scheme, runs, str(catalogue))

    twin = f"{held_out_twin().formula} {held_out_twin().key}"
    # the network of the package cannot know any of it
    alone = unseen(*PACKAGE_ALONE)
    assert own_keys(alone) == {"drawn", "held", "twin"}
    assert twin in alone
    for own in (SOME, UNKNOWN):
        found = unseen(TrainedOn("formula", own))
        assert own_keys(found) == {"held"}
        assert twin not in found  # the same compound was trained on, spelled otherwise
    assert own_keys(unseen(TrainedOn("formula", ELSEWHERE))) == set()
    # a network that started from one that had it may have seen it too
    assert own_keys(unseen(TrainedOn("formula", SOME), TrainedOn("formula"))) == {"held"}


def test_a_catalogue_that_is_not_given_counts_too(scheme, catalogue, monkeypatch):
    twin = f"{held_out_twin().formula} {held_out_twin().key}"
    runs = [TrainedOn("formula", SOME)]
    assert twin in held_out_keys(scheme, runs)
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(catalogue))
    assert twin not in held_out_keys(scheme, runs)
    assert not own_keys(held_out_keys(scheme, runs))  # it is not drawn from either
    assert twin in held_out_keys(scheme, PACKAGE_ALONE)


def test_a_network_through_two_runs_knows_what_either_drew(scheme):
    formula, kind = TrainedOn("formula"), TrainedOn("type")
    both = held_out_keys(scheme, [formula, kind])
    assert both == held_out_keys(scheme, [formula]) & held_out_keys(scheme, [kind])
    assert 0 < len(both) < len(held_out_keys(scheme, [kind]))
    assert held_out_keys(scheme, [formula, TrainedOn("seed")]) == set()
    # a run that held out formulas alone knew relatives
    assert not all(item.new_type for item in held_out_structures(scheme, [formula, kind]))


def network_card(**recipe):
    scheme = build_scheme(GROUPS)
    return WeightsCard(
        "test", "resnet18", 32, scheme.groups, scheme.labels, scheme.version, recipe=recipe, sha256=SOME
    )


@pytest.mark.parametrize(
    ("recipe", "runs"),
    [
        ({"trained_on": [{"split": "type", "own": SOME}]}, [("type", SOME)]),
        ({"trained_on": [{"split": "formula", "own": ""}] * 2}, [("formula", "")]),
        # what is damaged is unknown, and goes for nothing that is good
        ({"trained_on": [{"split": "formula"}, 3]}, [("formula", ELSEWHERE), (UNKNOWN, ELSEWHERE)]),
        ({"trained_on": []}, [(UNKNOWN, ELSEWHERE)]),
        ({"trained_on": 3}, [(UNKNOWN, ELSEWHERE)]),
        # older versions: the split of a stream counts, that of a data set does not, nothing says what own structures there were
        ({"source": "stream", "split": "type"}, [("type", UNKNOWN)]),
        ({"source": "stream"}, [("formula", UNKNOWN)]),
        ({"source": "somewhere", "split": "type"}, [(UNKNOWN, ELSEWHERE)]),
        ({}, [(UNKNOWN, ELSEWHERE)]),
        ({"source": "stream", "initial": "imagenet"}, [("formula", UNKNOWN)]),
        (
            {"source": "stream", "initial": "other.safetensors, sha256 0123456789ab"},
            [(UNKNOWN, ELSEWHERE), ("formula", UNKNOWN)],
        ),
    ],
)
def test_a_card_tells_what_training_could_know(recipe, runs):
    assert trained_on(network_card(**recipe)) == tuple(TrainedOn(*run) for run in runs)


def test_the_network_of_the_package_is_known():
    card = read_card(bundled_path())
    assert trained_on(card) == PACKAGE_ALONE
    started = {"source": "stream", "initial": f"sadp_resnet18.safetensors, sha256 {card.sha256[:12]}"}
    assert trained_on(network_card(**started)) == (TrainedOn("formula"), TrainedOn("formula", UNKNOWN))


def opened(config, folder=None):
    steps = open_source_steps(
        config, build_scheme(GROUPS), validation=False, device=torch.device("cpu"), folder=folder
    )
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize(
    ("changes", "cif", "expected"),
    [
        ({"split": "seed"}, None, TrainedOn("seed")),
        ({}, None, TrainedOn("formula")),
        # a formula of training, and one that is held out
        ({}, ("Ti1 Ti 0 0 0 0.5", "C1 C 0.5 0.5 0.5 0.5"), TrainedOn("formula", ELSEWHERE)),
        ({}, ("Al1 Al 0 0 0 0.5",), TrainedOn("formula")),
    ],
)
def test_of_a_data_set_its_own_split_counts(changes, cif, expected, tmp_path):
    if cif:
        (tmp_path / "cifs").mkdir()
        write_cif(tmp_path / "cifs" / "mine.cif", cif)
        changes = {"cif_folder": str(tmp_path / "cifs")}
    data = DatasetConfig(
        **{"groups": GROUPS, "per_group": 2, "max_atoms": 8, "validation_share": 0.4, "size": 32, "format": "shards"},
        zones=build_scheme(GROUPS).zones, pixel_sizes_inv_angstrom=(0.05,), **changes,
    )  # fmt: skip
    *_, last = build_dataset(data, tmp_path / "set")
    assert last.done == last.total
    config = TrainConfig(groups=GROUPS, size=32, source=str(tmp_path / "set"), split="type", device="cpu")
    assert opened(config).trained_on == expected


STREAM_RUN = {
    "groups": GROUPS,
    "size": 32,
    "crystals_per_behaviour": 1,
    "dynamical_nm": None,
    "device": "cpu",
}


def test_kept_spots_are_of_one_catalogue(catalogue, tmp_path, monkeypatch):
    worked = []
    build = sources.build_library_steps
    monkeypatch.setattr(sources, "build_library_steps", lambda *a, **k: worked.append(0) or build(*a, **k))
    config = TrainConfig(**STREAM_RUN, split="type")
    monkeypatch.delenv(CATALOGUE_VARIABLE, raising=False)
    first = opened(config, tmp_path)
    assert first.trained_on == TrainedOn("type")
    opened(config, tmp_path)
    assert len(worked) == 1
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(catalogue))
    second = opened(config, tmp_path)
    assert len(worked) == 2
    assert second.trained_on == TrainedOn("type", own_catalogue_sha256())
    assert trained_on_record(second, trained_on_record(first)) == [
        asdict(first.trained_on),
        asdict(second.trained_on),
    ]
    assert trained_on_record(second, trained_on_record(second)) == [asdict(second.trained_on)]
    monkeypatch.setenv(CATALOGUE_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(StructureError, match=CATALOGUE_VARIABLE):
        opened(config, tmp_path)


def network(folder, *runs, seed=1, architecture="resnet18", **recipe):
    """Write a network that was never trained, all of one name; returns its file."""
    scheme = build_scheme(GROUPS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = build_resnet(architecture, len(scheme))
    if runs:
        recipe["trained_on"] = [asdict(run) for run in runs]
    card = WeightsCard("net", architecture, 32, scheme.groups, scheme.labels, scheme.version, recipe=recipe)
    return save_weights(folder, card, layers)


def measured(weights, folder, *compare, parts=(), **changes):
    config = EvaluationConfig(
        str(weights), tuple(map(str, compare)), 20, parts=tuple(parts), device="cpu", **changes
    )
    steps = evaluate(config, folder / "rows")
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@pytest.mark.parametrize("split", ["seed", UNKNOWN])
def test_a_report_says_that_training_may_have_known(split, tmp_path, scheme, catalogue):
    weights = network(tmp_path / "net", TrainedOn(split), split="type")
    found = measured(weights, tmp_path)
    assert not found.sure
    assert {item.key for item in found.structures} == held_out_keys(scheme, PACKAGE_ALONE)
    assert not any(item.new_type for item in found.structures)
    text = write_report(found, tmp_path).read_text()
    assert "**Training may have known these structures**: it held out some by " in text
    assert "training held out" not in text
    # a catalogue of others is unknown for sure, and then stands alone
    found = measured(weights, tmp_path, catalogue=str(catalogue))
    assert found.sure
    assert {item.key.split()[-1] for item in found.structures} == {"drawn", "held"}
    assert "Structures that training could not know, by" in write_report(found, tmp_path).read_text()


def test_what_training_held_out_is_said(tmp_path, scheme):
    weights = network(tmp_path / "net", TrainedOn("formula", SOME), TrainedOn("type"), split="formula")
    found = measured(weights, tmp_path)
    text = write_report(found, tmp_path).read_text()
    words = "Structures that training held out by formula and structure type, with structures beside those of the package: "
    assert f"{words}{len(found.structures)} (" in text
    settings = row_settings(found.config, found.classifier.card, found.trained_on)
    assert settings["trained_on"][0] == {"split": "formula", "own": SOME}
    assert describe_runs([TrainedOn("type", UNKNOWN)]).startswith(
        "by structure type, perhaps with structures"
    )
    alone = measured(network(tmp_path / "alone", TrainedOn("formula")), tmp_path)
    assert "trained_on" not in row_settings(alone.config, alone.classifier.card, alone.trained_on)


def test_networks_that_held_out_others_are_no_match(tmp_path):
    formula = network(tmp_path / "formula", TrainedOn("formula"))
    kind = network(tmp_path / "type", TrainedOn("type"), seed=2)
    with pytest.raises(
        ValueError, match=r"may have been trained on .* held out .by structure type, not by formula"
    ):
        measured(formula, tmp_path, kind)
    # one that leaves it open is shown with a word on it
    old = network(tmp_path / "old", seed=3, source="somewhere", split="formula")
    found = measured(formula, tmp_path, old)
    assert found.unsure == (str(old),)
    text = write_report(found, tmp_path).read_text()
    assert f"leaves it open: net {read_card(old).sha256[:12]}." in text
    # what went through both knows what either drew: of its own held-out structures neither knew one
    both = network(tmp_path / "both", TrainedOn("formula"), TrainedOn("type"), seed=4)
    assert measured(both, tmp_path, formula, kind).unsure == ()


def given_answers(monkeypatch, right):
    """Have networks, by their sha256, classify so many of 20 aligned images right."""

    def library(*_):
        yield 0, 1

    def rows(classifier, structures, *_):
        n = right[classifier.card.sha256]
        item = structures[0]
        about = {"structure": item.key, "behaviour": item.behaviour, "zone": 0, "new_type": 0, "thickness_nm": 0.0,
                 "coarse": 0, "visible": 1, "symmetry": 1, "confidence": 0.5}  # fmt: skip
        yield 0, 1
        return [about | {"found": int(k < n)} for k in range(20)]

    monkeypatch.setattr(parts, "aligned_library", library)
    monkeypatch.setattr(parts, "aligned_rows", rows)


def test_the_report_has_all_parts_that_are_complete(tmp_path, monkeypatch):
    weights = network(tmp_path / "net", TrainedOn("formula"))
    given_answers(monkeypatch, {read_card(weights).sha256: 20})
    first = write_report(measured(weights, tmp_path, parts=["aligned"]), tmp_path).read_text()
    # a table of which a row is lacking is none; one of other settings is none either
    store = RowStore(
        tmp_path / "rows", json.loads((tmp_path / "rows" / "settings.json").read_text()), is_part
    )
    speed = [
        {"architecture": "resnet18", "size": 32, "parameters": 1, "ms_per_image": 1.0, "device": "cpu"}
    ] * 9
    store.write("speed", speed)
    monkeypatch.setitem(parts._PARTS, "aligned", parts._PARTS["aligned"]._replace(measure=None))
    found = measured(weights, tmp_path)
    assert set(found.rows) == {"aligned"}
    assert write_report(found, tmp_path).read_text() == first
    assert "--parts aligned --device cpu` makes all of this" in first
    store.write("speed", [*speed, speed[0]])
    assert set(measured(weights, tmp_path).rows) == {"aligned", "speed"}
    assert not measured(weights, tmp_path, seed=1, replace=True).rows


def test_networks_of_one_name_have_a_line_each(tmp_path, monkeypatch):
    formula = TrainedOn("formula")
    main = network(tmp_path / "18", formula, images_seen=1000)
    others = {
        network(tmp_path / "another", formula, seed=2, images_seen=2000): 5,
        network(tmp_path / "34", formula, architecture="resnet34", images_seen=3000): 10,
    }
    right = {read_card(path).sha256: n for path, n in others.items()} | {read_card(main).sha256: 20}
    given_answers(monkeypatch, right)
    found = measured(main, tmp_path, *others, parts=["aligned"])
    text = write_report(found, tmp_path).read_text()
    for path, n, seen in (
        (main, 20, 1000),
        *((p, n, s) for (p, n), s in zip(others.items(), (2000, 3000), strict=True)),
    ):
        card = read_card(path)
        (line,) = (line for line in text.splitlines() if f"| net {card.sha256[:12]} |" in line)
        assert line.startswith(f"| {card.architecture} |")
        assert f"| {5 * n}.0 % (" in line
        assert f"| {seen} images |" in line
    assert text.count("| resnet50 |") == 1
    # the command makes this report, and says nothing about this machine
    name = main.name
    assert (
        f"`napari-sadp evaluate --weights {name} --compare {name} --compare {name} --patterns 20 --seed 0 --parts aligned "
        "--device cpu`"
    ) in text
    assert str(tmp_path) not in text
