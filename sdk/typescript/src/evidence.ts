/** The evidence file: its fields, and that the view says what the signed bytes say. No signature is verified here. */
import { fromBase64, fromHex, hex } from "./bytes.js";
import { Message } from "./cose.js";
import { EncodingError, FormatError } from "./errors.js";
import { type Json, parse as parseJson } from "./json.js";
import { type Fields, KINDS, type Kind, type Shown, decode } from "./records.js";

export const MAX_EVIDENCE_BYTES = 64 << 20;
const MAX_ANSWERS = 4096;
const FIELDS = ["surety", "request_id", "envelope", "answers", "view"];
const ANSWER_FIELDS = [
  "order", "request", "acceptance", "receipt", "progress", "salt", "output_ids", "resumed_ids", "text", "channel",
  "prompt_ids", "embedding",
];

/** A signed message: its bytes, and what it says. */
export interface Said {
  data: Uint8Array;
  message: Message;
  kind: Kind;
  value: Fields;
}

/** What one worker gave. */
export interface Answer {
  order: Said;
  requestData: Uint8Array;
  request: Fields;
  acceptance: Said | null;
  receipt: Said | null;
  progress: Said | null;
  salt: Uint8Array;
  outputIds: number[];
  resumedIds: number[];
  text: string;
  promptIds: number[] | null;
  embedding: Uint8Array | null;
}

/** Evidence whose every part can be read. */
export interface Evidence {
  requestId: string;
  envelope: Said;
  answers: Answer[];
}

/** Reads a file. */
export function parse(data: Uint8Array): Evidence {
  if (data.length > MAX_EVIDENCE_BYTES) {
    const fault = `evidence of ${data.length} bytes; at most ${MAX_EVIDENCE_BYTES} are read`;
    throw new FormatError("too_long", fault, "R-8.1");
  }
  const file = fields(parseJson(data), FIELDS, "evidence");
  if (file.get("surety") !== 1n) {
    throw new FormatError("version", "this software reads evidence of version 1 alone", "R-8.1");
  }
  const requestId = textIn(file, "request_id");
  const found = file.get("answers");
  if (!Array.isArray(found) || found.length < 1 || found.length > MAX_ANSWERS) {
    throw new FormatError("answers", `evidence has a list of 1 to ${MAX_ANSWERS} \`answers\``, "R-8.1");
  }
  const envelope = said("envelope", bytesIn(file, "envelope"));
  if (envelope.value.request_id !== requestId) {
    throw new FormatError("request_id", "the request id is not the one in the envelope", "R-8.1");
  }
  const answers = found.map(answerOf);
  const view = { envelope: viewOf(envelope), answers: answers.map(viewOfAnswer) };
  const where = difference(view, file.get("view") ?? null, "view");
  if (where !== null) {
    throw new FormatError("view", `the readable view does not say what the signed bytes say, at \`${where}\``, "R-8.5");
  }
  return { requestId, envelope, answers };
}

function answerOf(found: Json): Answer {
  const answer = fields(found, ANSWER_FIELDS, "an answer");
  const requestData = bytesIn(answer, "request");
  const salt = textIn(answer, "salt");
  if (!/^[0-9a-f]{64}$/.test(salt)) {
    throw new FormatError("salt", "`salt` is not 64 lower-case hexadecimal digits", "R-8.2");
  }
  optionalBytesIn(answer, "channel");
  return {
    order: said("order", bytesIn(answer, "order")),
    requestData,
    request: decode("request", requestData),
    acceptance: optionalSaid(answer, "acceptance"),
    receipt: optionalSaid(answer, "receipt"),
    progress: optionalSaid(answer, "progress"),
    salt: fromHex(salt),
    outputIds: idsIn(answer, "output_ids"),
    resumedIds: idsIn(answer, "resumed_ids"),
    text: textIn(answer, "text"),
    promptIds: answer.get("prompt_ids") === null ? null : idsIn(answer, "prompt_ids"),
    embedding: optionalBytesIn(answer, "embedding"),
  };
}

/** Reads a signed message. */
export function said(kind: Kind, data: Uint8Array): Said {
  const message = new Message(data, kind, KINDS[kind].maxBytes);
  return { data, message, kind, value: decode(kind, message.payload) };
}

function optionalSaid(from: Map<string, Json>, kind: Kind): Said | null {
  return from.get(kind) === null ? null : said(kind, bytesIn(from, kind));
}

const viewOf = ({ message, kind, value }: Said): Shown => ({
  signed_by: hex(message.signer),
  ...(KINDS[kind].type.view(value) as { [name: string]: Shown }),
});

const viewOfAnswer = (answer: Answer): Shown => ({
  order: viewOf(answer.order),
  request: KINDS.request.type.view(answer.request),
  acceptance: answer.acceptance && viewOf(answer.acceptance),
  receipt: answer.receipt && viewOf(answer.receipt),
  progress: answer.progress && viewOf(answer.progress),
});

function fields(found: Json, names: string[], what: string): Map<string, Json> {
  if (!(found instanceof Map)) throw new FormatError("not_an_object", `${what} is no object`, "R-8.1");
  const missing = names.find((name) => !found.has(name));
  if (missing !== undefined) throw new FormatError("missing_field", `${what} has no \`${missing}\``, "R-8.3");
  const unknown = [...found.keys()].find((name) => !names.includes(name));
  if (unknown !== undefined) {
    throw new FormatError("unknown_field", `${what} has an unknown field, ${JSON.stringify(unknown.slice(0, 80))}`, "R-8.3");
  }
  return found;
}

function textIn(from: Map<string, Json>, name: string): string {
  const found = from.get(name);
  if (typeof found !== "string") throw new FormatError("wrong_type", `\`${name}\` is no text`, "R-8.2");
  return found;
}

function bytesIn(from: Map<string, Json>, name: string): Uint8Array {
  const data = fromBase64(textIn(from, name));
  if (data === null) throw new EncodingError("base64", `\`${name}\` is not in standard padded base64`, "R-8.2");
  return data;
}

function optionalBytesIn(from: Map<string, Json>, name: string): Uint8Array | null {
  return from.get(name) === null ? null : bytesIn(from, name);
}

function idsIn(from: Map<string, Json>, name: string): number[] {
  const found = from.get(name);
  const isId = (one: Json): one is bigint => typeof one === "bigint" && one >= 0n && one < 1n << 32n;
  if (!Array.isArray(found) || !found.every(isId)) {
    throw new FormatError("wrong_type", `\`${name}\` is no list of token ids`, "R-8.2");
  }
  return found.map(Number);
}

/** Where the first difference is; null if there is none. */
function difference(expected: Shown, found: Json, where: string): string | null {
  if (Array.isArray(expected)) {
    if (!Array.isArray(found) || found.length !== expected.length) return where;
    for (const [at, one] of expected.entries()) {
      const inside = difference(one, found[at] ?? null, `${where}[${at}]`);
      if (inside !== null) return inside;
    }
    return null;
  }
  if (typeof expected === "object" && expected !== null) {
    const names = Object.keys(expected);
    if (!(found instanceof Map) || found.size !== names.length) return where;
    for (const name of names) {
      const one = found.get(name);
      const inside = one === undefined ? where : difference(expected[name] ?? null, one, `${where}.${name}`);
      if (inside !== null) return inside;
    }
    return null;
  }
  return (typeof expected === "number" ? BigInt(expected) : expected) === found ? null : where;
}
