"""The evidence file (R-8): its fields, and that the view says what the signed bytes say. No signature is verified here."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any

from . import jsontext, records
from .cose import Message
from .errors import EncodingError, FormatError

MAX_EVIDENCE_BYTES = 64 << 20
MAX_ANSWERS = 4096

_FIELDS = ("surety", "request_id", "envelope", "answers", "view")
_ANSWER_FIELDS = (
    "order",
    "request",
    "acceptance",
    "receipt",
    "progress",
    "salt",
    "output_ids",
    "resumed_ids",
    "text",
    "channel",
    "prompt_ids",
    "embedding",
)
_HEX = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Said:
    """A signed message: its bytes, and what it says."""

    data: bytes
    message: Message
    value: records.Record

    def view(self) -> records.Record:
        """As R-8.4 shows it."""
        shown = records.KINDS[self.message.kind].type.view(self.value)
        return {"signed_by": self.message.signer.hex(), **shown}


@dataclass(frozen=True)
class Answer:
    """What one worker gave (R-8.2)."""

    order: Said
    request_data: bytes
    request: records.Record
    acceptance: Said | None
    receipt: Said | None
    progress: Said | None
    salt: bytes
    output_ids: list[int]
    resumed_ids: list[int]
    text: str
    prompt_ids: list[int] | None
    embedding: bytes | None

    def view(self) -> records.Record:
        """As R-8.4 shows it."""
        return {
            "order": self.order.view(),
            "request": records.REQUEST_TYPE.view(self.request),
            "acceptance": self.acceptance and self.acceptance.view(),
            "receipt": self.receipt and self.receipt.view(),
            "progress": self.progress and self.progress.view(),
        }


@dataclass(frozen=True)
class Evidence:
    """Evidence whose every part can be read."""

    request_id: str
    envelope: Said
    answers: list[Answer]


def parse(data: bytes) -> Evidence:
    """Reads a file (R-8.3, R-8.5)."""
    if len(data) > MAX_EVIDENCE_BYTES:
        raise FormatError("too_long", f"evidence of {len(data)} bytes; at most {MAX_EVIDENCE_BYTES} are read", "R-8.1")
    file = _fields(jsontext.parse(data), _FIELDS, "evidence")
    if type(file["surety"]) is not int or file["surety"] != 1:
        raise FormatError("version", "this software reads evidence of version 1 alone", "R-8.1")
    request_id = _text(file["request_id"], "request_id")
    found = file["answers"]
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_ANSWERS:
        raise FormatError("answers", f"evidence has a list of 1 to {MAX_ANSWERS} `answers`", "R-8.1")
    envelope = _said("envelope", _bytes(file["envelope"], "envelope"))
    if envelope.value["request_id"] != request_id:
        raise FormatError("request_id", "the request id is not the one in the envelope", "R-8.1")
    answers = [_answer(answer) for answer in found]
    view = {"envelope": envelope.view(), "answers": [answer.view() for answer in answers]}
    where = _difference(view, file["view"], "view")
    if where is not None:
        raise FormatError("view", f"the readable view does not say what the signed bytes say, at `{where}`", "R-8.5")
    return Evidence(request_id, envelope, answers)


def _answer(found: Any) -> Answer:
    answer = _fields(found, _ANSWER_FIELDS, "an answer")
    request = _bytes(answer["request"], "request")
    salt = _text(answer["salt"], "salt")
    if _HEX.fullmatch(salt) is None:
        raise FormatError("salt", "`salt` is not 64 lower-case hexadecimal digits", "R-8.2")
    _optional_bytes(answer["channel"], "channel")
    return Answer(
        order=_said("order", _bytes(answer["order"], "order")),
        request_data=request,
        request=records.decode("request", request),
        acceptance=_optional_said("acceptance", answer["acceptance"]),
        receipt=_optional_said("receipt", answer["receipt"]),
        progress=_optional_said("progress", answer["progress"]),
        salt=bytes.fromhex(salt),
        output_ids=_ids(answer["output_ids"], "output_ids"),
        resumed_ids=_ids(answer["resumed_ids"], "resumed_ids"),
        text=_text(answer["text"], "text"),
        prompt_ids=None if answer["prompt_ids"] is None else _ids(answer["prompt_ids"], "prompt_ids"),
        embedding=_optional_bytes(answer["embedding"], "embedding"),
    )


def _said(kind: str, data: bytes) -> Said:
    message = Message(data, kind, records.KINDS[kind].max_bytes)
    return Said(data, message, records.decode(kind, message.payload))


def _optional_said(kind: str, found: Any) -> Said | None:
    return None if found is None else _said(kind, _bytes(found, kind))


def _fields(found: Any, names: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise FormatError("not_an_object", f"{what} is no object", "R-8.1")
    missing = next((name for name in names if name not in found), None)
    if missing is not None:
        raise FormatError("missing_field", f"{what} has no `{missing}`", "R-8.3")
    if len(found) != len(names):
        unknown = next(name for name in found if name not in names)
        raise FormatError("unknown_field", f"{what} has an unknown field, {unknown[:80]!r}", "R-8.3")
    return found


def _text(found: Any, name: str) -> str:
    if not isinstance(found, str):
        raise FormatError("wrong_type", f"`{name}` is no text", "R-8.2")
    return found


def _bytes(found: Any, name: str) -> bytes:
    text = _text(found, name)
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    # Comparing refuses stray bits, so that one value has one spelling.
    if base64.b64encode(data).decode("ascii") != text:
        raise EncodingError("base64", f"`{name}` is not in standard padded base64", "R-8.2")
    return data


def _optional_bytes(found: Any, name: str) -> bytes | None:
    return None if found is None else _bytes(found, name)


def _ids(found: Any, name: str) -> list[int]:
    if not isinstance(found, list) or not all(type(one) is int and 0 <= one < 1 << 32 for one in found):
        raise FormatError("wrong_type", f"`{name}` is no list of token ids", "R-8.2")
    return found


def _difference(expected: Any, found: Any, where: str) -> str | None:
    """Where the first difference is."""
    if isinstance(expected, dict):
        if not isinstance(found, dict) or expected.keys() != found.keys():
            return where
        pairs = ((expected[name], found[name], f"{where}.{name}") for name in expected)
    elif isinstance(expected, list):
        if not isinstance(found, list) or len(expected) != len(found):
            return where
        pairs = ((one, found[index], f"{where}[{index}]") for index, one in enumerate(expected))
    else:
        return None if type(expected) is type(found) and expected == found else where
    return next((at for pair in pairs if (at := _difference(*pair)) is not None), None)
