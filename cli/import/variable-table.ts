import { toVariableName } from '../clients/json-client.ts';

/** A variable that the registry will refer to; its value is never in here. */
export interface PlannedVariable {
  name: string;
  /** "secret": its value was in the client's file; "reference": the client's file refers to it, too. */
  kind: 'secret' | 'reference';
  services: string[];
  /** What it is. */
  notes: string[];
  /** Whether every place that refers to it has a default. */
  optional: boolean;
}

/** Names that mean something else to every process, or to the registry's text. */
const RESERVED = new Set(['PATH', 'HOME', 'DOLLAR', 'USER', 'SHELL', 'TMPDIR', 'PWD', 'NODE_OPTIONS']);

/**
 * The variables of one import. A lifted value gets the name that it has, unless that already stands for something else:
 * then the service's name goes before it, and after that a number behind it.
 */
export class VariableTable {
  readonly #values = new Map<string, string>();
  readonly #variables = new Map<string, PlannedVariable>();
  readonly #taken: (name: string, service: string) => boolean;

  /** `taken`: whether a service of the registry that is not this one refers to that name. */
  constructor(taken: (name: string, service: string) => boolean) {
    this.#taken = taken;
  }

  /** Values of the lifted secrets by variable. */
  get values(): ReadonlyMap<string, string> {
    return this.#values;
  }

  get variables(): PlannedVariable[] {
    return [...this.#variables.values()];
  }

  /** A variable that the client's file itself refers to. */
  refer(
    name: string,
    service: string,
    { note, optional }: { note?: string | undefined; optional: boolean },
  ): void {
    const variable = this.#add(name, 'reference', service, note);
    variable.optional &&= optional;
  }

  /** Keeps a value that the file itself has for a variable; false when another value is kept already. */
  hold(name: string, value: string, service: string, why: string): boolean {
    if ((this.#values.get(name) ?? value) !== value) return false;
    this.#values.set(name, value);
    const variable = this.#add(name, 'secret', service, why);
    variable.kind = 'secret';
    variable.optional = false;
    return true;
  }

  /** Gives a secret a variable, the same one to the same value. */
  lift(wanted: string, value: string, service: string, why: string): string {
    const prefix = `${toVariableName(service)}_`;
    const base = wanted.startsWith(prefix) ? wanted : `${prefix}${wanted}`;
    for (let n = 0; ; n += 1) {
      const name = n === 0 ? wanted : n === 1 ? base : `${base}_${n}`;
      if (!this.#isFree(name, value, service)) continue;
      this.#values.set(name, value);
      this.#add(name, 'secret', service, why).optional = false;
      return name;
    }
  }

  #isFree(name: string, value: string, service: string): boolean {
    const known = this.#values.get(name);
    if (known !== undefined) return known === value;
    return !RESERVED.has(name) && !this.#variables.has(name) && !this.#taken(name, service);
  }

  #add(
    name: string,
    kind: PlannedVariable['kind'],
    service: string,
    note: string | undefined,
  ): PlannedVariable {
    const variable = this.#variables.get(name) ?? { name, kind, services: [], notes: [], optional: true };
    if (!variable.services.includes(service)) variable.services.push(service);
    if (note !== undefined && !variable.notes.includes(note)) variable.notes.push(note);
    this.#variables.set(name, variable);
    return variable;
  }
}
