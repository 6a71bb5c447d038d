"""Training on the images of a data set."""

from __future__ import annotations

import pytest
import torch

from napari_sadp.dataset.build import build_dataset
from napari_sadp.dataset.config import DatasetConfig
from napari_sadp.dataset.disk_stream import DiskStream
from napari_sadp.dataset.read import open_dataset
from napari_sadp.models.recipe import TrainConfig, load_recipe
from napari_sadp.models.train import train
from napari_sadp.models.weights import load_weights


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "set"
    data = DatasetConfig(
        groups=(225, 229), per_group=2, max_atoms=8, validation_share=0.4, size=48, format="shards",
        pixel_sizes_inv_angstrom=(0.04,),
    )  # fmt: skip
    *_, last = build_dataset(data, folder)
    assert last.done == last.total
    return folder


def test_the_recipe_of_the_article_on_a_small_data_set(images, tmp_path):
    changes = {
        "source": str(images), "size": 40, "samples": 48, "step_samples": 16, "batch_size": 8, "initial": "",
        "architecture": "resnet18", "groups": (225, 229), "device": "cpu", "validations": 1,
    }  # fmt: skip
    run = train(load_recipe("article", **changes), tmp_path)
    for step in run:
        if step.samples >= 16:
            break
    run.close()
    *_, last = train(load_recipe("article", **changes), tmp_path, resume=True)
    _, card, _ = load_weights(last.weights)
    assert card.conversion == "article"
    assert card.size == 40
    # its labels are those by symmetry: of the visible class nothing is known
    assert {key for key in card.metrics if key.endswith("class")} == {"accuracy_symmetry_class"}
    assert card.accuracy == card.metrics["accuracy_symmetry_class"]
    assert "It names the class by symmetry" in card.limits
    assert "Measured on formulas that were held out." in card.limits
    with pytest.raises(ValueError, match="expected the 60"):
        list(train(load_recipe("article", **(changes | {"groups": TrainConfig().groups})), tmp_path / "b"))


def test_a_disk_stream_shows_every_image_once_in_an_epoch(images):
    reader = open_dataset(images)
    stream = DiskStream(reader, "train", size=40, seed=1)
    rows = torch.cat([stream.draw(8)[2] for _ in range(2 * len(stream) // 8)])
    one, two = rows[: len(stream)], rows[len(stream) : 2 * len(stream)]
    assert sorted(one.tolist()) == sorted(two.tolist()) == reader.splits["train"].tolist()
    assert one.tolist() != two.tolist()
    # a run that goes on sees what it would have seen
    later = DiskStream(reader, "train", size=40, seed=1)
    later.seek(len(stream))
    assert later.draw(8)[2].tolist() == two[:8].tolist()
    held_out = DiskStream(reader, "validation", size=40)
    formulas = [reader.rows[int(row)]["formula"] for row in held_out.draw(6)[2]]
    assert len(set(formulas)) > 1  # a few images are of all structures
    held_out.seek(0)
    crops, labels, rows = held_out.draw(4)
    middle = reader[int(rows[0])][0][4:44, 4:44]
    assert torch.equal(crops[0, 0], torch.from_numpy(middle.copy()))
    assert labels.tolist() == reader.labels[rows.numpy()].tolist()
    with pytest.raises(ValueError, match="size is 64, expected at most that of the images, 48 px"):
        DiskStream(reader, "train", size=64)
