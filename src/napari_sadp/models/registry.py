"""Networks by name: those in the package, and those that a user has added.

The folder of a user's networks is that of the environment variable `WEIGHTS_VARIABLE`, else the place that the system has for
data of applications. Names are found without loading PyTorch.
"""

from __future__ import annotations

import os
import shutil
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from napari_sadp._atomic import atomic_path
from napari_sadp._validate import check_file_name, check_option
from napari_sadp.errors import CheckpointError

if TYPE_CHECKING:
    from napari_sadp.models.weights import WeightsCard

#: Name of the network of the package that is used where none is named.
BUNDLED = "sadp_resnet18"
#: All networks of the package: that one, and one for measured nodes that are drawn anew.
PACKAGED: tuple[str, ...] = (BUNDLED, "sadp_resnet18_rendered")
#: Environment variable that names the folder of the user's networks.
WEIGHTS_VARIABLE = "NAPARI_SADP_WEIGHTS"

#: File of a run folder that holds the state of its training.
CHECKPOINT = "checkpoint.safetensors"


def bundled_path(name: str = BUNDLED) -> Path:
    """Return the tensor file of a network that ships with the package."""
    return Path(str(files("napari_sadp").joinpath("data", "weights", f"{name}.safetensors")))


def weights_folder() -> Path:
    """Return the folder of the user's networks; it need not exist."""
    chosen = os.environ.get(WEIGHTS_VARIABLE)
    return (
        Path(chosen)
        if chosen
        else Path(platformdirs.user_data_dir("napari-sadp", appauthor=False), "weights")
    )


def list_weights() -> dict[str, Path]:
    """Return the tensor files of all networks by name, those of the package first.

    Returns
    -------
    dict of str to Path
        The user's in the order of the alphabet.
    """
    own = sorted(weights_folder().glob("*.safetensors"))
    package = {name: bundled_path(name) for name in PACKAGED}
    return package | {path.stem: path for path in own if path.stem not in PACKAGED}


def find_weights(weights: str | os.PathLike[str] | None = None) -> Path:
    """Return the tensor file of a network.

    Parameters
    ----------
    weights : str or path-like, optional
        Name of a network, or its file; that of the package by default.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    CheckpointError
        If there is neither such a file nor such a name.
    """
    if weights is None:
        return bundled_path()
    known = list_weights()
    path = Path(weights)
    if path.is_file():
        return path
    if str(weights) in known:
        return known[str(weights)]
    raise CheckpointError(f"{weights}: no such weight file, and no network of that name: {', '.join(known)}")


def add_weights(
    path: str | os.PathLike[str], name: str | None = None, *, replace: bool = False
) -> WeightsCard:
    """Copy a network to the user's own, after a check that it can be used.

    Parameters
    ----------
    path : path-like
        Tensor file, with its card beside it.
    name : str, optional
        Name to give it; that of the file by default.
    replace : bool
        Whether it may take the place of one of the user's own of that name.

    Returns
    -------
    WeightsCard
        Its card.

    Raises
    ------
    CheckpointError
        If it cannot be used with this version.
    ValueError
        If the name is taken or is no name.
    """
    from napari_sadp.models.weights import load_weights

    source = Path(path)
    name = source.stem if name is None else name
    check_new_name(name, replace=replace)
    _, card, _ = load_weights(source)
    folder = weights_folder()
    folder.mkdir(parents=True, exist_ok=True)
    # the card first: a network is there once its tensors are
    for suffix in (".json", ".safetensors"):
        with atomic_path(folder / f"{name}{suffix}") as temporary:
            shutil.copyfile(source.with_suffix(suffix), temporary)
    return card


def check_new_name(name: str, *, replace: bool = False) -> None:
    """Raise `ValueError` unless a new network may have a name, which one of the user's own may have already with `replace`."""
    check_file_name("name", name)
    if name in list_weights() and not (replace and name not in PACKAGED):
        raise ValueError(
            f"name is {name!r}, which there is already; expected another one, or remove that first"
        )


def runs_folder() -> Path:
    """Return where runs of training go unless a folder is named; it need not exist."""
    return weights_folder().parent / "runs"


def remove_weights(name: str) -> None:
    """Remove one of the user's networks.

    Parameters
    ----------
    name : str
        Its name.

    Raises
    ------
    ValueError
        If there is none of that name; those of the package stay.
    """
    own = {key: path for key, path in list_weights().items() if key not in PACKAGED}
    check_option("name", name, own)
    own[name].unlink()
    own[name].with_suffix(".json").unlink(missing_ok=True)


def describe_weights() -> list[tuple[str, Path, WeightsCard | CheckpointError]]:
    """Return name, tensor file and card of all networks, or why a card cannot be read."""
    from napari_sadp.models.weights import read_card

    rows: list[tuple[str, Path, WeightsCard | CheckpointError]] = []
    for name, path in list_weights().items():
        try:
            rows.append((name, path, read_card(path)))
        except CheckpointError as error:
            rows.append((name, path, error))
    return rows
