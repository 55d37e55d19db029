"""JSON: the evidence file (R-8.3), and tools and arguments within a request (R-4.7)."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from .errors import FormatError

MAX_DEPTH = 64


class Other:
    """A JSON number that no field of evidence has: with a fraction, an exponent, or too large."""


def _integer(text: str) -> int | Other:
    return Other() if len(text) > 20 or text == "-0" else int(text)


def _other(_: str) -> Other:
    return Other()


def _constant(name: str) -> Other:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is repeated")
    return fields


def parse(data: bytes) -> Any:
    """The value; repeated fields, half characters and deep nesting are refused."""
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text, parse_int=_integer, parse_float=_other, parse_constant=_constant, object_pairs_hook=_object
        )
        if "\\u" in text:
            # A surrogate that an escape left alone is no character.
            json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")
        return value
    except (ValueError, RecursionError) as error:
        raise FormatError("not_json", f"not an evidence file: {error}", "R-8.1") from None


_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"')
_ESCAPE = re.compile(r"\\(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORD = re.compile("true|false|null")


def is_compact_object(text: str) -> bool:
    """Whether a text is one JSON object as requests hold it (R-4.7)."""
    if not text.startswith("{"):
        return False
    at, closers = 0, ""
    while True:
        # A value begins here.
        opening = text[at : at + 1]
        if opening and opening in "{[":
            if len(closers) == MAX_DEPTH:
                return False
            closers += "}" if opening == "{" else "]"
            at += 1
            if text[at : at + 1] == closers[-1]:
                at, closers = at + 1, closers[:-1]
            elif opening == "{":
                at = _name(text, at)
                if at < 0:
                    return False
                continue
            else:
                continue
        else:
            at = _scalar(text, at)
            if at < 0:
                return False
        # A value ended here.
        while closers and text[at : at + 1] == closers[-1]:
            at, closers = at + 1, closers[:-1]
        if not closers:
            return at == len(text)
        if text[at : at + 1] != ",":
            return False
        at += 1
        if closers[-1] == "}":
            at = _name(text, at)
            if at < 0:
                return False


def _name(text: str, at: int) -> int:
    end = _string(text, at)
    return end + 1 if end > 0 and text[end : end + 1] == ":" else -1


def _string(text: str, at: int) -> int:
    match = _STRING.match(text, at)
    if match is None:
        return -1
    for escape in _ESCAPE.finditer(match.group()):
        unit = escape.group(1)
        if len(unit) == 5 and unit[0] == "u" and 0xD800 <= int(unit[1:], 16) < 0xE000:
            return -1
    return match.end()


def _scalar(text: str, at: int) -> int:
    if text[at : at + 1] == '"':
        return _string(text, at)
    match = _WORD.match(text, at)
    if match is not None:
        return match.end()
    match = _NUMBER.match(text, at)
    if match is None:
        return -1
    if match.group(1) is None and match.group(2) is None:
        digits = match.group().lstrip("-")
        if len(digits) > 19 or int(digits) >> 63:
            return -1
    elif not math.isfinite(float(match.group())):
        return -1
    return match.end()
