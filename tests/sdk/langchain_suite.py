"""LangChain's standard tests against a running Surety that serves shakespeare-demo and tooled, a model whose template shows tools.

Usage: langchain_suite.py BASE_URL [--report FILE]
"""

import importlib.metadata
import os

import harness

TESTS_MIN = 40
# langchain-openai keeps its connections for the next model, which would be of a loop that is closed.
LOOP = [f"-oasyncio_default_{what}_loop_scope=session" for what in ("fixture", "test")]

asked = harness.arguments()
version = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("langchain-tests", "langchain-openai"))
harness.pytest(
    "langchain", version, asked.report, ["-o", "asyncio_mode=auto", *LOOP, str(harness.HERE / "test_langchain.py")], harness.HERE,
    {**os.environ, "SURETY_BASE_URL": asked.base_url, "PYTHONDONTWRITEBYTECODE": "1"}, TESTS_MIN,
)
