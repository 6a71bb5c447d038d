"""The boundary to RosettaSciIO: a file goes in, its list of raw dictionaries or one `UnreadableFileError` comes out.

Readers of damaged files raise whatever their parser trips over (`struct.error`, `KeyError`, `ValueError` ...), log to
stderr and warn. All of that ends here: the caller sees one line that names the file, the cause and the way out.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import threading
import warnings
from typing import TYPE_CHECKING, Any

from napari_sadp.errors import UnreadableFileError

from ._claims import check_claims
from ._planes import read_planes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMON_EXTENSIONS = "dm3, dm4, emd, hspy, blo, mib, emi, ser, tif, png, bmp, jpg"

_FOLDER_FORMATS = {"zspy"}  # a zarr store is a folder
# several plugins claim these: try one after the other
_CONTAINER_EXTENSIONS = {"h5", "hdf5", "xml", "csv", "img", "mrc"}
# packages that some plugins need, and the extra of RosettaSciIO that brings them
_NEEDS = {
    "ZSPY": ("zarr", "zspy"),
    "MRCZ": ("mrcz", "mrcz"),
    "USID": ("pyUSID", "usid"),
    "Arina": ("hdf5plugin", "arina"),
}
_NEVER_LAZY = {"Image"}  # rsciio raises TypeError for lazy images
# a lazy tif keeps its file open until the garbage collector comes round, which pays for large files only
_EAGER_BELOW_BYTES = {"TIFF": 256 * 2**20}
_CHUNKED_BY_US = {"Blockfile", "QuantumDetector"}
_CHUNK_BYTES = 4 * 2**20
_MAGIC = {
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"\x89PNG": "PNG",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\xff\xd8\xff": "JPEG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"\0\0\0\x03": "DigitalMicrograph 3",
    b"\0\0\0\x04": "DigitalMicrograph 4",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"%PDF": "PDF",
}
_NOISY_LOGGERS = ("rsciio", "tifffile", "imageio", "PIL", "h5py")
_MAX_CAUSE = 160
# filters of warnings and levels of loggers belong to the process: two threads must not restore each other's
_LOCK = threading.RLock()


def load(path: Path, lazy: bool) -> tuple[str, list[dict[str, Any]], tuple[str, ...]]:
    """Read a file with the plugin that its extension names.

    Parameters
    ----------
    path : Path
        The file.
    lazy : bool
        Whether to leave the data on disk where the format allows it.

    Returns
    -------
    plugin : str
        Name of the RosettaSciIO plugin that read the file.
    signals : list of dict
        Its raw signals: ``data``, ``axes``, ``metadata``, ``original_metadata`` and perhaps ``mapping``.
    notes : tuple of str
        What RosettaSciIO warned about.

    Raises
    ------
    UnreadableFileError
        If the file is missing, empty, of an unknown format, or damaged, or a package that reads it is not installed.
    """
    plugins = _plugins_for(path)
    causes: list[str] = []
    incomplete: list[str] = []
    for plugin in plugins:
        with quiet() as heard:
            signals, cause, missing = _attempt(plugin, path, lazy)
            if cause:
                gc.collect()  # readers that fail leave their files open in cycles; be quiet about them here
        if signals:
            return plugin["name"], signals, tuple(dict.fromkeys(heard))
        if missing:
            incomplete.append(plugin["name"])
            cause = (
                f"needs {_NEEDS[plugin['name']][0]}, which is not installed"
                if plugin["name"] in _NEEDS
                else cause
            )
        causes.append(f"{plugin['name']}: {cause}")
    failure = f"{path}: not readable as .{_extension(path)} ({'; '.join(causes)})"
    if not incomplete:
        raise UnreadableFileError(
            f"{failure}; {_looks_like(path)}: copy it again from the microscope, or export it anew"
        )
    # of a file that nobody tried to read, the first bytes say nothing
    looks = "" if len(incomplete) == len(plugins) else f"; {_looks_like(path)}"
    raise UnreadableFileError(
        f"{failure}{looks}: {_how_to_install(incomplete)}, or export it to another format"
    )


def _how_to_install(plugins: list[str]) -> str:
    extras = ",".join(_NEEDS[name][1] for name in plugins if name in _NEEDS)
    return (
        f'install what is missing (pip install "rosettasciio[{extras}]")'
        if extras
        else "install what is missing"
    )


def one_line(error: BaseException) -> str:
    """Return the message of an exception on one line of bounded length, or its class where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (KeyError, IndexError)):
        text = f"{type(error).__name__} {text}"
    return text if len(text) <= _MAX_CAUSE else text[: _MAX_CAUSE - 3] + "..."


def check_extent(signal: dict[str, Any], plugin: str) -> None:
    """Raise `EOFError` where the image of a DigitalMicrograph file has more pixels than its data tag.

    These data are mapped by their dimensions, so that what stands behind them in the file would come out as pixels. An hspy
    file made from such a file carries the same tags, which then mean nothing.
    """
    if plugin != "DigitalMicrograph" or signal["data"].dtype.kind == "c":  # complex data may be packed
        return
    data_tag = (
        dig(as_mapping(signal.get("original_metadata")), "ImageList", "TagGroup0", "ImageData", "Data") or {}
    )
    announced, pixels = int(data_tag.get("size_bytes", 0)), int(signal["data"].nbytes)
    if pixels > announced:
        raise EOFError(
            f"the image of {signal['data'].shape} needs {pixels} bytes, the header announces {announced}"
        )


