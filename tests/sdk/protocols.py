"""The official clients of Anthropic and Ollama against a running Surety that serves shakespeare-demo.

Usage: protocols.py BASE_URL [--report FILE]
The model `tooled`, whose template shows tools, must be served.
"""

import importlib.metadata
import json
import typing

import anthropic
import ollama
import pydantic

import harness

asked = harness.arguments()
MODEL, TOOLED = "shakespeare-demo", "tooled"
ROOT = asked.base_url.removesuffix("/v1")
TURNS = [{"role": "user", "content": "Shall I compare thee to a summer's day?"}]


class Guard(pydantic.BaseModel):
    friend: bool
    watch: typing.Literal["first", "second"]


def messages():
    client = anthropic.Anthropic(base_url=ROOT, api_key="none", max_retries=0)
    asked = dict(model=MODEL, max_tokens=24, system="Speak.", messages=TURNS, extra_body={"temperature": 0})
    whole = client.messages.create(**asked)
    text = whole.content[0].text
    assert whole.type == "message" and whole.stop_reason in ("end_turn", "max_tokens") and text
    assert whole._request_id.startswith("req_")
    with client.messages.stream(**asked) as stream:
        assert "".join(stream.text_stream) == text
        streamed = stream.get_final_message()
    assert streamed.stop_reason == whole.stop_reason
    assert streamed.usage.output_tokens == whole.usage.output_tokens
    counted = client.messages.count_tokens(model=MODEL, system="Speak.", messages=TURNS).input_tokens
    assert counted == whole.usage.input_tokens + whole.usage.cache_read_input_tokens
    # A word of the answer ends it, and is named.
    stop = text.split()[1]
    stopped = client.messages.create(**asked, stop_sequences=["no such word is said", stop])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", stop), stopped
    assert stopped.content[0].text == text[: text.index(stop)]
    # A form is kept to, whole and streamed, as the client's own `parse` asks for it.
    formed = dict(asked, max_tokens=200)
    assert client.messages.parse(**formed, output_format=Guard).parsed_output.watch in ("first", "second")
    with client.messages.stream(**formed, output_format=Guard) as stream:
        assert isinstance(stream.get_final_message().parsed_output.friend, bool)
    try:
        client.messages.create(**asked, output_config={"effort": "low"})
        raise SystemExit("an effort was ignored")
    except anthropic.BadRequestError as error:
        assert error.error_code == "unsupported_parameter", error
    try:
        client.messages.create(**asked, tools=[{"name": "f", "input_schema": {"type": "object"}}])
        raise SystemExit("tools were ignored")
    except anthropic.BadRequestError as error:
        assert error.type == "invalid_request_error" and error.error_code == "unsupported_parameter", error
        assert error.request_id.startswith("req_")
    try:
        client.messages.create(**{**asked, "model": "no-such-model"})
        raise SystemExit("an unknown model answered")
    except anthropic.NotFoundError as error:
        assert error.type == "not_found_error"
    names = [model.id for model in client.models.list(limit=1)]
    assert MODEL in names and len(names) == len(set(names))
    assert client.models.retrieve(MODEL).display_name == MODEL


def ollama_api():
    client = ollama.Client(host=ROOT)
    options = {"temperature": 0, "num_predict": 16, "top_k": 0, "top_p": 1}
    whole = client.chat(MODEL, TURNS, options=options)
    assert whole.done and whole.done_reason in ("stop", "length") and whole.message.content
    pieces = list(client.chat(MODEL, TURNS, options=options, stream=True))
    assert "".join(piece.message.content for piece in pieces) == whole.message.content
    last = pieces[-1]
    assert last.done and not any(piece.done for piece in pieces[:-1])
    assert last.eval_count == whole.eval_count and last.prompt_eval_count == whole.prompt_eval_count
    assert last.total_duration >= last.load_duration + last.prompt_eval_duration + last.eval_duration > 0
    said = client.generate(MODEL + ":latest", "To be, or not", raw=True, options=options)
    assert said.response and said.eval_count <= 16
    scored = client.generate(MODEL, "To be", raw=True, options=options, logprobs=True, top_logprobs=2)
    assert len(scored.logprobs) == scored.eval_count and len(scored.logprobs[0].top_logprobs) == 2
    assert client.generate(MODEL).done_reason == "load"
    assert MODEL in [model.model for model in client.list().models]
    assert MODEL in [model.model for model in client.ps().models]
    shown = client.show(MODEL)
    assert shown.details.format == "gguf" and shown.capabilities == ["completion"]
    assert shown.modelinfo["general.parameter_count"] > 0
    schema = {
        "type": "object",
        "properties": {"friend": {"type": "boolean"}, "watch": {"enum": ["first", "second"]}},
        "required": ["friend", "watch"],
        "additionalProperties": False,
    }
    formed = json.loads(client.chat(MODEL, TURNS, format=schema).message.content)
    assert formed["friend"] in (True, False) and formed["watch"] in ("first", "second"), formed
    for refused in (
        lambda: client.chat(MODEL, TURNS, options={"mirostat": 2}),
        lambda: list(client.chat("no-such-model", TURNS, stream=True)),
        lambda: client.pull(MODEL),
    ):
        try:
            refused()
            raise SystemExit("something was ignored")
        except ollama.ResponseError as error:
            assert error.status_code in (400, 404) and "id=req_" in error.error, error


def ollama_vectors():
    client = ollama.Client(host=ROOT)
    one = client.embed(MODEL, "The sea")
    many = client.embed(MODEL, ["The sea", "La mer"])
    assert len(one.embeddings) == 1 and len(many.embeddings) == 2
    assert many.embeddings[0] == one.embeddings[0] == client.embeddings(MODEL, "The sea").embedding
    assert abs(sum(number * number for number in one.embeddings[0]) - 1) < 1e-4
    assert one.prompt_eval_count > 0 and one.total_duration >= one.load_duration > 0
    assert client.embed(MODEL + ":latest", "").embeddings == []
    try:
        client.embed(MODEL, "x", dimensions=8)
        raise SystemExit("vectors of a model that was not made for them were cut")
    except ollama.ResponseError as error:
        assert error.status_code == 400, error


def anthropic_tools():
    client = anthropic.Anthropic(base_url=ROOT, api_key="none", max_retries=0)
    place = {"type": "object", "properties": {"place": {"enum": ["Rome", "Paris"]}}, "required": ["place"]}
    tool = {"name": "weather", "input_schema": place}
    made = dict(model=TOOLED, max_tokens=200, messages=TURNS, tools=[tool], tool_choice={"type": "any", "disable_parallel_tool_use": True})
    called = client.messages.create(**made)
    assert called.stop_reason == "tool_use", called
    uses = [block for block in called.content if block.type == "tool_use"]
    assert uses and all(use.input["place"] in ("Rome", "Paris") for use in uses)
    results = [{"type": "tool_result", "tool_use_id": use.id, "content": "Warm."} for use in uses]
    turns = [*TURNS, {"role": "assistant", "content": [block.to_dict() for block in called.content]}, {"role": "user", "content": results}]
    after = client.messages.create(model=TOOLED, max_tokens=8, messages=turns, tools=[tool])
    assert after.usage.input_tokens + after.usage.cache_read_input_tokens > called.usage.input_tokens
    with client.messages.stream(**made) as stream:
        assert stream.get_final_message().stop_reason == "tool_use"


version = f"{anthropic.__version__}, {importlib.metadata.version('ollama')}"
harness.steps("anthropic-ollama", version, asked.report, [messages, anthropic_tools, ollama_api, ollama_vectors])
