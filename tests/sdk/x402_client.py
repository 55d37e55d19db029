"""The stock PyPI `x402` client against `surety up --x402`: pays by the request, with and without OpenAI's client; buys credits;
is refused.

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
from x402 import x402Client
from x402.http.clients import x402_httpx_transport
from x402.mechanisms.evm.exact import register_exact_evm_client
from x402.mechanisms.evm.signers import EthAccountSigner

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
    [accepted] = required["accepts"]
    assert (required["x402Version"], accepted["scheme"]) == (2, "exact")
    return accepted


def paying(account, accepted, most=10**18):
    client = x402Client()
    entry = {"network": accepted["network"], "asset": accepted["asset"], "max_amount_per_payment": str(most)}
    client.set_spend_controls({"allowed_assets": [entry]})
    register_exact_evm_client(client, EthAccountSigner(account), networks=accepted["network"])
    return httpx.AsyncClient(transport=x402_httpx_transport(client, Tap()), timeout=60)


async def by_the_request(http, account):
    answer = await http.post(f"{base_url}/chat/completions", json=BODY)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"]
    settled = decoded(answer.headers["payment-response"])
    cost = int(answer.headers["x-surety-cost"])
    assert settled["success"] and settled["transaction"].startswith("0x") and cost > 0, settled
    assert int(settled["amount"]) == cost * MICRO and settled["payer"].lower() == account.address.lower()
    assert int(settled["amount"]) < int(settled["extra"]["authorizedAmount"])
    return cost


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


async def main():
    account, poor = Account.create(), Account.create()
    given = command("faucet", account.address, "--amount", "20")
    assert int(given["balance"]) == 20 * 10**18
    accepted = await terms()
    async with paying(account, accepted, most=4 * 10**18) as http:
        await by_the_request(http, account)
        await refused(account, poor, accepted)
        await with_openai(http)
        await at_once(http)
        await credits(http)


asyncio.run(main())
print("x402 (Python): paid, refused and bought as it should be")
