"""The official `openai` client's responses against a running Surety: create, stream, lose the stream and go on, background,
cancel, delete, input items, conversations, errors. Everything is validated against the client's own types, strictly.

Usage: responses.py BASE_URL [--report FILE]
The model `tooled`, whose template shows tools, must be served.
"""

import json
import random
import time

import openai
from openai.types.responses import Response, ResponseItem, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

import harness

asked = harness.arguments()
base_url = asked.base_url
client = openai.OpenAI(base_url=base_url, api_key="none", _strict_response_validation=True)
MODEL, TOOLED = "shakespeare-demo", "tooled"
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Of a place.",
    "parameters": {
        "type": "object",
        "properties": {"place": {"enum": ["Rome", "Paris"]}},
        "required": ["place"],
        "additionalProperties": False,
    },
    "strict": False,
}
PROMPT = "Speak of the sea."
ITEM, EVENT = TypeAdapter(ResponseItem), TypeAdapter(ResponseStreamEvent)
ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


def checked(events):
    """All events of a stream: each as its type has it, numbered without a gap, with one end."""
    seen = []
    for event in events:
        EVENT.validate_python(event.model_dump())
        seen.append(event)
    numbers = [event.sequence_number for event in seen]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
    assert [event.type in ENDS for event in seen] == [False] * (len(seen) - 1) + [True], "one end, at the end"
    return seen


def text(events):
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def wait(response_id, seconds=60):
    end = time.monotonic() + seconds
    while True:
        response = client.responses.retrieve(response_id)
        if response.status not in ("queued", "in_progress"):
            return response
        assert time.monotonic() < end, "it never ends"
        time.sleep(0.1)


def create():
    response = client.responses.create(
        model=MODEL, input=PROMPT, instructions="Be brief.", max_output_tokens=40, metadata={"a": "b"}, extra_body={"seed": 7}
    )
    Response.model_validate(response.model_dump())
    assert response.status in ("completed", "incomplete") and response.output_text
    assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
    assert response.metadata == {"a": "b"} and response.instructions == "Be brief."
    kept = client.responses.retrieve(response.id)
    assert kept.model_dump() == response.model_dump(), "what is kept is what was given"
    return response.output_text


def stream():
    expected = create()
    whole = checked(
        client.responses.create(
            model=MODEL, input=PROMPT, instructions="Be brief.", max_output_tokens=40, stream=True, extra_body={"seed": 7}
        )
    )
    assert text(whole) == expected == whole[-1].response.output_text, "streamed and whole answers agree"
    # The helper knows whole answers only, so one that the model ends by itself.
    for seed in range(200):
        asked = {"model": MODEL, "input": PROMPT, "max_output_tokens": 60, "extra_body": {"seed": seed}}
        if client.responses.create(**asked).status == "completed":
            break
    with client.responses.stream(**asked) as helper:
        assert helper.get_final_response().output_text


def lose_the_stream():
    for _ in range(20):
        events, seen = client.responses.create(model=MODEL, input=PROMPT, max_output_tokens=60, stream=True), []
        leave_after = random.randrange(1, 60)
        for event in events:
            seen.append(event)
            if len(seen) >= leave_after or event.type in ENDS:
                break
        events.close()
        response_id, last = seen[0].response.id, seen[-1].sequence_number
        if seen[-1].type in ENDS:
            continue
        rest = checked(client.responses.retrieve(response_id, stream=True, starting_after=last))
        whole = checked(client.responses.retrieve(response_id, stream=True))
        assert [e.model_dump() for e in seen + rest] == [e.model_dump() for e in whole], f"left after {last}"
        assert text(whole) == client.responses.retrieve(response_id).output_text


