/**
 * Deterministic CBOR: a reader that accepts one encoding of each value, and no other.
 *
 * The caller says what it expects next; what is not that, or not in its shortest form, is refused. Lengths are compared with
 * the bytes that are left before anything is kept; nothing recurses but the caller's own, fixed structure.
 */
import { concat, textOf, utf8 } from "./bytes.js";
import { EncodingError } from "./errors.js";

const NAMES = ["an unsigned integer", "a negative integer", "bytes", "a text", "a list", "a map", "a tag", "a simple value"];

/** Reads `data` from its beginning; `what` it is, for errors. */
export class Reader {
  #at = 0;
  constructor(
    readonly data: Uint8Array,
    readonly what: string,
  ) {}

  /** An error here, to be thrown. */
  fail(problem: string, code = "malformed"): EncodingError {
    return new EncodingError(code, `the ${this.what} ${problem}, at byte ${this.#at}`, "R-1");
  }

  #head(): [number, bigint] {
    const first = this.data[this.#at];
    if (first === undefined) throw this.fail("ends too early");
    const major = first >> 5;
    const info = first & 31;
    if (info < 24) {
      this.#at += 1;
      return [major, BigInt(info)];
    }
    if (info > 27) throw this.fail("holds an indefinite or reserved length", "not_canonical");
    const size = 1 << (info - 24);
    if (this.data.length - this.#at - 1 < size) throw this.fail("ends too early");
    let value = 0n;
    for (let at = 1; at <= size; at++) value = (value << 8n) | BigInt(this.data[this.#at + at] ?? 0);
    if (major !== 7 && value < (size === 1 ? 24n : 1n << BigInt(size * 4))) {
      throw this.fail("holds an integer in a long form", "not_canonical");
    }
    this.#at += 1 + size;
    return [major, value];
  }

  #expect(major: number): bigint {
    const at = this.#at;
    const [found, value] = this.#head();
    if (found !== major) {
      this.#at = at;
      throw this.fail(`has ${NAMES[found]} where ${NAMES[major]} must be`);
    }
    return value;
  }

  #length(major: number, most: number, what: string): number {
    const length = this.#expect(major);
    if (length > BigInt(most)) throw this.fail(`holds ${what} of ${length} where at most ${most} may be`, "too_long");
    if (length > BigInt(this.data.length - this.#at)) throw this.fail("ends too early");
    return Number(length);
  }

  #take(length: number): Uint8Array {
    this.#at += length;
    return this.data.subarray(this.#at - length, this.#at);
  }

  /** An unsigned integer below 2**64. */
  u64(): bigint {
    return this.#expect(0);
  }

  /** An unsigned integer below 2**bits, at most 32. */
  unsigned(bits: number): number {
    const value = this.#expect(0);
    if (value >> BigInt(bits)) throw this.fail(`holds an integer beyond ${bits} bits`);
    return Number(value);
  }

  /** A signed integer of 64 bits. */
  signed(): bigint {
    const [major, value] = this.#head();
    if (major > 1 || value >> 63n) throw this.fail("holds no integer of 64 bits where one must be");
    return major === 0 ? value : -1n - value;
  }

  /** An integer below 2**128: plain below 2**64, else a bignum without leading zeros. */
  amount(): bigint {
    if ((this.data[this.#at] ?? 0) >> 5 !== 6) return this.u64();
    this.tag(2);
    const digits = this.bytes(16);
    if (digits.length <= 8 || digits[0] === 0) throw this.fail("holds an integer in a long form", "not_canonical");
    return digits.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
  }

  /** A byte string of at most `most` bytes. */
  bytes(most: number): Uint8Array {
    return this.#take(this.#length(2, most, "bytes"));
  }

  /** A byte string of exactly `length` bytes. */
  exactly(length: number): Uint8Array {
    const found = this.bytes(length);
    if (found.length !== length) throw this.fail(`holds ${found.length} bytes where ${length} must be`);
    return found;
  }

  /** A text of at most `most` bytes. */
  text(most: number): string {
    const text = textOf(this.#take(this.#length(3, most, "a text")));
    if (text === null) throw this.fail("holds a text that is not UTF-8");
    return text;
  }

  /** A truth value. */
  boolean(): boolean {
    const byte = this.data[this.#at];
    if (byte !== 0xf4 && byte !== 0xf5) throw this.fail("has no truth value where one must be");
    this.#at += 1;
    return byte === 0xf5;
  }

  /** The length of a list of at most `most` items, which follow. */
  array(most: number): number {
    return this.#length(4, most, "a list");
  }

  /** The number of entries of a map, which follow. */
  map(): number {
    return this.#length(5, this.data.length, "a map");
  }

  /** This tag. */
  tag(number: number): void {
    if (this.#expect(6) !== BigInt(number)) throw this.fail("holds an unknown tag");
  }

  /** The unsigned key that comes next; it stays. */
  peekKey(): bigint {
    const at = this.#at;
    const key = this.#expect(0);
    this.#at = at;
    return key;
  }

  /** Nothing follows. */
  end(): void {
    if (this.#at !== this.data.length) throw this.fail("is followed by more bytes", "not_canonical");
  }
}

function head(major: number, value: number): Uint8Array {
  if (value < 24) return Uint8Array.of((major << 5) | value);
  if (value < 1 << 8) return Uint8Array.of((major << 5) | 24, value);
  if (value < 1 << 16) return Uint8Array.of((major << 5) | 25, value >> 8, value & 255);
  return Uint8Array.of((major << 5) | 26, value >>> 24, (value >> 16) & 255, (value >> 8) & 255, value & 255);
}

/** The encoding of bytes, fewer than 2**31. */
export const byteString = (data: Uint8Array): Uint8Array => concat(head(2, data.length), data);

/** The encoding of a text. */
export function textString(text: string): Uint8Array {
  const data = utf8(text);
  return concat(head(3, data.length), data);
}
