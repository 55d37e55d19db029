/** JSON: the evidence file, and tools and arguments within a request. */
import { textOf } from "./bytes.js";
import { FormatError } from "./errors.js";

/** A JSON number that no field of evidence has: with a fraction, an exponent, or too large. */
export const OTHER = Symbol("a number that no field has");

/** A value as it was read; integers are exact, and an object's fields in their order. */
export type Json = null | boolean | bigint | string | typeof OTHER | Json[] | Map<string, Json>;

class Wrong extends Error {}

const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const HALF = /[\ud800-\udfff]/u;

class Parser {
  #at = 0;
  constructor(
    readonly text: string,
    readonly isCompact: boolean,
    readonly depth: number,
  ) {}

  whole(): Json {
    const value = this.#value(0);
    this.#space();
    if (this.#at !== this.text.length) this.#wrong("more behind the end");
    return value;
  }

  #wrong(problem: string): never {
    throw new Wrong(`${problem} at character ${this.#at}`);
  }

  #space(): void {
    while (!this.isCompact && " \t\n\r".includes(this.text[this.#at] ?? "x")) this.#at += 1;
  }

  #next(wanted: string): boolean {
    this.#space();
    if (this.text[this.#at] !== wanted) return false;
    this.#at += 1;
    return true;
  }

  #value(depth: number): Json {
    this.#space();
    const first = this.text[this.#at];
    if (first === "{" || first === "[") {
      if (depth === this.depth) this.#wrong("too many levels");
      this.#at += 1;
      return first === "{" ? this.#object(depth + 1) : this.#list(depth + 1);
    }
    if (first === '"') return this.#string();
    for (const [word, value] of [["true", true], ["false", false], ["null", null]] as const) {
      if (this.text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    return this.#number();
  }

  #object(depth: number): Json {
    const fields = new Map<string, Json>();
    if (this.#next("}")) return fields;
    for (;;) {
      this.#space();
      const name = this.#string();
      if (!this.#next(":")) this.#wrong("no colon behind a name");
      if (!this.isCompact && fields.has(name)) this.#wrong("a field is repeated");
      fields.set(name, this.#value(depth));
      if (this.#next("}")) return fields;
      if (!this.#next(",")) this.#wrong("neither a comma nor an end");
    }
  }

  #list(depth: number): Json {
    const items: Json[] = [];
    if (this.#next("]")) return items;
    for (;;) {
      items.push(this.#value(depth));
      if (this.#next("]")) return items;
      if (!this.#next(",")) this.#wrong("neither a comma nor an end");
    }
  }

  #string(): string {
    if (this.text[this.#at] !== '"') this.#wrong("no string");
    let end = this.#at + 1;
    let isPlain = true;
    for (; ; end++) {
      const code = this.text.charCodeAt(end);
      if (code === 0x22) break;
      if (Number.isNaN(code)) this.#wrong("a string without an end");
      if (code < 0x20) this.#wrong("a control character in a string");
      if (code === 0x5c) {
        isPlain = false;
        end += 1;
      }
    }
    const token = this.text.slice(this.#at, end + 1);
    let string = token.slice(1, -1);
    if (!isPlain) {
      try {
        string = JSON.parse(token) as string;
      } catch {
        this.#wrong("an unknown escape");
      }
      if (HALF.test(string)) this.#wrong("half a character");
    }
    this.#at = end + 1;
    return string;
  }

  #number(): Json {
    NUMBER.lastIndex = this.#at;
    const found = NUMBER.exec(this.text);
    if (found === null) this.#wrong("no value");
    const text = found[0];
    const isInteger = found[1] === undefined && found[2] === undefined;
    if (this.isCompact) {
      //
      const isLarge = isInteger ? text.length > 20 || BigInt(text.replace("-", "")) >> 63n : !Number.isFinite(Number(text));
      if (isLarge) this.#wrong("a number beyond what requests hold");
    }
    this.#at += text.length;
    return isInteger && text.length <= 20 && text !== "-0" ? BigInt(text) : OTHER;
  }
}

/** The value; repeated fields, half characters and deep nesting are refused. */
export function parse(data: Uint8Array): Json {
  const text = textOf(data);
  if (text === null) throw new FormatError("not_json", "not an evidence file: it is not UTF-8", "R-8.1");
  try {
    return new Parser(text, false, 128).whole();
  } catch (error) {
    if (!(error instanceof Wrong)) throw error;
    throw new FormatError("not_json", `not an evidence file: ${error.message}`, "R-8.1");
  }
}

/** Whether a text is one JSON object as requests hold it. */
export function isCompactObject(text: string): boolean {
  if (!text.startsWith("{")) return false;
  try {
    new Parser(text, true, 64).whole();
    return true;
  } catch (error) {
    if (error instanceof Wrong) return false;
    throw error;
  }
}
