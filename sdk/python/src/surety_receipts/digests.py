"""Digests under a domain (R-2)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from blake3 import blake3

REQUEST = "surety 2026 request"
GRAMMAR = "surety 2026 grammar"
ORDER = "surety 2026 order"
RECEIPT = "surety 2026 receipt"
PROMPT_IDS = "surety 2026 prompt ids"
OUTPUT_IDS = "surety 2026 output ids"
OUTPUT_TEXT = "surety 2026 output text"
STATE_COMMITMENT = "surety 2026 state commitment"
SAMPLING_SEED = "surety 2026 sampling seed"

ZERO = bytes(32)


def digest(domain: str, data: bytes) -> bytes:
    """R-2.1: BLAKE3 in key-derivation mode, the domain as its context."""
    return bytes(blake3(data, derive_key_context=domain).digest())


def plain(data: bytes) -> bytes:
    """BLAKE3 without a domain."""
    return bytes(blake3(data).digest())


def ids(domain: str, tokens: Sequence[int]) -> bytes:
    """R-2.3: of token ids, each a word of 32 bits, little-endian."""
    return digest(domain, struct.pack(f"<{len(tokens)}I", *tokens))
