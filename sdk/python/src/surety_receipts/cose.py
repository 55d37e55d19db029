"""Signed messages (R-3): COSE_Sign1 in one layout, Ed25519 verified strictly."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from . import cbor
from .errors import SignatureError

OVERHEAD_BYTES = 176

# The y coordinates of the points of small order, and their other spellings; the sign bit is not looked at.
_SMALL_ORDER = frozenset(
    bytes.fromhex(y)
    for y in (
        "00" * 32,
        "01" + "00" * 31,
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ec" + "ff" * 30 + "7f",
        "ed" + "ff" * 30 + "7f",
        "ee" + "ff" * 30 + "7f",
    )
)
_ORDER = 2**252 + 27742317777372353535851937790883648493


def _is_small(point: bytes) -> bool:
    return point[:31] + bytes([point[31] & 0x7F]) in _SMALL_ORDER


def verifies(key: bytes, message: bytes, signature: bytes) -> bool:
    """R-3.4: whether the signature is the key's; no point of small order, and the scalar reduced."""
    if len(key) != 32 or len(signature) != 64 or _is_small(key) or _is_small(signature[:32]):
        return False
    if int.from_bytes(signature[32:], "little") >= _ORDER:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _header(kind: str, signer: bytes) -> bytes:
    content_type = cbor.text_string(f"application/surety-{kind}+cbor")
    return b"\xa3\x01\x27\x03" + content_type + b"\x04" + cbor.byte_string(signer)


class Message:
    """A message of one layout (R-3.1, R-3.5); its signature is not verified yet."""

    def __init__(self, data: bytes, kind: str, most: int) -> None:
        if len(data) > most + OVERHEAD_BYTES:
            raise SignatureError("too_long", f"the signed {kind} takes {len(data)} bytes", "R-1.4")
        reader = cbor.Reader(data, f"signed {kind}")
        reader.tag(18)
        if reader.array(4) != 4:
            raise reader.fail("is no list of four")
        protected = reader.bytes(len(data))
        if reader.map() != 0:
            raise reader.fail("has unprotected headers", "not_canonical")
        self.payload = reader.bytes(len(data))
        self.signature = reader.exactly(64)
        reader.end()
        self.signer = protected[-32:]
        if _header(kind, self.signer) != protected:
            raise SignatureError("other_kind", f"it is not signed as a Surety {kind}", "R-3.2")
        self.kind = kind
        self._protected = protected

    def verify(self) -> None:
        """R-3.4."""
        to_sign = (
            b"\x84\x6aSignature1" + cbor.byte_string(self._protected) + b"\x40" + cbor.byte_string(self.payload)
        )
        if not verifies(self.signer, to_sign, self.signature):
            raise SignatureError(
                f"{self.kind}_signature", f"the {self.kind} is not signed by {self.signer.hex()}", "R-3.4"
            )
