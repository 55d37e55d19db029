/**
 * What can be wrong with evidence. Whatever the input, `verify` rejects with nothing else.
 *
 * Codes are the same in every release and in the Python package.
 */

/** The evidence does not hold. */
export class ReceiptError extends Error {
  /** Which fault. */
  readonly code: string;
  /** The rule of `docs/spec/receipt.md` that is broken, where one is. */
  readonly rule: string | null;
  /** What is wrong, without the rule and the place. */
  readonly fault: string;
  /** The answer it was found in, counted from 0, where it is in one. */
  readonly answer: number | null;

  constructor(code: string, fault: string, rule: string | null = null, answer: number | null = null) {
    const where = answer === null ? "" : `answer ${answer} does not hold: `;
    super(`${where}${fault}${rule === null ? "" : ` (${rule})`}`);
    this.name = new.target.name;
    this.code = code;
    this.fault = fault;
    this.rule = rule;
    this.answer = answer;
  }

  /** The same, found in this answer. */
  inAnswer(answer: number): ReceiptError {
    const Kind = this.constructor as new (...given: ConstructorParameters<typeof ReceiptError>) => ReceiptError;
    return new Kind(this.code, this.fault, this.rule, answer);
  }
}

/** It is no evidence file: not its JSON, or not its fields. */
export class FormatError extends ReceiptError {}
/** Bytes in it are not the one encoding of what they should be. */
export class EncodingError extends ReceiptError {}
/** A signature is not valid, or not by the one it must be by. */
export class SignatureError extends ReceiptError {}
/** Its parts do not belong together, or break a rule that the parties keep to. */
export class BindingError extends ReceiptError {}
/** It holds by itself, and is not about what you gave to compare. */
export class MismatchError extends ReceiptError {}
/** The evidence could not be fetched. */
export class FetchError extends ReceiptError {}
