import { AccessPolicyError, parseAccessPolicy, type Role, readPolicyText } from '../../mesh/access-policy.ts';
import { matchesGlob } from '../../mesh/glob.ts';
import { suggestion } from '../../mesh/suggestion.ts';
import { parseYaml } from '../../mesh/yaml-faults.ts';
import type { Checked } from './checked.ts';

export interface AccessSummary {
  path: string;
  roles: string[];
  keys: number;
  issuers: number;
}

/** Every fault of an access policy, or what is odd in it. `services`: those of the registry, when they are known. */
export function checkAccess(path: string, services: readonly string[] | undefined): Checked<AccessSummary> {
  try {
    const text = readPolicyText(path);
    const { policy, warnings } = parseAccessPolicy(text, { path });
    const { roles, apiKeys: keys, issuers } = policy;
    const summary = { path, roles: [...roles.keys()], keys: keys.length, issuers: issuers.length };
    const unmatched = services ? unmatchedRules(text, path, roles, services) : [];
    return { faults: [], warnings: [...warnings, ...unmatched], summary };
  } catch (error) {
    if (!(error instanceof AccessPolicyError)) throw error;
    return { faults: error.message.split('\n'), warnings: [], summary: undefined };
  }
}

function unmatchedRules(
  text: string,
  path: string,
  roles: ReadonlyMap<string, Role>,
  services: readonly string[],
): string[] {
  const { toText } = parseYaml(text, path);
  return [...roles].flatMap(([name, { allow, deny }]) =>
    Object.entries({ allow, deny }).flatMap(([kind, rules]) =>
      rules.flatMap(({ service }, index) => {
        if (services.some(one => matchesGlob(service, one))) return [];
        const message = `"${service}" matches no service of the registry${suggestion(service, services)}`;
        return [toText({ path: ['roles', name, kind, index, 'service'], message })];
      }),
    ),
  );
}
