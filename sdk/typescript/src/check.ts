/**
 * Checking an answer against everything that was signed about it, without running the model.
 *
 * The wording of what holds and what was not checked is that of `surety verify`; the order of the checks is that of the rules,
 * so the first fault found is the same.
 */
import { concat, hex, same, utf8 } from "./bytes.js";
import { ZERO, digest, idsDigest, plain } from "./digests.js";
import { BindingError, MismatchError, ReceiptError } from "./errors.js";
import type { Answer, Evidence, Said } from "./evidence.js";
import {
  ARITHMETIC_VERSION,
  type Fields,
  KINDS,
  NO_ARITHMETIC,
  type Prompt,
  due,
  grammarDigest,
  isVector,
  samplingSeed,
} from "./records.js";

export const CHECKS = {
  order_signature: "the order carries its payer's signature",
  request: "the request is the one that was ordered",
  acceptance: "the worker accepted this order under its signature",
  receipt: "the worker signed this receipt for this order",
  worker: "the worker is the expected one",
  parameters: "model, arithmetic and seed are the order's",
  word: "the model's name is the order's; the receipt claims no arithmetic (tier `signed`)",
  prompt_tokens: "the prompt's tokens are the receipt's",
  resumed: "the tokens it resumes from are the order's",
  progress: "a worker broke off; the tokens and the text counted for it are those it had signed",
  continuation: "each part of the answer goes on where the one before it ended",
  output_tokens: "the output's tokens are the receipt's",
  text: "the text is the receipt's, to the byte",
  vector: "the vector is the one the receipt commits to, to the bit",
  finish: "the finish reason agrees with tokens, limit and stop strings",
  price: "price and charge are as accepted and within the ceiling",
  deadline: "the answer was done by its deadline, by the worker's clock",
  salt: "the state commitment comes with its salt",
  envelope: "the envelope carries its gateway's signature",
  gateway: "the gateway is the expected one",
  parts: "the envelope names exactly these receipts",
  repeated: "another worker, ordered the same answer, signed for the same tokens and text",
};
export const NOT_CHECKED = {
  payer: "who holds the payer's key",
  worker: "who holds the worker's key",
  gateway: "who holds the gateway's key",
  prompt_tokens: "that the prompt was tokenised as the model prescribes (needs the model)",
  text_of_tokens: "that the text is what the tokens spell (needs the model)",
  limit: "that the worker's context is what lowered the limit",
  end_token: "that the last token is one at which the model ends (needs the model)",
  computation: "that the model gives these tokens (needs a recomputation)",
  vector: "the vector, which is not here",
  clocks: "that the parties' clocks were right",
  upstream:
    "which model gave this text, by which parameters: a server of the operator's choice did, " +
    "and nobody can compute it again (the operator's upstream sees the text)",
  usage: "the token counts, which are the upstream's by the operator's word",
  audit: "not audited: the payer forbade disclosure (whoever has this evidence can compute the answer again)",
};
type Check = keyof typeof CHECKS;
type Unchecked = keyof typeof NOT_CHECKED;

/** An answer that keeps to everything that was signed about it. */
export interface Checked {
  order: Fields;
  acceptance: Fields | null;
  receipt: Fields | null;
  worker: Uint8Array;
  outputTokens: number;
  checked: Check[];
  notChecked: Unchecked[];
}

/** Tokens of the answer that were there already. */
export const resumedTokens = (order: Fields): number => (order.resumed?.output_tokens as number | undefined) ?? 0;
/** Whether the answer ends here: it is receipted, and no failure. */
export const isEnd = (one: Checked): boolean => one.receipt !== null && one.receipt.outcome === null;

function require(holds: boolean, code: string, fault: string, rule: string): asserts holds {
  if (!holds) throw new BindingError(code, fault, rule);
}

async function open({ message, kind, value }: Said): Promise<Fields> {
  await message.verify();
  const signer = value[KINDS[kind].signer] as Uint8Array;
  require(same(signer, message.signer), "wrong_signer", `the ${kind} names another signer`, "R-3.3");
  return value;
}

const orderDigest = (answer: Answer): Uint8Array => digest("order", answer.order.message.payload);
const textDigest = (text: string): Uint8Array => digest("output text", utf8(text));
const isSameIds = (a: number[], b: number[]): boolean => a.length === b.length && a.every((id, at) => id === b[at]);

