"""The official Anthropic SDK's own generated tests for messages and models, from its source distribution, against a
running Surety.

Usage: anthropic_suite.py BASE_URL
The models those tests name must be served: claude-opus-5-5 and model_id, as aliases.
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

import anthropic

FILES = ["tests/api_resources/test_messages.py", "tests/api_resources/test_models.py"]

# What is not offered, by test name: each refused with its reason, none silently dropped.
EXPECTED = [
    (
        r"test_messages\..*::test_method_create_with_all_params",
        "containers, diagnostics, a place of inference, formats, efforts, citations, thinking and tools are refused by name",
    ),
    (
        r"test_messages\..*::test_method_count_tokens_with_all_params",
        "formats, efforts, citations, thinking and tools are refused by name",
    ),
    (r"test_messages\..*::test_deprecated_model_warning", "models that Anthropic has withdrawn are not served"),
    (r"test_models\..*::test_method_list_with_all_params", "after_id and before_id together ask for two directions"),
]


def reason(name):
    return next((reason for pattern, reason in EXPECTED if re.search(pattern, name)), None)


def main():
    # Its clients add the version to the path themselves.
    base_url = sys.argv[1].removesuffix("/v1")
    with tempfile.TemporaryDirectory() as work:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", work]
        subprocess.run([*pip, f"anthropic=={anthropic.__version__}"], check=True)
        with tarfile.open(glob.glob(f"{work}/anthropic-*.tar.gz")[0]) as archive:
            archive.extractall(work, filter="data")
        report = f"{work}/report.xml"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-n0", "--tb=no",
             "--no-summary", f"--junitxml={report}", *FILES],
            cwd=f"{work}/anthropic-{anthropic.__version__}",
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
            if why:
                stale.append(name)
        elif why:
            listed[why] = listed.get(why, 0) + 1
        else:
            unexpected.append(name)
    print(f"anthropic {anthropic.__version__}'s own tests: {passed} of {len(cases)} pass")
    for why, count in listed.items():
        print(f"  {count} fail: {why}")
    for name in unexpected:
        print(f"  UNEXPECTED failure: {name}")
    for name in stale:
        print(f"  listed as failing, but passes: {name}")
    sys.exit(1 if unexpected or stale else 0)


main()
