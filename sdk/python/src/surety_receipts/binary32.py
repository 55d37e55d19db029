"""Binary32 numbers as the readable view writes them (R-8.4): the shortest decimal, never with an exponent."""

from __future__ import annotations

import struct
from fractions import Fraction


def from_bits(bits: int) -> float:
    """The number that 32 bits spell."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def decimal(bits: int) -> str:
    """The shortest decimal that is nearer to this finite number than to any other; of those the nearest."""
    sign, magnitude = "-" if bits >> 31 else "", bits & 0x7FFF_FFFF
    if magnitude == 0:
        return f"{sign}0"
    value = _exact(magnitude)
    low = (_exact(magnitude - 1) + value) / 2
    high = (_exact(magnitude + 1) + value) / 2
    even = magnitude & 1 == 0
    exponent = 0  # value < 10 ** exponent, and not below a tenth of it
    while value >= Fraction(10) ** exponent:
        exponent += 1
    while value < Fraction(10) ** (exponent - 1):
        exponent -= 1
    for digits in range(1, 18):
        unit = Fraction(10) ** (exponent - digits)
        floor = value // unit
        fits = [n for n in (floor, floor + 1) if low < n * unit < high or even and n * unit in (low, high)]
        if fits:
            return sign + _plain(min(fits, key=lambda n: abs(n * unit - value)), exponent - digits)
    raise AssertionError("nine digits tell any two binary32 numbers apart")


def _exact(magnitude: int) -> Fraction:
    exponent, fraction = magnitude >> 23, magnitude & 0x7F_FFFF
    if exponent:
        fraction |= 0x80_0000
    return Fraction(fraction) * Fraction(2) ** (max(exponent, 1) - 150)


def _plain(number: int, power: int) -> str:
    if power >= 0:
        return str(number) + "0" * power
    text = str(number).rjust(1 - power, "0")
    whole, part = text[:power], text[power:].rstrip("0")
    return f"{whole}.{part}" if part else whole