/** The receipt may be for a failure. */
async function checkAnswer(answer: Answer, worker: Uint8Array | null): Promise<Checked> {
  const order = await open(answer.order);
  const named = orderDigest(answer);
  const checked: Check[] = ["order_signature"];
  const notChecked: Unchecked[] = ["payer"];

  const { request } = answer;
  const isOrdered = same(digest("request", answer.requestData), order.request_digest);
  require(isOrdered, "other_request", "the request is not the one that was ordered", "R-4.3");
  const grammar = grammarDigest(request.grammar);
  const wanted = order.sampling.grammar as Uint8Array | null;
  const isSameGrammar = grammar === null || wanted === null ? grammar === wanted : same(grammar, wanted);
  require(isSameGrammar, "other_grammar", "the request's grammar is not the one that the order names", "G-1");
  checked.push("request");
  if (order.disclosure !== null) notChecked.push("audit");
  const [ordered, there] = [resumedTokens(order), answer.resumedIds.length];
  require(ordered === there, "resumed_count", `the order resumes from ${ordered} tokens; there are ${there}`, "R-5.8");
  if (order.resumed !== null) {
    const isResumed = same(idsDigest("output ids", answer.resumedIds), order.resumed.output_digest);
    require(isResumed, "resumed_digest", "the tokens it resumes from are not the ones that were ordered", "R-5.8");
    checked.push("resumed");
  }

  if (answer.receipt === null) return checkBroken(answer, order, named, worker, checked, notChecked);
  require(answer.progress === null, "progress_beside_receipt", "there is a receipt, and a progress beside it", "R-8.6");
  const receipt = await open(answer.receipt);
  const isFailed = receipt.outcome !== null;
  let acceptance: Fields | null = null;
  if (answer.acceptance !== null) {
    acceptance = await openAcceptance(answer.acceptance, worker ?? receipt.worker, order, named, worker !== null);
    checked.push("acceptance");
  } else {
    require(isFailed, "acceptance_missing", "the order was answered without having been accepted", "R-5.1");
  }

  checkBindings(order, named, acceptance, receipt, worker);
  const byWord = isByWord(receipt);
  if (byWord) checkWord(order, acceptance, answer, receipt);
  checked.push("receipt", byWord ? "word" : "parameters");
  if (worker === null) notChecked.push("worker");
  else checked.push("worker");
  if (checkPrompt(answer, receipt)) checked.push("prompt_tokens");
  if ((request.prompt as Prompt).choice !== "tokens" && !byWord) notChecked.push("prompt_tokens");

  const [counted, found] = [receipt.output_tokens as number, answer.outputIds.length];
  require(counted === found, "output_count", `the receipt counts ${counted} output tokens; there are ${found}`, "R-6.4");
  const isOutput = same(idsDigest("output ids", answer.outputIds), receipt.output_digest);
  require(isOutput, "output_digest", "the output's tokens are not the ones in the receipt", "R-6.4");
  require(same(textDigest(answer.text), receipt.text_digest), "text_digest", "the text is not the one in the receipt", "R-6.4");
  if (!byWord) checked.push("output_tokens");
  checked.push("text");
  if (byWord) notChecked.push("upstream", "usage");
  else notChecked.push("text_of_tokens");

  checkFinish(order, request, acceptance, receipt, answer.text);
  checked.push("finish");
  if (acceptance !== null && acceptance.max_output_tokens < order.max_output_tokens) notChecked.push("limit");
  if (receipt.finish === "stop" && !order.ignore_end && !byWord) notChecked.push("end_token");

  const isAccepted = ["prompt", "cached", "output"].every((name) => receipt.price[name] === (acceptance?.price[name] ?? 0n));
  require(isAccepted, "other_price", "the price in the receipt is not the accepted one", "R-6.7");
  const owed = due(receipt);
  require(owed !== null, "charge_overflow", "the charge cannot be computed", "R-6.7");
  require(receipt.charge === owed, "charge", `the charge is ${receipt.charge}; it should be ${owed}`, "R-6.7");
  checked.push("price");
  const isAcceptedThen = acceptance === null || acceptance.accepted_ms === receipt.accepted_ms;
  require(isAcceptedThen, "accepted_at", "receipt and acceptance differ in when it was accepted", "R-6.5");
  require(isFailed || receipt.done_ms <= order.deadline_ms, "late", "the answer was done after its deadline", "R-6.5");
  checked.push("deadline");
  notChecked.push("clocks");

  const hasSalt = !same(answer.salt, ZERO);
  const hasCommitment = !same(receipt.state_commitment, ZERO);
  if (isFailed) {
    require(!hasSalt && !hasCommitment, "failure_with_state", "a failure that commits to a state", "R-6.10");
  } else if (!byWord) {
    require(hasSalt, "salt_missing", "the salt of the state commitment is missing", "R-6.9");
    require(hasCommitment, "commitment_missing", "the state commitment is missing", "R-6.9");
  }
  const vector = checkVector(answer, receipt);
  if (vector === true) checked.push("vector");
  if (vector === false) notChecked.push("vector");
  if (!isFailed && !byWord) {
    checked.push("salt");
    notChecked.push("computation");
  }
  return { order, acceptance, receipt, worker: receipt.worker, outputTokens: counted, checked, notChecked };
}

