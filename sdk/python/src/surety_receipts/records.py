"""The records that parties sign (R-4 to R-7): how each is read, which bounds it keeps, and how the view shows it.

A type has `read`, which takes a value from canonical CBOR, and `view`, which gives the value as R-8.4 shows it. A record
is a dictionary of its fields by name; an optional field that is absent is None.
"""

from __future__ import annotations

import calendar
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from . import binary32
from .cbor import Reader
from .digests import GRAMMAR, ORDER, REQUEST, SAMPLING_SEED, digest
from .errors import EncodingError
from .jsontext import is_compact_object

Record = dict[str, Any]

MAX_OUTPUT_TOKENS = 1 << 20
MAX_DIMENSIONS = 1 << 16
ARITHMETIC_VERSION = 0
# no arithmetic is claimed.
NO_ARITHMETIC = 2**32 - 1


class Type(NamedTuple):
    """How values of a type are read and shown."""

    read: Callable[[Reader], Any]
    view: Callable[[Any], Any]


class Field(NamedTuple):
    """A field of a record."""

    key: int
    name: str
    type: Type
    is_optional: bool = False
    is_hidden_if_absent: bool = False


def _same(value: Any) -> Any:
    return value


def _hex(value: bytes) -> str:
    return value.hex()


U8 = Type(lambda r: r.unsigned(8), _same)
U16 = Type(lambda r: r.unsigned(16), _same)
U32 = Type(lambda r: r.unsigned(32), _same)
U64 = Type(lambda r: r.unsigned(64), _same)
BOOL = Type(lambda r: r.boolean(), _same)
AMOUNT = Type(lambda r: r.amount(), str)
BYTES_32 = Type(lambda r: r.exactly(32), _hex)
MODEL = Type(lambda r: r.exactly(32), lambda value: f"blake3:{value.hex()}")
FLOAT = Type(lambda r: r.unsigned(32), binary32.decimal)


def text(most: int) -> Type:
    """A text of at most so many bytes."""
    return Type(lambda r: r.text(most), _same)


def many(most: int, item: Type) -> Type:
    """A list of at most so many."""
    return Type(
        lambda r: [item.read(r) for _ in range(r.array(most))],
        lambda values: [item.view(value) for value in values],
    )


def bare(*names: str) -> Type:
    """A bare choice."""

    def read(r: Reader) -> str:
        number = r.unsigned()
        if number >= len(names):
            raise r.fail(f"holds an unknown choice, {number}")
        return names[number]

    return Type(read, _same)


def record(*fields: Field, check: Callable[[Record], str | None] = lambda _: None) -> Type:
    """A map of these fields; `check` says which bound or relation is broken."""

    def read(r: Reader) -> Record:
        left = r.map()
        values: Record = {}
        for field in fields:
            if left and r.peek_key() == field.key:
                r.unsigned()
                left -= 1
                values[field.name] = field.type.read(r)
            elif field.is_optional:
                values[field.name] = None
            else:
                raise r.fail(f"has no `{field.name}` where it must be")
        if left:
            raise r.fail("has an unknown, repeated or misplaced key", "not_canonical")
        problem = check(values)
        if problem is not None:
            raise r.fail(f"is invalid: {problem}", "invalid")
        return values

    def view(values: Record) -> Record:
        shown = {}
        for field in fields:
            value = values[field.name]
            if value is not None or not field.is_optional:
                shown[field.name] = field.type.view(value)
            elif not field.is_hidden_if_absent:
                shown[field.name] = None
        return shown

    return Type(read, view)


def _optional(key: int, name: str, kind: Type) -> Field:
    return Field(key, name, kind, is_optional=True)


PRICE = record(Field(0, "prompt", AMOUNT), Field(1, "cached", AMOUNT), Field(2, "output", AMOUNT))


def _read_seed(r: Reader) -> int | None:
    if r.array(2) != 2:
        raise r.fail("has a choice that is no pair")
    number = r.unsigned()
    if number > 1:
        raise r.fail("holds an unknown choice of a seed")
    if r.array(1) != 1 - number:
        raise r.fail("holds a seed of another length")
    return r.signed() if number == 0 else None


SEED = Type(_read_seed, lambda seed: "nonce" if seed is None else {"caller": seed})


def _read_bias(r: Reader) -> tuple[int, int]:
    if r.array(2) != 2:
        raise r.fail("holds a bias that is no pair")
    return r.unsigned(32), r.unsigned(32)


BIAS = Type(_read_bias, lambda pair: [pair[0], binary32.decimal(pair[1])])

