"""Deterministic CBOR (R-1): a reader that accepts one encoding of each value, and no other.

The caller says what it expects next; what is not that, or not in its shortest form, is refused. Lengths are compared with
the bytes that are left before anything is kept, so no input takes more memory than its own size; nothing recurses
but the caller's own, fixed structure.
"""

from __future__ import annotations

import builtins

from .errors import EncodingError

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_NAMES = ("an unsigned integer", "a negative integer", "bytes", "a text", "a list", "a map", "a tag", "a simple value")


class Reader:
    """Reads `data` from its beginning; `what` it is, for errors."""

    def __init__(self, data: builtins.bytes, what: str) -> None:
        self._data = data
        self._at = 0
        self._what = what

    def fail(self, problem: str, code: str = "malformed") -> EncodingError:
        """An error here, to be raised."""
        return EncodingError(code, f"the {self._what} {problem}, at byte {self._at}", "R-1")

    def _head(self) -> tuple[int, int]:
        data, at = self._data, self._at
        if at >= len(data):
            raise self.fail("ends too early")
        major, info = data[at] >> 5, data[at] & 31
        if info < 24:
            self._at = at + 1
            return major, info
        if info > 27:
            raise self.fail("holds an indefinite or reserved length", "not_canonical")
        size = 1 << (info - 24)
        argument = data[at + 1 : at + 1 + size]
        if len(argument) < size:
            raise self.fail("ends too early")
        value = int.from_bytes(argument, "big")
        if major != _SIMPLE and value < (24 if size == 1 else 1 << (size * 4)):
            raise self.fail("holds an integer in a long form", "not_canonical")
        self._at = at + 1 + size
        return major, value

    def _expect(self, major: int) -> int:
        at = self._at
        found, value = self._head()
        if found != major:
            self._at = at
            raise self.fail(f"has {_NAMES[found]} where {_NAMES[major]} must be")
        return value

    def _take(self, length: int) -> builtins.bytes:
        if length > len(self._data) - self._at:
            raise self.fail("ends too early")
        self._at += length
        return self._data[self._at - length : self._at]

    def unsigned(self, bits: int = 64) -> int:
        """An unsigned integer below 2**bits."""
        value = self._expect(_UNSIGNED)
        if value >> bits:
            raise self.fail(f"holds an integer beyond {bits} bits")
        return value

    def signed(self) -> int:
        """A signed integer of 64 bits."""
        major, value = self._head()
        if major > _NEGATIVE or value >> 63:
            raise self.fail("holds no integer of 64 bits where one must be")
        return value if major == _UNSIGNED else -1 - value

    def amount(self) -> int:
        """An integer below 2**128 (R-1.2): plain below 2**64, else a bignum without leading zeros."""
        if self._at < len(self._data) and self._data[self._at] >> 5 != _TAG:
            return self.unsigned()
        if self._expect(_TAG) != 2:
            raise self.fail("holds an unknown tag")
        digits = self.bytes(16)
        if len(digits) <= 8 or digits[0] == 0:
            raise self.fail("holds an integer in a long form", "not_canonical")
        return int.from_bytes(digits, "big")

    def bytes(self, most: int) -> builtins.bytes:
        """A byte string of at most `most` bytes."""
        length = self._expect(_BYTES)
        if length > most:
            raise self.fail(f"holds {length} bytes where at most {most} may be", "too_long")
        return self._take(length)

    def exactly(self, length: int) -> builtins.bytes:
        """A byte string of exactly `length` bytes."""
        found = self.bytes(length)
        if len(found) != length:
            raise self.fail(f"holds {len(found)} bytes where {length} must be")
        return found

    def text(self, most: int) -> str:
        """A text of at most `most` bytes."""
        length = self._expect(_TEXT)
        if length > most:
            raise self.fail(f"holds a text of {length} bytes where at most {most} may be", "too_long")
        try:
            return self._take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise self.fail("holds a text that is not UTF-8") from None

    def boolean(self) -> bool:
        """A truth value."""
        if self._at < len(self._data) and self._data[self._at] in (0xF4, 0xF5):
            self._at += 1
            return self._data[self._at - 1] == 0xF5
        raise self.fail("has no truth value where one must be")

    def array(self, most: int) -> int:
        """The length of a list of at most `most` items, which follow."""
        length = self._expect(_ARRAY)
        if length > most:
            raise self.fail(f"holds a list of {length} where at most {most} may be", "too_long")
        if length > len(self._data) - self._at:
            raise self.fail("ends too early")
        return length

    def map(self) -> int:
        """The number of entries of a map, which follow."""
        length = self._expect(_MAP)
        if length > len(self._data) - self._at:
            raise self.fail("ends too early")
        return length

    def tag(self, number: int) -> None:
        """This tag."""
        if self._expect(_TAG) != number:
            raise self.fail("holds an unknown tag")

    def peek_key(self) -> int:
        """The unsigned key that comes next; it stays."""
        at = self._at
        key = self.unsigned()
        self._at = at
        return key

    def end(self) -> None:
        """Nothing follows."""
        if self._at != len(self._data):
            raise self.fail("is followed by more bytes", "not_canonical")


def head(major: int, value: int) -> bytes:
    """The shortest head of an item."""
    if value < 24:
        return bytes([major << 5 | value])
    for info, size in ((24, 1), (25, 2), (26, 4)):
        if value < 1 << (size * 8):
            return bytes([major << 5 | info]) + value.to_bytes(size, "big")
    return bytes([major << 5 | 27]) + value.to_bytes(8, "big")


def byte_string(data: bytes) -> bytes:
    """The encoding of bytes."""
    return head(_BYTES, len(data)) + data


def text_string(text: str) -> bytes:
    """The encoding of a text."""
    data = text.encode("utf-8")
    return head(_TEXT, len(data)) + data
