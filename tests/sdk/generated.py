"""The official Python SDKs' own generated tests, from their source distributions, against a running Surety.

Usage: generated.py openai|anthropic BASE_URL [--report FILE]
The models that those tests name must be served as aliases: gpt-6-astra, gpt-3.5-turbo-instruct, text-embedding-3-small and model;
claude-opus-5-5 and model_id.
"""

import glob
import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile

import harness

FILES = {
    "openai": [
        "tests/api_resources/chat/test_completions.py",
        "tests/api_resources/test_completions.py",
        "tests/api_resources/test_embeddings.py",
        "tests/api_resources/test_models.py",
        "tests/api_resources/test_responses.py",
        "tests/api_resources/responses/test_input_items.py",
        "tests/api_resources/responses/test_input_tokens.py",
    ],
    "anthropic": ["tests/api_resources/test_messages.py", "tests/api_resources/test_models.py"],
}
TESTS_MIN = 100


def main():
    asked = harness.arguments("package")
    package, version = asked.package, importlib.metadata.version(asked.package)
    # Anthropic's clients add the version to the path themselves.
    base_url = asked.base_url.removesuffix("/v1") if package == "anthropic" else asked.base_url
    with tempfile.TemporaryDirectory() as work:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", work]
        subprocess.run([*pip, f"{package}=={version}"], check=True)
        with tarfile.open(glob.glob(f"{work}/{package}-*.tar.gz")[0]) as archive:
            archive.extractall(work, filter="data")
        harness.pytest(
            package, version, asked.report, ["-n0", *FILES[package]], f"{work}/{package}-{version}",
            {**os.environ, "TEST_API_BASE_URL": base_url}, TESTS_MIN,
        )


main()