# Bounds are binary32 too: 0.01 is the one nearest to it.
_LEAST_PENALTY = binary32.from_bits(0x3C23D70A)
_RANGES = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (_LEAST_PENALTY, 10.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}


def _check_sampling(sampling: Record) -> str | None:
    for name, (low, high) in _RANGES.items():
        if not low <= binary32.from_bits(sampling[name]) <= high:
            return f"`{name}` is out of its range"
    biases = sampling["logit_bias"]
    if not all(-100.0 <= binary32.from_bits(bias) <= 100.0 for _, bias in biases):
        return "`logit_bias` is out of its range"
    if not all(before[0] < after[0] for before, after in zip(biases, biases[1:])):
        return "`logit_bias` is not in increasing order of id"
    return None


SAMPLING = record(
    Field(0, "temperature", FLOAT),
    Field(1, "top_k", U32),
    Field(2, "top_p", FLOAT),
    Field(3, "min_p", FLOAT),
    Field(4, "repetition_penalty", FLOAT),
    Field(5, "presence_penalty", FLOAT),
    Field(6, "frequency_penalty", FLOAT),
    Field(7, "logit_bias", many(1024, BIAS)),
    _optional(8, "grammar", BYTES_32),
    check=_check_sampling,
)

RESUMED = record(Field(0, "output_tokens", U32), Field(1, "output_digest", BYTES_32))


def _check_order(order: Record) -> str | None:
    if order["version"] != 1:
        return f"it is of version {order['version']}; this software knows 1"
    if order["max_output_tokens"] > MAX_OUTPUT_TOKENS:
        return f"`max_output_tokens` is above {MAX_OUTPUT_TOKENS}"
    resumed = order["resumed"]
    if resumed and not 1 <= resumed["output_tokens"] <= MAX_OUTPUT_TOKENS - order["max_output_tokens"]:
        return "`resumed` holds no tokens, or too many"
    if order["deadline_ms"] <= order["issued_ms"]:
        return "`deadline_ms` is not after `issued_ms`"
    return None


ORDER_TYPE = record(
    Field(0, "version", U8),
    Field(1, "model", MODEL),
    Field(2, "request_digest", BYTES_32),
    Field(3, "nonce", BYTES_32),
    Field(4, "seed", SEED),
    Field(5, "choice", U32),
    Field(6, "sampling", SAMPLING),
    Field(7, "max_output_tokens", U32),
    Field(8, "ignore_end", BOOL),
    Field(9, "deadline_ms", U64),
    Field(10, "price_ceiling", PRICE),
    _optional(11, "channel", BYTES_32),
    Field(12, "payer", BYTES_32),
    Field(13, "issued_ms", U64),
    _optional(14, "resumed", RESUMED),
    Field(15, "disclosure", bare("payer"), is_optional=True, is_hidden_if_absent=True),
    check=_check_order,
)

MAX_REQUEST_BYTES = 8 << 20
_ANY = text(MAX_REQUEST_BYTES)
_NAME = text(256)


def _check_call(call: Record) -> str | None:
    return None if is_compact_object(call["arguments"]) else "`arguments` is not JSON as requests hold it"


CALL = record(
    Field(0, "id", _NAME), Field(1, "name", _NAME), Field(2, "arguments", text(1 << 20)), check=_check_call
)
MESSAGE = record(
    Field(0, "role", _NAME),
    Field(1, "content", _ANY),
    _optional(2, "name", _NAME),
    Field(3, "tool_calls", many(128, CALL)),
    _optional(4, "tool_call_id", _NAME),
)


def _check_chat(chat: Record) -> str | None:
    if not chat["messages"]:
        return "`messages` is empty"
    return None if all(map(is_compact_object, chat["tools"])) else "`tools` is not JSON as requests hold it"


_PROMPTS = {
    0: (
        "chat",
        record(
            Field(0, "messages", many(4096, MESSAGE)),
            Field(1, "tools", many(128, text(64 << 10))),
            check=_check_chat,
        ),
    ),
    1: ("text", record(Field(0, "text", _ANY))),
    2: ("tokens", record(Field(0, "tokens", many(1 << 20, U32)))),
}


def _read_prompt(r: Reader) -> tuple[str, Record]:
    if r.array(2) != 2:
        raise r.fail("has a choice that is no pair")
    number = r.unsigned()
    if number not in _PROMPTS:
        raise r.fail(f"holds an unknown choice of a prompt, {number}")
    name, kind = _PROMPTS[number]
    return name, kind.read(r)