def as_mapping(value: object) -> dict[str, Any]:
    """Return a metadata tree as a plain dictionary (plugins give dict, Box or nothing)."""
    for method in ("as_dictionary", "to_dict"):
        if hasattr(value, method):
            value = getattr(value, method)()
    return value if isinstance(value, dict) else {}


def dig(tree: object, *keys: str) -> Any:
    """Return what stands in nested dictionaries under the keys, or None.

    Keys are compared without case, blanks and punctuation, because `mapping` of RosettaSciIO spells
    ``Microscope_Info`` what the file calls ``Microscope Info``.
    """
    for key in keys:
        if not isinstance(tree, dict):
            return None
        if key in tree:
            tree = tree[key]
            continue
        wanted = _squash(key)
        matches = [value for name, value in tree.items() if _squash(str(name)) == wanted]
        if not matches:
            return None
        tree = matches[0]
    return tree


def _squash(name: str) -> str:
    return "".join(ch for ch in name.lower() if ch.isalnum())


def _extension(path: Path) -> str:
    return path.suffix[1:].lower()


def _plugins_for(path: Path) -> list[dict[str, Any]]:
    """Return the plugins that may read the file, after the checks that need no plugin."""
    extension = _extension(path)
    try:
        if not path.exists():
            raise UnreadableFileError(
                f"{path}: no such file; expected a microscope file ({COMMON_EXTENSIONS} ...)"
            )
        if path.is_dir() and extension not in _FOLDER_FORMATS:
            raise UnreadableFileError(f"{path}: is a folder; expected one file ({COMMON_EXTENSIONS} ...)")
        if path.is_file() and path.stat().st_size == 0:
            raise UnreadableFileError(f"{path}: is empty (0 bytes); copy it again from the microscope")
    except OSError as error:
        raise UnreadableFileError(f"{path}: cannot be opened ({one_line(error)})") from error
    from rsciio import IO_PLUGINS

    plugins = [p for p in IO_PLUGINS if extension in {e.lower() for e in p["file_extensions"]}]
    if not plugins:
        named = f"extension .{extension}" if extension else "no extension"
        raise UnreadableFileError(
            f"{path}: has {named}, which no reader knows; expected {COMMON_EXTENSIONS} ..."
        )
    return plugins if extension in _CONTAINER_EXTENSIONS else plugins[:1]


def _looks_like(path: Path) -> str:
    """Say in words what the first bytes of a file point to."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        return f"it cannot be opened ({one_line(error)})"
    for magic, name in _MAGIC.items():
        if start.startswith(magic):
            return f"its first bytes are those of a {name} file, so that it is damaged, truncated or an unknown variant"
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in start) and b"\0" not in start:
        return "its content looks like text, expected binary data"
    return "it is damaged, truncated or of another format"


def _attempt(plugin: dict[str, Any], path: Path, lazy: bool) -> tuple[list[dict[str, Any]], str, bool]:
    """Return the signals, or the cause of the failure and whether it is a missing package."""
    try:
        check_claims(plugin["name"], path)
        signals = _call(plugin, path, lazy)
        for signal in signals:
            check_extent(signal, plugin["name"])
    except ImportError as error:
        return [], one_line(error), True
    except Exception as error:  # noqa: BLE001 - third-party parsers raise anything on damaged files
        return [], one_line(error), False
    return signals, "" if signals else "no data found", False


def _call(plugin: dict[str, Any], path: Path, lazy: bool) -> list[dict[str, Any]]:
    reader = importlib.import_module(plugin["api"]).file_reader
    name = plugin["name"]
    # RosettaSciIO wants the colours of a pixel side by side
    if name == "TIFF" and (planes := read_planes(path)) is not None:
        return planes
    if name in _NEVER_LAZY or path.stat().st_size < _EAGER_BELOW_BYTES.get(name, 0):
        lazy = False
    if lazy:
        return _call_lazily(name, reader, path)
    if name == "Blockfile":
        # the eager blo reader pads a truncated file with zeros and says nothing; the lazy one refuses it
        signals = list(reader(str(path), lazy=True))
        for signal in signals:
            signal["data"] = signal["data"].compute()
        return signals
    return list(reader(str(path), lazy=False))


def _call_lazily(name: str, reader: Callable[..., Any], path: Path) -> list[dict[str, Any]]:
    import dask

    # chunks of whole frames where the reader lets us choose; else a frame, or a row of them, would be spread over all
    options = {"chunks": ("auto", "auto", -1, -1)} if name in _CHUNKED_BY_US else {}
    with dask.config.set({"array.chunk-size": _CHUNK_BYTES}):
        try:
            return list(reader(str(path), lazy=True, **options))
        except (TypeError, ValueError, NotImplementedError) as error:
            if options:  # a series is no scan and has an axis less
                return list(reader(str(path), lazy=True))
            if "lazy" in str(error).lower() or isinstance(error, (TypeError, NotImplementedError)):
                return list(reader(str(path), lazy=False))
            raise


@contextlib.contextmanager
def quiet() -> Iterator[list[str]]:
    """Mute the loggers of the reading libraries; collect their warnings in the list that is given."""
    with _LOCK:
        yield from _muted()


def _muted() -> Iterator[list[str]]:
    heard: list[str] = []
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield heard
        ignored = (ResourceWarning, DeprecationWarning, PendingDeprecationWarning, FutureWarning)
        heard.extend(
            f"RosettaSciIO: {' '.join(str(item.message).split())}"
            for item in caught
            if not issubclass(item.category, ignored)
        )
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
