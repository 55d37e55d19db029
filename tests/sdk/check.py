"""The official `openai` client against a running Surety: chat, stream, list, cancel, errors.

Usage: check.py BASE_URL [--report FILE]
"""

import array
import asyncio
import json
import time
import urllib.request

import openai

import harness

asked = harness.arguments()
base_url = asked.base_url
root = base_url.removesuffix("/v1")
client = openai.OpenAI(base_url=base_url, api_key="none")
MODEL = "shakespeare-demo"
MESSAGES = [{"role": "user", "content": "Speak of the sea."}]


def active_requests():
    with urllib.request.urlopen(f"{root}/v1/network/status") as answer:
        return sum(worker["active_requests"] for worker in json.load(answer)["workers"])


def wait_until_idle(seconds):
    end = time.monotonic() + seconds
    while active_requests() > 0:
        assert time.monotonic() < end, "cancelled work still runs"
        time.sleep(0.1)


def chat():
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=40, seed=7)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    again = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=40, seed=7)
    assert again.choices[0].message.content == answer.choices[0].message.content, "the same seed, the same answer"
    return answer.choices[0].message.content


def stream():
    expected = chat()
    text, usage, finish = "", None, None
    options = {"include_usage": True}
    for chunk in client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=40, seed=7, stream=True, stream_options=options
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
    assert text == expected, "streamed and whole answers agree"
    assert usage.completion_tokens > 0 and finish in ("stop", "length")


def receipt():
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES, max_tokens=8)
    request_id = raw.headers["x-request-id"]
    with urllib.request.urlopen(f"{root}/v1/receipts/{request_id}") as answer:
        evidence = json.load(answer)
    assert evidence["request_id"] == request_id and len(evidence["answers"]) == 1


def many_choices_and_logprobs():
    answer = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=6, n=3, logprobs=True, top_logprobs=2, temperature=1.2, seed=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1, "choices differ"
    for entry in answer.choices[0].logprobs.content:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 2


def completions():
    answer = client.completions.create(model=MODEL, prompt="To be, or not to", max_tokens=8, echo=True, logprobs=1)
    assert answer.choices[0].text.startswith("To be, or not to")
    ids = client.completions.create(model=MODEL, prompt=[60, 61, 62], max_tokens=4)
    assert ids.usage.prompt_tokens == 3


def models():
    listed = [model.id for model in client.models.list()]
    assert MODEL in listed
    assert client.models.retrieve(MODEL).id == MODEL


def embeddings():
    # As many as OpenAI takes at once; each has its vector, in order.
    texts = [f"The sea, {index}" for index in range(2048)]
    answer = client.embeddings.create(model=MODEL, input=texts)
    assert [entry.index for entry in answer.data] == list(range(len(texts)))
    again = client.embeddings.create(model=MODEL, input=[texts[0], texts[-1]], encoding_format="float")
    # Decimal digits are read as 64 bits; they name the same 32.
    numbers = [array.array("f", entry.embedding) for entry in [*again.data, answer.data[0], answer.data[-1]]]
    assert numbers[:2] == numbers[2:]
    with urllib.request.urlopen(root + answer.surety["receipt"]) as evidence:
        # More where another worker went on with one.
        assert len(json.load(evidence)["answers"]) >= len(texts), "each has its receipt"
    try:
        client.embeddings.create(model=MODEL, input=[*texts, "one more"])
        raise AssertionError("2,049 inputs were taken")
    except openai.BadRequestError as error:
        assert error.param == "input", error.param


def cancel():
    generation = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=600, stream=True, extra_body={"ignore_eos": True}
    )
    next(iter(generation))
    generation.close()
    wait_until_idle(5)


async def cancel_async():
    asynchronous = openai.AsyncOpenAI(base_url=base_url, api_key="none")
    task = asyncio.create_task(
        asynchronous.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=900, extra_body={"ignore_eos": True}
        )
    )
    await asyncio.sleep(0.1)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    await asynchronous.close()


def errors():
    try:
        client.chat.completions.create(model="shakespear-demo", messages=MESSAGES)
        raise AssertionError("an unknown model was served")
    except openai.NotFoundError as error:
        assert "shakespeare-demo" in error.message, error.message
        assert error.request_id
    try:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=0)
        raise AssertionError("max_tokens 0 was served")
    except openai.BadRequestError as error:
        assert error.param in ("max_tokens", "max_completion_tokens"), error.param
    try:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "sea " * 100_000}])
        raise AssertionError("an over-long prompt was served")
    except openai.BadRequestError as error:
        assert error.code == "context_length_exceeded", error.code


def idle():
    wait_until_idle(5)


steps = [chat, stream, receipt, many_choices_and_logprobs, completions, models, embeddings, cancel, cancel_async, idle, errors]
harness.steps("openai-chat", openai.__version__, asked.report, steps)
