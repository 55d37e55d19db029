"""`python -m surety_receipts FILE`: whether evidence holds. Exit status 0: it does; 1: it does not; 2: misuse."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from .errors import ReceiptError
from .verify import Report, fetch, verify


def main(arguments: list[str] | None = None) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="surety-receipts", description="Checks the evidence of an answer on this machine."
    )
    parser.add_argument("evidence", help="a file; - for standard input; or, with --from, a request's id")
    parser.add_argument("--from", dest="base_url", metavar="URL", help="fetch it from this gateway, as http://HOST/v1")
    parser.add_argument("--request-id", metavar="ID", help="whose evidence it must be")
    parser.add_argument("--text", metavar="FILE", help="a file with the answer you saw, to the byte")
    parser.add_argument("--prompt", metavar="FILE", help="a file with the last message you sent, to the byte")
    parser.add_argument("--model", metavar="ID", help="the model you expect")
    parser.add_argument("--worker", metavar="KEY", help="the worker you expect")
    parser.add_argument("--gateway", metavar="KEY", help="the gateway you expect")
    parser.add_argument("--json", action="store_true", help="print a report as JSON")
    given = parser.parse_args(arguments)
    try:
        known: dict[str, Any] = {
            "request_id": given.request_id or (given.evidence if given.base_url else None),
            "text": _read_text(given.text),
            "prompt": _read_text(given.prompt),
            "model": given.model,
            "worker": given.worker,
            "gateway": given.gateway,
        }
        data = fetch(given.base_url, given.evidence) if given.base_url else _read(given.evidence)
        report = verify(data, **known)
    except ReceiptError as error:
        if given.json:
            fault = {"code": error.code, "rule": error.rule, "answer": error.answer}
            print(json.dumps({"verified": False, "failure": str(error), **fault}))
        else:
            print(f"DOES NOT HOLD: {error}")
        return 1
    except (OSError, ValueError) as error:
        print(f"surety-receipts: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps({"verified": True, **report.to_dict()}, ensure_ascii=False))
    else:
        _show(report)
    return 0


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    with open(path, "rb") as file:
        return file.read()


def _read_text(path: str | None) -> str | None:
    return None if path is None else _read(path).decode("utf-8")


def _show(report: Report) -> None:
    print(f"HOLDS: {report.request_id}, by gateway {report.gateway}")
    for answer in report.answers:
        print(f"  {answer.output_tokens} tokens of {answer.model} by worker {answer.worker}, end: {answer.finish}")
        if answer.failed:
            print(f"  it gave no whole answer: {answer.failed}")
    for title, lines in (("checked", report.checked), ("NOT checked", report.not_checked)):
        print(f"{title}:")
        for line in lines:
            print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
