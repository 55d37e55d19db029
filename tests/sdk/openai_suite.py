"""The official Python SDK's own generated tests for chat completions, completions, models and responses, from its source
distribution, against a running Surety.

Usage: openai_suite.py BASE_URL
The models those tests name must be served: gpt-6-astra, gpt-3.5-turbo-instruct and model, as aliases.
Fails if a test fails without a reason in EXPECTED, or if one listed there passes.
"""

import glob
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree

import openai

FILES = [
    "tests/api_resources/chat/test_completions.py",
    "tests/api_resources/test_completions.py",
    "tests/api_resources/test_models.py",
    "tests/api_resources/test_responses.py",
    "tests/api_resources/responses/test_input_items.py",
]

# What is not offered, by test name: each refused with its reason, none silently dropped.
EXPECTED = [
    (r"chat\.test_completions\..*::test_\w*_(retrieve|update|list|delete)(_with_all_params)?\b", "stored chat completions are not offered"),
    (r"test_models\..*::test_\w*_delete\b", "models cannot be deleted over HTTP"),
    (
        r"chat\.test_completions\..*::test_method_create_with_all_params",
        "audio, functions, prediction, moderation, web search and max_tokens 0 are refused by name",
    ),
    (r"api_resources\.test_completions\..*::test_method_create_with_all_params", "suffix is refused by name"),
    (
        r"test_responses\..*::test_\w*_create(_with_all_params)?_overload_[12]\b",
        "they name no model and no input, or all that is refused by name",
    ),
    (
        r"test_responses\..*::test_\w*_(retrieve|delete|cancel)(_with_all_params)?(_overload_[12])?\b",
        "there is no response with the id \"response_id\"",
    ),
    (r"test_responses\..*::test_\w*_compact(_with_all_params)?\b", "compaction is not offered"),
    (r"responses\.test_input_items\..*::test_", "there is no response with the id \"response_id\""),
]


def reason(name):
    return next((reason for pattern, reason in EXPECTED if re.search(pattern, name)), None)


def main():
    base_url = sys.argv[1]
    with tempfile.TemporaryDirectory() as work:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", work]
        subprocess.run([*pip, f"openai=={openai.__version__}"], check=True)
        with tarfile.open(glob.glob(f"{work}/openai-*.tar.gz")[0]) as archive:
            archive.extractall(work, filter="data")
        report = f"{work}/report.xml"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-n0", "--tb=no",
             "--no-summary", f"--junitxml={report}", *FILES],
            cwd=f"{work}/openai-{openai.__version__}",
            env={**os.environ, "TEST_API_BASE_URL": base_url},
            stdout=subprocess.DEVNULL,
        )
        cases = list(xml.etree.ElementTree.parse(report).iter("testcase"))

    assert len(cases) > 100, f"only {len(cases)} tests were found"
    passed, listed, unexpected, stale = 0, {}, [], []
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        failed = any(child.tag in ("failure", "error") for child in case)
        why = reason(name)
        if not failed:
            passed += 1
            # The tests of empty path parameters check the client alone: they pass whatever is offered.
            if why and "path_params" not in name:
                stale.append(name)
        elif why:
            listed[why] = listed.get(why, 0) + 1
        else:
            unexpected.append(name)
    print(f"openai {openai.__version__}'s own tests: {passed} of {len(cases)} pass")
    for why, count in listed.items():
        print(f"  {count} fail: {why}")
    for name in unexpected:
        print(f"  UNEXPECTED failure: {name}")
    for name in stale:
        print(f"  listed as failing, but passes: {name}")
    sys.exit(1 if unexpected or stale else 0)


main()
