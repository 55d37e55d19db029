"""What a receipt proves to the person who holds it, and what it does not."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass, field
from typing import Any

from . import records
from .check import CHECKS, NOT_CHECKED, Checked, CheckedEvidence, check_evidence
from .errors import FetchError, MismatchError
from .evidence import MAX_EVIDENCE_BYTES, Evidence, parse

_HEX = re.compile("[0-9a-f]{64}")
_REQUEST_ID = re.compile("[A-Za-z0-9_-]{1,256}")


@dataclass(frozen=True)
class AnswerReport:
    """What one worker gave of an answer: all of it, unless another went on."""

    model: str
    worker: str
    prompt_tokens: int
    first_output_token: int
    output_tokens: int
    finish: str | None
    failed: str | None
    text: str
    check: bool = False
    """It is an answer once more, by another worker, to be compared with it."""


@dataclass(frozen=True)
class Report:
    """What holds, and what nobody looked at."""

    request_id: str
    gateway: str
    answers: list[AnswerReport]
    charge: int
    """Micro-credits."""
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON. The charge is a decimal string, as everywhere."""
        answers = [asdict(one) for one in self.answers]
        for one in answers:
            # As the binary says it: only of a check.
            if not one["check"]:
                del one["check"]
        return {**asdict(self), "answers": answers, "charge": str(self.charge)}


def verify(
    evidence_json: bytes | str,
    *,
    request_id: str | None = None,
    text: str | None = None,
    prompt: str | None = None,
    model: str | None = None,
    worker: str | None = None,
    gateway: str | None = None,
) -> Report:
    """Checks evidence, and compares it with what you know for yourself.

    `request_id` is the request's, in any of its spellings; `text` the answer you saw; `prompt` the last message you
    sent; `model`, `worker` and `gateway` are whom you expect, as 64 hexadecimal digits, the model also as `blake3:…`.

    Raises `ReceiptError`, in one of its kinds, at the first thing that does not hold; `ValueError` if an expected key
    or model is none.
    """
    wanted_model = None if model is None else _key("model", model.removeprefix("blake3:"))
    wanted_worker = None if worker is None else _key("worker", worker)
    wanted_gateway = None if gateway is None else _key("gateway", gateway)
    if isinstance(evidence_json, str):
        # What is no text is no JSON either: half characters are refused there.
        evidence_json = evidence_json.encode("utf-8", "surrogatepass")
    evidence = parse(evidence_json)
    checked = check_evidence(evidence, wanted_gateway, wanted_worker)
    report = Report(
        request_id=evidence.request_id,
        gateway=checked.envelope["gateway"].hex(),
        answers=[
            _answer(answer, one.text, part["purpose"] is not None)
            for answer, one, part in zip(checked.answers, evidence.answers, checked.envelope["parts"])
        ],
        charge=checked.envelope["charge"],
    )
    for one in checked.answers:
        _add(report, one.checked, one.not_checked)
    _add(report, checked.checked, checked.not_checked)
    _compare(report, evidence, checked, request_id, text, prompt, wanted_model)
    return report


