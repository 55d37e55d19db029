"""What holds is reported as the binary reports it; what was edited, forged or is not evidence at all is refused by name."""

from __future__ import annotations

import copy
import http.server
import json
import random
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from surety_receipts import FetchError, MismatchError, ReceiptError, fetch_and_verify, verify
from surety_receipts import binary32, cose, digests, evidence, jsontext, records

sys.path.insert(0, str(Path(__file__).parent))
import forge

RUNS = ("chat", "choices", "embedding", "tokens", "resumed")
REFUSED = json.loads((forge.TESTDATA / "refused.json").read_bytes())


def run(name: str) -> bytes:
    return (forge.TESTDATA / f"{name}.json").read_bytes()


def vector(name: str) -> dict[str, Any]:
    return json.loads((forge.VECTORS / f"{name}.json").read_bytes())


@pytest.mark.parametrize("name", RUNS)
def test_what_a_network_gave_holds_and_is_reported_as_the_binary_does(name: str) -> None:
    report = verify(run(name)).to_dict()
    binary = json.loads((forge.TESTDATA / f"{name}.report.json").read_bytes())
    assert report["checked"] == binary["checked"]
    # The last two lines name the binary's own options.
    assert report["not_checked"][:-2] == binary["not_checked"][:-2]
    assert len(report["not_checked"]) == len(binary["not_checked"])
    for field in ("request_id", "gateway", "answers"):
        assert report[field] == binary[field]


def test_what_the_reader_knows_is_compared() -> None:
    data = run("chat")
    plain = verify(data)
    one = plain.answers[0]
    report = verify(
        data,
        request_id="chatcmpl-" + plain.request_id.removeprefix("req_"),
        text=one.text,
        prompt="Who goes there?",
        model=one.model,
        worker=one.worker,
        gateway=plain.gateway,
    )
    assert "the text is the one that was given to compare" in report.checked
    assert "the worker is the expected one" in report.checked
    assert not any("you saw" in line or "holds the worker's" in line for line in report.not_checked)
    others = {
        "request_id": ("req_00000000000000000000000000000000", "other_request_id"),
        "text": (one.text + "\u200b", "unexpected_text"),
        "prompt": ("Who goes where?", "unexpected_prompt"),
        "model": ("0" * 64, "unexpected_model"),
        "worker": ("0" * 64, "other_worker"),
        "gateway": ("0" * 64, "other_gateway"),
    }
    for name, (value, code) in others.items():
        with pytest.raises(MismatchError) as caught:
            verify(data, **{name: value})
        assert caught.value.code == code
    with pytest.raises(ValueError):
        verify(data, worker="F" * 64)
    whole = "".join(answer.text for answer in verify(run("resumed")).answers)
    assert "the text is the one that was given to compare" in verify(run("resumed"), text=whole).checked


def test_edits_are_refused() -> None:
    def edited(*path_and_value: Any) -> bytes:
        made = json.loads(run("chat"))
        forge.put(*path_and_value)(made)
        return json.dumps(made).encode()

    edits = {
        "text_digest": edited("answers", 0, "text", "Nobody."),
        "output_digest": edited("answers", 0, "output_ids", 3, 5),
        "view": edited("view", "answers", 0, "receipt", "output_tokens", 1),
        "request_id": edited("request_id", "req_00000000000000000000000000000000"),
        "unknown_field": edited("more", 1),
        "answers": edited("answers", []),
        "salt_missing": edited("answers", 0, "salt", "00" * 32),
        "salt": edited("answers", 0, "salt", "AA" * 32),
        "base64": edited("answers", 0, "order", json.loads(run("chat"))["answers"][0]["order"] + "\n"),
        "wrong_type": edited("answers", 0, "output_ids", 3, True),
        "version": edited("surety", True),
        "not_json": run("chat").replace(b'{"surety":1,', b'{"surety":1,"surety":1,'),
        "missing_field": run("chat").replace(b'"channel":null,', b""),
    }
    for code, data in edits.items():
        with pytest.raises(ReceiptError) as caught:
            verify(data)
        assert caught.value.code == code, str(caught.value)
    # Where the state can be opened, as of a vector, another salt is refused too.
    made = json.loads(run("embedding"))
    made["answers"][0]["salt"] = "11" * 32
    with pytest.raises(ReceiptError) as caught:
        verify(json.dumps(made))
    assert caught.value.code == "other_vector"


