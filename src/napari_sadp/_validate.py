"""Checks of arguments, with one shape of message. Imports nothing of the package."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable


def check_option(name: str, value: object, allowed: Iterable[object]) -> None:
    """Raise `ValueError` unless `value` is one of `allowed`.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    value : object
        What the caller gave.
    allowed : iterable
        The options.

    Raises
    ------
    ValueError
        If `value` is not an option.
    """
    options = list(allowed)
    if value not in options:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(map(repr, options))}")


def check_range(
    name: str, value: float, low: float, high: float, unit: str = "", *, low_inclusive: bool = True
) -> float:
    """Return `value` as a float, or raise `ValueError` if it is no finite number in the range.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    value : float
        What the caller gave.
    low, high : float
        Bounds; `high` is inclusive.
    unit : str
        Unit of the bounds, for the message.
    low_inclusive : bool
        Whether `low` itself is allowed.

    Returns
    -------
    float
        The checked value.

    Raises
    ------
    ValueError
        If the value is outside the range or no number.
    """
    unit = f" {unit}" if unit else ""
    bracket = "[" if low_inclusive else "("
    is_number = isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(float(value))
    if not is_number or not (low <= value <= high) or (not low_inclusive and value == low):
        raise ValueError(f"{name} is {value!r}, expected a number in {bracket}{low:g}, {high:g}]{unit}")
    return float(value)


def check_integer(name: str, value: object, low: int, high: int) -> int:
    """Return `value`, or raise `ValueError` if it is no integer from `low` to `high`.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    value : int
        What the caller gave; a float without a fraction counts.
    low, high : int
        Bounds, inclusive.

    Returns
    -------
    int
        The checked value.

    Raises
    ------
    ValueError
        If the value is outside the range or no integer.
    """
    whole = isinstance(value, Real) and not isinstance(value, bool) and float(value).is_integer()
    if not whole or not low <= value <= high:
        raise ValueError(f"{name} is {value!r}, expected an integer from {low} to {high}")
    return int(value)


def check_file_name(name: str, value: str) -> str:
    """Return `value`, or raise `ValueError` if no file can be called so on every system.

    Parameters
    ----------
    name : str
        Name of the parameter, for the message.
    value : str
        What the caller gave, without a folder.

    Returns
    -------
    str
        The checked value.

    Raises
    ------
    ValueError
        If it is empty, hidden, or holds a sign that some system does not allow.
    """
    if (
        not isinstance(value, str)
        or not value
        or value.startswith(".")
        or any(s in value for s in '/\\:*?"<>|')
    ):
        raise ValueError(f"{name} is {value!r}, expected one that a file can have")
    return value


def check_zone_axis(zone: object) -> tuple[int, int, int]:
    """Return a zone axis [u, v, w] as coprime integers.

    Parameters
    ----------
    zone : sequence of 3 int
        Direct-lattice direction, not all zero.

    Returns
    -------
    tuple of int
        The axis divided by the greatest common divisor of its indices.

    Raises
    ------
    ValueError
        If it is not three integers, or all are zero.
    """
    try:
        axis = np.asarray(zone, dtype=float)
    except (TypeError, ValueError):
        axis = np.empty(0)
    if axis.shape != (3,) or not np.all(axis == np.round(axis)) or not np.any(axis):
        raise ValueError(f"zone is {zone!r}, expected three integers [u, v, w], not all zero")
    u, v, w = (int(i) for i in axis)
    divisor = int(np.gcd.reduce([u, v, w]))
    return u // divisor, v // divisor, w // divisor