def background():
    response = client.responses.create(model=MODEL, input=PROMPT, max_output_tokens=40, background=True)
    assert response.status in ("queued", "in_progress") and response.background
    ended = wait(response.id)
    assert ended.output_text and ended.usage.output_tokens > 0
    events = checked(client.responses.retrieve(response.id, stream=True))
    assert [event.type for event in events[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert text(events) == ended.output_text

    long = client.responses.create(
        model=MODEL, input=PROMPT, max_output_tokens=900, background=True, extra_body={"ignore_eos": True}
    )
    cancelled = client.responses.cancel(long.id)
    assert cancelled.status == "cancelled", cancelled.status
    assert client.responses.cancel(long.id).status == "cancelled", "once more changes nothing"
    client.responses.delete(long.id)
    gone(lambda: client.responses.retrieve(long.id))


def conversation():
    first = client.responses.create(model=MODEL, input=PROMPT, max_output_tokens=8)
    second = client.responses.create(
        model=MODEL,
        input=[{"role": "user", "content": [{"type": "input_text", "text": "Go on."}]}],
        previous_response_id=first.id,
        max_output_tokens=8,
    )
    assert second.usage.input_tokens > first.usage.input_tokens, "what was said before is part of the prompt"
    items = list(client.responses.input_items.list(second.id, limit=1, order="asc"))
    for item in items:
        ITEM.validate_python(item.model_dump())
    assert [item.role for item in items] == ["user", "assistant", "user"]
    assert items[1].content[0].text == first.output_text
    # What was given comes back as input.
    third = client.responses.create(
        model=MODEL,
        input=[{"role": "user", "content": PROMPT}, *first.output, {"role": "user", "content": "Go on."}],
        max_output_tokens=8,
        store=False,
    )
    assert third.usage.input_tokens == second.usage.input_tokens, "the same conversation, told in another way"
    gone(lambda: client.responses.retrieve(third.id))


def gone(call):
    try:
        call()
        raise AssertionError("something was kept")
    except openai.NotFoundError as error:
        assert error.code == "not_found", error.code


def errors():
    for members, param in [
        ({"input": PROMPT, "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": PROMPT, "tools": [WEATHER]}, "tools"),
        ({"input": PROMPT, "truncation": "auto"}, "truncation"),
        ({"input": PROMPT, "previous_response_id": "resp_" + "0" * 32}, "previous_response_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0].type"),
    ]:
        try:
            client.responses.create(model=MODEL, **members)
            raise AssertionError(f"{param} was taken")
        except openai.BadRequestError as error:
            assert error.param == param, error.param
    failed = client.responses.create(model=MODEL, input="sea " * 100_000, background=True)
    error = wait(failed.id).error
    assert error.code == "invalid_prompt" and "tokens" in error.message, error


def calls():
    """A call that must come comes, whole and streamed alike; its output goes on from it, by id and told again."""
    made = dict(model=TOOLED, input="Is it warm in Rome?", tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, extra_body={"seed": 3})
    response = client.responses.create(**made)
    Response.model_validate(response.model_dump())
    assert response.status == "completed" and response.output, response.status
    for call in response.output:
        assert (call.type, call.status, call.name) == ("function_call", "completed", "weather")
        assert json.loads(call.arguments)["place"] in ("Rome", "Paris")
    assert client.responses.retrieve(response.id).model_dump() == response.model_dump()
    events = checked(client.responses.create(**made, stream=True))
    told = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert [event.arguments for event in told] == [call.arguments for call in response.output]
    deltas = "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta")
    assert deltas == "".join(call.arguments for call in response.output)
    ended = events[-1].response
    assert [call.arguments for call in ended.output] == [call.arguments for call in response.output]
    again = checked(client.responses.retrieve(ended.id, stream=True, starting_after=3))
    assert [event.model_dump() for event in again] == [event.model_dump() for event in events[4:]]

    outputs = [{"type": "function_call_output", "call_id": call.call_id, "output": "Warm."} for call in response.output]
    after = client.responses.create(model=TOOLED, input=outputs, previous_response_id=response.id, max_output_tokens=8)
    echoed = [item.to_dict() for item in response.output]
    asked_again = [{"role": "user", "content": "Is it warm in Rome?"}, *echoed, *outputs]
    told_again = client.responses.create(model=TOOLED, input=asked_again, max_output_tokens=8, store=False)
    assert told_again.usage.input_tokens == after.usage.input_tokens > 0, "the same conversation, told in another way"
    references = [{"type": "item_reference", "id": item.id} for item in response.output]
    referred = [{"role": "user", "content": "Is it warm in Rome?"}, *references, *outputs]
    by_id = client.responses.create(model=TOOLED, input=referred, max_output_tokens=8, store=False)
    assert by_id.usage.input_tokens == after.usage.input_tokens
    items = list(client.responses.input_items.list(after.id, order="asc"))
    for item in items:
        ITEM.validate_python(item.model_dump())
    kinds = [item.type for item in items]
    calls = len(response.output)
    assert kinds == ["message", *["function_call"] * calls, *["function_call_output"] * calls], kinds


def choices():
    named = {"type": "function", "name": "weather"}
    one = client.responses.create(
        model=TOOLED, input=PROMPT, tools=[WEATHER], tool_choice=named, parallel_tool_calls=False, max_output_tokens=200
    )
    assert [item.type for item in one.output] == ["function_call"] and one.tool_choice.name == "weather"
    time_tool = {"type": "function", "name": "now", "strict": False}
    time_tool["parameters"] = {"type": "object", "properties": {}, "additionalProperties": False}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "now"}]}
    now = client.responses.create(
        model=TOOLED, input=PROMPT, tools=[WEATHER, time_tool], tool_choice=allowed, parallel_tool_calls=False, max_output_tokens=200
    )
    assert now.output[0].name == "now" and json.loads(now.output[0].arguments) == {}, now.output
    none = client.responses.create(model=TOOLED, input=PROMPT, tools=[WEATHER], tool_choice="none", max_output_tokens=8)
    assert [item.type for item in none.output] == ["message"] and none.tool_choice == "none"


class Watch(BaseModel):
    friend: bool
    hour: int


def forms():
    parsed = client.responses.parse(model=MODEL, input="Who goes there?", text_format=Watch)
    assert isinstance(parsed.output_parsed, Watch), parsed.output_text
    free = client.responses.create(
        model=MODEL, input="Who goes there?", text={"format": {"type": "json_object"}}, max_output_tokens=200
    )
    assert free.text.format.type == "json_object" and free.output_text.lstrip().startswith("{")
    if free.status == "completed":
        assert isinstance(json.loads(free.output_text), dict)


def input_tokens():
    first = client.responses.create(model=TOOLED, input=PROMPT, max_output_tokens=4, instructions="Be brief.", tools=[WEATHER])
    counted = client.responses.input_tokens.count(model=TOOLED, input=PROMPT, instructions="Be brief.", tools=[WEATHER])
    assert counted.input_tokens == first.usage.input_tokens, counted
    second = client.responses.input_tokens.count(model=TOOLED, input="Go on.", previous_response_id=first.id)
    assert second.input_tokens > 0


def compaction_is_refused_by_name():
    try:
        client.responses.compact(model=MODEL, input=PROMPT)
        raise AssertionError("it was taken")
    except openai.BadRequestError as error:
        assert error.code == "unsupported_parameter" and "compact" in error.message, error


steps = [create, stream, lose_the_stream, background, conversation, calls, choices, forms, input_tokens, compaction_is_refused_by_name, errors]
harness.steps("openai-responses", openai.__version__, asked.report, steps)
