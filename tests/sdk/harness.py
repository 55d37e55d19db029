"""What the suites here share: tests are run, each is passed, listed with its reason in expected.toml, or failed.

A suite is called as `suite.py BASE_URL [--report FILE]`: BASE_URL as `surety up` prints it, ending in /v1, and FILE for one JSON
document of what came of it. It exits with 1 if a test failed that is not listed, or if one that is listed passed.
"""

import argparse
import asyncio
import inspect
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib
import traceback
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).parent
WHOSE = ("model", "scope", "test")


def arguments(*more):
    """The arguments of a suite; `more` are names of others that come first."""
    parser = argparse.ArgumentParser()
    for name in more:
        parser.add_argument(name)
    parser.add_argument("base_url")
    parser.add_argument("--report", type=pathlib.Path)
    return parser.parse_args()


class Report:
    """What came of one suite's tests."""

    def __init__(self, suite, version, file):
        self.suite, self.version, self.file = suite, version, file
        with open(HERE / "expected.toml", "rb") as expected:
            self.rules = tomllib.load(expected).get(suite, [])
        for rule in self.rules:
            assert rule["whose"] in WHOSE and rule["reason"] and rule["tests"], rule
        self.passed, self.listed, self.failed = [], [], []
        self.used = set()

    def rule(self, test):
        return next((rule for rule in self.rules if re.search(rule["tests"], test)), None)

    def told(self, test, why=None):
        """A test passed, or failed and said why."""
        rule = self.rule(test)
        if rule:
            self.used.add(rule["tests"])
        if why is None and rule and not rule.get("may_pass"):
            self.failed.append({"test": test, "why": f"listed as failing, but passes: {rule['reason']}"})
        elif why is None:
            self.passed.append(test)
        elif rule:
            self.listed.append({"test": test, "reason": rule["reason"], "whose": rule["whose"], "why": short(why)})
        else:
            self.failed.append({"test": test, "why": short(why)})

    def end(self):
        """Prints the sums, writes the report, and ends the process."""
        for rule in self.rules:
            if rule["tests"] not in self.used:
                self.failed.append({"test": rule["tests"], "why": "listed, but no test has such a name"})
        total = len(self.passed) + len(self.listed) + len(self.failed)
        if total == 0:
            self.failed.append({"test": self.suite, "why": "no test was found"})
        print(f"{self.suite} {self.version}: {len(self.passed)} of {total} pass, {len(self.listed)} listed, {len(self.failed)} failed")
        for entry in self.failed:
            print(f"  FAILED {entry['test']}: {entry['why']}")
        if self.file:
            document = {
                "suite": self.suite, "version": self.version, "passed": len(self.passed),
                "listed": self.listed, "failed": self.failed,
            }
            self.file.write_text(json.dumps(document, indent=1))
        sys.exit(1 if self.failed else 0)


def short(why):
    """One line of what a failure said."""
    lines = [line.strip() for line in str(why).splitlines() if line.strip()]
    return (lines[0] if lines else "no word")[:300]


def steps(suite, version, file, functions):
    """Runs functions, each of which is a test that raises if it fails."""
    report = Report(suite, version, file)
    for function in functions:
        try:
            result = function()
            if inspect.isawaitable(result):
                asyncio.run(result)
            report.told(function.__name__)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            report.told(function.__name__, f"{type(error).__name__}: {error}")
    report.end()


def pytest(suite, version, file, files, cwd, env, tests_min):
    """Runs pytest on files, of which at least so many tests are expected."""
    report = Report(suite, version, file)
    with tempfile.TemporaryDirectory() as work:
        xml_file = f"{work}/report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "--tb=short",
                   f"--junitxml={xml_file}", *files]
        run = subprocess.run(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            cases = list(xml.etree.ElementTree.parse(xml_file).iter("testcase"))
        except FileNotFoundError:
            sys.exit(f"{suite}: pytest ended with {run.returncode} and no report:\n{run.stdout[-4000:]}")
    if len(cases) < tests_min:
        sys.exit(f"{suite}: only {len(cases)} tests were found:\n{run.stdout[-4000:]}")
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        if case.find("skipped") is not None:
            continue
        failures = [child for child in case if child.tag in ("failure", "error")]
        report.told(name, failures[0].get("message") if failures else None)
    report.end()
