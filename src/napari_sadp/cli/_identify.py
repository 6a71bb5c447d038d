"""``napari-sadp identify``: from files to classes and space groups."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_sadp.cli._common import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNUSABLE,
    check_picture_path,
    show_progress,
)
from napari_sadp.errors import UnreadableFileError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_sadp.identify import Identification, PatternResult
    from napari_sadp.models.predict import Classifier


def add_command(commands: Any) -> None:
    """Add the command to the parser."""
    command = commands.add_parser(
        "identify",
        help="classify patterns and name the space group",
        description="Classify the patterns in FILEs (dm3, dm4, emd, hspy, blo, mib, tif, png ...) and combine them, as patterns "
        "of one crystal on different zone axes, into space-group probabilities. Every frame of a stack is a pattern.",
        epilog="Exit status: 0 at least one pattern was used, 1 none was, 2 wrong usage.",
    )
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="microscope file or image; a stack counts as several patterns",
    )
    command.add_argument("--json", action="store_true", help="print one JSON object instead of the tables")
    command.add_argument(
        "--rule", choices=("product", "mean"), default="product",
        help="how patterns combine: product of likelihoods (default), or mean of posteriors as in the article",
    )  # fmt: skip
    command.add_argument(
        "--frames", type=_frame_list, metavar="LIST",
        help="frames of each file to use, counted from 0, such as 0,2,5-8 (default: all)",
    )  # fmt: skip
    command.add_argument(
        "--beam", nargs=2, type=float, metavar=("ROW", "COL"),
        help="direct beam in pixels from the centre of the first pixel (default: found in each pattern); oblong pixels count as "
        "resampled to square ones",
    )  # fmt: skip
    command.add_argument(
        "--pixel-size", type=float, metavar="INV_ANGSTROM",
        help="size of a pixel in 1/Angstrom, instead of what the files say; only for lengths in 1/Angstrom",
    )  # fmt: skip
    command.add_argument(
        "--min-snr", type=float, default=6.0, metavar="RATIO",
        help="smallest signal to noise ratio of a spot, no unit (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--faintest", type=float, default=0.0, metavar="SHARE",
        help="intensity of the weakest spot that counts over that of the strongest diffracted beam, such as 0.002; weaker ones may be "
        "double diffraction (default: all that can be seen)",
    )  # fmt: skip
    command.add_argument(
        "--no-masks", action="store_true",
        help="look for no beam stop, margins or bars, where dark or flat parts of the patterns are taken for some",
    )  # fmt: skip
    known = command.add_argument_group("what is known besides the patterns")
    known.add_argument(
        "--elements", type=_names, default=(), metavar="LIST",
        help="elements in the specimen, such as Fe,Al,O: groups count by the catalogue's structures of these alone",
    )  # fmt: skip
    known.add_argument(
        "--candidates", type=_names, default=(), metavar="LIST",
        help="space groups (number or symbol), formulas or source ids that come into question, such as 225,Fd-3m,CsCl",
    )  # fmt: skip
    known.add_argument(
        "--thickness-nm", type=float, metavar="NM",
        help="thickness of the specimen: how far multiple scattering may fill the gaps (default: 5 to 60 nm, by a prior)",
    )  # fmt: skip
    known.add_argument(
        "--tilt", type=_tilt, action="append", default=[], metavar="DEG[,DEG]",
        help="alpha,beta of the stage, once for each pattern in order; or one angle for each pattern after the first, from "
        "the one before it (default: what the files say). Write --tilt=-10,5 where it begins with a minus",
    )  # fmt: skip
    known.add_argument(
        "--intensities", action="store_true",
        help="also weigh how bright spots are, by known structures of each group, not spots and gaps alone (product rule)",
    )  # fmt: skip
    command.add_argument(
        "--picture",
        metavar="PATH",
        help="write a picture of patterns, lattices and probabilities (png, pdf, svg)",
    )
    command.add_argument(
        "--weights",
        metavar="WEIGHTS",
        help="network: a name that `napari-sadp weights` lists, or a .safetensors file with its card beside it (default: that of the "
        "package)",
    )
    command.add_argument(
        "--views", choices=("mirrors", "one", "turns"), default="mirrors",
        help="what the network's answer is averaged over: the image and its mirror images (default), the image alone, or these and "
        "turned ones",
    )  # fmt: skip
    command.add_argument(
        "--precision", choices=("single", "half"), default="single",
        help="arithmetic of the network: half is faster on GPUs, and on CPUs with instructions for it (default: %(default)s)",
    )  # fmt: skip
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run the command, return the exit status."""
    from napari_sadp._validate import check_range
    from napari_sadp.ensemble.combine import combine
    from napari_sadp.identify import Identification, Knowledge, combine_results
    from napari_sadp.models.predict import load_classifier

    if options.pixel_size is not None:
        check_range("--pixel-size", options.pixel_size, 0, 1, "1/Å", low_inclusive=False)
    if options.picture is not None:
        check_picture_path("--picture", options.picture)
    if options.thickness_nm is not None:
        check_range("--thickness-nm", options.thickness_nm, 0, 1e4, "nm", low_inclusive=False)
    knowledge = Knowledge(
        options.elements, options.candidates, options.thickness_nm, tuple(options.tilt), options.intensities
    )
    classifier = load_classifier(
        options.weights, options.device, views=options.views, precision=options.precision
    )
    results: list[PatternResult] = []
    interrupted = False
    try:
        for result in _results(options, classifier):
            results.append(result)
            show_progress(f"{len(results)} patterns: {result.pattern.name}")
    except KeyboardInterrupt:
        interrupted = True
    show_progress("")
    if results:
        found = combine_results(results, rule=options.rule, knowledge=knowledge)
    else:
        found = Identification((), combine([], classifier.scheme, rule=options.rule), classifier.scheme)
    _print_result(found, as_json=options.json)
    if options.picture is not None:
        _write_picture(found, options.picture)
    if interrupted:
        print("napari-sadp: interrupted; what is shown is what was done until then", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_OK if found.n_used else EXIT_UNUSABLE


def _write_picture(found: Identification, path: str) -> None:
    """Write the picture, or say why there is none; the result itself stands."""
    from napari_sadp.report import save_picture

    try:
        save_picture(found, path)
    except OSError as error:
        print(f"napari-sadp: {path}: no picture written ({error})", file=sys.stderr)


def _results(options: argparse.Namespace, classifier: Classifier) -> Iterator[PatternResult]:
    """Yield one result for each chosen frame of each file, in order; what cannot be read is reported and listed too."""
    from dataclasses import replace

    from napari_sadp.identify import identify_pattern, unreadable_result
    from napari_sadp.io.rosetta import read_stacks

    def fail(path: str, frame: int | None, error: Exception) -> PatternResult:
        show_progress("")
        print(f"napari-sadp: {error}", file=sys.stderr)
        return unreadable_result(path, frame, error, classifier.scheme)

    for path in options.files:
        try:
            stacks = read_stacks(path)
        except UnreadableFileError as error:
            yield fail(path, None, error)
            continue
        n_frames = sum(map(len, stacks))
        if options.frames is not None and options.frames.last >= n_frames:
            missing = f"{path}: has {n_frames} frame(s), --frames asks for {options.frames.last}"
            yield fail(path, None, UnreadableFileError(missing))
        for stack in [stack for stack in stacks if stack.kind != "image"] or stacks:
            for index in range(len(stack)):
                frame = stack.first_frame + index
                if options.frames is not None and frame not in options.frames:
                    continue
                try:
                    pattern = replace(stack[index], source=path)
                except UnreadableFileError as error:
                    yield fail(path, frame, error)
                    continue
                if options.pixel_size is not None:
                    pattern = pattern.with_pixel_size(options.pixel_size)
                if options.no_masks:
                    pattern = pattern.with_given_covers()
                yield identify_pattern(
                    pattern,
                    classifier,
                    beam_rc=options.beam,
                    min_snr=options.min_snr,
                    faintest=options.faintest,
                )


def _print_result(found: Identification, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(found.to_dict(), indent=1, allow_nan=False))
    elif found.patterns:
        from napari_sadp.report import format_table

        print(format_table(found))


@dataclass(frozen=True)
class FrameSelection:
    """Frames that the user asked for, as ranges (a large one costs no memory)."""

    ranges: tuple[range, ...]

    def __contains__(self, frame: int) -> bool:
        return any(frame in part for part in self.ranges)

    @property
    def last(self) -> int:
        """Largest frame asked for."""
        return max(part[-1] for part in self.ranges)


def _names(text: str) -> tuple[str, ...]:
    """Return the items of a list with commas."""
    return tuple(item.strip() for item in text.split(",") if item.strip())


def _tilt(text: str) -> float | tuple[float, float]:
    """Return an angle, or alpha and beta."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 2) or not all(abs(value) <= 180 for value in values):
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected an angle such as 18.4, or alpha,beta such as -12.5,3 [deg]"
        )
    return values[0] if len(values) == 1 else (values[0], values[1])


def _frame_list(text: str) -> FrameSelection:
    ranges = []
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            ranges.append(range(int(first), int(last or first) + 1))
    except ValueError:
        ranges.clear()
    if not ranges or not all(ranges):
        raise argparse.ArgumentTypeError(f"{text!r}: expected frame numbers such as 0,2,5-8")
    return FrameSelection(tuple(ranges))
