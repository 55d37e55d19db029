"""Writes `sdk/testdata/refused.json`: evidence that is validly signed, by keys that are not secret, and breaks one rule each.

Both packages must refuse each case, with the same code. A case is what differs from the base, by path.
"""

from __future__ import annotations

import base64
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from surety_receipts import cbor, digests, evidence, records

ROOT = Path(__file__).resolve().parents[3]
VECTORS = ROOT / "crates/types/vectors"
TESTDATA = ROOT / "sdk/testdata"
PAYER, WORKER, GATEWAY = (Ed25519PrivateKey.from_private_bytes(bytes([n] * 32)) for n in (1, 2, 3))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes([9] * 32))
_SIMPLE = {False: b"\xf4", True: b"\xf5", None: b"\xf6"}


def encode(value: Any) -> bytes:
    """Canonical CBOR of a value."""
    if isinstance(value, bool) or value is None:
        return _SIMPLE[value]
    if isinstance(value, int):
        if value >> 64 > 0:
            return b"\xc2" + cbor.byte_string(value.to_bytes((value.bit_length() + 7) // 8, "big"))
        return cbor.head(0, value) if value >= 0 else cbor.head(1, -1 - value)
    if isinstance(value, bytes):
        return cbor.byte_string(value)
    if isinstance(value, str):
        return cbor.text_string(value)
    if isinstance(value, dict):
        pairs = b"".join(encode(key) + encode(value[key]) for key in sorted(value))
        return cbor.head(5, len(value)) + pairs
    return cbor.head(4, len(value)) + b"".join(map(encode, value))


def decode(data: bytes) -> Any:
    """Any value that `encode` writes."""

    def item(at: int) -> tuple[Any, int]:
        major, info = data[at] >> 5, data[at] & 31
        size = 0 if info < 24 else 1 << (info - 24)
        at, argument = at + 1 + size, info if info < 24 else int.from_bytes(data[at + 1 : at + 1 + size], "big")
        if major == 0:
            return argument, at
        if major == 1:
            return -1 - argument, at
        if major in (2, 3):
            found = data[at : at + argument]
            return found if major == 2 else found.decode(), at + argument
        if major == 6:
            digits, at = item(at)
            return int.from_bytes(digits, "big"), at
        if major == 7:
            return {20: False, 21: True}[argument], at
        items = []
        for _ in range(argument * (major - 3)):
            one, at = item(at)
            items.append(one)
        return (items if major == 4 else dict(zip(items[::2], items[1::2]))), at

    return item(0)[0]


def public(key: Ed25519PrivateKey) -> bytes:
    """The public half."""
    return key.public_key().public_bytes_raw()


def sign(kind: str, payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """R-3.1."""
    header = b"\xa3\x01\x27\x03" + cbor.text_string(f"application/surety-{kind}+cbor") + b"\x04" + encode(public(key))
    signature = key.sign(b"\x84\x6aSignature1" + encode(header) + b"\x40" + encode(payload))
    return b"\xd2\x84" + encode(header) + b"\xa0" + encode(payload) + encode(signature)


Edit = Callable[[Any], Any]


def nothing(_: Any) -> None:
    """Leaves it as it is."""


def forge(
    base: dict[str, Any],
    request: Edit = nothing,
    order: Edit = nothing,
    acceptance: Edit = nothing,
    receipt: Edit = nothing,
    envelope: Edit = nothing,
    answer: Edit = nothing,
    progress: bool = False,
    worker: Ed25519PrivateKey = WORKER,
    acceptor: Ed25519PrivateKey = WORKER,
) -> dict[str, Any]:
    """The base, edited, linked and signed anew."""
    made = copy.deepcopy(base)
    one = made["answers"][0]

    def raw(name: str) -> bytes:
        return base64.b64decode(made["envelope"] if name == "envelope" else one[name])

    def payload(name: str) -> Any:
        return decode(decode_message(raw(name)))

    r = decode(raw("request"))
    request(r)
    request_data = encode(r)
    o = payload("order")
    o[2] = records.request_digest(request_data)
    order(o)
    order_data = encode(o)
    order_digest = records.order_digest(order_data)
    a = payload("acceptance")
    a[0] = order_digest
    acceptance(a)
    p = payload("receipt")
    p[2] = order_digest
    p[12] = records.sampling_seed(records.decode("order", order_data)) if is_order(order_data) else p[12]
    receipt(p)
    receipt_message = sign("receipt", encode(p), worker)
    e = payload("envelope")
    e[3][0][0] = order_digest
    e[3][0][1] = digests.digest(digests.RECEIPT, receipt_message)
    if progress:
        del e[3][0][1]
    envelope(e)

    def shown(data: bytes) -> str:
        return base64.b64encode(data).decode()

    made["envelope"] = shown(sign("envelope", encode(e), GATEWAY))
    one["request"] = shown(request_data)
    one["order"] = shown(sign("order", order_data, PAYER))
    one["acceptance"] = shown(sign("acceptance", encode(a), acceptor))
    one["receipt"] = shown(receipt_message)
    if progress:
        said = {0: order_digest, 1: p[7], 2: p[9], 3: p[10], 4: p[18], 5: p[20]}
        one["progress"], one["receipt"] = shown(sign("progress", encode(said), worker)), None
    answer(one)
    made["request_id"] = e[0]
    try:
        made["view"] = view(made)
    except Exception:
        pass  # What cannot be read has no view.
    return made


def is_order(data: bytes) -> bool:
    """Whether the order can be read."""
    try:
        records.decode("order", data)
    except Exception:
        return False
    return True


def decode_message(data: bytes) -> bytes:
    """The payload of a signed message."""
    items = decode(data[1:])
    return bytes(items[2])


def view(made: dict[str, Any]) -> dict[str, Any]:
    """R-8.4, of the signed bytes."""
    answers = [evidence._answer(one) for one in made["answers"]]
    envelope = evidence._said("envelope", base64.b64decode(made["envelope"]))
    return {"envelope": envelope.view(), "answers": [one.view() for one in answers]}


def put(*path_and_value: Any) -> Edit:
    """An edit that puts a value at a path."""
    *path, last, value = path_and_value

    def edit(target: Any) -> None:
        for step in path:
            target = target[step]
        target[last] = value

    return edit


def drop(key: Any) -> Edit:
    """An edit that takes a field away."""

    def edit(target: Any) -> None:
        del target[key]

    return edit


def fail(target: Any) -> None:
    """A receipt becomes a failure's."""
    target[1], target[11], target[13] = [1, {0: 6, 1: "It broke."}], 4, bytes(32)


def no_output(target: Any) -> None:
    """A receipt counts no output."""
    target[7], target[9] = 0, digests.ids(digests.OUTPUT_IDS, [])
    target.pop(17, None)


def both(*edits: Edit) -> Edit:
    """Several edits."""

    def edit(target: Any) -> None:
        for one in edits:
            one(target)

    return edit


def long_integer(made: dict[str, Any]) -> dict[str, Any]:
    """The request, its first key in a long form, under an order that names those bytes."""
    data = base64.b64decode(made["answers"][0]["request"])
    longer = data[:1] + b"\x18\x00" + data[2:]
    forged = forge(made, order=put(2, records.request_digest(longer)))
    forged["answers"][0]["request"] = base64.b64encode(longer).decode()
    return forged


def repeated(made: dict[str, Any]) -> dict[str, Any]:
    """The request, its last key twice."""
    data = base64.b64decode(made["answers"][0]["request"])
    more = bytes([data[0] + 1]) + data[1:] + data[-8:]
    forged = forge(made, order=put(2, records.request_digest(more)))
    forged["answers"][0]["request"] = base64.b64encode(more).decode()
    return forged


def by_word(base: dict[str, Any], **edits: Any) -> dict[str, Any]:
    """The answer as an upstream's (R-13), edited."""
    count = len(base["answers"][0]["output_ids"])
    ids, no_ids = (digests.ids(kind, ids) for kind, ids in [(digests.OUTPUT_IDS, [0] * count), (digests.PROMPT_IDS, [])])
    free = {0: 0, 1: 0, 2: 0}
    parts = {
        "order": [put(10, free), put(11, None), lambda order: order.pop(11)],
        "acceptance": [put(4, free), put(5, 0)],
        "receipt": [put(4, records.NO_ARITHMETIC), put(6, 0), put(8, no_ids), put(9, ids), put(13, bytes(32)),
                    put(14, free), put(15, 0)],
        "envelope": [put(7, 0)],
        "answer": [put("output_ids", [0] * count), put("prompt_ids", None), put("salt", "00" * 32), put("channel", None)],
    }
    made = {name: both(*part, *([edits[name]] if name in edits else [])) for name, part in parts.items()}
    return forge(base, **{**edits, **made})
def by_another(made: dict[str, Any], **edits: Any) -> dict[str, Any]:
    """The same, accepted and computed by another worker; perhaps edited."""
    own = {"acceptance": put(2, public(OTHER)), "receipt": put(20, public(OTHER)), "envelope": put(3, 0, 2, public(OTHER))}
    both_edits = {name: both(edit, edits.pop(name, nothing)) for name, edit in own.items()}
    return forge(made, **both_edits, **edits, worker=OTHER, acceptor=OTHER)


def together(*several: dict[str, Any], checks: tuple[int, ...]) -> dict[str, Any]:
    """The answers of several, of which these are named as checks, under one envelope."""
    made = copy.deepcopy(several[0])
    envelopes = [decode(decode_message(base64.b64decode(one["envelope"]))) for one in several]
    parts = [envelope[3][0] for envelope in envelopes]
    for at in checks:
        parts[at][5] = 0
    envelopes[0][3] = parts
    made["envelope"] = base64.b64encode(sign("envelope", encode(envelopes[0]), GATEWAY)).decode()
    made["answers"] = [one["answers"][0] for one in several]
    made["view"] = view(made)
    return made


def held(base: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every case by name: a line of what is checked of it, and the evidence, which holds."""
    repeated = "another worker, ordered the same answer, signed for the same tokens and text"
    return {
        "check": (repeated, together(base, by_another(base, order=put(10, {0: 9, 1: 9, 2: 9})), checks=(1,))),
    }


def cases(base: dict[str, Any]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Every case by name: the code it must be refused with, and the evidence."""
    text = digests.digest(digests.OUTPUT_TEXT, "Là.\n\n".encode())
    zero = bytes(32)

    def f(**edits: Any) -> dict[str, Any]:
        return forge(base, **edits)

    return {
        "request digest": ("other_request", f(order=put(2, zero))),
        "grammar unnamed": ("other_grammar", f(request=put(5, "root ::= 1"))),
        "grammar unsent": ("other_grammar", f(order=put(6, 8, zero))),
        "resumed without tokens": ("resumed_count", f(order=put(14, {0: 1, 1: zero}))),
        "resumed from others": (
            "resumed_digest", f(order=put(14, {0: 1, 1: zero}), answer=put("resumed_ids", [1]))),
        "accepted another order": ("acceptance_of_other_order", f(acceptance=put(0, zero))),
        "accepted another model": ("acceptance_of_other_model", f(acceptance=put(1, zero))),
        "accepted dearer": ("price_above_ceiling", f(acceptance=put(4, {0: 2, 1: 0, 2: 0}))),
        "accepted a longer answer": ("limit_raised", f(acceptance=put(7, 17))),
        "accepted late": ("accepted_late", f(acceptance=put(6, 1770000060001))),
        "accepted until later": ("deadline_moved", f(acceptance=put(3, 1770000060001))),
        "acceptance by another": (
            "wrong_signer", f(acceptance=put(2, public(OTHER)))),
        "receipt by another": (
            "other_worker", f(receipt=put(20, public(OTHER)), worker=OTHER)),
        "receipt names another": ("wrong_signer", f(receipt=put(20, public(OTHER)))),
        "no acceptance": ("acceptance_missing", f(answer=put("acceptance", None))),
        "receipt of another order": ("receipt_of_other_order", f(receipt=put(2, zero))),
        "receipt of another model": ("other_model", f(receipt=put(3, zero))),
        "unknown arithmetic": ("other_arithmetic", f(receipt=put(4, 1))),
        "no arithmetic, and a prompt": ("word", by_word(base, acceptance=put(5, 23))),
        "no arithmetic, and ids": ("word", by_word(base, answer=put("output_ids", [0, 1, 0]))),
        "no arithmetic, and prompt ids": ("word", by_word(base, receipt=put(8, zero))),
        "no arithmetic, and a state": ("word", by_word(base, receipt=put(13, b"\x01" * 32))),
        "no arithmetic, and a salt": ("word", by_word(base, answer=put("salt", "01" * 32))),
        "no arithmetic, and a cache": ("word", by_word(base, receipt=put(6, 1))),
        "no arithmetic, and a channel": ("word", by_word(base, order=put(11, zero))),
        "another seed": ("other_seed", f(receipt=put(12, zero))),
        "another prompt length": ("prompt_count", f(receipt=put(5, 24))),
        "prompt ids too few": ("prompt_tokens", f(answer=put("prompt_ids", [1, 2]))),
        "other prompt ids": ("prompt_digest", f(answer=put("prompt_ids", list(range(23))))),
        "ids not the ordered": (
            "other_prompt_tokens", f(request=put(0, [2, {0: [1, 2]}]), answer=put("prompt_ids", [1, 3]))),
        "output count": ("output_count", f(answer=put("output_ids", [10, 20]))),
        "output ids": ("output_digest", f(answer=put("output_ids", [10, 21, 2]))),
        "text": ("text_digest", f(answer=put("text", "La."))),
        "stop string in the text": ("stop_string_in_text", f(answer=put("text", "Là.\n\n"), receipt=put(10, text))),
        "over the limit": ("over_limit", f(acceptance=put(7, 2))),
        "limit not reached": ("limit_not_reached", f(receipt=put(11, 1))),
        "stopped at nothing": ("stopped_at_nothing", f(receipt=no_output, answer=put("output_ids", []))),
        "nothing to stop at": ("nothing_to_stop_at", f(request=put(1, []), order=put(8, True))),
        "nothing to pay": ("nothing_to_pay", f(receipt=put(11, 3))),
        "another price": ("other_price", f(receipt=put(14, {0: 1, 1: 0, 2: 0}))),
        "another charge": ("charge", f(receipt=put(15, 1))),
        "accepted at another time": ("accepted_at", f(receipt=put(16, 1770000000011))),
        "done late": ("late", f(receipt=put(18, 1770000060001), envelope=put(6, 1770000060001))),
        "no salt": ("salt_missing", f(answer=put("salt", "00" * 32))),
        "no commitment": ("commitment_missing", f(receipt=put(13, zero))),
        "failure with a salt": ("failure_with_state", f(receipt=fail)),
        "refusal with output": (
            "refusal_with_output", f(receipt=fail, answer=both(put("acceptance", None), put("salt", "00" * 32)))),
        "unasked vector": ("vector_unasked", f(answer=put("embedding", "AAAAAA=="))),
        "progress beside a receipt": (
            "progress_beside_receipt", f(answer=lambda one: one.update(progress=f(progress=True)["answers"][0]["progress"]))),
        "never finished": ("unfinished", f(progress=True, answer=put("salt", "00" * 32))),
        "broke off with a salt": ("failure_with_state", f(progress=True)),
        "broke off, other tokens": ("not_signed_for", f(progress=True, answer=put("output_ids", [10, 20]))),
        "envelope of another order": ("other_part", f(envelope=put(3, 0, 0, zero))),
        "envelope of another receipt": ("other_part", f(envelope=put(3, 0, 1, zero))),
        "envelope with another count": ("other_part", f(envelope=put(3, 0, 4, 4))),
        "envelope of nothing": ("part_count", f(envelope=put(3, []))),
        "envelope charges more": ("envelope_charge", f(envelope=put(7, 1))),
        "envelope's times": ("invalid", f(envelope=put(6, 1))),
        "receipt's times": ("invalid", f(receipt=put(18, 1))),
        "finish without failure": ("invalid", f(receipt=put(11, 4))),
        "more cached than prompt": ("invalid", f(receipt=put(6, 24))),
        "order of version 2": ("invalid", f(order=put(0, 2))),
        "temperature 3": ("invalid", f(order=put(6, 0, 0x40400000))),
        "temperature not a number": ("invalid", f(order=put(6, 0, 0x7FC00000))),
        "biases out of order": ("invalid", f(order=put(6, 7, [[5, 0], [5, 0]]))),
        "deadline before the issue": ("invalid", f(order=put(9, 1))),
        "no message": ("invalid", f(request=put(0, 1, 0, []))),
        "tool with a space": ("invalid", f(request=put(0, 1, 1, ['{"a": 1}']))),
        "tool that is a list": ("invalid", f(request=put(0, 1, 1, ["[]"]))),
        "no day": ("invalid", f(request=put(4, {0: 2026, 1: 2, 2: 29}))),
        "empty stop string": ("invalid", f(request=put(1, [""]))),
        "seventeen stop strings": ("too_long", f(request=put(1, ["a"] * 17))),
        "21 alternatives": ("invalid", f(request=put(2, 21))),
        "vector with a stop string": ("invalid", f(request=both(put(6, {}), drop(2)))),
        "region with a space": ("malformed", f(acceptance=put(8, "eu de"))),
        "unknown key": ("not_canonical", f(request=put(7, 1))),
        "explicit null": ("malformed", f(request=put(3, None))),
        "disclosure to nobody": ("malformed", f(order=put(15, 1))),
        "missing field": ("malformed", f(order=drop(5))),
        "integer in a long form": ("not_canonical", long_integer(base)),
        "repeated key": ("not_canonical", repeated(base)),
        "check by the same": ("check_differs", together(base, base, checks=(1,))),
        "check with another text": (
            "check_differs",
            together(
                base,
                by_another(base, answer=put("text", "La."), receipt=put(10, digests.digest(digests.OUTPUT_TEXT, b"La."))),
                checks=(1,),
            ),
        ),
        "check of nothing": ("check_of_nothing", together(base, by_another(base, order=put(3, zero)), checks=(1,))),
        "only a check": ("check_of_nothing", together(base, checks=(0,))),
        "answer behind a check": (
            "not_a_continuation", together(base, by_another(base), by_another(base, order=put(3, zero)), checks=(1,))),
        "another purpose": ("malformed", f(envelope=put(3, 0, 5, 1))),
    }


def difference(base: Any, made: Any, path: list[Any]) -> list[list[Any]]:
    """[path, value] of everything that differs."""
    if isinstance(base, dict) and isinstance(made, dict) and base.keys() == made.keys():
        return [one for key in base for one in difference(base[key], made[key], [*path, key])]
    if isinstance(base, list) and isinstance(made, list) and len(base) == len(made):
        return [one for at, both in enumerate(zip(base, made)) for one in difference(*both, [*path, at])]
    return [] if base == made else [[path, made]]


def whole() -> dict[str, Any]:
    """The vector, whose digests are of other tokens, with digests of its own: evidence that holds."""
    vector = json.loads((VECTORS / "evidence.json").read_bytes())
    answer = vector["answers"][0]
    ids = digests.ids(digests.OUTPUT_IDS, answer["output_ids"])
    text = digests.digest(digests.OUTPUT_TEXT, answer["text"].encode())
    return forge(vector, receipt=both(put(9, ids), put(10, text)))


def written() -> str:
    """The file's text."""
    base = whole()
    made = [
        {"name": name, "code": code, "edits": difference(base, one, [])} for name, (code, one) in cases(base).items()
    ]
    word = difference(base, by_word(base), [])
    lines = ",\n".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in made)
    word = json.dumps(word, ensure_ascii=False, separators=(",", ":"))
    holds = [
        {"name": name, "checked": line, "edits": difference(base, one, [])} for name, (line, one) in held(base).items()
    ]
    more = ",\n".join(json.dumps(one, ensure_ascii=False, separators=(",", ":")) for one in holds)
    text = json.dumps(base, ensure_ascii=False, separators=(",", ":"))
    return f'{{"base":{text},\n"by_word":{word},\n"held":[\n{more}\n],\n"cases":[\n{lines}\n]}}\n'


if __name__ == "__main__":
    (TESTDATA / "refused.json").write_text(written(), encoding="utf-8")
    sys.exit(0)
