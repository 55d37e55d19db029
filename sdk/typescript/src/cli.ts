#!/usr/bin/env node
/** `surety-receipts FILE`: whether evidence holds. Exit status 0: it does; 1: it does not; 2: misuse. */
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { ReceiptError } from "./errors.js";
import { type Report, fetchEvidence, verify } from "./verify.js";

const USAGE = `usage: surety-receipts FILE [--text FILE] [--prompt FILE] [--request-id ID] [--model ID] [--worker KEY] [--gateway KEY] [--json]
       surety-receipts --from URL REQUEST-ID [the same]
FILE is the evidence, - for standard input; --from fetches it from a gateway, as http://HOST/v1, with OPENAI_API_KEY as the key.`;

function show(report: Report): void {
  console.log(`HOLDS: ${report.requestId}, by gateway ${report.gateway}`);
  for (const answer of report.answers) {
    console.log(`  ${answer.outputTokens} tokens of ${answer.model} by worker ${answer.worker}, end: ${answer.finish}`);
    if (answer.failed) console.log(`  it gave no whole answer: ${answer.failed}`);
  }
  for (const [title, lines] of [["checked", report.checked], ["NOT checked", report.notChecked]] as const) {
    console.log(`${title}:`);
    for (const line of lines) console.log(`  ${line}`);
  }
}

async function main(): Promise<number> {
  const text = { type: "string" } as const;
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      from: text, text, prompt: text, "request-id": text, model: text, worker: text, gateway: text,
      json: { type: "boolean" }, help: { type: "boolean" },
    },
  });
  const [subject] = positionals;
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  if (subject === undefined || positionals.length > 1) throw new TypeError("one evidence file is needed");
  const textOf = (path: string | undefined) =>
    path === undefined ? undefined : new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(readFileSync(path));
  try {
    const data =
      values.from === undefined
        ? readFileSync(subject === "-" ? 0 : subject)
        : await fetchEvidence(values.from, subject, { apiKey: process.env.OPENAI_API_KEY });
    const report = await verify(data, {
      requestId: values["request-id"] ?? (values.from === undefined ? undefined : subject),
      text: textOf(values.text),
      prompt: textOf(values.prompt),
      model: values.model,
      worker: values.worker,
      gateway: values.gateway,
    });
    if (values.json) console.log(JSON.stringify({ verified: true, ...report }));
    else show(report);
    return 0;
  } catch (error) {
    if (!(error instanceof ReceiptError)) throw error;
    const { code, rule, answer, message } = error;
    if (values.json) console.log(JSON.stringify({ verified: false, failure: message, code, rule, answer }));
    else console.log(`DOES NOT HOLD: ${message}`);
    return 1;
  }
}

main().then(
  (status) => {
    process.exitCode = status;
  },
  (error: unknown) => {
    console.error(`surety-receipts: ${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
    process.exitCode = 2;
  },
);