def test_every_bit_of_a_signed_message_counts() -> None:
    good = json.loads(run("chat"))
    dice = random.Random(1)
    for name in ("order", "acceptance", "receipt", "envelope"):
        for _ in range(60):
            made = copy.deepcopy(good)
            place = made if name == "envelope" else made["answers"][0]
            data = bytearray(evidence._bytes(place[name], name))
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            place[name] = forge.base64.b64encode(data).decode()
            try:
                made["view"] = forge.view(made)
            except ReceiptError:
                pass
            with pytest.raises(ReceiptError):
                verify(json.dumps(made))


@pytest.mark.parametrize("case", REFUSED["cases"], ids=lambda case: case["name"])
def test_what_is_signed_and_breaks_a_rule_is_refused_by_its_name(case: dict[str, Any]) -> None:
    made = copy.deepcopy(REFUSED["base"])
    for path, value in case["edits"]:
        forge.put(*path, value)(made)
    with pytest.raises(ReceiptError) as caught:
        verify(json.dumps(made))
    assert caught.value.code == case["code"], str(caught.value)


def test_an_answer_by_word_holds_and_claims_no_more() -> None:
    made = copy.deepcopy(REFUSED["base"])
    for path, value in REFUSED["by_word"]:
        forge.put(*path, value)(made)
    report = verify(json.dumps(made))
    said, open_ = "\n".join(report.checked), "\n".join(report.not_checked)
    assert "claims no arithmetic" in said and "the text is the receipt's" in said
    assert "tokens are the receipt's" not in said and "arithmetic and seed" not in said and "salt" not in said
    assert "the operator's upstream sees the text" in open_ and "operator's word" in open_


@pytest.mark.parametrize("case", REFUSED["held"], ids=lambda case: case["name"])
def test_what_is_signed_and_keeps_the_rules_holds(case: dict[str, Any]) -> None:
    made = copy.deepcopy(REFUSED["base"])
    for path, value in case["edits"]:
        forge.put(*path, value)(made)
    report = verify(json.dumps(made))
    assert case["checked"] in report.checked
    assert [one.get("check", False) for one in report.to_dict()["answers"]] == [False, True]


def test_the_forged_cases_are_those_of_the_generator_and_their_base_holds() -> None:
    message = "run `python sdk/python/tests/forge.py`"
    assert forge.written() == (forge.TESTDATA / "refused.json").read_text(encoding="utf-8"), message
    verify(json.dumps(REFUSED["base"]))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("order", "order"),
        ("resumed_order", "order"),
        ("confidential_order", "order"),
        ("acceptance", "acceptance"),
        ("progress", "progress"),
        ("receipt", "receipt"),
        ("refusal", "receipt"),
        ("envelope", "envelope"),
    ],
)
def test_vectors_are_read_as_they_say(name: str, kind: str) -> None:
    golden = vector(name)
    said = evidence._said(kind, bytes.fromhex(golden["cose"]))
    said.message.verify()
    assert said.message.payload.hex() == golden["cbor"]
    assert records.KINDS[kind].type.view(said.value) == golden["value"]
    for cut in range(len(said.data)):
        with pytest.raises(ReceiptError):
            evidence._said(kind, said.data[:cut])


def test_digests_are_those_of_the_vectors() -> None:
    for name in ("request", "embedding_request"):
        data = bytes.fromhex(vector(name)["cbor"])
        records.decode("request", data)
        assert records.request_digest(data).hex() == vector(name)["digest"]
    order = bytes.fromhex(vector("order")["cbor"])
    derived = vector("order_derived")
    assert records.order_digest(order).hex() == derived["digest"]
    assert records.sampling_seed(records.decode("order", order)).hex() == derived["seed"]
    receipt = bytes.fromhex(vector("receipt")["cose"])
    assert digests.digest(digests.RECEIPT, receipt).hex() == vector("receipt_digest")["digest"]


def test_points_of_small_order_and_large_scalars_verify_nothing() -> None:
    identity = b"\x01" + bytes(31)
    assert not cose.verifies(identity, b"anything", identity + bytes(32))
    assert not cose.verifies(b"\xff" * 32, b"anything", bytes(64))
    signature = forge.PAYER.sign(b"anything")
    key = forge.public(forge.PAYER)
    assert cose.verifies(key, b"anything", signature)
    larger = int.from_bytes(signature[32:], "little") + cose._ORDER
    assert not cose.verifies(key, b"anything", signature[:32] + larger.to_bytes(32, "little"))


