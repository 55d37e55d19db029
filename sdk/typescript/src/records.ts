/**
 * The records that parties sign: how each is read, which bounds it keeps, and how the view shows it.
 *
 * A type has `read`, which takes a value from canonical CBOR, and `view`, which gives the value as shows it. A record
 * is an object of its fields by name; an optional field that is absent is null.
 */
import * as binary32 from "./binary32.js";
import { concat, hex, utf8 } from "./bytes.js";
import { Reader } from "./cbor.js";
import { digest } from "./digests.js";
import { EncodingError } from "./errors.js";
import { isCompactObject } from "./json.js";

// Fields are named by the tables below; what each holds is its type's.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Fields = Record<string, any>;
/** A value as the view shows it. */
export type Shown = null | boolean | number | bigint | string | Shown[] | { [name: string]: Shown };

interface Type<T> {
  read(r: Reader): T;
  view(value: T): Shown;
}
// eslint-disable-next-line @typescript-eslint/no-explicit-any
type Any = Type<any>;
interface Field {
  key: number;
  name: string;
  type: Any;
  isOptional: boolean;
  isHiddenIfAbsent: boolean;
}

const MAX_OUTPUT_TOKENS = 2 ** 20;
const MAX_DIMENSIONS = 2 ** 16;
export const ARITHMETIC_VERSION = 0;
/** no arithmetic is claimed. */
export const NO_ARITHMETIC = 2 ** 32 - 1;

const field = (key: number, name: string, type: Any): Field => ({
  key, name, type, isOptional: false, isHiddenIfAbsent: false,
});
const optional = (key: number, name: string, type: Any): Field => ({ ...field(key, name, type), isOptional: true });

const U8: Type<number> = { read: (r) => r.unsigned(8), view: (value) => value };
const U16: Type<number> = { read: (r) => r.unsigned(16), view: (value) => value };
const U32: Type<number> = { read: (r) => r.unsigned(32), view: (value) => value };
const U64: Type<bigint> = { read: (r) => r.u64(), view: (value) => value };
const BOOL: Type<boolean> = { read: (r) => r.boolean(), view: (value) => value };
const AMOUNT: Type<bigint> = { read: (r) => r.amount(), view: String };
const BYTES_32: Type<Uint8Array> = { read: (r) => r.exactly(32), view: hex };
const MODEL: Type<Uint8Array> = { read: (r) => r.exactly(32), view: (value) => `blake3:${hex(value)}` };
const FLOAT: Type<number> = { read: (r) => r.unsigned(32), view: binary32.decimal };

const text = (most: number): Type<string> => ({ read: (r) => r.text(most), view: (value) => value });
const many = <T>(most: number, item: Type<T>): Type<T[]> => ({
  read: (r) => {
    const items: T[] = [];
    for (let left = r.array(most); left > 0; left--) items.push(item.read(r));
    return items;
  },
  view: (values) => values.map((value) => item.view(value)),
});
const bare = (...names: string[]): Type<string> => ({
  read: (r) => {
    const number = r.u64();
    const name = number < BigInt(names.length) ? names[Number(number)] : undefined;
    if (name === undefined) throw r.fail(`holds an unknown choice, ${number}`);
    return name;
  },
  view: (value) => value,
});

/** A map of these fields; `check` says which bound or relation is broken. */
function record(fields: Field[], check: (values: Fields) => string | null = () => null): Type<Fields> {
  return {
    read(r) {
      let left = r.map();
      const values: Fields = {};
      for (const { key, name, type, isOptional } of fields) {
        if (left > 0 && r.peekKey() === BigInt(key)) {
          r.u64();
          left -= 1;
          values[name] = type.read(r);
        } else if (isOptional) {
          values[name] = null;
        } else {
          throw r.fail(`has no \`${name}\` where it must be`);
        }
      }
      if (left > 0) throw r.fail("has an unknown, repeated or misplaced key", "not_canonical");
      const problem = check(values);
      if (problem !== null) throw r.fail(`is invalid: ${problem}`, "invalid");
      return values;
    },
    view(values) {
      const shown: { [name: string]: Shown } = {};
      for (const { name, type, isOptional, isHiddenIfAbsent } of fields) {
        const value: unknown = values[name];
        if (value !== null || !isOptional) shown[name] = type.view(value);
        else if (!isHiddenIfAbsent) shown[name] = null;
      }
      return shown;
    },
  };
}

/** The number of a choice that has fields, which follow. */
function choice(r: Reader, count: number): number {
  if (r.array(2) !== 2) throw r.fail("has a choice that is no pair");
  const number = r.u64();
  if (number >= BigInt(count)) throw r.fail(`holds an unknown choice, ${number}`);
  return Number(number);
}