def _view_prompt(prompt: tuple[str, Record]) -> Record:
    name, fields = prompt
    return {name: _PROMPTS[0][1].view(fields) if name == "chat" else fields[name]}


def _check_date(date: Record) -> str | None:
    year, month, day = date["year"], date["month"], date["day"]
    if not 1 <= year <= 9999 or not 1 <= month <= 12 or not 1 <= day <= calendar.monthrange(year, month)[1]:
        return "`date` is no day"
    return None


def _check_embedding(embedding: Record) -> str | None:
    dimensions = embedding["dimensions"]
    return None if dimensions is None or 1 <= dimensions <= MAX_DIMENSIONS else "`dimensions` is out of its range"


def _check_request(request: Record) -> str | None:
    if "" in request["stop"]:
        return "`stop` holds an empty string"
    if any((request[name] or 0) > 20 for name in ("logprobs", "prompt_logprobs")):
        return "it asks for more than 20 alternatives"
    is_of_text = (request["grammar"], request["logprobs"], request["prompt_logprobs"]) != (None, None, None)
    if request["embedding"] is not None and (request["stop"] or is_of_text):
        return "it asks for a vector, and for what only a text has"
    return None


REQUEST_TYPE = record(
    Field(0, "prompt", Type(_read_prompt, _view_prompt)),
    Field(1, "stop", many(16, _NAME)),
    _optional(2, "logprobs", U8),
    _optional(3, "prompt_logprobs", U8),
    _optional(
        4,
        "date",
        record(Field(0, "year", U16), Field(1, "month", U8), Field(2, "day", U8), check=_check_date),
    ),
    _optional(5, "grammar", text(32 << 10)),
    _optional(6, "embedding", record(_optional(0, "dimensions", U32), check=_check_embedding)),
    check=_check_request,
)


_REGION = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def _read_region(r: Reader) -> str:
    region = r.text(32)
    if _REGION.fullmatch(region) is None:
        raise r.fail("holds a text that is no region")
    return region


ACCEPTANCE = record(
    Field(0, "order", BYTES_32),
    Field(1, "model", MODEL),
    Field(2, "worker", BYTES_32),
    Field(3, "deadline_ms", U64),
    Field(4, "price", PRICE),
    Field(5, "prompt_tokens", U32),
    Field(6, "accepted_ms", U64),
    Field(7, "max_output_tokens", U32),
    _optional(8, "region", Type(_read_region, _same)),
)

PROGRESS = record(
    Field(0, "order", BYTES_32),
    Field(1, "output_tokens", U32),
    Field(2, "output_digest", BYTES_32),
    Field(3, "text_digest", BYTES_32),
    Field(4, "at_ms", U64),
    Field(5, "worker", BYTES_32),
)

_CODES = bare(
    "bad_request",
    "context_length_exceeded",
    "overloaded",
    "model_unknown",
    "out_of_memory",
    "non_finite",
    "internal",
    "cancelled",
    "deadline_exceeded",
    "payment_required",
    "leaving",
)
_FAILED = record(Field(0, "code", _CODES), Field(1, "message", text(512)))


def _read_outcome(r: Reader) -> Record | None:
    if r.array(2) != 2:
        raise r.fail("has a choice that is no pair")
    number = r.unsigned()
    if number > 1:
        raise r.fail("holds an unknown outcome")
    if number == 1:
        failure: Record = _FAILED.read(r)
        return failure
    if r.map():
        raise r.fail("has an unknown key", "not_canonical")
    return None


def _view_outcome(failure: Record | None) -> Any:
    return "completed" if failure is None else {"failed": _FAILED.view(failure)}


def _check_receipt(receipt: Record) -> str | None:
    if receipt["version"] != 1:
        return f"it is of version {receipt['version']}; this software knows 1"
    if (receipt["outcome"] is not None) != (receipt["finish"] == "failed"):
        return "`finish` disagrees with `outcome`"
    if receipt["cached_tokens"] > receipt["prompt_tokens"]:
        return "`cached_tokens` exceeds `prompt_tokens`"
    first = receipt["first_token_ms"]
    if not receipt["accepted_ms"] <= (receipt["accepted_ms"] if first is None else first) <= receipt["done_ms"]:
        return "the times are not in order"
    if (first is not None) != (receipt["output_tokens"] > 0):
        return "`first_token_ms` is there if and only if a token was sent"
    return None