/** what is left of an answer that its worker broke off. */
async function checkBroken(
  answer: Answer,
  order: Fields,
  named: Uint8Array,
  worker: Uint8Array | null,
  checked: Check[],
  notChecked: Unchecked[],
): Promise<Checked> {
  if (answer.acceptance === null) {
    throw new BindingError("acceptance_missing", "the order was answered without having been accepted", "R-5.1");
  }
  const expected = worker ?? answer.acceptance.message.signer;
  const acceptance = await openAcceptance(answer.acceptance, expected, order, named, worker !== null);
  checked.push("acceptance");
  if (worker === null) notChecked.push("worker");
  else checked.push("worker");
  let signed = 0;
  let holds = answer.outputIds.length === 0 && answer.text === "";
  if (answer.progress !== null) {
    const progress = await open(answer.progress);
    require(same(progress.worker, expected), "other_worker", "the progress is by another worker", "R-8.6");
    require(same(progress.order, named), "progress_of_other_order", "the progress is for another order", "R-8.6");
    signed = progress.output_tokens as number;
    holds =
      answer.outputIds.length === signed &&
      same(idsDigest("output ids", answer.outputIds), progress.output_digest) &&
      same(textDigest(answer.text), progress.text_digest);
  }
  const fault = "tokens or text are not those that were signed for before the worker broke off";
  require(holds, "not_signed_for", fault, "R-8.6");
  require(answer.embedding === null, "vector_unasked", "there is a vector where none was given", "R-5.9");
  const limit = acceptance.max_output_tokens as number;
  require(signed <= limit, "over_limit", `${signed} output tokens are more than the limit of ${limit}`, "R-6.8");
  require(same(answer.salt, ZERO), "failure_with_state", "a failure that commits to a state", "R-6.10");
  checked.push("progress");
  if (answer.outputIds.length > 0) notChecked.push("text_of_tokens", "computation");
  return { order, acceptance, receipt: null, worker: expected, outputTokens: signed, checked, notChecked };
}

/** an acceptance promises what was ordered, no dearer, no later, no longer. */
async function openAcceptance(
  said: Said,
  expected: Uint8Array,
  order: Fields,
  named: Uint8Array,
  isReaders: boolean,
): Promise<Fields> {
  if (!same(said.message.signer, expected)) {
    const fault = `the acceptance is by ${hex(said.message.signer)}, not by ${hex(expected)}`;
    throw new (isReaders ? MismatchError : BindingError)("other_worker", fault, "R-6.6");
  }
  const acceptance = await open(said);
  require(same(acceptance.order, named), "acceptance_of_other_order", "the acceptance is for another order", "R-5.2");
  const isModel = same(acceptance.model, order.model);
  require(isModel, "acceptance_of_other_model", "the acceptance is for another model", "R-5.2");
  const isDeadline = acceptance.deadline_ms === order.deadline_ms;
  require(isDeadline, "deadline_moved", "the acceptance moves the deadline", "R-5.2");
  const isWithin = ["prompt", "cached", "output"].every((name) => acceptance.price[name] <= order.price_ceiling[name]);
  require(isWithin, "price_above_ceiling", "the accepted price is above the order's ceiling", "R-5.2");
  const isNoLonger = acceptance.max_output_tokens <= order.max_output_tokens;
  require(isNoLonger, "limit_raised", "the acceptance raises the limit", "R-5.2");
  const isInTime = acceptance.accepted_ms <= order.deadline_ms;
  require(isInTime, "accepted_late", "the order was accepted after its deadline", "R-5.2");
  return acceptance;
}