const PRICE = record([field(0, "prompt", AMOUNT), field(1, "cached", AMOUNT), field(2, "output", AMOUNT)]);

const SEED: Type<bigint | null> = {
  read(r) {
    const number = choice(r, 2);
    if (r.array(1) !== 1 - number) throw r.fail("holds a seed of another length");
    return number === 0 ? r.signed() : null;
  },
  view: (seed) => (seed === null ? "nonce" : { caller: seed }),
};

const BIAS: Type<[number, number]> = {
  read(r) {
    if (r.array(2) !== 2) throw r.fail("holds a bias that is no pair");
    return [r.unsigned(32), r.unsigned(32)];
  },
  view: ([id, bias]) => [id, binary32.decimal(bias)],
};

// Bounds are binary32 too: 0.01 is the one nearest to it.
const RANGES: [string, number, number][] = [
  ["temperature", 0, 2],
  ["top_p", 0, 1],
  ["min_p", 0, 1],
  ["repetition_penalty", Math.fround(0.01), 10],
  ["presence_penalty", -2, 2],
  ["frequency_penalty", -2, 2],
];
const isWithin = (bits: number, low: number, high: number): boolean => {
  const value = binary32.fromBits(bits);
  return low <= value && value <= high;
};

const SAMPLING = record(
  [
    field(0, "temperature", FLOAT),
    field(1, "top_k", U32),
    field(2, "top_p", FLOAT),
    field(3, "min_p", FLOAT),
    field(4, "repetition_penalty", FLOAT),
    field(5, "presence_penalty", FLOAT),
    field(6, "frequency_penalty", FLOAT),
    field(7, "logit_bias", many(1024, BIAS)),
    optional(8, "grammar", BYTES_32),
  ],
  (sampling) => {
    const out = RANGES.find(([name, low, high]) => !isWithin(sampling[name] as number, low, high));
    if (out) return `\`${out[0]}\` is out of its range`;
    const biases = sampling.logit_bias as [number, number][];
    if (!biases.every(([, bias]) => isWithin(bias, -100, 100))) return "`logit_bias` is out of its range";
    const isIncreasing = biases.every(([id], at) => at === 0 || (biases[at - 1]?.[0] ?? id) < id);
    return isIncreasing ? null : "`logit_bias` is not in increasing order of id";
  },
);

const ORDER = record(
  [
    field(0, "version", U8),
    field(1, "model", MODEL),
    field(2, "request_digest", BYTES_32),
    field(3, "nonce", BYTES_32),
    field(4, "seed", SEED),
    field(5, "choice", U32),
    field(6, "sampling", SAMPLING),
    field(7, "max_output_tokens", U32),
    field(8, "ignore_end", BOOL),
    field(9, "deadline_ms", U64),
    field(10, "price_ceiling", PRICE),
    optional(11, "channel", BYTES_32),
    field(12, "payer", BYTES_32),
    field(13, "issued_ms", U64),
    optional(14, "resumed", record([field(0, "output_tokens", U32), field(1, "output_digest", BYTES_32)])),
    { ...optional(15, "disclosure", bare("payer")), isHiddenIfAbsent: true },
  ],
  (order) => {
    if (order.version !== 1) return `it is of version ${order.version}; this software knows 1`;
    if (order.max_output_tokens > MAX_OUTPUT_TOKENS) return `\`max_output_tokens\` is above ${MAX_OUTPUT_TOKENS}`;
    const resumed = order.resumed?.output_tokens as number | undefined;
    if (resumed !== undefined && (resumed < 1 || resumed > MAX_OUTPUT_TOKENS - order.max_output_tokens)) {
      return "`resumed` holds no tokens, or too many";
    }
    return order.deadline_ms <= order.issued_ms ? "`deadline_ms` is not after `issued_ms`" : null;
  },
);

const MAX_REQUEST_BYTES = 8 << 20;
const ANY = text(MAX_REQUEST_BYTES);
const NAME = text(256);

const CALL = record(
  [field(0, "id", NAME), field(1, "name", NAME), field(2, "arguments", text(1 << 20))],
  (call) => (isCompactObject(call.arguments as string) ? null : "`arguments` is not JSON as requests hold it"),
);
const MESSAGE = record([
  field(0, "role", NAME),
  field(1, "content", ANY),
  optional(2, "name", NAME),
  field(3, "tool_calls", many(128, CALL)),
  optional(4, "tool_call_id", NAME),
]);
const CHAT = record([field(0, "messages", many(4096, MESSAGE)), field(1, "tools", many(128, text(64 << 10)))], (chat) => {
  if (chat.messages.length === 0) return "`messages` is empty";
  return (chat.tools as string[]).every(isCompactObject) ? null : "`tools` is not JSON as requests hold it";
});
const PROMPTS: [string, Type<Fields>][] = [
  ["chat", CHAT],
  ["text", record([field(0, "text", ANY)])],
  ["tokens", record([field(0, "tokens", many(1 << 20, U32))])],
];

