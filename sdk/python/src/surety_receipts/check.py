"""Checking an answer against everything that was signed about it, without running the model (R-4 to R-8).

The wording of what holds and what was not checked is that of `surety verify`; the order of the checks is that of the rules,
so the first fault found is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import digests, records
from .digests import ZERO
from .errors import BindingError, MismatchError, ReceiptError
from .evidence import Answer, Evidence, Said

CHECKS = {
    "order_signature": "the order carries its payer's signature",
    "request": "the request is the one that was ordered",
    "acceptance": "the worker accepted this order under its signature",
    "receipt": "the worker signed this receipt for this order",
    "worker": "the worker is the expected one",
    "parameters": "model, arithmetic and seed are the order's",
    "word": "the model's name is the order's; the receipt claims no arithmetic (tier `signed`)",
    "prompt_tokens": "the prompt's tokens are the receipt's",
    "resumed": "the tokens it resumes from are the order's",
    "progress": "a worker broke off; the tokens and the text counted for it are those it had signed",
    "continuation": "each part of the answer goes on where the one before it ended",
    "output_tokens": "the output's tokens are the receipt's",
    "text": "the text is the receipt's, to the byte",
    "vector": "the vector is the one the receipt commits to, to the bit",
    "finish": "the finish reason agrees with tokens, limit and stop strings",
    "price": "price and charge are as accepted and within the ceiling",
    "deadline": "the answer was done by its deadline, by the worker's clock",
    "salt": "the state commitment comes with its salt",
    "envelope": "the envelope carries its gateway's signature",
    "gateway": "the gateway is the expected one",
    "parts": "the envelope names exactly these receipts",
    "repeated": "another worker, ordered the same answer, signed for the same tokens and text",
}

NOT_CHECKED = {
    "payer": "who holds the payer's key",
    "worker": "who holds the worker's key",
    "gateway": "who holds the gateway's key",
    "prompt_tokens": "that the prompt was tokenised as the model prescribes (needs the model)",
    "text_of_tokens": "that the text is what the tokens spell (needs the model)",
    "limit": "that the worker's context is what lowered the limit",
    "end_token": "that the last token is one at which the model ends (needs the model)",
    "computation": "that the model gives these tokens (needs a recomputation)",
    "vector": "the vector, which is not here",
    "clocks": "that the parties' clocks were right",
    "upstream": (
        "which model gave this text, by which parameters: a server of the operator's choice did, "
        "and nobody can compute it again (the operator's upstream sees the text)"
    ),
    "usage": "the token counts, which are the upstream's by the operator's word",
    "audit": (
        "not audited: the payer forbade disclosure (whoever has this evidence can compute the answer again)"
    ),
}


@dataclass
class Checked:
    """An answer that keeps to everything that was signed about it."""

    order: records.Record
    acceptance: records.Record | None
    receipt: records.Record | None
    worker: bytes
    output_tokens: int
    checked: list[str]
    not_checked: list[str]

    @property
    def resumed_tokens(self) -> int:
        """Tokens of the answer that were there already."""
        return _resumed_tokens(self.order)

    @property
    def prompt_tokens(self) -> int:
        """Tokens that the worker was given."""
        # an upstream counts it when it has answered.
        by_word = self.receipt is not None and _is_by_word(self.receipt)
        counted = self.receipt if by_word else self.acceptance or self.receipt
        return counted["prompt_tokens"] if counted else 0

    @property
    def is_end(self) -> bool:
        """Whether the answer ends here: it is receipted, and no failure."""
        return self.receipt is not None and self.receipt["outcome"] is None


def _is_by_word(receipt: records.Record) -> bool:
    """R-13.2, of a completed answer."""
    return receipt["arithmetic"] == records.NO_ARITHMETIC and receipt["outcome"] is None


def _resumed_tokens(order: records.Record) -> int:
    return order["resumed"]["output_tokens"] if order["resumed"] else 0


def _require(holds: bool, code: str, message: str, rule: str) -> None:
    if not holds:
        raise BindingError(code, message, rule)


def _open(said: Said) -> records.Record:
    said.message.verify()
    signer = said.value[records.KINDS[said.message.kind].signer]
    _require(signer == said.message.signer, "wrong_signer", f"the {said.message.kind} names another signer", "R-3.3")
    return said.value


def check_answer(answer: Answer, worker: bytes | None) -> Checked:
    """R-4 to R-6. The receipt may be for a failure."""
    order = _open(answer.order)
    digest = records.order_digest(answer.order.message.payload)
    checked, not_checked = ["order_signature"], ["payer"]

    request = answer.request
    same = records.request_digest(answer.request_data) == order["request_digest"]
    _require(same, "other_request", "the request is not the one that was ordered", "R-4.3")
    same = records.grammar_digest(request["grammar"]) == order["sampling"]["grammar"]
    _require(same, "other_grammar", "the request's grammar is not the one that the order names", "G-1")
    checked.append("request")
    if order["disclosure"] is not None:
        not_checked.append("audit")
    ordered, found = _resumed_tokens(order), len(answer.resumed_ids)
    _require(
        ordered == found, "resumed_count", f"the order resumes from {ordered} tokens; there are {found}", "R-5.8"
    )
    if order["resumed"]:
        same = digests.ids(digests.OUTPUT_IDS, answer.resumed_ids) == order["resumed"]["output_digest"]
        _require(same, "resumed_digest", "the tokens it resumes from are not the ones that were ordered", "R-5.8")
        checked.append("resumed")

    if answer.receipt is None:
        return _check_broken(answer, order, digest, worker, checked, not_checked)
    _require(answer.progress is None, "progress_beside_receipt", "there is a receipt, and a progress beside it", "R-8.6")
    receipt = _open(answer.receipt)
    failed = receipt["outcome"] is not None
    acceptance = None
    if answer.acceptance is not None:
        expected = receipt["worker"] if worker is None else worker
        acceptance = _open_acceptance(answer.acceptance, expected, order, digest, worker)
        checked.append("acceptance")
    else:
        _require(failed, "acceptance_missing", "the order was answered without having been accepted", "R-5.1")

    _check_bindings(order, digest, acceptance, receipt, worker)
    by_word = _is_by_word(receipt)
    if by_word:
        _check_word(order, acceptance, answer, receipt)
    checked += ["receipt", "word" if by_word else "parameters"]
    (not_checked if worker is None else checked).append("worker")
    if _check_prompt(answer, receipt):
        checked.append("prompt_tokens")
    if request["prompt"][0] != "tokens" and not by_word:
        not_checked.append("prompt_tokens")

    counted, found = receipt["output_tokens"], len(answer.output_ids)
    _require(
        counted == found, "output_count", f"the receipt counts {counted} output tokens; there are {found}", "R-6.4"
    )
    same = digests.ids(digests.OUTPUT_IDS, answer.output_ids) == receipt["output_digest"]
    _require(same, "output_digest", "the output's tokens are not the ones in the receipt", "R-6.4")
    same = _text_digest(answer.text) == receipt["text_digest"]
    _require(same, "text_digest", "the text is not the one in the receipt", "R-6.4")
    checked += ["text"] if by_word else ["output_tokens", "text"]
    not_checked += ["upstream", "usage"] if by_word else ["text_of_tokens"]

    _check_finish(order, request, acceptance, receipt, answer.text)
    checked.append("finish")
    if acceptance and acceptance["max_output_tokens"] < order["max_output_tokens"]:
        not_checked.append("limit")
    if receipt["finish"] == "stop" and not order["ignore_end"] and not by_word:
        not_checked.append("end_token")

    accepted = acceptance["price"] if acceptance else {"prompt": 0, "cached": 0, "output": 0}
    _require(receipt["price"] == accepted, "other_price", "the price in the receipt is not the accepted one", "R-6.7")
    due, charge = records.due(receipt), receipt["charge"]
    _require(due is not None, "charge_overflow", "the charge cannot be computed", "R-6.7")
    _require(charge == due, "charge", f"the charge is {charge}; it should be {due}", "R-6.7")
    checked.append("price")
    if acceptance:
        same = acceptance["accepted_ms"] == receipt["accepted_ms"]
        _require(same, "accepted_at", "receipt and acceptance differ in when it was accepted", "R-6.5")
    in_time = failed or receipt["done_ms"] <= order["deadline_ms"]
    _require(in_time, "late", "the answer was done after its deadline", "R-6.5")
    checked.append("deadline")
    not_checked.append("clocks")

    commitment = receipt["state_commitment"]
    if failed:
        none = answer.salt == ZERO and commitment == ZERO
        _require(none, "failure_with_state", "a failure that commits to a state", "R-6.10")
    elif not by_word:
        _require(answer.salt != ZERO, "salt_missing", "the salt of the state commitment is missing", "R-6.9")
        _require(commitment != ZERO, "commitment_missing", "the state commitment is missing", "R-6.9")
    vector = _check_vector(answer, receipt)
    if vector is not None:
        (checked if vector else not_checked).append("vector")
    if not failed and not by_word:
        checked.append("salt")
        not_checked.append("computation")
    return Checked(order, acceptance, receipt, receipt["worker"], counted, checked, not_checked)


def _text_digest(text: str) -> bytes:
    return digests.digest(digests.OUTPUT_TEXT, text.encode("utf-8"))


def _check_broken(
    answer: Answer,
    order: records.Record,
    digest: bytes,
    worker: bytes | None,
    checked: list[str],
    not_checked: list[str],
) -> Checked:
    """R-8.6: what is left of an answer that its worker broke off."""
    if answer.acceptance is None:
        raise BindingError("acceptance_missing", "the order was answered without having been accepted", "R-5.1")
    expected = answer.acceptance.message.signer if worker is None else worker
    acceptance = _open_acceptance(answer.acceptance, expected, order, digest, worker)
    checked.append("acceptance")
    (not_checked if worker is None else checked).append("worker")
    signed = 0
    if answer.progress is not None:
        progress = _open(answer.progress)
        _require(progress["worker"] == expected, "other_worker", "the progress is by another worker", "R-8.6")
        _require(progress["order"] == digest, "progress_of_other_order", "the progress is for another order", "R-8.6")
        signed = progress["output_tokens"]
        holds = (
            len(answer.output_ids) == signed
            and digests.ids(digests.OUTPUT_IDS, answer.output_ids) == progress["output_digest"]
            and _text_digest(answer.text) == progress["text_digest"]
        )
    else:
        holds = not answer.output_ids and not answer.text
    _require(
        holds, "not_signed_for", "tokens or text are not those that were signed for before the worker broke off", "R-8.6"
    )
    _require(answer.embedding is None, "vector_unasked", "there is a vector where none was given", "R-5.9")
    limit = acceptance["max_output_tokens"]
    _require(signed <= limit, "over_limit", f"{signed} output tokens are more than the limit of {limit}", "R-6.8")
    _require(answer.salt == ZERO, "failure_with_state", "a failure that commits to a state", "R-6.10")
    checked.append("progress")
    if answer.output_ids:
        not_checked += ["text_of_tokens", "computation"]
    return Checked(order, acceptance, None, expected, signed, checked, not_checked)


def _open_acceptance(
    said: Said, expected: bytes, order: records.Record, digest: bytes, worker: bytes | None
) -> records.Record:
    """R-5.2: an acceptance promises what was ordered, no dearer, no later, no longer."""
    if said.message.signer != expected:
        message = f"the acceptance is by {said.message.signer.hex()}, not by {expected.hex()}"
        raise (BindingError if worker is None else MismatchError)("other_worker", message, "R-6.6")
    acceptance = _open(said)
    _require(acceptance["order"] == digest, "acceptance_of_other_order", "the acceptance is for another order", "R-5.2")
    same = acceptance["model"] == order["model"]
    _require(same, "acceptance_of_other_model", "the acceptance is for another model", "R-5.2")
    same = acceptance["deadline_ms"] == order["deadline_ms"]
    _require(same, "deadline_moved", "the acceptance moves the deadline", "R-5.2")
    price, ceiling = acceptance["price"], order["price_ceiling"]
    within = all(price[name] <= ceiling[name] for name in price)
    _require(within, "price_above_ceiling", "the accepted price is above the order's ceiling", "R-5.2")
    within = acceptance["max_output_tokens"] <= order["max_output_tokens"]
    _require(within, "limit_raised", "the acceptance raises the limit", "R-5.2")
    within = acceptance["accepted_ms"] <= order["deadline_ms"]
    _require(within, "accepted_late", "the order was accepted after its deadline", "R-5.2")
    return acceptance


def _check_bindings(
    order: records.Record,
    digest: bytes,
    acceptance: records.Record | None,
    receipt: records.Record,
    worker: bytes | None,
) -> None:
    """R-6.6: the receipt is this worker's, for this order."""
    if worker is not None and worker != receipt["worker"]:
        message = f"the receipt is by {receipt['worker'].hex()}, not by {worker.hex()}"
        raise MismatchError("other_worker", message, "R-6.6")
    _require(receipt["order"] == digest, "receipt_of_other_order", "the receipt is for another order", "R-6.6")
    _require(receipt["model"] == order["model"], "other_model", "the receipt is for another model", "R-6.6")
    known = receipt["arithmetic"] in (records.ARITHMETIC_VERSION, records.NO_ARITHMETIC)
    _require(known, "other_arithmetic", f"arithmetic version {receipt['arithmetic']} is not known here", "R-6.6")
    same = receipt["seed"] == records.sampling_seed(order)
    _require(same, "other_seed", "the seed is not the one the order prescribes", "R-6.6")
    if acceptance and not _is_by_word(receipt):
        same = acceptance["prompt_tokens"] == receipt["prompt_tokens"]
        _require(same, "prompt_count", "acceptance and receipt differ in the prompt's length", "R-6.6")


