/** Signed messages: COSE_Sign1 in one layout, Ed25519 verified strictly. */
import { concat, hex, same, utf8 } from "./bytes.js";
import { Reader, byteString, textString } from "./cbor.js";
import { SignatureError } from "./errors.js";

export const OVERHEAD_BYTES = 176;

// The y coordinates of the points of small order, and their other spellings; the sign bit is not looked at.
const SMALL_ORDER = new Set([
  "00".repeat(32),
  "01" + "00".repeat(31),
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ec" + "ff".repeat(30) + "7f",
  "ed" + "ff".repeat(30) + "7f",
  "ee" + "ff".repeat(30) + "7f",
]);
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;

function isSmall(point: Uint8Array): boolean {
  const y = point.slice();
  y[31] = (y[31] ?? 0) & 0x7f;
  return SMALL_ORDER.has(hex(y));
}

/** whether the signature is the key's; no point of small order, and the scalar reduced. */
export async function verifies(key: Uint8Array, message: Uint8Array, signature: Uint8Array): Promise<boolean> {
  if (key.length !== 32 || signature.length !== 64 || isSmall(key) || isSmall(signature.subarray(0, 32))) return false;
  if (BigInt(`0x${hex(signature.slice(32).reverse())}`) >= ORDER) return false;
  let imported: CryptoKey;
  const { subtle } = globalThis.crypto;
  try {
    imported = await subtle.importKey("raw", key as BufferSource, { name: "Ed25519" }, false, ["verify"]);
  } catch (error) {
    // A platform without Ed25519 must not pass for a bad signature.
    if (error instanceof Error && error.name === "NotSupportedError") {
      throw new SignatureError("no_ed25519", "this platform's WebCrypto has no Ed25519; nothing was verified");
    }
    return false;
  }
  return subtle.verify({ name: "Ed25519" }, imported, signature as BufferSource, message as BufferSource);
}

const header = (kind: string, signer: Uint8Array): Uint8Array =>
  concat(
    Uint8Array.of(0xa3, 0x01, 0x27, 0x03),
    textString(`application/surety-${kind}+cbor`),
    Uint8Array.of(0x04),
    byteString(signer),
  );

/** A message of one layout; its signature is not verified yet. */
export class Message {
  readonly payload: Uint8Array;
  readonly signature: Uint8Array;
  readonly signer: Uint8Array;
  readonly #protected: Uint8Array;

  constructor(
    data: Uint8Array,
    readonly kind: string,
    most: number,
  ) {
    if (data.length > most + OVERHEAD_BYTES) {
      throw new SignatureError("too_long", `the signed ${kind} takes ${data.length} bytes`, "R-1.4");
    }
    const reader = new Reader(data, `signed ${kind}`);
    reader.tag(18);
    if (reader.array(4) !== 4) throw reader.fail("is no list of four");
    this.#protected = reader.bytes(data.length);
    if (reader.map() !== 0) throw reader.fail("has unprotected headers", "not_canonical");
    this.payload = reader.bytes(data.length);
    this.signature = reader.exactly(64);
    reader.end();
    this.signer = this.#protected.slice(-32);
    if (!same(header(kind, this.signer), this.#protected)) {
      throw new SignatureError("other_kind", `it is not signed as a Surety ${kind}`, "R-3.2");
    }
  }

  /** */
  async verify(): Promise<void> {
    const toSign = concat(
      Uint8Array.of(0x84),
      textString("Signature1"),
      byteString(this.#protected),
      byteString(utf8("")),
      byteString(this.payload),
    );
    if (!(await verifies(this.signer, toSign, this.signature))) {
      const fault = `the ${this.kind} is not signed by ${hex(this.signer)}`;
      throw new SignatureError(`${this.kind}_signature`, fault, "R-3.4");
    }
  }
}