/** the receipt is this worker's, for this order. */
function checkBindings(
  order: Fields,
  named: Uint8Array,
  acceptance: Fields | null,
  receipt: Fields,
  worker: Uint8Array | null,
): void {
  if (worker !== null && !same(worker, receipt.worker)) {
    const fault = `the receipt is by ${hex(receipt.worker)}, not by ${hex(worker)}`;
    throw new MismatchError("other_worker", fault, "R-6.6");
  }
  require(same(receipt.order, named), "receipt_of_other_order", "the receipt is for another order", "R-6.6");
  require(same(receipt.model, order.model), "other_model", "the receipt is for another model", "R-6.6");
  const isKnown = receipt.arithmetic === ARITHMETIC_VERSION || receipt.arithmetic === NO_ARITHMETIC;
  require(isKnown, "other_arithmetic", `arithmetic version ${receipt.arithmetic} is not known here`, "R-6.6");
  require(same(receipt.seed, samplingSeed(order)), "other_seed", "the seed is not the one the order prescribes", "R-6.6");
  const isCounted = acceptance === null || isByWord(receipt) || acceptance.prompt_tokens === receipt.prompt_tokens;
  require(isCounted, "prompt_count", "acceptance and receipt differ in the prompt's length", "R-6.6");
}

/** of a completed answer. */
const isByWord = (receipt: Fields): boolean => receipt.arithmetic === NO_ARITHMETIC && receipt.outcome === null;

/** an answer by its worker's word claims no token ids, no state, and continues nothing. */
function checkWord(order: Fields, acceptance: Fields | null, answer: Answer, receipt: Fields): void {
  const { request } = answer;
  const hasPrompt = answer.promptIds !== null || !same(receipt.prompt_digest, idsDigest("prompt ids", []));
  const { prompt, cached, output } = receipt.price as Record<string, bigint>;
  const claims: [string, boolean][] = [
    ["continues what somebody else began", order.resumed !== null],
    ["answers token ids", (request.prompt as Prompt).choice === "tokens"],
    ["answers an order with a grammar", request.grammar !== null],
    ["answers with a vector", request.embedding !== null],
    ["was accepted for a counted prompt", acceptance !== null && acceptance.prompt_tokens !== 0],
    ["names the prompt's tokens", hasPrompt],
    ["names the output's tokens", answer.outputIds.some((id) => id !== 0)],
    ["counts cached tokens", receipt.cached_tokens !== 0],
    ["is to be paid", Boolean(prompt || cached || output) || order.channel !== null],
    ["commits to a state", !same(answer.salt, ZERO) || !same(receipt.state_commitment, ZERO)],
  ];
  for (const [what, isSo] of claims) require(!isSo, "word", `the receipt claims no arithmetic, and ${what}`, "R-13");
}

/** for the prompt where its ids are known. Says whether they were. */
function checkPrompt(answer: Answer, receipt: Fields): boolean {
  const prompt = answer.request.prompt as Prompt;
  const ordered = prompt.choice === "tokens" ? (prompt.fields.tokens as number[]) : null;
  if (ordered !== null && answer.promptIds !== null) {
    const isOrdered = isSameIds(ordered, answer.promptIds);
    require(isOrdered, "other_prompt_tokens", "the prompt's tokens are not the ones that were ordered", "R-4.2");
  }
  // A refusal may come before the prompt was tokenised.
  if (answer.acceptance === null && receipt.prompt_tokens === 0) return false;
  const known = ordered ?? answer.promptIds;
  if (known === null) return false;
  // what is resumed from is given to the model after the prompt.
  const ids = known.concat(answer.resumedIds);
  const fault = `the receipt counts ${receipt.prompt_tokens} prompt tokens; there are ${ids.length}`;
  require(ids.length === receipt.prompt_tokens, "prompt_tokens", fault, "R-6.4");
  const isPrompt = same(idsDigest("prompt ids", ids), receipt.prompt_digest);
  require(isPrompt, "prompt_digest", "the prompt's tokens are not the ones in the receipt", "R-6.4");
  return true;
}