def _check_word(
    order: records.Record, acceptance: records.Record | None, answer: Answer, receipt: records.Record
) -> None:
    """R-13: an answer by its worker's word claims no token ids, no state, and continues nothing."""
    claims = {
        "continues what somebody else began": order["resumed"] is not None,
        "answers token ids": answer.request["prompt"][0] == "tokens",
        "answers an order with a grammar": answer.request["grammar"] is not None,
        "answers with a vector": answer.request["embedding"] is not None,
        "was accepted for a counted prompt": acceptance is not None and acceptance["prompt_tokens"] != 0,
        "names the prompt's tokens": answer.prompt_ids is not None
        or receipt["prompt_digest"] != digests.ids(digests.PROMPT_IDS, []),
        "names the output's tokens": any(answer.output_ids),
        "counts cached tokens": receipt["cached_tokens"] != 0,
        "is to be paid": any(receipt["price"].values()) or order["channel"] is not None,
        "commits to a state": answer.salt != ZERO or receipt["state_commitment"] != ZERO,
    }
    for what, is_so in claims.items():
        _require(not is_so, "word", f"the receipt claims no arithmetic, and {what}", "R-13")


def _check_prompt(answer: Answer, receipt: records.Record) -> bool:
    """R-6.4, for the prompt where its ids are known. Says whether they were."""
    choice, fields = answer.request["prompt"]
    ordered: list[int] | None = fields["tokens"] if choice == "tokens" else None
    if ordered is not None and answer.prompt_ids is not None:
        same = ordered == answer.prompt_ids
        _require(same, "other_prompt_tokens", "the prompt's tokens are not the ones that were ordered", "R-4.2")
    # A refusal may come before the prompt was tokenised.
    if answer.acceptance is None and receipt["prompt_tokens"] == 0:
        return False
    known = answer.prompt_ids if ordered is None else ordered
    if known is None:
        return False
    # what is resumed from is given to the model after the prompt.
    ids, counted = known + answer.resumed_ids, receipt["prompt_tokens"]
    message = f"the receipt counts {counted} prompt tokens; there are {len(ids)}"
    _require(len(ids) == counted, "prompt_tokens", message, "R-6.4")
    same = digests.ids(digests.PROMPT_IDS, ids) == receipt["prompt_digest"]
    _require(same, "prompt_digest", "the prompt's tokens are not the ones in the receipt", "R-6.4")
    return True


