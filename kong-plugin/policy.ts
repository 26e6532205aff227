import type { AccessPolicy } from '../mesh/access-policy.ts';
import { followPolicy, type PolicyFile } from '../mesh/policy-file.ts';

interface PolicyOptions {
  /** undefined: there is none, and nobody is let in. */
  path: string | undefined;
  /** A file that cannot be used, or a key in it that has expired. */
  warn(text: string): void;
  /** A file was refused. */
  onRefused(): void;
}

export interface Policy {
  /** The one in force. */
  (): AccessPolicy | undefined;
  /** The file, as it is now, is not in force. */
  isRefused(): boolean;
}

const RETRY_MS = 1000;

/**
 * The access policy in force, undefined while there is none: a gateway that starts with a broken file answers 401 and
 * says why, until the file can be used.
 */
export function createPolicy({ path, warn, onRefused }: PolicyOptions): Policy {
  let file: PolicyFile | undefined;
  /** Of the file at the start, which is looked at again and again. */
  let complaint = '';
  const refuse = (message: string, kept: string) => {
    onRefused();
    warn(`${message}\n${kept}`);
  };
  const load = (from: string) => {
    try {
      file = followPolicy({
        path: from,
        onReload: ({ warnings }) => warnings.forEach(warn),
        onError: error => refuse(error.message, 'the policy from before stays in force'),
      });
      file.warnings.forEach(warn);
    } catch (error) {
      const { message } = error as Error;
      if (message !== complaint) refuse(message, 'nobody is let in until it can be used');
      complaint = message;
      setTimeout(load, RETRY_MS, from).unref();
    }
  };
  if (path === undefined)
    warn('MESH_ACCESS_POLICY is not set: there is no access policy and nobody is let in');
  else load(path);
  return Object.assign(() => file?.policy, {
    isRefused: () => path !== undefined && (file === undefined || file.error !== undefined),
  });
}
