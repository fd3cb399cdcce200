"""Errors for users, each with an exit code and a hint about what to do."""


class EmogenError(Exception):
    """An error that the user can fix: the message says what is wrong and where, ``hint`` what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(EmogenError):
    """A flag, setting or argument that makes no sense."""

    exit_code = 2


class UnusableFile(EmogenError):
    """A file that is not what it should be; ``prepare`` lists it and continues."""


def check_range(name: str, value: float, lowest: float, highest: float) -> None:
    """Refuse a value outside lowest..highest, or that is not a number; ``name`` is what the caller calls it.

    Raises:
        UsageError: the value, and what is allowed.
    """
    hint = f"{name} takes {lowest:.12g} to {highest:.12g}"
    try:
        inside = lowest <= value <= highest
    except (TypeError, ValueError):  # a text, None, an array
        raise UsageError(f"{name} {value!r} is not a number", hint) from None
    if not inside:
        raise UsageError(f"{name} {value:.12g} is out of range", hint)


def whole_number(name: str, value: int, lowest: int, highest: int) -> int:
    """A whole number of any type (NumPy has its own) as an int.

    Raises:
        UsageError: as ``check_range``, or it is not whole.
    """
    check_range(name, value, lowest, highest)
    if value != int(value):
        raise UsageError(f"{name} {value} is not a whole number", f"{name} takes {lowest} to {highest}")
    return int(value)