def _check_finish(
    order: records.Record,
    request: records.Record,
    acceptance: records.Record | None,
    receipt: records.Record,
    text: str,
) -> None:
    """R-6.8, R-6.10, R-6.11."""
    found, finish = receipt["output_tokens"], receipt["finish"]
    if acceptance is None:
        _require(found == 0, "refusal_with_output", f"a refusal that counts {found} output tokens", "R-6.10")
        return
    limit = acceptance["max_output_tokens"]
    _require(found <= limit, "over_limit", f"{found} output tokens are more than the limit of {limit}", "R-6.8")
    # where an upstream says it ends, it ends.
    if finish in ("length", "stop") and _is_by_word(receipt):
        pass
    elif finish == "length":
        message = f"said to have reached the limit of {limit} tokens with {found}"
        _require(found == limit, "limit_not_reached", message, "R-6.8")
    elif finish == "stop":
        message = "said to have stopped by itself without a single token"
        _require(found > 0 or order["resumed"] is not None, "stopped_at_nothing", message, "R-6.8")
        message = "said to have stopped by itself, where neither an end token nor a stop string could stop it"
        _require(not order["ignore_end"] or bool(request["stop"]), "nothing_to_stop_at", message, "R-6.8")
    elif finish == "unpaid":
        message = "said to have ended unpaid, where nothing was to pay"
        _require(any(acceptance["price"].values()), "nothing_to_pay", message, "R-6.8")
    stop = next((stop for stop in request["stop"] if stop in text), None)
    _require(stop is None, "stop_string_in_text", f"the text holds a stop string, {stop!r}", "R-6.11")