/** */
function checkFinish(order: Fields, request: Fields, acceptance: Fields | null, receipt: Fields, text: string): void {
  const found = receipt.output_tokens as number;
  if (acceptance === null) {
    require(found === 0, "refusal_with_output", `a refusal that counts ${found} output tokens`, "R-6.10");
    return;
  }
  const limit = acceptance.max_output_tokens as number;
  const stop = request.stop as string[];
  require(found <= limit, "over_limit", `${found} output tokens are more than the limit of ${limit}`, "R-6.8");
  // where an upstream says it ends, it ends.
  if ((receipt.finish === "length" || receipt.finish === "stop") && isByWord(receipt)) {
    // Nothing here can say more.
  } else if (receipt.finish === "length") {
    const fault = `said to have reached the limit of ${limit} tokens with ${found}`;
    require(found === limit, "limit_not_reached", fault, "R-6.8");
  } else if (receipt.finish === "stop") {
    const nothing = "said to have stopped by itself without a single token";
    require(found > 0 || order.resumed !== null, "stopped_at_nothing", nothing, "R-6.8");
    const nowhere = "said to have stopped by itself, where neither an end token nor a stop string could stop it";
    require(!order.ignore_end || stop.length > 0, "nothing_to_stop_at", nowhere, "R-6.8");
  } else if (receipt.finish === "unpaid") {
    const { prompt, cached, output } = acceptance.price as Record<string, bigint>;
    const fault = "said to have ended unpaid, where nothing was to pay";
    require(Boolean(prompt || cached || output), "nothing_to_pay", fault, "R-6.8");
  }
  const inText = stop.find((one) => text.includes(one));
  require(inText === undefined, "stop_string_in_text", `the text holds a stop string, ${JSON.stringify(inText)}`, "R-6.11");
}

/** whether the vector is what the receipt commits to; null if there is to be none, false if it is not here. */
function checkVector(answer: Answer, receipt: Fields): boolean | null {
  const wanted = receipt.outcome === null ? (answer.request.embedding as Fields | null) : null;
  const data = answer.embedding;
  if (wanted === null) {
    require(data === null, "vector_unasked", "there is a vector where none was asked for, or none was given", "R-5.9");
    return null;
  }
  if (data === null) return false;
  require(isVector(data), "vector", "the vector cannot be one", "R-5.9");
  const [ordered, found] = [wanted.dimensions as number | null, data.length / 4];
  const fault = `the vector has ${found} dimensions; ${ordered} were ordered`;
  require(ordered === null || ordered === found, "vector_dimensions", fault, "R-5.9");
  const opened = digest("state commitment", concat(receipt.worker, answer.salt, plain(data)));
  const isCommitted = same(opened, receipt.state_commitment);
  require(isCommitted, "other_vector", "the vector is not the one that the receipt commits to", "R-5.9");
  return true;
}

/** Evidence whose every answer holds, under an envelope that names them. */
export interface CheckedEvidence {
  envelope: Fields;
  answers: Checked[];
  checked: Check[];
  notChecked: Unchecked[];
}

const MAY_DIFFER = ["channel", "price_ceiling", "deadline_ms", "issued_ms", "max_output_tokens", "resumed"];

function isEqual(a: unknown, b: unknown): boolean {
  if (a instanceof Uint8Array && b instanceof Uint8Array) return same(a, b);
  if (Array.isArray(a) && Array.isArray(b)) return a.length === b.length && a.every((one, at) => isEqual(one, b[at]));
  if (typeof a === "object" && a !== null && typeof b === "object" && b !== null) {
    return Object.keys(a).every((name) => isEqual((a as Fields)[name], (b as Fields)[name]));
  }
  return a === b;
}

/** Whether two orders are for one answer: of one worker after another, or of two to be compared. */
function isSameAnswer(one: Fields, other: Fields): boolean {
  return Object.keys(other).every((name) => MAY_DIFFER.includes(name) || isEqual(other[name], one[name]));
}

/** An answer that was brought to its end. */
interface Whole {
  order: Fields;
  said: unknown[];
  workers: Uint8Array[];
}

/** whether an answer is the same as another, and by nobody who gave that. */
function repeats(whole: Whole, other: Whole): boolean {
  const isByOthers = whole.workers.every((worker) => !other.workers.some((theirs) => same(worker, theirs)));
  return isByOthers && isEqual(whole.said, other.said);
}

/** What the parts of one answer have given so far. */
class Course {
  #ids: number[] = [];
  #text = "";
  #workers: Uint8Array[] = [];
  #limit: number | null = null;

