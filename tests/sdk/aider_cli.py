"""aider against a running Surety that serves tooled: one message on a tiny repository, in each of its ways to ask.

Usage: aider_cli.py BASE_URL [--report FILE]
What the demonstration model says is no edit, and none is expected: aider is to be answered, without an error of the API, and to
keep the answer. That it understood is seen by its own history and its count of tokens.
"""

import importlib.metadata
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import harness

asked = harness.arguments()


def aider(*args):
    with tempfile.TemporaryDirectory() as work:
        git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost"]
        pathlib.Path(work, "hello.py").write_text('print("hello")\n')
        for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
            subprocess.run([*git, *command], cwd=work, check=True)
        # Reflections on an answer that is no edit would ask the model again and again.
        pathlib.Path(work, "settings.yml").write_text(
            "- name: openai/tooled\n  edit_format: ask\n  use_repo_map: false\n"
            "  extra_params:\n    max_tokens: 1500\n"
        )
        environment = {
            **os.environ, "HOME": work, "OPENAI_API_BASE": asked.base_url, "OPENAI_API_KEY": "none", "AIDER_ANALYTICS": "false",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True", "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@localhost",
        }
        run = subprocess.run(
            [sys.executable, "-m", "aider", "--model", "openai/tooled", "--weak-model", "openai/tooled", "--model-settings-file",
             "settings.yml", "--message", "Say hello to the world.", "--yes-always", "--no-check-update", "--no-analytics",
             "--no-show-model-warnings", "--no-show-release-notes", "--no-pretty", "--no-auto-commits", "--no-gitignore",
             "--no-detect-urls", "--map-tokens", "0", *args, "hello.py"],
            cwd=work, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
        )
        said = run.stdout + run.stderr
        history = pathlib.Path(work, ".aider.chat.history.md").read_text()
    assert run.returncode == 0 and "litellm." not in said and "Traceback" not in said, said[-2000:]
    counted = re.search(r"Tokens: ([\d.]+k?) sent, ([\d.]+k?) received", said)
    assert counted and counted[2] != "0", f"no count of tokens: {said[-2000:]}"
    answer = history.split("#### Say hello to the world.", 1)[1]
    assert any(line.strip() and not line.startswith(">") for line in answer.splitlines()), history
    return said


def asks_in_a_stream():
    aider("--stream")


def asks_whole():
    aider("--no-stream")


def asks_for_a_whole_file():
    aider("--stream", "--edit-format", "whole")


def is_told_of_an_unknown_model():
    try:
        aider("--model", "openai/no-such-model", "--weak-model", "openai/no-such-model")
    except AssertionError as error:
        assert "no-such-model" in str(error), error
    else:
        raise AssertionError("an unknown model answered")


steps = [asks_in_a_stream, asks_whole, asks_for_a_whole_file, is_told_of_an_unknown_model]
harness.steps("aider", importlib.metadata.version("aider-chat"), asked.report, steps)