def _check_vector(answer: Answer, receipt: records.Record) -> bool | None:
    """R-5.9: whether the vector is what the receipt commits to; None if there is to be none, False if it is not here."""
    wanted = None if receipt["outcome"] is not None else answer.request["embedding"]
    data = answer.embedding
    if wanted is None:
        message = "there is a vector where none was asked for, or none was given"
        _require(data is None, "vector_unasked", message, "R-5.9")
        return None
    if data is None:
        return False
    _require(records.is_vector(data), "vector", "the vector cannot be one", "R-5.9")
    ordered, found = wanted["dimensions"], len(data) // 4
    message = f"the vector has {found} dimensions; {ordered} were ordered"
    _require(ordered in (None, found), "vector_dimensions", message, "R-5.9")
    opened = digests.digest(digests.STATE_COMMITMENT, receipt["worker"] + answer.salt + digests.plain(data))
    same = opened == receipt["state_commitment"]
    _require(same, "other_vector", "the vector is not the one that the receipt commits to", "R-5.9")
    return True


@dataclass
class CheckedEvidence:
    """Evidence whose every answer holds, under an envelope that names them."""

    envelope: records.Record
    answers: list[Checked]
    checked: list[str]
    not_checked: list[str]


def _is_same_answer(one: records.Record, other: records.Record) -> bool:
    """Whether two orders are for one answer: of one worker after another (R-5.8), or of two to be compared (R-7.6)."""
    may_differ = ("channel", "price_ceiling", "deadline_ms", "issued_ms", "max_output_tokens", "resumed")
    return all(other[name] == one[name] for name in other if name not in may_differ)