/** What is to be answered: which choice, and its fields. */
export interface Prompt {
  choice: string;
  fields: Fields;
}
const PROMPT: Type<Prompt> = {
  read(r) {
    const [name, type] = PROMPTS[choice(r, PROMPTS.length)] as [string, Type<Fields>];
    return { choice: name, fields: type.read(r) };
  },
  view: ({ choice, fields }) => ({ [choice]: choice === "chat" ? CHAT.view(fields) : (fields[choice] as Shown) }),
};

const DATE = record([field(0, "year", U16), field(1, "month", U8), field(2, "day", U8)], (date) => {
  const { year, month, day } = date as { year: number; month: number; day: number };
  const isLeap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0;
  const days = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1] ?? 0;
  return year >= 1 && year <= 9999 && day >= 1 && day <= days ? null : "`date` is no day";
});
const EMBEDDING = record([optional(0, "dimensions", U32)], ({ dimensions }) =>
  dimensions === null || (dimensions >= 1 && dimensions <= MAX_DIMENSIONS) ? null : "`dimensions` is out of its range",
);

const REQUEST = record(
  [
    field(0, "prompt", PROMPT),
    field(1, "stop", many(16, NAME)),
    optional(2, "logprobs", U8),
    optional(3, "prompt_logprobs", U8),
    optional(4, "date", DATE),
    optional(5, "grammar", text(32 << 10)),
    optional(6, "embedding", EMBEDDING),
  ],
  (request) => {
    if (request.stop.includes("")) return "`stop` holds an empty string";
    if ((request.logprobs ?? 0) > 20 || (request.prompt_logprobs ?? 0) > 20) return "it asks for more than 20 alternatives";
    const isOfText = request.stop.length > 0 || (request.grammar ?? request.logprobs ?? request.prompt_logprobs) !== null;
    return request.embedding !== null && isOfText ? "it asks for a vector, and for what only a text has" : null;
  },
);

const REGION: Type<string> = {
  read(r) {
    const region = r.text(32);
    if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(region)) throw r.fail("holds a text that is no region");
    return region;
  },
  view: (value) => value,
};
const ACCEPTANCE = record([
  field(0, "order", BYTES_32),
  field(1, "model", MODEL),
  field(2, "worker", BYTES_32),
  field(3, "deadline_ms", U64),
  field(4, "price", PRICE),
  field(5, "prompt_tokens", U32),
  field(6, "accepted_ms", U64),
  field(7, "max_output_tokens", U32),
  optional(8, "region", REGION),
]);
const PROGRESS = record([
  field(0, "order", BYTES_32),
  field(1, "output_tokens", U32),
  field(2, "output_digest", BYTES_32),
  field(3, "text_digest", BYTES_32),
  field(4, "at_ms", U64),
  field(5, "worker", BYTES_32),
]);

const FAILED = record([
  field(
    0,
    "code",
    bare(
      "bad_request", "context_length_exceeded", "overloaded", "model_unknown", "out_of_memory", "non_finite", "internal",
      "cancelled", "deadline_exceeded", "payment_required", "leaving",
    ),
  ),
  field(1, "message", text(512)),
]);
const OUTCOME: Type<Fields | null> = {
  read(r) {
    if (choice(r, 2) === 1) return FAILED.read(r);
    if (r.map() !== 0) throw r.fail("has an unknown key", "not_canonical");
    return null;
  },
  view: (failure) => (failure === null ? "completed" : { failed: FAILED.view(failure) }),
};
const RECEIPT = record(
  [
    field(0, "version", U8),
    field(1, "outcome", OUTCOME),
    field(2, "order", BYTES_32),
    field(3, "model", MODEL),
    field(4, "arithmetic", U32),
    field(5, "prompt_tokens", U32),
    field(6, "cached_tokens", U32),
    field(7, "output_tokens", U32),
    field(8, "prompt_digest", BYTES_32),
    field(9, "output_digest", BYTES_32),
    field(10, "text_digest", BYTES_32),
    field(11, "finish", bare("stop", "length", "cancelled", "unpaid", "failed")),
    field(12, "seed", BYTES_32),
    field(13, "state_commitment", BYTES_32),
    field(14, "price", PRICE),
    field(15, "charge", AMOUNT),
    field(16, "accepted_ms", U64),
    optional(17, "first_token_ms", U64),
    field(18, "done_ms", U64),
    field(19, "software", text(64)),
    field(20, "worker", BYTES_32),
  ],
  (receipt) => {
    if (receipt.version !== 1) return `it is of version ${receipt.version}; this software knows 1`;
    if ((receipt.outcome !== null) !== (receipt.finish === "failed")) return "`finish` disagrees with `outcome`";
    if (receipt.cached_tokens > receipt.prompt_tokens) return "`cached_tokens` exceeds `prompt_tokens`";
    const first = (receipt.first_token_ms ?? receipt.accepted_ms) as bigint;
    if (first < receipt.accepted_ms || receipt.done_ms < first) return "the times are not in order";
    const isSent = (receipt.first_token_ms !== null) === receipt.output_tokens > 0;
    return isSent ? null : "`first_token_ms` is there if and only if a token was sent";
  },
);

