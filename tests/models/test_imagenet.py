"""Networks that start from weights of ImageNet."""

from __future__ import annotations

import os

import pytest
import torch
from support.training import config

from napari_sadp.errors import CheckpointError
from napari_sadp.labels.scheme import build_scheme
from napari_sadp.models.resnet import build_resnet, load_imagenet
from napari_sadp.models.run import TrainingRun


def test_imagenet_weights_without_a_network_say_what_to_do(monkeypatch, tmp_path):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(CheckpointError, match=r"cannot download .*resnet18.*from a copy of that file"):
        load_imagenet(build_resnet("resnet18", 5), "resnet18")


def test_imagenet_weights_come_from_a_file_too(monkeypatch, tmp_path):
    import torchvision.models as tvm

    torch.manual_seed(0)
    coloured = tvm.resnet18().state_dict()
    torch.save(coloured, tmp_path / "resnet18-0.pth")
    network = build_resnet("resnet18", 5)
    load_imagenet(network, "resnet18", tmp_path / "resnet18-0.pth")
    assert torch.equal(network.layer4[1].conv2.weight, coloured["layer4.1.conv2.weight"])
    run = TrainingRun(config(initial=str(tmp_path / "resnet18-0.pth")), build_scheme((225, 229)), tmp_path)
    assert torch.equal(run.network.layer4[1].conv2.weight, coloured["layer4.1.conv2.weight"])
    assert run.origin == {"initial": "resnet18-0.pth", "images_before": 0, "trained_on": []}
    with pytest.raises(CheckpointError, match=r"resnet18-0\.pth are not those of resnet34"):
        load_imagenet(build_resnet("resnet34", 5), "resnet34", tmp_path / "resnet18-0.pth")
    with pytest.raises(CheckpointError, match=r"expected a readable file of torchvision's weights"):
        load_imagenet(build_resnet("resnet18", 5), "resnet18", tmp_path / "missing.pth")


class _Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm_was_done",)


@pytest.mark.parametrize("content", ["pickle", "page"])
def test_a_file_with_something_else_in_it_is_refused_and_not_run(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "resnet18-0.pth"
    if content == "pickle":
        torch.save({"conv1.weight": _Harmful()}, path)
    else:
        path.write_text("<html>not found</html>")
    with pytest.raises(CheckpointError, match="holds no weights of torchvision"):
        load_imagenet(build_resnet("resnet18", 5), "resnet18", path)
    assert not (tmp_path / "harm_was_done").exists()


def test_imagenet_weights_see_grey_images_as_they_were(monkeypatch):
    import torchvision.models as tvm

    torch.manual_seed(0)
    coloured = tvm.resnet18().eval()
    monkeypatch.setattr(tvm.ResNet18_Weights, "get_state_dict", lambda *_, **__: coloured.state_dict())
    network = build_resnet("resnet18", 5).eval()
    head = network.fc.weight.clone()
    load_imagenet(network, "resnet18")
    grey = torch.rand(1, 1, 64, 64)
    coloured.fc = network.fc
    with torch.inference_mode():
        assert torch.allclose(network(grey), coloured(grey.expand(-1, 3, -1, -1)), atol=1e-4)
    assert torch.equal(network.fc.weight, head)
