/**
 * Checks the signed receipts of a Surety network on your own machine.
 *
 * ```ts
 * import { verify } from "@surety/receipts";
 * const report = await verify(evidenceJson, { text: answer, prompt: question });
 * ```
 */
export {
  BindingError,
  EncodingError,
  FetchError,
  FormatError,
  MismatchError,
  ReceiptError,
  SignatureError,
} from "./errors.js";
export { type AnswerReport, type Known, type Report, fetchAndVerify, fetchEvidence, verify } from "./verify.js";