RECEIPT = record(
    Field(0, "version", U8),
    Field(1, "outcome", Type(_read_outcome, _view_outcome)),
    Field(2, "order", BYTES_32),
    Field(3, "model", MODEL),
    Field(4, "arithmetic", U32),
    Field(5, "prompt_tokens", U32),
    Field(6, "cached_tokens", U32),
    Field(7, "output_tokens", U32),
    Field(8, "prompt_digest", BYTES_32),
    Field(9, "output_digest", BYTES_32),
    Field(10, "text_digest", BYTES_32),
    Field(11, "finish", bare("stop", "length", "cancelled", "unpaid", "failed")),
    Field(12, "seed", BYTES_32),
    Field(13, "state_commitment", BYTES_32),
    Field(14, "price", PRICE),
    Field(15, "charge", AMOUNT),
    Field(16, "accepted_ms", U64),
    _optional(17, "first_token_ms", U64),
    Field(18, "done_ms", U64),
    Field(19, "software", text(64)),
    Field(20, "worker", BYTES_32),
    check=_check_receipt,
)

PART = record(
    Field(0, "order", BYTES_32),
    _optional(1, "receipt", BYTES_32),
    Field(2, "worker", BYTES_32),
    Field(3, "first_output_token", U32),
    Field(4, "output_tokens", U32),
    Field(5, "purpose", bare("check"), is_optional=True, is_hidden_if_absent=True),
)


def _check_envelope(envelope: Record) -> str | None:
    if not envelope["received_ms"] <= envelope["first_byte_ms"] <= envelope["done_ms"]:
        return "the times are not in order"
    return None


ENVELOPE = record(
    Field(0, "request_id", _NAME),
    Field(1, "gateway", BYTES_32),
    Field(2, "model_name", _NAME),
    Field(3, "parts", many(4096, PART)),
    Field(4, "received_ms", U64),
    Field(5, "first_byte_ms", U64),
    Field(6, "done_ms", U64),
    Field(7, "charge", AMOUNT),
    check=_check_envelope,
)


class Kind(NamedTuple):
    """What is encoded, or signed."""

    name: str
    type: Type
    max_bytes: int
    signer: str = ""


KINDS = {
    kind.name: kind
    for kind in (
        Kind("order", ORDER_TYPE, 16 << 10, "payer"),
        Kind("request", REQUEST_TYPE, MAX_REQUEST_BYTES),
        Kind("acceptance", ACCEPTANCE, 512, "worker"),
        Kind("progress", PROGRESS, 256, "worker"),
        Kind("receipt", RECEIPT, 2048 - 176, "worker"),
        Kind("envelope", ENVELOPE, 512 << 10, "gateway"),
    )
}


def decode(name: str, data: bytes) -> Record:
    """The record that these bytes are the one encoding of (R-1.3)."""
    kind = KINDS[name]
    if len(data) > kind.max_bytes:
        raise EncodingError("too_long", f"the {name} takes {len(data)} bytes, above {kind.max_bytes}", "R-1.4")
    reader = Reader(data, name)
    values: Record = kind.type.read(reader)
    reader.end()
    return values


def order_digest(payload: bytes) -> bytes:
    """R-4.4."""
    return digest(ORDER, payload)


def request_digest(data: bytes) -> bytes:
    """R-4.3."""
    return digest(REQUEST, data)


def grammar_digest(grammar: str | None) -> bytes | None:
    """The digest of a grammar (G-1), if there is one."""
    return None if grammar is None else digest(GRAMMAR, grammar.encode("utf-8"))


def sampling_seed(order: Record) -> bytes:
    """A-8.6."""
    seed: int | None = order["seed"]
    begin = order["nonce"] if seed is None else seed.to_bytes(8, "little", signed=True)
    return digest(SAMPLING_SEED, begin + order["choice"].to_bytes(4, "little"))


def due(receipt: Record) -> int | None:
    """R-6.7: what an answer costs; None if it has no such number."""
    if receipt["outcome"] is not None:
        return 0
    price, cached = receipt["price"], receipt["cached_tokens"]
    total = (
        price["prompt"] * (receipt["prompt_tokens"] - cached)
        + price["cached"] * cached
        + price["output"] * receipt["output_tokens"]
    )
    return None if total >> 128 else -(-total // 1_000_000)


def is_vector(data: bytes) -> bool:
    """R-5.9: whether bytes spell 1 to 65,536 finite numbers."""
    if len(data) % 4 or not 4 <= len(data) <= 4 * MAX_DIMENSIONS:
        return False
    words = (int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
    return all(math.isfinite(binary32.from_bits(word)) for word in words)