@dataclass(frozen=True)
class _Whole:
    """An answer that was brought to its end."""

    order: records.Record
    said: tuple[list[int], str, str, bytes | None]
    workers: list[bytes]

    def repeats(self, other: _Whole) -> bool:
        """R-7.6: whether it is the same as another, and by nobody who gave that."""
        return self.said == other.said and not set(self.workers) & set(other.workers)


class _Course:
    """What the parts of one answer have given so far."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.text = ""
        self.workers: list[bytes] = []
        self.limit: int | None = None

    def continues(self, before: records.Record, order: records.Record, answer: Answer) -> bool:
        """R-7.5: whether an order asks for the rest of what `before` asked for."""
        same = _is_same_answer(before, order)
        # Nothing that was not signed is resumed from; starting anew resumes from nothing.
        prefix = not answer.resumed_ids or answer.resumed_ids == self.ids
        rest = self.limit is None or self.limit - _resumed_tokens(order) == order["max_output_tokens"]
        return same and prefix and rest

    def extend(self, checked: Checked, answer: Answer) -> _Whole | None:
        """Adds a part; returns the answer, if this brought it to its end."""
        if not checked.resumed_tokens:
            self.text = ""
        self.ids = self.ids[: checked.resumed_tokens] + answer.output_ids
        self.text += answer.text
        self.workers.append(checked.worker)
        if checked.is_end and checked.receipt:
            said = (self.ids, self.text, checked.receipt["finish"], answer.embedding)
            whole = _Whole(checked.order, said, self.workers)
            self.ids, self.text, self.workers, self.limit = [], "", [], None
            return whole
        if checked.acceptance and self.limit is None:
            self.limit = checked.resumed_tokens + checked.acceptance["max_output_tokens"]
        return None


def check_evidence(evidence: Evidence, gateway: bytes | None, worker: bytes | None) -> CheckedEvidence:
    """Checks whole evidence (R-7, R-8): the envelope, every answer, and that they belong together."""
    envelope = _open(evidence.envelope)
    checked, not_checked = ["envelope"], []
    if gateway is None:
        not_checked.append("gateway")
    elif gateway != envelope["gateway"]:
        message = f"the envelope is by {envelope['gateway'].hex()}, not by {gateway.hex()}"
        raise MismatchError("other_gateway", message)
    else:
        checked.append("gateway")
    parts = envelope["parts"]
    message = f"the envelope names {len(parts)} answers; there are {len(evidence.answers)}"
    _require(len(parts) == len(evidence.answers), "part_count", message, "R-7.3")

    answers: list[Checked] = []
    course, wholes, total = _Course(), list[_Whole](), 0
    for index, (part, answer) in enumerate(zip(parts, evidence.answers)):
        try:
            one = check_answer(answer, worker)
            before, is_check = parts[index - 1]["purpose"] if index else None, part["purpose"] is not None
            if answers and not answers[-1].is_end:
                goes_on = course.continues(answers[-1].order, one.order, answer) and before == part["purpose"]
            else:
                goes_on = one.order["resumed"] is None and (is_check or before is None)
            message = "it does not go on where the one before it ended"
            _require(goes_on, "not_a_continuation", message, "R-7.5")
            named: dict[str, Any] = {
                "order": records.order_digest(answer.order.message.payload),
                "receipt": answer.receipt and digests.digest(digests.RECEIPT, answer.receipt.data),
                "worker": one.worker,
                "first_output_token": one.resumed_tokens,
                "output_tokens": one.output_tokens,
                "purpose": part["purpose"],
            }
            _require(part == named, "other_part", "it is not the one the envelope names", "R-7.3")
            whole = course.extend(one, answer)
            if whole and is_check:
                of = next((other for other in wholes if _is_same_answer(other.order, whole.order)), None)
                _require(of is not None, "check_of_nothing", "it is named as a check, and repeats no answer", "R-7.6")
                repeats = of is not None and whole.repeats(of)
                message = "it is named as a check of another, and is not the same or not by others"
                _require(repeats, "check_differs", message, "R-7.6")
            elif whole:
                wholes.append(whole)
        except ReceiptError as error:
            error.answer = index
            raise
        total += one.receipt["charge"] if one.receipt else 0
        answers.append(one)
    # A failure may stand alone, as the whole of what came.
    last = answers[-1]
    ends = last.is_end or (last.receipt is not None and len(answers) == 1)
    _require(ends, "unfinished", "the last answer is not brought to its end", "R-7.5")
    checked.append("parts")
    if any(answer.order["resumed"] for answer in answers):
        checked.append("continuation")
    if any(part["purpose"] for part in parts):
        checked.append("repeated")
    total = min(total, (1 << 128) - 1)
    message = f"the envelope charges {envelope['charge']}; its receipts charge {total}"
    _require(envelope["charge"] == total, "envelope_charge", message, "R-7.4")
    return CheckedEvidence(envelope, answers, checked, not_checked)
