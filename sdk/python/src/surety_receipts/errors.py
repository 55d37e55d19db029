"""What can be wrong with evidence. Whatever the input, nothing else is raised by `verify`.

Each error has a `code`, the same in every release and in the TypeScript package; the `rule` of `docs/spec/receipt.md`
that is broken, where one is; and the `answer` it was found in, counted from 0, where it is in one.
"""

from __future__ import annotations


class ReceiptError(Exception):
    """The evidence does not hold."""

    def __init__(self, code: str, message: str, rule: str | None = None, answer: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.rule = rule
        self.answer = answer

    def __str__(self) -> str:
        where = "" if self.answer is None else f"answer {self.answer} does not hold: "
        rule = "" if self.rule is None else f" ({self.rule})"
        return f"{where}{self.message}{rule}"


class FormatError(ReceiptError):
    """It is no evidence file: not its JSON, or not its fields."""


class EncodingError(ReceiptError):
    """Bytes in it are not the one encoding of what they should be."""


class SignatureError(ReceiptError):
    """A signature is not valid, or not by the one it must be by."""


class BindingError(ReceiptError):
    """Its parts do not belong together, or break a rule that the parties keep to."""


class MismatchError(ReceiptError):
    """It holds by itself, and is not about what you gave to compare."""


class FetchError(ReceiptError):
    """The evidence could not be fetched."""
