import { toVariableName } from '../clients/json-client.ts';
import type { Draft } from './draft.ts';
import { type Secret, secretsInText, secretsOfArgument, secretsOfNamed } from './secrets.ts';
import { plainText, type Segment } from './segments.ts';
import type { VariableTable } from './variable-table.ts';

/** A shorter text may be anywhere by chance. */
const KNOWN_LENGTH = 8;

/** Puts variables in the place of secrets; their values go into the table, and nowhere else. */
export function liftSecrets(draft: Draft, table: VariableTable): void {
  const { name: service } = draft.names;
  const lift = (
    field: string,
    segments: Segment[],
    secretsOf: (text: string) => Secret[],
    named: (secret: Secret) => string,
  ) => {
    const whole = plainText(segments) !== undefined;
    return segments.flatMap(segment => {
      if (segment.kind === 'env') return [liftDefault(segment, field, draft, table)];
      const secrets = whole ? secretsOf(segment.text) : secretsInText(segment.text);
      return cut(segment.text, secrets, (value, secret) => {
        const name = table.lift(named(secret), value, service, secret.why);
        draft.changes.push(`${field}: \${${name}} in place of a secret (${secret.why})`);
        return name;
      });
    });
  };
  for (const [key, segments] of draft.env) {
    const base = /^[A-Za-z_]\w*$/.test(key) ? key : toVariableName(key);
    const named = ({ name }: Secret) => (name === '' ? base : `${base}_${toVariableName(name)}`);
    draft.env.set(
      key,
      lift(`env.${key}`, segments, text => secretsOfNamed(key, text), named),
    );
  }
  draft.args = draft.args.map((segments, i, all) => {
    const before = plainText(all[i - 1] ?? []);
    const flag = before !== undefined && /^--?[A-Za-z][\w-]*$/.test(before) ? before : undefined;
    const named = ({ name }: Secret) =>
      /^[A-Z][A-Z0-9_]*$/.test(name) && name !== 'TOKEN' && name !== 'PASSWORD'
        ? name
        : `${toVariableName(service)}_${toVariableName(name)}`;
    return lift(`args[${i}]`, segments, text => secretsOfArgument(text, flag), named);
  });
  for (const [key, value] of draft.fromFile) {
    const name = table.lift(key, value, service, 'from the envFile');
    draft.env.set(key, [{ kind: 'env', name }]);
  }
}

/** Puts the variables of secrets also where only their values showed that they are some. */
export function liftKnownSecrets(draft: Draft, table: VariableTable): void {
  const known = [...table.values].filter(([, value]) => value.length >= KNOWN_LENGTH);
  const sweep = (field: string, segments: readonly Segment[]): Segment[] =>
    segments.flatMap(segment => {
      if (segment.kind === 'env') return [segment];
      const found = known.find(([, value]) => segment.text.includes(value));
      if (!found) return [segment];
      const [name, value] = found;
      draft.changes.push(`${field}: \${${name}}, the same secret`);
      table.lift(name, value, draft.names.name, 'the same secret');
      const start = segment.text.indexOf(value);
      const parts = cut(segment.text, [{ start, end: start + value.length, why: '', name: '' }], () => name);
      return sweep(field, parts);
    });
  draft.args = draft.args.map((segments, i) => sweep(`args[${i}]`, segments));
  for (const [key, segments] of draft.env) draft.env.set(key, sweep(`env.${key}`, segments));
}

/** A default that is a secret is one as much as a value. */
function liftDefault(
  segment: Segment & { kind: 'env' },
  field: string,
  draft: Draft,
  table: VariableTable,
): Segment {
  const { name, fallback } = segment;
  if (fallback === undefined || secretsOfNamed(name, fallback).length === 0) return segment;
  const { name: service } = draft.names;
  const why = `the default of ${name} in the client's file`;
  const own = table.hold(name, fallback, service, why) ? name : table.lift(name, fallback, service, why);
  draft.changes.push(`${field}: \${${own}} without its default, which looks like a secret`);
  return { kind: 'env', name: own };
}

function cut(
  text: string,
  secrets: readonly Secret[],
  replace: (value: string, secret: Secret) => string,
): Segment[] {
  const segments: Segment[] = [];
  let at = 0;
  for (const secret of secrets) {
    if (secret.start > at) segments.push({ kind: 'text', text: text.slice(at, secret.start) });
    segments.push({ kind: 'env', name: replace(text.slice(secret.start, secret.end), secret) });
    at = secret.end;
  }
  if (at < text.length) segments.push({ kind: 'text', text: text.slice(at) });
  return segments;
}