def test_binary32_is_shown_in_its_shortest_decimal() -> None:
    shown = {0x3F333333: "0.7", 0x3F800000: "1", 0xBFC00000: "-1.5", 0: "0", 0x80000000: "-0", 0x42C80000: "100"}
    shown |= {1: "0." + "0" * 44 + "1", 0x3DCCCCCD: "0.1", 0x3F59999A: "0.85", 0x4B800000: "16777216"}
    for bits, text in shown.items():
        assert binary32.decimal(bits) == text
    dice = random.Random(2)
    for _ in range(2000):
        bits = dice.randrange(1 << 32) & 0xBFFFFFFF
        assert struct.pack("<f", float(binary32.decimal(bits))) == struct.pack("<I", bits)


def test_json_within_requests_is_compact() -> None:
    deep = '{"a":' + "[" * 63 + "]" * 63 + "}"
    good = ["{}", '{"a":[1,-0,2.5e1,"\\u00e9\\ud83d\\ude00\\n"],"b":{},"c":[true,null]}', deep, '{"a":"\\\\ud800"}']
    bad = ["", "1", "[]", "{", "{ }", "{}{}", "{} ", '{"a"}', '{"a":}', '{"a":1,}', '{"a":01}', '{"a":1.}', '{"a":.5}']
    bad += ['{"a":1e}', '{"a":+1}', '{"a":NaN}', '{"a":1e999}', '{"a":9223372036854775808}', '{"a":[1,]}', '{"a":[1}']
    bad += ['{"a":-9223372036854775808}', '{"a":tru}', '{"a":"\\ud800"}', '{"a":"\\ud800\\u0041"}', '{"a":"\\x"}']
    bad += ['{"a":"\\u00g0"}', '{"a":"\n"}', '{"a":"x}', deep.replace("[" * 63 + "]" * 63, "[" * 64 + "]" * 64)]
    assert all(map(jsontext.is_compact_object, good))
    assert not any(map(jsontext.is_compact_object, bad))


def test_any_bytes_are_refused_with_our_own_error() -> None:
    dice = random.Random(3)
    good = [run(name) for name in RUNS]
    kinds = list(records.KINDS)
    for _ in range(4000):
        with pytest.raises(ReceiptError):
            records.decode(dice.choice(kinds), dice.randbytes(dice.randrange(60)))
        with pytest.raises(ReceiptError):
            verify(dice.randbytes(dice.randrange(80)))
    signed = [(kind, bytes.fromhex(vector(kind)["cbor"])) for kind in kinds]
    for _ in range(6000):
        kind, data = dice.choice(signed)
        mutated = bytearray(data)
        for _ in range(dice.randrange(1, 4)):
            mutated[dice.randrange(len(mutated))] = dice.randrange(256)
        try:
            value = records.decode(kind, bytes(mutated))
        except ReceiptError:
            continue
        # What is read is read from its one encoding.
        assert forge.encode(forge.decode(bytes(mutated))) == bytes(mutated)
        records.KINDS[kind].type.view(value)
    for _ in range(600):
        data = bytearray(dice.choice(good))
        at = dice.randrange(len(data))
        data[at : at + dice.randrange(4)] = dice.randbytes(dice.randrange(4))
        try:
            verify(bytes(data))
        except ReceiptError:
            continue
        assert json.loads(data) in map(json.loads, good) or b"salt" in data
    for text in ("[" * 200_000, '{"a":' * 200_000, '"\ud800"', '"\\ud800"', "1" * 10_000, "\ufeff{}", ""):
        with pytest.raises(ReceiptError):
            verify(text)


def test_evidence_is_fetched_and_checked() -> None:
    data = run("chat")
    name = json.loads(data)["request_id"]

    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == f"/v1/receipts/{name}" and self.headers["authorization"] == "Bearer key"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(data if found else b"Nothing is kept.")

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/v1"
        assert fetch_and_verify(base, name, api_key="key").request_id == name
        for url, wanted in ((base, "req_1"), (base, "../x"), ("file:///", name), ("http://127.0.0.1:1/v1", name)):
            with pytest.raises(FetchError):
                fetch_and_verify(url, wanted, api_key="key")
        server.shutdown()


def test_the_command_says_whether_it_holds(tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "surety_receipts", *arguments], capture_output=True, text=True, check=False
        )

    path = str(forge.TESTDATA / "chat.json")
    holds = command(path)
    assert holds.returncode == 0 and holds.stdout.startswith("HOLDS:") and "NOT checked:" in holds.stdout
    assert json.loads(command(path, "--json").stdout)["verified"] is True
    text = tmp_path / "seen.txt"
    text.write_text("Nobody.")
    refused = command(path, "--text", str(text))
    assert refused.returncode == 1 and refused.stdout.startswith("DOES NOT HOLD: the text")
    assert json.loads(command(path, "--text", str(text), "--json").stdout)["code"] == "unexpected_text"
    assert command(str(tmp_path / "none.json")).returncode == 2
