"""The command line: ``napari-sadp COMMAND``, one module for each command.

Results go to standard output, progress and errors to standard error. Exit status: 0 success (for ``identify``: at least one
pattern was used), 1 when input could not be used, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from napari_sadp import __version__
from napari_sadp.cli import _catalogue, _classes, _dataset, _evaluate, _identify, _simulate, _train, _weights
from napari_sadp.cli._common import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_UNUSABLE,
    EXIT_USAGE,
    is_device_failure,
    plain_numbers,
)
from napari_sadp.errors import SadpError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after the program's name; those of the process by default.

    Returns
    -------
    int
        Exit status.
    """
    parser = _parser()
    options = parser.parse_args(plain_numbers(sys.argv[1:] if arguments is None else arguments))
    try:
        status = options.run(options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # the reader of a pipe, such as head, has enough; Python would complain once more when it flushes at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except ValueError as error:  # an argument that only the library could judge
        print(f"napari-sadp: error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (SadpError, OSError) as error:  # a full disk, a folder without permission
        print(f"napari-sadp: error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    except RuntimeError as error:
        if not is_device_failure(error):
            raise
        print(
            f"napari-sadp: error: the device failed ({str(error).strip().splitlines()[0]}); choose smaller batches, or another --device",
            file=sys.stderr,
        )
        return EXIT_UNUSABLE
    except KeyboardInterrupt:
        print("napari-sadp: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="napari-sadp",
        description="Space groups from selected-area electron diffraction patterns of an unknown crystal.",
    )
    parser.add_argument("--version", action="version", version=f"napari-sadp {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _identify.add_command(commands)
    _train.add_command(commands)
    _evaluate.add_command(commands)
    _weights.add_command(commands)
    _dataset.add_command(commands)
    _classes.add_command(commands)
    _simulate.add_command(commands)
    _catalogue.add_command(commands)
    return parser