const ENVELOPE = record(
  [
    field(0, "request_id", NAME),
    field(1, "gateway", BYTES_32),
    field(2, "model_name", NAME),
    field(
      3,
      "parts",
      many(
        4096,
        record([
          field(0, "order", BYTES_32),
          optional(1, "receipt", BYTES_32),
          field(2, "worker", BYTES_32),
          field(3, "first_output_token", U32),
          field(4, "output_tokens", U32),
          { ...optional(5, "purpose", bare("check")), isHiddenIfAbsent: true },
        ]),
      ),
    ),
    field(4, "received_ms", U64),
    field(5, "first_byte_ms", U64),
    field(6, "done_ms", U64),
    field(7, "charge", AMOUNT),
  ],
  ({ received_ms, first_byte_ms, done_ms }) =>
    first_byte_ms < received_ms || done_ms < first_byte_ms ? "the times are not in order" : null,
);

/** What is encoded, or signed. */
export const KINDS = {
  order: { type: ORDER, maxBytes: 16 << 10, signer: "payer" },
  request: { type: REQUEST, maxBytes: MAX_REQUEST_BYTES, signer: "" },
  acceptance: { type: ACCEPTANCE, maxBytes: 512, signer: "worker" },
  progress: { type: PROGRESS, maxBytes: 256, signer: "worker" },
  receipt: { type: RECEIPT, maxBytes: 2048 - 176, signer: "worker" },
  envelope: { type: ENVELOPE, maxBytes: 512 << 10, signer: "gateway" },
} as const;
export type Kind = keyof typeof KINDS;

/** The record that these bytes are the one encoding of. */
export function decode(kind: Kind, data: Uint8Array): Fields {
  const { type, maxBytes } = KINDS[kind];
  if (data.length > maxBytes) {
    throw new EncodingError("too_long", `the ${kind} takes ${data.length} bytes, above ${maxBytes}`, "R-1.4");
  }
  const reader = new Reader(data, kind);
  const values = type.read(reader);
  reader.end();
  return values;
}

/** The digest of a grammar (G-1), if there is one. */
export const grammarDigest = (grammar: string | null): Uint8Array | null =>
  grammar === null ? null : digest("grammar", utf8(grammar));

/** */
export function samplingSeed(order: Fields): Uint8Array {
  const words = new DataView(new ArrayBuffer(12));
  if (order.seed !== null) words.setBigInt64(0, order.seed as bigint, true);
  words.setUint32(8, order.choice as number, true);
  const begin = order.seed === null ? (order.nonce as Uint8Array) : new Uint8Array(words.buffer, 0, 8);
  return digest("sampling seed", concat(begin, new Uint8Array(words.buffer, 8)));
}

/** what an answer costs; null if it has no such number. */
export function due(receipt: Fields): bigint | null {
  if (receipt.outcome !== null) return 0n;
  const total =
    receipt.price.prompt * BigInt(receipt.prompt_tokens - receipt.cached_tokens) +
    receipt.price.cached * BigInt(receipt.cached_tokens) +
    receipt.price.output * BigInt(receipt.output_tokens);
  return total >> 128n ? null : (total + 999_999n) / 1_000_000n;
}

/** whether bytes spell 1 to 65,536 finite numbers. */
export function isVector(data: Uint8Array): boolean {
  if (data.length % 4 !== 0 || data.length < 4 || data.length > 4 * MAX_DIMENSIONS) return false;
  const words = new DataView(data.buffer, data.byteOffset, data.length);
  for (let at = 0; at < data.length; at += 4) if (!Number.isFinite(words.getFloat32(at, true))) return false;
  return true;
}