  /** whether an order asks for the rest of what `before` asked for. */
  continues(before: Fields, order: Fields, answer: Answer): boolean {
    const isSame = isSameAnswer(before, order);
    // Nothing that was not signed is resumed from; starting anew resumes from nothing.
    const isPrefix = answer.resumedIds.length === 0 || isSameIds(answer.resumedIds, this.#ids);
    const isRest = this.#limit === null || this.#limit - resumedTokens(order) === order.max_output_tokens;
    return isSame && isPrefix && isRest;
  }

  /** Adds a part; returns the answer, if this brought it to its end. */
  extend(one: Checked, answer: Answer): Whole | null {
    if (resumedTokens(one.order) === 0) this.#text = "";
    this.#ids = this.#ids.slice(0, resumedTokens(one.order)).concat(answer.outputIds);
    this.#text += answer.text;
    this.#workers.push(one.worker);
    if (isEnd(one)) {
      const said = [this.#ids, this.#text, one.receipt?.finish, answer.embedding];
      const whole = { order: one.order, said, workers: this.#workers };
      this.#ids = [];
      this.#text = "";
      this.#workers = [];
      this.#limit = null;
      return whole;
    }
    if (one.acceptance !== null) this.#limit ??= resumedTokens(one.order) + one.acceptance.max_output_tokens;
    return null;
  }
}

/** Checks whole evidence: the envelope, every answer, and that they belong together. */
export async function checkEvidence(
  evidence: Evidence,
  gateway: Uint8Array | null,
  worker: Uint8Array | null,
): Promise<CheckedEvidence> {
  const envelope = await open(evidence.envelope);
  const checked: Check[] = ["envelope"];
  const notChecked: Unchecked[] = [];
  if (gateway === null) {
    notChecked.push("gateway");
  } else if (same(gateway, envelope.gateway)) {
    checked.push("gateway");
  } else {
    throw new MismatchError("other_gateway", `the envelope is by ${hex(envelope.gateway)}, not by ${hex(gateway)}`);
  }
  const parts = envelope.parts as Fields[];
  const count = `the envelope names ${parts.length} answers; there are ${evidence.answers.length}`;
  require(parts.length === evidence.answers.length, "part_count", count, "R-7.3");

  const answers: Checked[] = [];
  const course = new Course();
  const wholes: Whole[] = [];
  let total = 0n;
  for (const [index, answer] of evidence.answers.entries()) {
    try {
      const one = await checkAnswer(answer, worker);
      const last = answers.at(-1);
      const { purpose } = parts[index] as Fields;
      const before = index > 0 ? (parts[index - 1] as Fields).purpose : null;
      const goesOn =
        last !== undefined && !isEnd(last)
          ? course.continues(last.order, one.order, answer) && before === purpose
          : one.order.resumed === null && (purpose !== null || before === null);
      require(goesOn, "not_a_continuation", "it does not go on where the one before it ended", "R-7.5");
      const named = {
        order: orderDigest(answer),
        receipt: answer.receipt && digest("receipt", answer.receipt.data),
        worker: one.worker,
        first_output_token: resumedTokens(one.order),
        output_tokens: one.outputTokens,
        purpose,
      };
      require(isEqual(parts[index], named), "other_part", "it is not the one the envelope names", "R-7.3");
      total += (one.receipt?.charge as bigint | undefined) ?? 0n;
      const whole = course.extend(one, answer);
      if (whole !== null && purpose !== null) {
        const of = wholes.find((other) => isSameAnswer(other.order, whole.order));
        require(of !== undefined, "check_of_nothing", "it is named as a check, and repeats no answer", "R-7.6");
        const fault = "it is named as a check of another, and is not the same or not by others";
        require(of !== undefined && repeats(whole, of), "check_differs", fault, "R-7.6");
      } else if (whole !== null) {
        wholes.push(whole);
      }
      answers.push(one);
    } catch (error) {
      throw error instanceof ReceiptError ? error.inAnswer(index) : error;
    }
  }
  // A failure may stand alone, as the whole of what came.
  const last = answers.at(-1);
  const ends = last !== undefined && (isEnd(last) || (last.receipt !== null && answers.length === 1));
  require(ends, "unfinished", "the last answer is not brought to its end", "R-7.5");
  checked.push("parts");
  if (answers.some((one) => one.order.resumed !== null)) checked.push("continuation");
  if (parts.some((part) => part.purpose !== null)) checked.push("repeated");
  const most = (1n << 128n) - 1n;
  if (total > most) total = most;
  const fault = `the envelope charges ${envelope.charge}; its receipts charge ${total}`;
  require(envelope.charge === total, "envelope_charge", fault, "R-7.4");
  return { envelope, answers, checked, notChecked };
}
