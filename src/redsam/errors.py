"""Errors that say what is wrong, where, and what to type next.

Everything redsam raises on purpose is a `RedsamError`; the CLI prints its one line and exits with code 2. A library's
own exception (PIL, torch, json, OSError) is translated at the edge where bad input enters, never in the middle.
"""

from __future__ import annotations


class RedsamError(Exception):
    """One line for a person: `message` says what and where, `hint` says what to type next (may be empty)."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class InputError(RedsamError):
    """A file, number or option from outside that cannot be used."""


class UnknownName(RedsamError):
    """A name the registry does not know; the hint carries the nearest ones."""


class BudgetViolation(RedsamError):
    """A delivered 8-bit image lies outside its threat. Never a footnote (promise 2)."""


class CheckpointError(RedsamError):
    """A file that should hold weights and does not, or holds others than the architecture asks for."""


class MissingExtra(RedsamError):
    """An optional dependency is not installed; the hint says which extra brings it."""

    def __init__(self, package: str, extra: str, *, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs the package '{package}'.", hint=f"Type: pip install 'redsam[{extra}]'")
