"""Checks the signed receipts of a Surety network on your own machine.

    from surety_receipts import verify

    report = verify(open("evidence.json", "rb").read(), text=answer, prompt=question)
    print(report.checked, report.not_checked)
"""

from .errors import (
    BindingError,
    EncodingError,
    FetchError,
    FormatError,
    MismatchError,
    ReceiptError,
    SignatureError,
)
from .verify import AnswerReport, Report, fetch, fetch_and_verify, verify

__all__ = [
    "AnswerReport",
    "BindingError",
    "EncodingError",
    "FetchError",
    "FormatError",
    "MismatchError",
    "ReceiptError",
    "Report",
    "SignatureError",
    "fetch",
    "fetch_and_verify",
    "verify",
]
__version__ = "0.1.0"
