"""LiteLLM's SDK against a running Surety that serves shakespeare-demo and tooled: by each of the three protocols it speaks here.

Usage: litellm_sdk.py BASE_URL [--report FILE]
"""

import importlib.metadata
import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm  # noqa: E402

import harness  # noqa: E402

asked = harness.arguments()
ROOT = asked.base_url.removesuffix("/v1")
WHERE = {"api_base": asked.base_url, "api_key": "none", "num_retries": 0}
MODEL, TOOLED = "openai/shakespeare-demo", "openai/tooled"
TURNS = [{"role": "user", "content": "Speak of the sea."}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"place": {"enum": ["Rome", "Paris"]}}, "required": ["place"]},
    },
}


def whole_and_streamed():
    made = dict(model=MODEL, messages=TURNS, max_tokens=24, seed=7, **WHERE)
    whole = litellm.completion(**made)
    text = whole.choices[0].message.content
    assert text and whole.usage.completion_tokens > 0
    chunks = list(litellm.completion(**made, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    built = litellm.stream_chunk_builder(chunks)
    assert built.usage.completion_tokens == whole.usage.completion_tokens


async def in_coroutines():
    made = dict(model=MODEL, messages=TURNS, max_tokens=24, seed=7, **WHERE)
    whole = await litellm.acompletion(**made)
    text = ""
    async for chunk in await litellm.acompletion(**made, stream=True):
        text += chunk.choices[0].delta.content or ""
    assert text == whole.choices[0].message.content


def text_completion():
    said = litellm.text_completion(model="text-completion-openai/shakespeare-demo", prompt="To be, or not to", max_tokens=8, **WHERE)
    assert said.choices[0].text


def vectors():
    made = litellm.embedding(model=MODEL, input=["The sea", "La mer"], **WHERE)
    assert len(made.data) == 2 and len(made.data[0]["embedding"]) > 0
    assert made.usage.prompt_tokens > 0


def forms():
    schema = {"type": "object", "properties": {"friend": {"type": "boolean"}}, "required": ["friend"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "watch", "strict": True, "schema": schema}}
    said = litellm.completion(model=MODEL, messages=TURNS, response_format=form, max_tokens=200, **WHERE)
    assert json.loads(said.choices[0].message.content)["friend"] in (True, False)


def tools():
    made = dict(model=TOOLED, messages=TURNS, tools=[TOOL], tool_choice="required", parallel_tool_calls=False, seed=3, max_tokens=200, **WHERE)
    said = litellm.completion(**made).choices[0]
    assert said.finish_reason == "tool_calls", said
    call = said.message.tool_calls[0]
    assert json.loads(call.function.arguments)["place"] in ("Rome", "Paris")
    built = litellm.stream_chunk_builder(list(litellm.completion(**made, stream=True)))
    assert built.choices[0].message.tool_calls[0].function.arguments == call.function.arguments
    result = {"role": "tool", "tool_call_id": call.id, "content": "Warm."}
    turns = [*TURNS, said.message.model_dump(exclude_none=True), result]
    after = litellm.completion(model=TOOLED, messages=turns, tools=[TOOL], max_tokens=8, **WHERE)
    assert after.usage.prompt_tokens > 0


def responses():
    made = dict(model=MODEL, input="Speak of the sea.", max_output_tokens=16, **WHERE)
    whole = litellm.responses(**made)
    assert whole.output[0].content[0].text and whole.usage.output_tokens > 0
    kinds = [event.type for event in litellm.responses(**made, stream=True)]
    assert kinds[0] == "response.created" and kinds[-1] in ("response.completed", "response.incomplete"), kinds


def as_anthropic():
    made = dict(model="anthropic/shakespeare-demo", messages=TURNS, max_tokens=16, temperature=0, api_base=ROOT, api_key="none")
    whole = litellm.completion(**made)
    assert whole.choices[0].message.content and whole.usage.completion_tokens > 0
    text = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**made, stream=True))
    assert text == whole.choices[0].message.content


def as_ollama():
    made = dict(model="ollama_chat/shakespeare-demo", messages=TURNS, max_tokens=16, temperature=0, api_base=ROOT)
    whole = litellm.completion(**made)
    assert whole.choices[0].message.content
    text = "".join(chunk.choices[0].delta.content or "" for chunk in litellm.completion(**made, stream=True))
    assert text == whole.choices[0].message.content
    made = litellm.embedding(model="ollama/shakespeare-demo", input=["The sea", "La mer"], api_base=ROOT)
    assert len(made.data) == 2


def errors():
    for members, error in [
        # Which of the two its rules make of a 404 follows from OpenAI's own code.
        (dict(model="openai/no-such-model"), (litellm.NotFoundError, litellm.BadRequestError)),
        (dict(model=MODEL, max_tokens=0), litellm.BadRequestError),
    ]:
        try:
            litellm.completion(messages=TURNS, **members, **WHERE)
            raise SystemExit(f"{members} was served")
        except error as told:
            assert "id=req_" in str(told), told
    try:
        litellm.completion(model=MODEL, messages=[{"role": "user", "content": "sea " * 100_000}], **WHERE)
        raise SystemExit("an over-long prompt was served")
    except litellm.BadRequestError as told:
        assert "tokens" in str(told), told


steps = [whole_and_streamed, in_coroutines, text_completion, vectors, forms, tools, responses, as_anthropic, as_ollama, errors]
harness.steps("litellm", importlib.metadata.version("litellm"), asked.report, steps)
