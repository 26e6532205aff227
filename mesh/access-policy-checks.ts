import type { Role } from './access-policy.ts';
import type { PolicyFields } from './access-policy-schema.ts';
import { GRANTS_BYTES_MAX, largestGrants } from './grants.ts';
import { type Fault, type Path, suggestion } from './yaml-faults.ts';

/** What the schema of the access policy cannot say: how its parts fit together. */
export function crossCheck(file: PolicyFields, roles: ReadonlyMap<string, Role>): Fault[] {
  return [
    ...checkRoleNames(file),
    ...checkKeys(file),
    ...checkIssuers(file),
    ...checkToolRates(file),
    ...checkSizes(file, roles),
  ];
}

/** Keys that nobody can use any more: no fault, but somebody may wonder. */
export function expiredKeys({ api_keys: keys }: PolicyFields, now: number): Fault[] {
  return keys.flatMap(({ id, expires }, index) => {
    if (!expires || Date.parse(expires) > now) return [];
    const message = `the key of "${id}" expired; \`mesh keys revoke ${id}\` removes it, \`mesh keys rotate ${id}\` renews it`;
    return [{ path: ['api_keys', index, 'expires'], message }];
  });
}

function checkRoleNames({ anonymous, api_keys: keys, roles }: PolicyFields): Fault[] {
  const names = Object.keys(roles);
  const check = (name: string, path: Path): Fault[] => {
    if (Object.hasOwn(roles, name)) return [];
    const all = names.length > 0 ? `there are: ${names.join(', ')}` : 'the file has none';
    return [{ path, message: `unknown role "${name}"${suggestion(name, names)}; ${all}` }];
  };
  return [
    ...(anonymous === null ? [] : check(anonymous, ['anonymous'])),
    ...keys.flatMap((key, i) => key.roles.flatMap((name, j) => check(name, ['api_keys', i, 'roles', j]))),
  ];
}

function checkKeys({ api_keys: keys }: PolicyFields): Fault[] {
  const faults: Fault[] = [];
  const ids = new Map<string, number>();
  const holders = new Map<string, string>();
  keys.forEach(({ id, hash, previous }, index) => {
    const at = ['api_keys', index];
    const earlier = ids.get(id);
    if (earlier === undefined) ids.set(id, index);
    else
      faults.push({
        path: [...at, 'id'],
        message: `"${id}" is already api_keys[${earlier}]; choose another`,
      });
    const hashes: [string, Path][] = [
      [hash, [...at, 'hash']],
      ...previous.map((former, i): [string, Path] => [former.hash, [...at, 'previous', i, 'hash']]),
    ];
    for (const [text, path] of hashes) {
      const holder = holders.get(text);
      if (holder === undefined) holders.set(text, id);
      else faults.push({ path, message: `is already a key of "${holder}"; one key has one holder` });
    }
  });
  return faults;
}

function checkIssuers({ jwt }: PolicyFields): Fault[] {
  return jwt.flatMap(({ issuer }, index) => {
    const earlier = jwt.findIndex(other => other.issuer === issuer);
    const message = `"${issuer}" is already jwt[${earlier}]; keep one of them`;
    return earlier < index ? [{ path: ['jwt', index, 'issuer'], message }] : [];
  });
}

/** Two rates with one window and one pattern are one counter: each call would count twice. */
function checkToolRates({ roles }: PolicyFields): Fault[] {
  return Object.entries(roles).flatMap(([name, { tool_rates: rates }]) =>
    rates.flatMap(({ tool, window_s }, index) => {
      const earlier = rates.findIndex(other => other.tool === tool && other.window_s === window_s);
      const message = `"${tool}" has a rate for ${window_s} s already, tool_rates[${earlier}]; keep one of them`;
      return earlier < index ? [{ path: ['roles', name, 'tool_rates', index, 'tool'], message }] : [];
    }),
  );
}

/** What a role grants in one service travels with each request, in a header that cannot grow without end. */
function checkSizes({ api_keys: keys }: PolicyFields, roles: ReadonlyMap<string, Role>): Fault[] {
  const faults: Fault[] = [];
  const check = (names: readonly string[], at: Pick<Fault, 'path' | 'atKey'>, who: string) => {
    const held = names.flatMap(name => roles.get(name) ?? []);
    const { service, bytes } = largestGrants(held);
    if (bytes <= GRANTS_BYTES_MAX) return;
    const what = `for the service "${service}" ${who} ${bytes} bytes of grants, and an identity header holds ${GRANTS_BYTES_MAX}`;
    faults.push({ ...at, message: `${what}; write patterns such as "get_*" in place of long lists` });
  };
  for (const name of roles.keys())
    check([name], { path: ['roles', name], atKey: true }, `the role "${name}" takes`);
  if (faults.length > 0) return faults;
  const sets = new Map(
    keys.map((key, index) => [key.roles.toSorted().join(','), { names: key.roles, index }]),
  );
  for (const { names, index } of sets.values()) {
    if (names.length > 1) check(names, { path: ['api_keys', index, 'roles'] }, 'these roles together take');
  }
  return faults;
}
