/** What a receipt proves to the person who holds it, and what it does not. */
import { fromHex, hex, utf8 } from "./bytes.js";
import { CHECKS, type Checked, type CheckedEvidence, NOT_CHECKED, checkEvidence, isEnd, resumedTokens } from "./check.js";
import { FetchError, FormatError, MismatchError } from "./errors.js";
import { type Evidence, MAX_EVIDENCE_BYTES, parse } from "./evidence.js";
import type { Fields, Prompt } from "./records.js";

/** What you know for yourself, and want compared. */
export interface Known {
  /** The request's id, in any of its spellings. */
  requestId?: string | undefined;
  /** The answer you saw. */
  text?: string | undefined;
  /** The last message, or the prompt, you sent. */
  prompt?: string | undefined;
  /** The model you expect: 64 hexadecimal digits, also behind `blake3:`. */
  model?: string | undefined;
  /** The worker you expect, 64 hexadecimal digits. */
  worker?: string | undefined;
  /** The gateway you expect, 64 hexadecimal digits. */
  gateway?: string | undefined;
}

/** What one worker gave of an answer: all of it, unless another went on. */
export interface AnswerReport {
  model: string;
  worker: string;
  promptTokens: number;
  firstOutputToken: number;
  outputTokens: number;
  finish: string | null;
  failed: string | null;
  text: string;
  /** It is an answer once more, by another worker, to be compared with it. */
  check?: true;
}

/** What holds, and what nobody looked at. */
export interface Report {
  requestId: string;
  gateway: string;
  answers: AnswerReport[];
  /** Micro-credits, in decimal digits. */
  charge: string;
  checked: string[];
  notChecked: string[];
}

/**
 * Checks evidence, and compares it with what you know for yourself.
 *
 * Rejects with a `ReceiptError`, in one of its kinds, at the first thing that does not hold; with a `TypeError` if an expected
 * key or model is none.
 */
export async function verify(evidenceJson: string | Uint8Array, known: Known = {}): Promise<Report> {
  const model = key("model", known.model?.replace(/^blake3:/, ""));
  const worker = key("worker", known.worker);
  const gateway = key("gateway", known.gateway);
  if (typeof evidenceJson === "string" && /[\ud800-\udfff]/u.test(evidenceJson)) {
    throw new FormatError("not_json", "not an evidence file: it holds half a character", "R-8.1");
  }
  const evidence = parse(typeof evidenceJson === "string" ? utf8(evidenceJson) : evidenceJson);
  const found = await checkEvidence(evidence, gateway, worker);
  const checked = new Set<string>();
  const notChecked = new Set<string>();
  for (const one of [...found.answers, found]) {
    for (const name of one.checked) checked.add(CHECKS[name]);
    for (const name of one.notChecked) notChecked.add(NOT_CHECKED[name]);
  }
  const report: Report = {
    requestId: evidence.requestId,
    gateway: hex(found.envelope.gateway),
    answers: found.answers.map((one, at) => answerReport(one, evidence.answers[at]?.text ?? "", isCheck(found.envelope, at))),
    charge: String(found.envelope.charge),
    checked: [...checked],
    notChecked: [...notChecked],
  };
  compare(report, evidence, found, known, model);
  return report;
}

/** The evidence of a request, from the gateway that answered it. Rejects with a `FetchError`. */
export async function fetchEvidence(
  baseUrl: string,
  requestId: string,
  options: { apiKey?: string | undefined; signal?: AbortSignal | undefined } = {},
): Promise<Uint8Array> {
  if (!/^[A-Za-z0-9_-]{1,256}$/.test(requestId)) {
    throw new FetchError("request_id", "the request id has characters that no id has");
  }
  if (!/^https?:\/\//.test(baseUrl)) {
    throw new FetchError("base_url", "the base URL begins with neither http:// nor https://");
  }
  const headers: Record<string, string> = { accept: "application/json" };
  if (options.apiKey) headers.authorization = `Bearer ${options.apiKey}`;
  try {
    const signal = options.signal ?? AbortSignal.timeout(30_000);
    const answer = await fetch(`${baseUrl.replace(/\/+$/, "")}/receipts/${requestId}`, { headers, signal });
    if (!answer.ok) {
      const said = (await answer.text()).slice(0, 2000);
      throw new FetchError("status", `the gateway answered ${answer.status}: ${said}`);
    }
    const pieces: Uint8Array[] = [];
    let length = 0;
    const reader = answer.body?.getReader();
    for (;;) {
      const piece = await reader?.read();
      if (piece === undefined || piece.done) break;
      pieces.push(piece.value);
      length += piece.value.length;
      if (length > MAX_EVIDENCE_BYTES) {
        await reader?.cancel();
        throw new FetchError("too_long", `the gateway sent more than ${MAX_EVIDENCE_BYTES} bytes`);
      }
    }
    const data = new Uint8Array(length);
    let at = 0;
    for (const piece of pieces) {
      data.set(piece, at);
      at += piece.length;
    }
    return data;
  } catch (error) {
    if (error instanceof FetchError) throw error;
    throw new FetchError("unreachable", `the gateway could not be asked: ${String(error)}`);
  }
}

