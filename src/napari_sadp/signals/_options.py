"""Which options the methods of a signal know: a typing mistake is told at once, not when a lazy signal is computed. No HyperSpy."""

from __future__ import annotations

import inspect
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

#: Options of `hyperspy.api.signals.BaseSignal.map` that are the caller's to choose; the others follow from what is mapped.
MAP_OPTIONS: tuple[str, ...] = ("show_progressbar", "num_workers", "lazy_output", "navigation_chunks")

_Self, _Given, _Found = TypeVar("_Self"), ParamSpec("_Given"), TypeVar("_Found")


def known_options(
    method: Callable[Concatenate[_Self, _Given], _Found],
) -> Callable[Concatenate[_Self, _Given], _Found]:
    """Have a method refuse options that it does not know, with the names of those that it does.

    Parameters
    ----------
    method : callable
        Method of a signal; where it takes ``**map_options``, these are `MAP_OPTIONS`.

    Returns
    -------
    callable
        The same, which raises `TypeError` for other options.
    """
    parameters = list(inspect.signature(method).parameters.values())[1:]
    known = [item.name for item in parameters if item.kind is not item.VAR_KEYWORD]
    if len(known) < len(parameters):
        known += MAP_OPTIONS

    @wraps(method)
    def checked(self: _Self, *args: Any, **options: Any) -> _Found:
        unknown = [name for name in options if name not in known]
        if unknown:
            raise TypeError(
                f"{method.__name__} has no option {', '.join(map(repr, unknown))}, expected some of {', '.join(known)}"
            )
        return method(self, *args, **options)

    return checked
