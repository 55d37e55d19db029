"""Simon Willison's `llm` against a running Surety that serves shakespeare-demo and tooled.

Usage: llm_cli.py BASE_URL [--report FILE]
"""

import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import harness

asked = harness.arguments()
home = tempfile.TemporaryDirectory()
MODELS = f"""
- model_id: surety
  model_name: shakespeare-demo
  api_base: {asked.base_url}
  supports_schema: true
- model_id: surety-tools
  model_name: tooled
  api_base: {asked.base_url}
  supports_tools: true
- model_id: surety-completion
  model_name: shakespeare-demo
  api_base: {asked.base_url}
  completion: true
- model_id: surety-responses
  model_name: tooled
  api_base: {asked.base_url}
  responses: true
  supports_tools: true
  supports_schema: true
"""
pathlib.Path(home.name, "extra-openai-models.yaml").write_text(MODELS)


def llm(*args):
    environment = {**os.environ, "LLM_USER_PATH": home.name}
    run = subprocess.run([sys.executable, "-m", "llm", *args], env=environment, capture_output=True, text=True, timeout=120)
    if run.returncode:
        raise AssertionError(f"llm {' '.join(args)} ended with {run.returncode}: {run.stderr.strip() or run.stdout.strip()}")
    return run.stdout


def lists_models():
    assert "surety-tools" in llm("models", "list")


def answers():
    plain = ["-m", "surety", "-o", "max_tokens", "24", "-o", "seed", "7", "Speak of the sea."]
    streamed = llm(*plain)
    assert streamed.strip() and llm("--no-stream", *plain) == streamed, "streamed and whole answers agree"


def goes_on():
    llm("-m", "surety", "-o", "max_tokens", "8", "Speak of the sea.")
    llm("-c", "-o", "max_tokens", "8", "Go on.")
    logs = json.loads(llm("logs", "list", "--json", "-n", "2"))
    last = max(logs, key=lambda entry: entry["input_tokens"])
    first = min(logs, key=lambda entry: entry["input_tokens"])
    assert last["conversation_id"] == first["conversation_id"]
    assert last["input_tokens"] > first["input_tokens"] > 0 and last["output_tokens"] > 0


def completes():
    assert llm("-m", "surety-completion", "-o", "max_tokens", "8", "To be, or not to").strip()


def meets_a_schema():
    for model in ("surety", "surety-responses"):
        dog = json.loads(llm("-m", model, "-o", "max_tokens", "400", "--schema", "friendly bool, age int", "A dog"))
        assert isinstance(dog["friendly"], bool) and isinstance(dog["age"], int), dog


def shows_tools():
    for model in ("surety-tools", "surety-responses"):
        assert llm("-m", model, "-o", "max_tokens", "24", "-T", "llm_version", "Which version are you?").strip()


def responds():
    assert llm("-m", "surety-responses", "-o", "max_tokens", "24", "Speak of the sea.").strip()


def is_told_what_is_wrong():
    try:
        llm("-m", "surety", "-o", "max_tokens", "0", "Speak.")
    except AssertionError as error:
        assert "max_tokens" in str(error), error
    else:
        raise AssertionError("max_tokens 0 was served")


steps = [lists_models, answers, goes_on, completes, meets_a_schema, shows_tools, responds, is_told_what_is_wrong]
harness.steps("llm", importlib.metadata.version("llm"), asked.report, steps)