/**
 * Fetches the evidence of a request and checks it. `baseUrl` is the one that clients are given, with `/v1`.
 *
 * The check is local: the gateway is believed nothing but what it signed. Its key you know from elsewhere, or not.
 */
export async function fetchAndVerify(
  baseUrl: string,
  requestId: string,
  options: Known & { apiKey?: string | undefined; signal?: AbortSignal | undefined } = {},
): Promise<Report> {
  const evidence = await fetchEvidence(baseUrl, requestId, options);
  return verify(evidence, { ...options, requestId });
}

function key(name: string, digits: string | undefined): Uint8Array | null {
  if (digits === undefined) return null;
  if (!/^[0-9a-f]{64}$/.test(digits)) throw new TypeError(`\`${name}\` is not 64 lower-case hexadecimal digits`);
  return fromHex(digits);
}

function isCheck(envelope: Fields, at: number): boolean {
  return (envelope.parts as Fields[])[at]?.purpose === "check";
}

function answerReport(one: Checked, text: string, isCheck: boolean): AnswerReport {
  const failure = one.receipt?.outcome as Fields | null | undefined;
  return {
    model: `blake3:${hex(one.order.model)}`,
    worker: hex(one.worker),
    promptTokens: (one.acceptance ?? one.receipt)?.prompt_tokens ?? 0,
    firstOutputToken: resumedTokens(one.order),
    outputTokens: one.outputTokens,
    finish: one.receipt?.finish ?? null,
    failed:
      failure === undefined
        ? "broke off without a receipt"
        : failure && `${String(failure.code).replaceAll("_", " ")}: ${failure.message}`,
    text,
    ...(isCheck ? { check: true } : {}),
  };
}

function compare(report: Report, evidence: Evidence, found: CheckedEvidence, known: Known, model: Uint8Array | null): void {
  const { requestId, text, prompt } = known;
  if (requestId !== undefined) {
    // One request has three spellings of its id, which share their digits.
    const digits = (id: string) => id.split(/[_-]/).at(-1);
    if (digits(requestId) !== digits(evidence.requestId)) {
      throw new MismatchError("other_request_id", `this is the evidence of ${evidence.requestId}, not of ${requestId}`);
    }
    report.checked.push("it is the evidence of the request that was asked for");
  }
  if (model !== null) {
    const other = report.answers.find((one) => one.model !== `blake3:${hex(model)}`);
    if (other) throw new MismatchError("unexpected_model", `the answer is by ${other.model}, not by blake3:${hex(model)}`);
    report.checked.push("it is the model that was expected");
  }
  if (text !== undefined) {
    const texts = wholeTexts(evidence, found);
    if (!texts.includes(text)) {
      const [at, there] = nearestDifference(texts, text);
      const fault =
        "the text that was given is not the one that was signed: they differ from " +
        `byte ${at} on, where the signed one has ${JSON.stringify(there)}`;
      throw new MismatchError("unexpected_text", fault);
    }
    report.checked.push("the text is the one that was given to compare");
  } else {
    report.notChecked.push("that the text you saw is this text (give it as `text`, or read it here)");
  }
  if (prompt !== undefined) {
    if (!evidence.answers.some((answer) => lastWords(answer.request) === prompt)) {
      const fault = "the request that was signed has another last message than the one that was given";
      throw new MismatchError("unexpected_prompt", fault);
    }
    report.checked.push("the last message is the one that was given to compare");
  } else {
    report.notChecked.push("that the request is the one you sent (give its last message as `prompt`, or read it here)");
  }
}

/** The prompt, or the last message of a chat. */
function lastWords(request: Fields): string | null {
  const { choice, fields } = request.prompt as Prompt;
  if (choice === "chat") return (fields.messages as Fields[]).at(-1)?.content ?? null;
  return choice === "text" ? fields.text : null;
}

/** The answers, each put together from what its workers gave. */
function wholeTexts(evidence: Evidence, found: CheckedEvidence): string[] {
  const texts: string[] = [];
  let current = "";
  for (const [at, one] of found.answers.entries()) {
    const answer = evidence.answers[at];
    if (answer === undefined) break;
    // Whoever begins anew relies on nobody before.
    current = answer.resumedIds.length > 0 ? current + answer.text : answer.text;
    if (isEnd(one)) texts.push(current);
  }
  // What was only begun counts where there is nothing else: one answer, that failed.
  return texts.length > 0 ? texts : [current];
}

/** Where a text leaves the one among these that it follows longest, and how that one goes on. */
function nearestDifference(signed: string[], given: string): [number, string] {
  let best: [number, string] = [0, ""];
  for (const text of signed) {
    let at = 0;
    while (at < text.length && text[at] === given[at]) at += 1;
    // Whole characters only.
    if (at > 0 && at < text.length && text.charCodeAt(at) >>> 10 === 0x37) at -= 1;
    const bytes = utf8(text.slice(0, at)).length;
    if (bytes >= best[0]) best = [bytes, Array.from(text.slice(at, at + 60)).slice(0, 30).join("")];
  }
  return best;
}
