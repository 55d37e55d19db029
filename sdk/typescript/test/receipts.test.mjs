// What holds is reported as the binary reports it; what was edited, forged or is not evidence at all is refused by name.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { test } from "node:test";
import { FetchError, MismatchError, ReceiptError, fetchAndVerify, verify } from "../dist/index.js";
import * as binary32 from "../dist/binary32.js";
import { fromHex, hex } from "../dist/bytes.js";
import { verifies } from "../dist/cose.js";
import { digest } from "../dist/digests.js";
import { said } from "../dist/evidence.js";
import { isCompactObject } from "../dist/json.js";
import { KINDS, decode, samplingSeed } from "../dist/records.js";

const at = (path) => new URL(`../../${path}`, import.meta.url);
const run = (name) => readFileSync(at(`testdata/${name}.json`));
const vector = (name) => JSON.parse(readFileSync(at(`../crates/types/vectors/${name}.json`), "utf8"));
const RUNS = ["chat", "choices", "embedding", "tokens", "resumed"];
const refuses = (given, code, known) =>
  assert.rejects(verify(given, known), (error) => {
    assert.ok(error instanceof ReceiptError, String(error));
    if (code !== undefined) assert.equal(error.code, code, error.message);
    return true;
  });
function put(target, path, value) {
  let inside = target;
  for (const step of path.slice(0, -1)) inside = inside[step];
  inside[path.at(-1)] = value;
}
// A fixed sequence: a failure happens again.
function dice(seed) {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

for (const name of RUNS) {
  test(`what a network gave holds and is reported as the binary does: ${name}`, async () => {
    const report = await verify(run(name));
    const binary = JSON.parse(run(`${name}.report`));
    assert.deepEqual(report.checked, binary.checked);
    // The last two lines name the binary's own options.
    assert.deepEqual(report.notChecked.slice(0, -2), binary.not_checked.slice(0, -2));
    assert.equal(report.notChecked.length, binary.not_checked.length);
    assert.equal(report.requestId, binary.request_id);
    assert.equal(report.gateway, binary.gateway);
    const asBinary = report.answers.map(({ promptTokens, firstOutputToken, outputTokens, ...rest }) => ({
      ...rest, prompt_tokens: promptTokens, first_output_token: firstOutputToken, output_tokens: outputTokens,
    }));
    assert.deepEqual(asBinary, binary.answers);
  });
}

test("what the reader knows is compared", async () => {
  const data = run("chat");
  const plain = await verify(data);
  const [one] = plain.answers;
  const report = await verify(data, {
    requestId: plain.requestId.replace("req_", "chatcmpl-"), text: one.text, prompt: "Who goes there?",
    model: one.model, worker: one.worker, gateway: plain.gateway,
  });
  assert.ok(report.checked.includes("the text is the one that was given to compare"));
  assert.ok(!report.notChecked.some((line) => line.includes("you saw") || line.includes("holds the worker's")));
  const others = [
    [{ requestId: "req_00000000000000000000000000000000" }, "other_request_id"],
    [{ text: `${one.text}\u200b` }, "unexpected_text"],
    [{ prompt: "Who goes where?" }, "unexpected_prompt"],
    [{ model: "0".repeat(64) }, "unexpected_model"],
    [{ worker: "0".repeat(64) }, "other_worker"],
    [{ gateway: "0".repeat(64) }, "other_gateway"],
  ];
  for (const [known, code] of others) {
    await assert.rejects(verify(data, known), (error) => error instanceof MismatchError && error.code === code);
  }
  await assert.rejects(verify(data, { worker: "F".repeat(64) }), TypeError);
  const resumed = await verify(run("resumed"));
  await verify(run("resumed"), { text: resumed.answers.map((answer) => answer.text).join("") });
});

test("edits are refused", async () => {
  const good = run("chat").toString();
  const edited = (path, value, of = "chat") => {
    const made = JSON.parse(run(of));
    put(made, path, value);
    return JSON.stringify(made);
  };
  await refuses(edited(["answers", 0, "text"], "Nobody."), "text_digest");
  await refuses(edited(["answers", 0, "output_ids", 3], 5), "output_digest");
  await refuses(edited(["view", "answers", 0, "receipt", "output_tokens"], 1), "view");
  await refuses(edited(["request_id"], "req_00000000000000000000000000000000"), "request_id");
  await refuses(edited(["more"], 1), "unknown_field");
  await refuses(edited(["answers"], []), "answers");
  await refuses(edited(["answers", 0, "salt"], "00".repeat(32)), "salt_missing");
  await refuses(edited(["answers", 0, "salt"], "AA".repeat(32)), "salt");
  await refuses(edited(["answers", 0, "order"], `${JSON.parse(good).answers[0].order}\n`), "base64");
  await refuses(edited(["answers", 0, "output_ids", 3], true), "wrong_type");
  await refuses(edited(["surety"], true), "version");
  await refuses(good.replace('{"surety":1,', '{"surety":1,"surety":1,'), "not_json");
  await refuses(good.replace('"channel":null,', ""), "missing_field");
  // Where the state can be opened, as of a vector, another salt is refused too.
  await refuses(edited(["answers", 0, "salt"], "11".repeat(32), "embedding"), "other_vector");
});

test("what is signed and breaks a rule is refused by its name", async (t) => {
  const { base, held, cases } = JSON.parse(run("refused"));
  await verify(JSON.stringify(base));
  for (const { checked, edits } of held) {
    const made = structuredClone(base);
    for (const [path, value] of edits) put(made, path, value);
    const report = await verify(JSON.stringify(made));
    assert.ok(report.checked.includes(checked));
    assert.deepEqual(report.answers.map(({ check }) => check ?? false), [false, true]);
  }
  assert.ok(cases.length > 60);
  for (const { name, code, edits } of cases) {
    await t.test(name, async () => {
      const made = structuredClone(base);
      for (const [path, value] of edits) put(made, path, value);
      await refuses(JSON.stringify(made), code);
    });
  }
});

test("an answer by word holds, and claims no more", async () => {
  const { base, by_word: edits } = JSON.parse(run("refused"));
  for (const [path, value] of edits) put(base, path, value);
  const report = await verify(JSON.stringify(base));
  const [said, open] = [report.checked.join("\n"), report.notChecked.join("\n")];
  assert.match(said, /claims no arithmetic[^]*the text is the receipt's/);
  assert.doesNotMatch(said, /tokens are the receipt's|arithmetic and seed|salt/);
  assert.match(open, /the operator's upstream sees the text[^]*operator's word/);
});

test("vectors are read as they say, whole and not in part", async () => {
  const kinds = { resumed_order: "order", confidential_order: "order", refusal: "receipt" };
  const names = ["order", "resumed_order", "confidential_order", "acceptance", "progress", "receipt", "refusal", "envelope"];
  for (const name of names) {
    const golden = vector(name);
    const one = said(kinds[name] ?? name, fromHex(golden.cose));
    await one.message.verify();
    assert.equal(hex(one.message.payload), golden.cbor);
    const view = KINDS[one.kind].type.view(one.value);
    const shown = JSON.parse(JSON.stringify(view, (_, value) => (typeof value === "bigint" ? Number(value) : value)));
    assert.deepEqual(shown, golden.value);
    for (let cut = 0; cut < one.data.length; cut++) {
      assert.throws(() => said(one.kind, one.data.subarray(0, cut)), ReceiptError);
    }
  }
  for (const name of ["request", "embedding_request"]) {
    const data = fromHex(vector(name).cbor);
    decode("request", data);
    assert.equal(hex(digest("request", data)), vector(name).digest);
  }
  const order = fromHex(vector("order").cbor);
  assert.equal(hex(digest("order", order)), vector("order_derived").digest);
  assert.equal(hex(samplingSeed(decode("order", order))), vector("order_derived").seed);
  assert.equal(hex(digest("receipt", fromHex(vector("receipt").cose))), vector("receipt_digest").digest);
});

test("points of small order verify nothing", async () => {
  const identity = fromHex(`01${"00".repeat(31)}`);
  const signature = new Uint8Array(64);
  signature[0] = 1;
  assert.equal(await verifies(identity, new Uint8Array(3), signature), false);
  assert.equal(await verifies(new Uint8Array(32).fill(255), new Uint8Array(3), new Uint8Array(64)), false);
});

test("binary32 is shown in its shortest decimal", () => {
  const shown = [
    [0x3f333333, "0.7"], [0x3f800000, "1"], [0xbfc00000, "-1.5"], [0, "0"], [0x80000000, "-0"], [0x42c80000, "100"],
    [1, `0.${"0".repeat(44)}1`], [0x3dcccccd, "0.1"], [0x3f59999a, "0.85"], [0x4b800000, "16777216"],
  ];
  for (const [bits, text] of shown) assert.equal(binary32.decimal(bits), text);
  const roll = dice(2);
  for (let times = 0; times < 2000; times++) {
    const bits = (roll(2 ** 32) & 0xbfffffff) >>> 0;
    assert.ok(Object.is(Math.fround(Number(binary32.decimal(bits))), binary32.fromBits(bits)));
  }
});

test("JSON within requests is compact", () => {
  const nested = (levels) => `{"a":${"[".repeat(levels)}${"]".repeat(levels)}}`;
  const good = ["{}", '{"a":[1,-0,2.5e1,"\\u00e9\\ud83d\\ude00\\n"],"b":{},"c":[true,null]}', nested(63), '{"a":1,"a":2}'];
  const bad = ["", "1", "[]", "{", "{ }", "{}{}", "{} ", '{"a"}', '{"a":}', '{"a":1,}', '{"a":01}', '{"a":1.}', '{"a":.5}',
    '{"a":1e}', '{"a":+1}', '{"a":NaN}', '{"a":1e999}', '{"a":9223372036854775808}', '{"a":-9223372036854775808}',
    '{"a":[1,]}', '{"a":[1}', '{"a":tru}', '{"a":"\\ud800"}', '{"a":"\\ud800\\u0041"}', '{"a":"\\x"}', '{"a":"\\u00g0"}',
    '{"a":"\n"}', '{"a":"x}', nested(64)];
  for (const text of good) assert.ok(isCompactObject(text), text);
  for (const text of bad) assert.ok(!isCompactObject(text), text);
});

test("any bytes are refused with our own error", async () => {
  const roll = dice(3);
  const some = (length) => Uint8Array.from({ length }, () => roll(256));
  const kinds = Object.keys(KINDS);
  for (let times = 0; times < 4000; times++) {
    assert.throws(() => decode(kinds[roll(kinds.length)], some(roll(60))), ReceiptError);
    await refuses(some(roll(80)));
  }
  for (let times = 0; times < 6000; times++) {
    const kind = kinds[roll(kinds.length)];
    const data = fromHex(vector(kind).cbor);
    for (let edits = 1 + roll(3); edits > 0; edits--) data[roll(data.length)] = roll(256);
    try {
      KINDS[kind].type.view(decode(kind, data));
    } catch (error) {
      assert.ok(error instanceof ReceiptError, String(error));
    }
  }
  for (let times = 0; times < 400; times++) {
    const data = Uint8Array.from(run(RUNS[roll(RUNS.length)]));
    data.set(some(1 + roll(3)), roll(data.length - 4));
    await verify(data).catch((error) => assert.ok(error instanceof ReceiptError, String(error)));
  }
  for (const text of ["[".repeat(2e5), '{"a":'.repeat(2e5), '"\ud800"', '"\\ud800"', "1".repeat(1e4), "\ufeff{}", ""]) {
    await refuses(text, "not_json").catch(() => refuses(text, "not_an_object"));
  }
});

test("evidence is fetched and checked", async () => {
  const data = run("chat");
  const name = JSON.parse(data).request_id;
  const server = createServer((asked, answer) => {
    const found = asked.url === `/v1/receipts/${name}` && asked.headers.authorization === "Bearer key";
    answer.writeHead(found ? 200 : 404).end(found ? data : "Nothing is kept.");
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  const base = `http://127.0.0.1:${server.address().port}/v1`;
  assert.equal((await fetchAndVerify(base, name, { apiKey: "key" })).requestId, name);
  for (const [url, id] of [[base, "req_1"], [base, "../x"], ["file:///", name], ["http://127.0.0.1:1/v1", name]]) {
    await assert.rejects(fetchAndVerify(url, id, { apiKey: "key" }), FetchError);
  }
  server.closeAllConnections();
  server.close();
});

test("the command says whether it holds", () => {
  const command = (...given) =>
    spawnSync(process.execPath, [new URL("../dist/cli.js", import.meta.url).pathname, ...given], { encoding: "utf8" });
  const path = at("testdata/chat.json").pathname;
  const holds = command(path);
  assert.equal(holds.status, 0);
  assert.match(holds.stdout, /^HOLDS:[^]*NOT checked:/);
  const refused = command(path, "--text", path);
  assert.equal(refused.status, 1);
  assert.match(refused.stdout, /^DOES NOT HOLD: the text/);
  assert.equal(JSON.parse(command(path, "--text", path, "--json").stdout).code, "unexpected_text");
  assert.equal(command(`${path}.none`).status, 2);
  assert.equal(command().status, 2);
});
