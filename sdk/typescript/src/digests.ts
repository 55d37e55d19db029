/** Digests under a domain. */
import { blake3 } from "@noble/hashes/blake3.js";
import { utf8 } from "./bytes.js";

export const ZERO = new Uint8Array(32);

/** What is digested, each under a domain of its own. */
export type Domain =
  | "request" | "grammar" | "order" | "receipt" | "prompt ids" | "output ids" | "output text" | "state commitment"
  | "sampling seed";

/** BLAKE3 in key-derivation mode, the domain as its context. */
export const digest = (domain: Domain, data: Uint8Array): Uint8Array =>
  blake3(data, { context: utf8(`surety 2026 ${domain}`) });

/** BLAKE3 without a domain. */
export const plain = (data: Uint8Array): Uint8Array => blake3(data);

/** of token ids, each a word of 32 bits, little-endian. */
export function idsDigest(domain: "prompt ids" | "output ids", ids: readonly number[]): Uint8Array {
  const words = new DataView(new ArrayBuffer(4 * ids.length));
  ids.forEach((id, at) => words.setUint32(4 * at, id, true));
  return digest(domain, new Uint8Array(words.buffer));
}
