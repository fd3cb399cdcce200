"""What can go wrong for a person, each with an exit code and a hint of what to do about it."""


class EmogenError(Exception):
    """Something a person can mend: ``message`` says what and where, ``hint`` what to do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(EmogenError):
    """A flag, setting or argument that cannot be meant."""

    exit_code = 2


class UnusableFile(EmogenError):
    """A file that is not what it should be; ``prepare`` lists it and goes on."""


def check_range(name: str, value: float, lowest: float, highest: float) -> None:
    """Refuse a value outside of lowest..highest, or none at all (nan), by the name that its giver knows it by.

    Raises:
        UsageError: the value, and what is allowed.
    """
    if not lowest <= value <= highest:
        raise UsageError(f"{name} {value:.12g} is out of range", f"{name} takes {lowest:.12g} to {highest:.12g}")
