import type { Node } from 'jsonc-parser';
import { suggestion } from '../../mesh/yaml-faults.ts';
import type { ClientServer } from './client-format.ts';
import { type JsonFile, kindOf, type Member, memberOf, membersOf } from './json-file.ts';

const CLIENT_ONLY = 'a setting of the client; it stays there';

/** Keys of the wild whose meaning is known and that the registry has no field for. */
const MEANINGS: Readonly<Record<string, string>> = {
  autoApprove: 'which tools the client calls without asking; it stays in the client',
  alwaysAllow: 'which tools the client calls without asking; it stays in the client',
  alwaysLoad: CLIENT_ONLY,
  trust: CLIENT_ONLY,
  disabledTools: 'tools that the client hides; `deny` in the access policy takes them away from callers',
  enabledTools: 'tools that the client shows; `allow` in the access policy says which ones callers have',
  includeTools: 'tools that the client shows; `allow` in the access policy says which ones callers have',
  excludeTools: 'tools that the client hides; `deny` in the access policy takes them away from callers',
  tools: 'tools that the client shows; `allow` in the access policy says which ones callers have',
  headersHelper: 'a program that makes headers; the mesh runs none',
  oauth: 'how the client signs in; the mesh has its own access policy',
  auth: 'how the client signs in; the mesh has its own access policy',
  dev: CLIENT_ONLY,
  gallery: CLIENT_ONLY,
  sandbox: "the client's sandbox; `limits` in the registry bound a server",
  sandboxEnabled: "the client's sandbox; `limits` in the registry bound a server",
  startOnDemand: '`instances: { min: 0, max: 1 }` in the registry starts a server at its first call',
};

/** The members of one entry, and what is wrong with them. */
export class EntryReader {
  readonly #file: JsonFile;
  readonly #node: Node;
  readonly #server: ClientServer;

  constructor(file: JsonFile, node: Node, server: ClientServer) {
    this.#file = file;
    this.#node = node;
    this.#server = server;
  }

  keys(): string[] {
    return membersOf(this.#node).map(member => member.key);
  }

  member(key: string): Member | undefined {
    return memberOf(this.#node, key);
  }

  note(text: string): void {
    this.#server.notes.push(text);
  }

  fault(at: Node, message: string, field = ''): void {
    const name = field === '' ? this.#server.name : `${this.#server.name}.${field}`;
    this.#server.faults.push(`${this.#file.place(at.offset)}: ${name}: ${message}`);
  }

  missing(key: string, hint: string): void {
    this.fault(this.#node, `is missing${hint || '; give it a value'}`, key);
  }

  unknown(member: Member, why: string): void {
    this.#server.unknown.push({ key: member.key, place: this.#file.place(member.offset), why });
  }

  duplicates(): void {
    const keys = this.keys();
    const twice = new Set(keys.filter((key, i) => keys.indexOf(key) !== i));
    for (const key of twice) this.note(`"${key}" stands there several times; clients take the last one`);
  }

  /** A text; numbers and flags are written as such. */
  text(member: Member | undefined, field = member?.key ?? ''): string | undefined {
    if (!member) return undefined;
    const { type, value } = member.value;
    if (type === 'string') {
      if (!String(value).includes('\0')) return String(value);
      this.fault(member.value, 'has a NUL character, which no process can be given; take it out', field);
      return undefined;
    }
    if (type === 'number' || type === 'boolean') {
      this.note(`${field} is ${kindOf(member.value)} and is taken as a text`);
      return String(value);
    }
    this.fault(member.value, `is ${kindOf(member.value)}; it must be a text`, field);
    return undefined;
  }

  list(key: string): string[] {
    const member = this.member(key);
    if (!member || member.value.type === 'null') return [];
    if (member.value.type !== 'array') {
      this.fault(
        member.value,
        `is ${kindOf(member.value)}; it must be a list of texts: ["-y", "some-server"]`,
        key,
      );
      return [];
    }
    return (member.value.children ?? []).flatMap(
      (value, i) => this.text({ key, offset: value.offset, value }, `${key}[${i}]`) ?? [],
    );
  }

  texts(key: string): Map<string, string> {
    const member = this.member(key);
    const texts = new Map<string, string>();
    if (!member || member.value.type === 'null') return texts;
    if (member.value.type !== 'object')
      this.fault(member.value, `is ${kindOf(member.value)}; it must be an object: { "NAME": "value" }`, key);
    for (const inner of membersOf(member.value)) {
      const field = `${key}.${inner.key}`;
      if (!/^[^=\0\s]+$/.test(inner.key) || inner.key === '__proto__')
        this.fault(inner.value, 'is no usable name; letters, digits and "_" make one', field);
      else if (inner.value.type === 'null')
        this.unknown({ ...inner, key: field }, 'null gives the server no such variable');
      else texts.set(inner.key, this.text(inner, field) ?? '');
    }
    return texts;
  }

  flag(key: string): boolean | undefined {
    const member = this.member(key);
    if (!member || member.value.type === 'null') return undefined;
    if (member.value.type === 'boolean') return member.value.value === true;
    this.fault(member.value, `is ${kindOf(member.value)}; it must be true or false`, key);
    return undefined;
  }

  /** Reports every member that has not been read; `ofOthers`: those of the other kind of server. */
  rest(known: readonly string[], ofOthers: readonly string[]): void {
    const seen = new Set<string>();
    for (const member of membersOf(this.#node)) {
      if (known.includes(member.key) || seen.has(member.key)) continue;
      seen.add(member.key);
      const meaning = Object.hasOwn(MEANINGS, member.key) ? MEANINGS[member.key] : undefined;
      const other = ofOthers.includes(member.key);
      const why = other ? 'belongs to the other kind of server' : `not known${suggestion(member.key, known)}`;
      this.unknown(member, meaning ?? why);
    }
  }
}
