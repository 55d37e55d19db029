"""OpenAI's own OpenAPI document, as far as a running Surety claims its routes, for Schemathesis.

Usage: openai_document.py BASE_URL DOCUMENT GENERATED ASKED
DOCUMENT is openapi.json of github.com/openai/openai-openapi. Every parameter that it has must have a row in our own document, and
every one of ASKED must be answered. It is written twice, for requests that are generated from it, and with those of ASKED as its
examples, whose answers are to be checked. What is changed in it:

- Only the operations of CLAIMED are left. The others are not claimed.
- `model` is one that is served, and ids are of things that are made here first, or of nothing: so that requests can be answered.
- `nullable: true`, which OpenAPI 3.1 does not have any more, says what it said in 3.0; a `discriminator`, which names schemas where
  answers name types, is left out.
- What is null in its own examples, of an empty page or before an echo may be so against its schemas, and a file's content is of any type.
- A refusal, of which it is silent, is as its `ErrorResponse` has it, and names the parameter that it is about.
"""

import json
import re
import sys
import urllib.error
import urllib.request

CLAIMED = {
    "/batches": ["get", "post"],
    "/batches/{batch_id}": ["get"],
    "/batches/{batch_id}/cancel": ["post"],
    "/chat/completions": ["post"],
    "/completions": ["post"],
    "/embeddings": ["post"],
    "/files": ["get", "post"],
    "/files/{file_id}": ["get", "delete"],
    "/files/{file_id}/content": ["get"],
    "/models": ["get"],
    "/models/{model}": ["get"],
    "/responses": ["post"],
    "/responses/{response_id}": ["get", "delete"],
    "/responses/{response_id}/cancel": ["post"],
    "/responses/{response_id}/input_items": ["get"],
    "/responses/input_tokens": ["post"],
}
# Members of its schemas that may be null: as its own examples have them, and the ids of an empty page.
NULL = {
    "Batch": ["cancelled_at", "cancelling_at", "completed_at", "error_file_id", "errors", "expired_at", "failed_at", "finalizing_at",
              "in_progress_at", "output_file_id"],
    "ListFilesResponse": ["first_id", "last_id"],
    "Response": ["usage", "user"],
}
# Codes of refusals that are about one parameter.
NAMING = ["invalid_param", "unknown_parameter", "unsupported_parameter"]
# How many of each there are: some are deleted on the way.
MADE = 6
REF = "#/components/schemas/"

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
SCHEMA = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"], "additionalProperties": False}
# Requests that are to be answered, beside those that are generated, of which many are refused.
ASKED = {
    "/chat/completions": [
        {"messages": MESSAGES, "max_tokens": 4},
        {"messages": MESSAGES, "max_completion_tokens": 4, "n": 2, "logprobs": True, "top_logprobs": 2, "seed": 7},
        {"messages": MESSAGES, "max_tokens": 32, "response_format": {"type": "json_schema", "json_schema": {
            "name": "a", "strict": True, "schema": SCHEMA}}},
        {"messages": MESSAGES, "max_tokens": 4, "stop": ["x"], "logit_bias": {"5": -100}, "temperature": 0, "user": "u",
         "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "modalities": ["text"]},
    ],
    "/completions": [
        {"prompt": "Hi", "max_tokens": 4},
        {"prompt": ["Hi", "Ho"], "max_tokens": 4, "n": 2, "logprobs": 2, "echo": True, "best_of": 2},
    ],
    "/embeddings": [
        {"input": "Hi"},
        {"input": ["Hi", "Ho"], "encoding_format": "float", "user": "u"},
    ],
    "/responses": [
        {"input": "Hi", "max_output_tokens": 4},
        {"input": MESSAGES[:1], "instructions": "Be kind.", "max_output_tokens": 4, "store": False, "metadata": {"a": "b"},
         "temperature": 0.5, "top_p": 0.5, "truncation": "disabled", "user": "u", "prompt_cache_key": "k"},
        {"input": "Hi", "max_output_tokens": 32, "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
        {"input": "Hi", "max_output_tokens": 4, "background": True},
    ],
    "/responses/input_tokens": [{"input": "Hi"}, {"input": "Hi", "instructions": "Be kind."}],
}

base_url, document, *out = sys.argv[1:]


def call(path, body=None, content_type="application/json"):
    headers = {"content-type": content_type, "authorization": "Bearer none"}
    request = urllib.request.Request(base_url + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refusal:
        sys.exit(f"{path} refuses {body}: {refusal.read().decode()}")


def post(path, **body):
    return call(path, json.dumps(body).encode())


def upload(text):
    part = '--edge\r\ncontent-disposition: form-data; name="{}"\r\n\r\n{}\r\n'
    form = part.format("purpose", "batch") + part.format('file"; filename="in.jsonl', text) + "--edge--\r\n"
    return call("/files", form.encode(), "multipart/form-data; boundary=edge")["id"]


def made(model):
    """Ids of things that are there, by parameter."""
    body = {"model": model, "messages": MESSAGES, "max_completion_tokens": 4}
    line = {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}
    files = [upload(json.dumps(line) + "\n") for _ in range(MADE)]
    batch = dict(endpoint="/v1/chat/completions", completion_window="24h")
    return {
        "model": [model],
        "file_id": files,
        "batch_id": [post("/batches", input_file_id=file, **batch)["id"] for file in files[:2]],
        "response_id": [post("/responses", model=model, input="Hi", max_output_tokens=8)["id"] for _ in range(MADE)],
    }


def resolved(spec, schema):
    """What a reference names."""
    while "$ref" in schema:
        named_by = schema["$ref"].removeprefix("#/").split("/")
        schema = spec
        for name in named_by:
            schema = schema[name]
    return schema


def parts(spec, schema):
    """The schemas that together, or instead of each other, are one of an object."""
    schema = resolved(spec, schema)
    yield schema
    for kind in ("allOf", "anyOf", "oneOf"):
        for part in schema.get(kind, []):
            yield from parts(spec, part)


def members(spec, schema):
    return {name for part in parts(spec, schema) for name in part.get("properties", {})}


def parameters(spec, path, method):
    """The names that a query or a body may hold; None for a body that is not described."""
    operation = spec["paths"][path][method]
    named = (resolved(spec, parameter) for parameter in operation.get("parameters", []))
    query = {parameter["name"] for parameter in named if parameter["in"] == "query"}
    content = operation.get("requestBody", {}).get("content", {})
    described = [members(spec, kind["schema"]) for kind in content.values()]
    return query, set().union(*described)


def unknown(theirs, ours):
    """Parameters of theirs of which ours says nothing."""
    for path, methods in CLAIMED.items():
        for method in methods:
            here = "/v1" + re.sub(r"\{\w+\}", "{id}", path)
            (query, body), known = parameters(theirs, path, method), parameters(ours, here, method)
            missing = sorted(query - known[0] | body - known[1])
            if missing:
                yield f"{method.upper()} {path}: {', '.join(missing)}"


def or_null(schema):
    return {"anyOf": [schema, {"type": "null"}]}


def of_today(schema):
    """What `nullable` says, in the words of JSON Schema; a `discriminator` says nothing more than the schemas that it is beside."""
    if isinstance(schema, list):
        return [of_today(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {name: of_today(value) for name, value in schema.items() if name != "discriminator"}
    if schema.pop("nullable", None) is True:
        return or_null(schema)
    return schema


def named(value, found):
    """The names of the schemas that something refers to."""
    if isinstance(value, dict):
        found.update([value["$ref"].removeprefix(REF)] if isinstance(value.get("$ref"), str) else [])
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            named(one, found)
    return found


with open(document) as file:
    spec = of_today(json.load(file))
with urllib.request.urlopen(base_url.removesuffix("/v1") + "/openapi.json", timeout=60) as answer:
    silent = list(unknown(spec, json.load(answer)))
if silent:
    sys.exit("our document says nothing of these parameters:\n" + "\n".join(silent))
model = call("/models")["data"][0]["id"]
ids = made(model)
for path, bodies in ASKED.items():
    for body in bodies:
        post(path, model=model, **body)

schemas = spec["components"]["schemas"]
for name, nulls in NULL.items():
    for part in list(parts(spec, schemas[name])):
        for member in part.get("properties", {}).keys() & set(nulls):
            part["properties"][member] = or_null(part["properties"][member])
# What an echo begins with follows upon nothing.
for part in parts(spec, schemas["CreateCompletionResponse"]["properties"]["choices"]["items"]["properties"]["logprobs"]):
    for member in part.get("properties", {}).keys() & {"token_logprobs", "top_logprobs"}:
        part["properties"][member]["items"] = or_null(part["properties"][member]["items"])
naming = {
    "if": {"properties": {"code": {"enum": NAMING}}},
    "then": {"properties": {"param": {"type": "string"}}},
}
refusal = {"allOf": [{"$ref": REF + "ErrorResponse"}, {"properties": {"error": naming}}]}
paths = {}
for path, methods in CLAIMED.items():
    paths[path] = {method: spec["paths"][path][method] for method in methods}
    for operation in paths[path].values():
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                parameter["schema"] = {"type": "string", "enum": [*ids[parameter["name"]], "none"]}
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for part in parts(spec, content["schema"]):
                for member, values in [("model", [model]), ("input_file_id", ids["file_id"])]:
                    if member in part.get("properties", {}):
                        part["properties"][member] = {"type": "string", "enum": values}
        operation["responses"] = {
            **{code: answer for code, answer in operation["responses"].items() if code[0] == "2"},
            "4XX": {"description": "A refusal.", "content": {"application/json": {"schema": refusal}}},
        }
del paths["/files/{file_id}/content"]["get"]["responses"]["200"]["content"]
# Of a stream, its schema is of what is within the events, and Schemathesis' check is of the events.
for path, method in [("/chat/completions", "post"), ("/responses", "post"), ("/responses/{response_id}", "get")]:
    paths[path][method]["responses"]["200"]["content"]["text/event-stream"] = {}

kept, wanted = {}, named(paths, set())
while wanted:
    name = wanted.pop()
    kept[name] = schemas[name]
    wanted |= named(schemas[name], set()) - kept.keys()
changed = {"openapi": spec["openapi"], "info": spec["info"], "paths": paths, "components": {"schemas": kept}}
for name in out:
    with open(name, "w") as file:
        json.dump(changed, file)
    for path, bodies in ASKED.items():
        content = paths[path]["post"]["requestBody"]["content"]["application/json"]
        content["schema"] = {"type": "object"}
        content["examples"] = {f"asked_{index}": {"value": {"model": model, **body}} for index, body in enumerate(bodies)}
answered = sum(map(len, ASKED.values()))
print(f"{sum(map(len, CLAIMED.values()))} operations of {spec['info']['version']}, {len(kept)} schemas; {answered} requests are answered")