def fetch(base_url: str, request_id: str, *, api_key: str | None = None, timeout: float = 30.0) -> bytes:
    """The evidence of a request, from the gateway that answered it. Raises `FetchError`."""
    if _REQUEST_ID.fullmatch(request_id) is None:
        raise FetchError("request_id", "the request id has characters that no id has")
    if not base_url.startswith(("http://", "https://")):
        raise FetchError("base_url", "the base URL begins with neither http:// nor https://")
    headers = {"accept": "application/json"}
    api_key = os.environ.get("OPENAI_API_KEY") if api_key is None else api_key
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    try:
        request = urllib.request.Request(f"{base_url.rstrip('/')}/receipts/{request_id}", headers=headers)
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            data = answer.read(MAX_EVIDENCE_BYTES + 1)
    except urllib.error.HTTPError as error:
        said = error.read(2000).decode("utf-8", "replace")
        raise FetchError("status", f"the gateway answered {error.code}: {said}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise FetchError("unreachable", f"the gateway could not be asked: {error}") from None
    return bytes(data)


def fetch_and_verify(
    base_url: str,
    request_id: str,
    *,
    api_key: str | None = None,
    timeout: float = 30.0,
    text: str | None = None,
    prompt: str | None = None,
    model: str | None = None,
    worker: str | None = None,
    gateway: str | None = None,
) -> Report:
    """Fetches the evidence of a request and checks it. `base_url` is the one that clients are given, with `/v1`.

    The check is local: the gateway is believed nothing but what it signed. Its key you know from elsewhere, or not.
    """
    evidence = fetch(base_url, request_id, api_key=api_key, timeout=timeout)
    return verify(
        evidence, request_id=request_id, text=text, prompt=prompt, model=model, worker=worker, gateway=gateway
    )


def _key(name: str, digits: str) -> bytes:
    if _HEX.fullmatch(digits) is None:
        raise ValueError(f"`{name}` is not 64 lower-case hexadecimal digits")
    return bytes.fromhex(digits)


def _answer(one: Checked, text: str, check: bool) -> AnswerReport:
    if one.receipt is None:
        failed: str | None = "broke off without a receipt"
    elif one.receipt["outcome"] is not None:
        failure = one.receipt["outcome"]
        failed = f"{failure['code'].replace('_', ' ')}: {failure['message']}"
    else:
        failed = None
    return AnswerReport(
        model=f"blake3:{one.order['model'].hex()}",
        worker=one.worker.hex(),
        prompt_tokens=one.prompt_tokens,
        first_output_token=one.resumed_tokens,
        output_tokens=one.output_tokens,
        finish=one.receipt["finish"] if one.receipt else None,
        failed=failed,
        text=text,
        check=check,
    )


def _add(report: Report, checked: list[str], not_checked: list[str]) -> None:
    for lines, wording, more in ((report.checked, CHECKS, checked), (report.not_checked, NOT_CHECKED, not_checked)):
        lines.extend(wording[name] for name in dict.fromkeys(more) if wording[name] not in lines)


def _compare(
    report: Report,
    evidence: Evidence,
    checked: CheckedEvidence,
    request_id: str | None,
    text: str | None,
    prompt: str | None,
    model: bytes | None,
) -> None:
    if request_id is not None:
        # One request has three spellings of its id, which share their digits.
        if re.split("[_-]", request_id)[-1] != re.split("[_-]", evidence.request_id)[-1]:
            message = f"this is the evidence of {evidence.request_id}, not of {request_id}"
            raise MismatchError("other_request_id", message)
        report.checked.append("it is the evidence of the request that was asked for")
    if model is not None:
        other = next((one for one in report.answers if one.model != f"blake3:{model.hex()}"), None)
        if other is not None:
            message = f"the answer is by {other.model}, not by blake3:{model.hex()}"
            raise MismatchError("unexpected_model", message)
        report.checked.append("it is the model that was expected")
    if text is not None:
        texts = whole_texts(evidence, checked)
        if text not in texts:
            at, there = _nearest_difference(texts, text)
            message = (
                "the text that was given is not the one that was signed: they differ from "
                f"byte {at} on, where the signed one has {there!r}"
            )
            raise MismatchError("unexpected_text", message)
        report.checked.append("the text is the one that was given to compare")
    else:
        report.not_checked.append("that the text you saw is this text (give it as `text`, or read it here)")
    if prompt is not None:
        if not any(last_words(answer.request) == prompt for answer in evidence.answers):
            message = "the request that was signed has another last message than the one that was given"
            raise MismatchError("unexpected_prompt", message)
        report.checked.append("the last message is the one that was given to compare")
    else:
        report.not_checked.append(
            "that the request is the one you sent (give its last message as `prompt`, or read it here)"
        )


def last_words(request: records.Record) -> str | None:
    """The prompt, or the last message of a chat."""
    choice, fields = request["prompt"]
    if choice == "chat":
        content: str = fields["messages"][-1]["content"]
        return content
    return fields["text"] if choice == "text" else None


def whole_texts(evidence: Evidence, checked: CheckedEvidence) -> list[str]:
    """The answers, each put together from what its workers gave."""
    texts: list[str] = []
    current = ""
    for answer, one in zip(evidence.answers, checked.answers):
        # Whoever begins anew relies on nobody before.
        current = current + answer.text if answer.resumed_ids else answer.text
        if one.is_end:
            texts.append(current)
    # What was only begun counts where there is nothing else: one answer, that failed.
    return texts or [current]


def _nearest_difference(signed: list[str], given: str) -> tuple[int, str]:
    """Where a text leaves the one among these that it follows longest, and how that one goes on."""
    ours = given.encode("utf-8", "surrogatepass")

    def common(text: str) -> int:
        theirs = text.encode("utf-8")
        pairs = enumerate(zip(theirs, ours))
        return next((at for at, (a, b) in pairs if a != b), min(len(theirs), len(ours)))

    best = max(signed, key=common)
    at, data = common(best), best.encode("utf-8")
    begin = at
    while begin < len(data) and begin > 0 and data[begin] & 0xC0 == 0x80:
        begin -= 1
    return at, data[begin:].decode("utf-8")[:30]
