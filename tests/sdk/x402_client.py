"""The stock PyPI `x402` client against `surety up --x402`: pays by the request and on a channel, with and without OpenAI's client;
buys credits; is refused.

Usage: x402_client.py BASE_URL SURETY DATA_DIR   (the binary, and the directory that the network runs in)
"""

import asyncio
import base64
import json
import subprocess
import sys

import httpx
import openai
from eth_account import Account
from web3 import Web3
from x402 import x402Client
from x402.http.clients import x402_httpx_transport
from x402.mechanisms.evm.batch_settlement.abi import BATCH_SETTLEMENT_ABI
from x402.mechanisms.evm.batch_settlement.client.config import BatchSettlementEvmSchemeOptions
from x402.mechanisms.evm.batch_settlement.client.scheme import BatchSettlementEvmScheme
from x402.mechanisms.evm.batch_settlement.constants import BATCH_SETTLEMENT_ADDRESS
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner, EthAccountSignerWithRPC

base_url, surety, data_dir = sys.argv[1:]
BODY = {"model": "shakespeare-demo", "max_tokens": 24, "messages": [{"role": "user", "content": "Speak of the sea."}]}
MICRO = 10**12


def command(*args):
    done = subprocess.run([surety, *args, "--json", "--data-dir", data_dir], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def decoded(header):
    return json.loads(base64.b64decode(header))


class Tap(httpx.AsyncHTTPTransport):
    """Remembers what was paid with."""

    paid = None

    async def handle_async_request(self, request):
        Tap.paid = request.headers.get("payment-signature", Tap.paid)
        return await super().handle_async_request(request)


async def terms():
    async with httpx.AsyncClient() as plain:
        answer = await plain.post(f"{base_url}/chat/completions", json=BODY)
    assert answer.status_code == 402 and answer.json()["error"]["code"] == "payment_required", answer.text
    required = decoded(answer.headers["payment-required"])
    exact, batch = required["accepts"]
    assert (required["x402Version"], exact["scheme"], batch["scheme"]) == (2, "exact", "batch-settlement")
    return exact


def capped(accepted, most):
    client = x402Client()
    entry = {"network": accepted["network"], "asset": accepted["asset"], "max_amount_per_payment": str(most)}
    client.set_spend_controls({"allowed_assets": [entry]})
    return client


def paying(account, accepted, most=10**18):
    client = capped(accepted, most)
    register_exact_evm_client(client, EthAccountSigner(account), networks=accepted["network"])
    return httpx.AsyncClient(transport=x402_httpx_transport(client, Tap()), timeout=60)


def on_channel(signer, accepted, salt, most=10**18):
    """A client that pays on a channel, and its scheme."""
    client = capped(accepted, most)
    options = BatchSettlementEvmSchemeOptions(salt="0x" + f"{salt:02x}" * 32)
    scheme = BatchSettlementEvmScheme(signer, options)
    client.register(accepted["network"], scheme)
    return httpx.AsyncClient(transport=x402_httpx_transport(client, Tap()), timeout=60), scheme


async def by_the_request(http, account):
    answer = await http.post(f"{base_url}/chat/completions", json=BODY)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    settled = decoded(answer.headers["payment-response"])
    cost = int(answer.headers["x-surety-cost"])
    assert settled["success"] and settled["transaction"].startswith("0x") and cost > 0, settled
    assert int(settled["amount"]) == cost * MICRO and settled["payer"].lower() == account.address.lower()
    assert int(settled["amount"]) < int(settled["extra"]["authorizedAmount"])


async def vectors(http):
    """What vectors cost, in wei, and what was told of their payment."""
    body = {"model": BODY["model"], "input": ["Speak of the sea.", "Speak of the land."]}
    answer = await http.post(f"{base_url}/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["data"]) == 2
    cost = int(answer.headers["x-surety-cost"]) * MICRO
    assert cost > 0
    return cost, decoded(answer.headers["payment-response"])


async def refused(account, poor, accepted):
    async with httpx.AsyncClient() as plain:

        async def reason(payload):
            header = base64.b64encode(json.dumps(payload).encode()).decode()
            answer = await plain.post(
                f"{base_url}/chat/completions", json=BODY, headers={"PAYMENT-SIGNATURE": header}
            )
            assert answer.status_code == 402 and answer.json()["error"]["code"] == "payment_refused", answer.text
            return decoded(answer.headers["payment-required"])["error"]

        paid = decoded(Tap.paid)
        assert await reason(paid) == "invalid_exact_evm_nonce_already_used"
        other = json.loads(json.dumps(paid))
        other["payload"]["authorization"]["nonce"] = "0x" + "11" * 32
        assert await reason(other) == "invalid_exact_evm_payload_signature"
        other = json.loads(json.dumps(paid))
        other["accepted"]["amount"] = other["payload"]["authorization"]["value"] = "1"
        assert await reason(other) == "invalid_exact_evm_payload_authorization_value"
        other = json.loads(json.dumps(paid))
        other["accepted"]["network"] = "eip155:1"
        assert await reason(other) == "network_mismatch"
    async with paying(poor, accepted) as http:
        answer = await http.post(f"{base_url}/chat/completions", json=BODY)
        assert answer.status_code == 402, answer.text
        assert decoded(answer.headers["payment-required"])["error"] == "invalid_exact_evm_insufficient_balance"
    # The client itself pays no more than it was told to.
    async with paying(account, accepted, most=1) as http:
        try:
            answer = await http.post(f"{base_url}/chat/completions", json=BODY)
            raise AssertionError(f"it paid more than its limit: {answer.status_code}")
        except AssertionError:
            raise
        except Exception as error:
            assert "spend_controls" in str(error) or "max_amount" in str(error), error


async def with_openai(http):
    client = openai.AsyncOpenAI(base_url=base_url, api_key="unused", http_client=http)
    answer = await client.chat.completions.create(**BODY)
    assert answer.choices[0].message.content
    text = ""
    async for chunk in await client.chat.completions.create(**BODY, stream=True):
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
    assert text


async def at_once(http):
    answers = await asyncio.gather(*(http.post(f"{base_url}/chat/completions", json=BODY) for _ in range(4)))
    assert [answer.status_code for answer in answers] == [200] * 4, [answer.text for answer in answers]


async def credits(http):
    key = command("apikey", "create", "agent", "--budget", "0")["secret"]
    headers = {"authorization": f"Bearer {key}"}
    bought = await http.post(f"{base_url}/credits", json={"amount": "3000000"}, headers=headers)
    assert bought.status_code == 200, bought.text
    assert decoded(bought.headers["payment-response"])["amount"] == str(3_000_000 * MICRO)
    assert bought.json()["data"] == {"total_credits": 3.0, "total_usage": 0.0}
    async with httpx.AsyncClient(headers=headers, timeout=60) as plain:
        answer = await plain.post(f"{base_url}/chat/completions", json=BODY)
        assert answer.status_code == 200, answer.text
        told = (await plain.get(f"{base_url}/credits")).json()
    assert int(told["used"]) == int(answer.headers["x-surety-cost"])
    assert int(told["budget"]) + int(told["bought"]) == int(told["used"]) + int(told["reserved"]) + int(told["left"])


def error_of(answer):
    assert answer.status_code == 402, answer.text
    return decoded(answer.headers["payment-required"])["error"].removeprefix("invalid_batch_settlement_evm_")


async def channels(account, poor, accepted):
    with open(f"{data_dir}/up.json") as running:
        [rpc, *_] = json.load(running)["rpc_urls"]
    reading, ledger = EthAccountSignerWithRPC(account, rpc), Web3(Web3.HTTPProvider(rpc))
    http, scheme = on_channel(reading, accepted, 1)
    url = f"{base_url}/chat/completions"
    paid, deposits, before = 0, 0, ledger.eth.get_balance(account.address)
    async with http:
        for turn in range(4):
            answer = await http.post(url, json=BODY)
            assert answer.status_code == 200, answer.text
            settled = decoded(answer.headers["payment-response"])
            cost = int(answer.headers["x-surety-cost"]) * MICRO
            paid += cost
            assert settled["success"] and int(settled["extra"]["chargedAmount"]) == cost > 0, settled
            # The first pays in; the others are vouchers, of which the ledger knows nothing yet.
            assert bool(settled["transaction"]) == (turn == 0), settled
            deposits += int(settled["amount"] or 0)
            state = settled["extra"]["channelState"]
            assert (int(state["chargedCumulativeAmount"]), int(state["balance"])) == (paid, deposits), settled
        assert before - ledger.eth.get_balance(account.address) == deposits
        used = Tap.paid

        # The same again is stale, and so is what was meant for somebody else.
        async with httpx.AsyncClient() as plain:

            async def reason(change):
                payload = decoded(used)
                change(payload)
                header = base64.b64encode(json.dumps(payload).encode()).decode()
                return error_of(await plain.post(url, json=BODY, headers={"PAYMENT-SIGNATURE": header}))

            assert await reason(lambda payload: None) == "cumulative_amount_mismatch"
            other = lambda payload: payload["payload"]["channelConfig"].update(receiver=poor.address)
            assert await reason(other) == "receiver_mismatch"
            other = lambda payload: payload["accepted"].update(network="eip155:1")
            assert await reason(other) == "network_mismatch"
            other = lambda payload: payload["payload"]["voucher"].update(maxClaimableAmount="1")
            assert await reason(other) == "voucher_signature"

        # OpenAI's client on the same channel. What a stream came to is known at its end: the next voucher is told what was
        # charged meanwhile, looks it up on the ledger, and is signed anew.
        await with_openai(http)
        answer = await http.post(url, json=BODY)
        assert answer.status_code == 200, answer.text
        state = decoded(answer.headers["payment-response"])["extra"]["channelState"]
        assert int(state["chargedCumulativeAmount"]) > paid
        cost, settled = await vectors(http)
        assert int(settled["extra"]["chargedAmount"]) == cost, settled

        # A channel pays for one answer at a time; others have channels of their own.
        answers = await asyncio.gather(*(http.post(url, json=BODY) for _ in range(4)))
        served = [answer for answer in answers if answer.status_code == 200]
        assert served, [answer.text for answer in answers]
        for answer in answers:
            assert answer in served or error_of(answer) in ("channel_busy", "cumulative_amount_mismatch")
    apart = [on_channel(reading, accepted, salt)[0] for salt in range(2, 5)]
    answers = await asyncio.gather(*(client.post(url, json=BODY) for client in apart))
    assert [answer.status_code for answer in answers] == [200] * 3, [answer.text for answer in answers]
    await asyncio.gather(*(client.aclose() for client in apart))

    # Who has nothing cannot pay in.
    broke, _ = on_channel(EthAccountSigner(poor), accepted, 1)
    async with broke:
        assert error_of(await broke.post(url, json=BODY)) == "insufficient_balance"

    # What is left is given back; what was charged is claimed first.
    await asyncio.to_thread(scheme.refund, url)
    balance, claimed = reading.read_contract(
        BATCH_SETTLEMENT_ADDRESS, BATCH_SETTLEMENT_ABI, "channels", decoded(used)["payload"]["voucher"]["channelId"]
    )
    assert balance == claimed > paid, (balance, claimed, paid)


async def main():
    account, poor = Account.create(), Account.create()
    given = command("faucet", account.address, "--amount", "20")
    assert int(given["balance"]) == 20 * 10**18
    accepted = await terms()
    async with paying(account, accepted, most=4 * 10**18) as http:
        await by_the_request(http, account)
        await refused(account, poor, accepted)
        cost, settled = await vectors(http)
        assert settled["transaction"].startswith("0x") and int(settled["amount"]) == cost, settled
        await with_openai(http)
        await at_once(http)
        await credits(http)
    await channels(account, poor, accepted)


asyncio.run(main())
print("x402 (Python): paid, refused and bought as it should be")
