"""Small microscope files for tests: dm3, dm4, Velox emd, NCEM emd, hspy, blo, mib, tif, with calibration and energy.

Only what a reader needs stands in them, in the layout that the vendors' programs write. The layout was learned from
published descriptions of the formats and from real files; RosettaSciIO reads all of them.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

# value type codes of DigitalMicrograph tags, with the struct code of one element
_TAG_TYPES = {2: "h", 3: "i", 4: "H", 5: "I", 6: "f", 7: "d", 8: "?", 10: "b", 11: "q", 12: "Q"}
# numpy type -> (DataType of the image, value type of its data tag)
_DM_DATA_TYPES = {
    "int16": (1, 2),
    "float32": (2, 6),
    "uint8": (6, 10),
    "int32": (7, 3),
    "int8": (9, 10),
    "uint16": (10, 4),
    "uint32": (11, 5),
    "float64": (12, 7),
}
_TAG, _GROUP = 21, 20


@dataclass(frozen=True)
class Acquisition:
    """What is written beside the pixels.

    `scale` is the size of a pixel along (row, col) in `units` (None for an uncalibrated file), `centre` the (row, col)
    [px] that the file calls the origin; `dm_data_type` overrides the code that belongs to the type of the array.
    """

    scale: tuple[float, float] = (0.1, 0.1)
    units: str | None = "1/nm"
    centre: tuple[float, float] = (0.0, 0.0)
    voltage_kv: float | None = 200.0
    camera_length_mm: float | None = 500.0
    title: str = "made by a test"
    scanning: bool = False
    tags_at_creation: bool = False
    dm_data_type: int | None = None


def write_container(
    path: Path, data: np.ndarray, about: Acquisition | None = None, *, variant: str = "velox"
) -> Path:
    """Write (rows, cols) or (frames, rows, cols) data; the extension chooses the format, `variant` the kind of emd.

    blo and mib hold unsigned integers, blo square frames of bytes only.
    """
    about = Acquisition() if about is None else about
    suffix = path.suffix.lower()
    if suffix in (".dm3", ".dm4"):
        return write_dm(path, data, about, version=int(suffix[-1]))
    if suffix == ".emd":
        return {"velox": write_velox, "ncem": write_ncem}[variant](path, data, about)
    if suffix == ".hspy":
        tem = {"beam_energy": about.voltage_kv, "camera_length": about.camera_length_mm}
        metadata = {"Acquisition_instrument": {"TEM": tem}}
        leading = data.ndim - 2
        units, scales = [*[None] * leading, *[about.units] * 2], [*[1.0] * leading, *about.scale]
        return write_hspy(path, data, units, scales, metadata=metadata)
    if suffix == ".blo":
        return write_blo(path, data, about)
    if suffix == ".mib":
        return write_mib(path, data)
    if suffix in (".tif", ".tiff"):
        return write_tif(path, data)
    raise ValueError(f"no writer for {suffix}")


# ---- DigitalMicrograph -----------------------------------------------------------------------------------------


class _DmEncoder:
    """Tag tree to bytes. Structure is big-endian, values are little-endian; dm4 has 8-byte counts and extra sizes."""

    def __init__(self, version: int) -> None:
        self.version = version

    def count(self, value: int) -> bytes:
        return struct.pack(">q" if self.version == 4 else ">i", value)

    def group(self, entries: list[tuple[str, object]], *, root: bool = False) -> bytes:
        body = b"".join(self.entry(name, value) for name, value in entries)
        count = self.count(len(entries))
        size = self.count(2 + len(count) + len(body)) if self.version == 4 and not root else b""
        return b"\x01\x00" + size + count + body

    def entry(self, name: str, value: object) -> bytes:
        label = name.encode("latin-1")
        is_group = isinstance(value, (dict, list))
        head = struct.pack(">bh", _GROUP if is_group else _TAG, len(label)) + label
        if isinstance(value, dict):
            return head + self.group(list(value.items()))
        if isinstance(value, list):
            return head + self.group([("", item) for item in value])
        content = b"%%%%" + self.value(value)
        size = self.count(len(content)) if self.version == 4 else b""
        return head + size + content

    def value(self, value: object) -> bytes:
        if isinstance(value, str):
            return self.array(4, np.frombuffer(value.encode("utf-16-le"), "<u2"))
        if isinstance(value, np.ndarray):
            return self.array(_DM_DATA_TYPES[value.dtype.name][1], value)
        code = {bool: 8, int: 5, float: 7}[type(value)]
        return self.count(1) + self.count(code) + struct.pack("<" + _TAG_TYPES[code], value)

    def array(self, code: int, value: np.ndarray) -> bytes:
        head = b"".join(self.count(n) for n in (3, 20, code, value.size))
        return head + np.ascontiguousarray(value).astype(value.dtype.newbyteorder("<")).tobytes()


def write_dm(path: Path, data: np.ndarray, about: Acquisition, *, version: int = 3) -> Path:
    """Write a dm3 or dm4 file with a thumbnail and one image."""
    thumbnail = {
        "ImageData": _dm_image_data(np.zeros((4, 4), np.int32), Acquisition(units=None)),
        "Name": "Thumb",
    }
    image = {
        "ImageData": _dm_image_data(data, about),
        "ImageTags": _dm_image_tags(about),
        "Name": about.title,
    }
    tree = {
        "DocumentObjectList": [{"ImageDisplayInfo": {"ContrastMode": 1}, "ImageSource": 0}],
        "ImageList": [{**thumbnail, "ImageTags": {"GMS Version": {"Created": "0"}}}, image],
        "InImageMode": 1,
        "Thumbnails": [{"ImageIndex": 0}],
    }
    encoder = _DmEncoder(version)
    root = encoder.group(list(tree.items()), root=True)
    header = struct.pack(">i", version) + encoder.count(len(root)) + struct.pack(">i", 1)
    path.write_bytes(header + root + bytes(8))
    return path


def _dm_image_data(data: np.ndarray, about: Acquisition) -> dict[str, object]:
    scales = [1.0] * (data.ndim - 2) + (list(about.scale) if about.units else [1.0, 1.0])
    origins = [0.0] * (data.ndim - 2) + list(about.centre)
    units = [""] * (data.ndim - 2) + [about.units or ""] * 2
    dimensions = [  # DigitalMicrograph counts x first
        {"Origin": float(origin), "Scale": float(scale), "Units": unit}
        for origin, scale, unit in zip(origins[::-1], scales[::-1], units[::-1], strict=True)
    ]
    return {
        "Calibrations": {
            "Brightness": {"Origin": 0.0, "Scale": 1.0, "Units": ""},
            "Dimension": dimensions,
            "DisplayCalibratedUnits": True,
        },
        "Data": data.reshape(-1),
        "DataType": about.dm_data_type or _DM_DATA_TYPES[data.dtype.name][0],
        "Dimensions": [int(n) for n in data.shape[::-1]],
        "PixelDepth": data.dtype.itemsize,
    }


def _dm_image_tags(about: Acquisition) -> dict[str, object]:
    info: dict[str, object] = {
        "Illumination Mode": "STEM" if about.scanning else "TEM",
        "Imaging Mode": "DIFFRACTION",
        "Operation Mode": "STEM" if about.scanning else "DIFFRACTION",
    }
    if about.voltage_kv is not None:
        info["Voltage"] = about.voltage_kv * 1e3
    if about.camera_length_mm is not None:
        # in TEM mode the "magnification" of a diffraction pattern is its camera length
        info["STEM Camera Length" if about.scanning else "Indicated Magnification"] = about.camera_length_mm
    tags: dict[str, object] = {"Microscope Info": info}
    return {"source": {"Tags at creation": tags}} if about.tags_at_creation else tags


# ---- emd -------------------------------------------------------------------------------------------------------


def write_velox(path: Path, data: np.ndarray, about: Acquisition) -> Path:
    """Write an emd file as Thermo Fisher Velox does: frames last, metadata as JSON in a column of bytes."""
    import h5py

    frames = data if data.ndim == 3 else data[None]
    metadata = json.dumps(_velox_metadata(frames, about)).encode()
    column = np.zeros((len(metadata) + 64, len(frames)), np.uint8)  # the rest is padded with zeros
    column[: len(metadata)] = np.frombuffer(metadata, np.uint8)[:, None]
    with h5py.File(path, "w") as file:
        strings = h5py.string_dtype()
        version = json.dumps({"version": "11", "format": "Velox"})
        file.create_dataset("Version", data=[version.encode()], dtype=strings)
        group = file.create_group("Data/Image/0123456789abcdef0123456789abcdef")
        group.create_dataset("Data", data=np.moveaxis(frames, 0, -1), chunks=(*frames.shape[1:], 1))
        group.create_dataset("Metadata", data=column)
        group.create_dataset("FrameLookupTable", data=np.arange(len(frames), dtype=np.uint32))
    return path


def _velox_metadata(frames: np.ndarray, about: Acquisition) -> dict[str, object]:
    exponent = {"1/nm": 1e9, "1/m": 1.0, "nm": 1e-9, "m": 1.0, None: 1.0}[about.units]
    unit = {"1/nm": "1/m", "nm": "m", None: ""}.get(about.units, about.units)
    scale = about.scale if about.units else (1.0, 1.0)
    optics = {}
    if about.voltage_kv is not None:
        optics["AccelerationVoltage"] = str(about.voltage_kv * 1e3)
    if about.camera_length_mm is not None:
        optics["CameraLength"] = str(about.camera_length_mm * 1e-3)
    return {
        "Core": {"MetadataDefinitionVersion": "7.9", "MetadataSchemaVersion": "v1/2013/07"},
        "Instrument": {"InstrumentClass": "Titan"},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1596041325"}},
        "Optics": optics,
        "Scan": {"FrameTime": "0.5"},
        "Detectors": {"Detector-0": {"DetectorName": about.title, "ExposureTime": "0.5"}},
        "BinaryResult": {
            "AcquisitionUnit": "CameraImage",
            "DetectorIndex": "0",
            "Detector": about.title,
            "PixelSize": {"height": str(scale[0] * exponent), "width": str(scale[1] * exponent)},
            "PixelUnitX": unit,
            "PixelUnitY": unit,
            "Offset": {
                "y": str(-about.centre[0] * scale[0] * exponent),
                "x": str(-about.centre[1] * scale[1] * exponent),
            },
            "BitsPerPixel": str(frames.dtype.itemsize * 8),
        },
        "CustomProperties": {},
    }


def write_ncem(path: Path, data: np.ndarray, about: Acquisition) -> Path:
    """Write an emd file of the NCEM kind (RosettaSciIO has the writer)."""
    from rsciio.emd import file_writer

    names = ["frame", "y", "x"][-data.ndim :]
    scales = [1.0] * (data.ndim - 2) + (list(about.scale) if about.units else [1.0, 1.0])
    centres = [0.0] * (data.ndim - 2) + list(about.centre)
    axes = [
        {
            "name": name,
            "size": size,
            "scale": scale,
            "offset": -centre * scale,
            "units": (about.units or "") if name != "frame" else "",
            "navigate": name == "frame",
        }
        for name, size, scale, centre in zip(names, data.shape, scales, centres, strict=True)
    ]
    microscope = {"voltage": about.voltage_kv, "camera_length": about.camera_length_mm}
    signal = {
        "data": data,
        "axes": axes,
        "metadata": {"General": {"title": about.title}, "Signal": {"signal_type": ""}},
        "original_metadata": {"microscope": {k: v for k, v in microscope.items() if v is not None}},
    }
    file_writer(str(path), signal)
    return path


# ---- hspy ------------------------------------------------------------------------------------------------------


def write_hspy(
    path: Path,
    data: np.ndarray,
    units: list[object],
    scales: list[float],
    *,
    navigate: list[bool] | None = None,
    offsets: list[float] | None = None,
    metadata: dict[str, object] | None = None,
    original_metadata: dict[str, object] | None = None,
) -> Path:
    """Write an hspy file with axes of any unit, scale and offset, in the order of the array."""
    from rsciio.hspy import file_writer

    navigate = [i < data.ndim - 2 for i in range(data.ndim)] if navigate is None else navigate
    offsets = [0.0] * data.ndim if offsets is None else offsets
    axes = [
        {
            "_type": "UniformDataAxis",
            "name": f"axis{i}",
            "size": size,
            "scale": scales[i],
            "offset": offsets[i],
            "units": units[i],
            "navigate": navigate[i],
            "is_binned": False,
        }
        for i, size in enumerate(data.shape)
    ]
    signal = {
        "data": data,
        "axes": axes,
        "metadata": {"General": {"title": "made by a test"}, "Signal": {"signal_type": ""}}
        | (metadata or {}),
        "original_metadata": original_metadata or {},
        "tmp_parameters": {},
        "learning_results": {},
        "attributes": {"_lazy": False},
        "package_info": {"package": "hyperspy", "package_version": "2.5.0"},
        "models": {},
    }
    file_writer(str(path), signal)
    return path


# ---- blo, mib, tif ---------------------------------------------------------------------------------------------


def write_blo(path: Path, data: np.ndarray, about: Acquisition | None = None) -> Path:
    """Write (frames, side, side) or (rows of the scan, columns of it, side, side) bytes as a NanoMEGAS block file."""
    about = Acquisition(units="cm", scale=(0.016, 0.016)) if about is None else about
    scan = data if data.ndim == 4 else data.reshape(1, -1, *data.shape[-2:])
    n_rows, n_cols, side, _ = scan.shape
    start = 0x1000 + n_rows * n_cols  # behind the header, its note and the bright-field image
    start += start % 16
    header = struct.pack(
        "<6sHIIIHHHHHdd", b"IMGBLO", 0x0102, 0x1000, start, 131141, side, 0, n_cols, n_rows, 0, 1.0, 1.0
    )
    volts, tenths_mm = round((about.voltage_kv or 0.0) * 1e3), round((about.camera_length_mm or 0.0) * 10)
    header += struct.pack("<IHId", volts, round(100 / about.scale[1]), tenths_mm, 25570.0) + bytes(22 * 8)
    with path.open("wb") as file:
        file.write(header.ljust(start, b"\0"))
        for number, frame in enumerate(scan.reshape(-1, side, side)):
            file.write(struct.pack("<HI", 0x55AA, number) + frame.astype(np.uint8).tobytes())
    return path


def write_mib(path: Path, data: np.ndarray) -> Path:
    """Write frames of uint8, uint16 or uint32 as a Merlin detector does: a line of text, then rows from below, big-endian.

    (rows of the scan, columns of it, rows, cols) data wait a second after each row of the scan: readers find it by that.
    """
    scan = data if data.ndim == 4 else data.reshape(1, -1, *data.shape[-2:])
    n_cols, rows, cols = scan.shape[1:]
    name = {1: "U08", 2: "U16", 4: "U32"}[data.dtype.itemsize]
    with path.open("wb") as file:
        for number, frame in enumerate(scan.reshape(-1, rows, cols)):
            line, place = divmod(number, n_cols)
            time = f"16:{line // 60:02d}:{line % 60:02d}.{place:03d}000"
            fields = [
                "MQ1",
                f"{number + 1:06d}",
                "00384",
                "01",
                f"{cols:04d}",
                f"{rows:04d}",
                name,
                "   1x1",
                "01",
            ]
            fields += [f"2021-05-07 {time}", "0.001000", "0", "0", "0", "1.200000E+2", "5.110000E+2"]
            fields += ["MQ1A", f"2021-05-07T{time}000Z", "1000000ns", "12", ""]
            file.write(",".join(fields).encode().ljust(384))
            file.write(frame[::-1].astype(f">u{frame.dtype.itemsize}").tobytes())
    return path


def write_tif(path: Path, data: np.ndarray, **options: object) -> Path:
    """Write pages with tifffile; `options` are those of its `imwrite` (byteorder, compression, tile, photometric ...)."""
    import tifffile

    tifffile.imwrite(path, data, **({"photometric": "minisblack"} | options))
    return path
