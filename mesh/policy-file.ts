import {
  type AccessPolicy,
  type AccessPolicyError,
  type LoadedPolicy,
  parseAccessPolicy,
  readPolicyText,
  unreadable,
} from './access-policy.ts';
import { followFile } from './followed-file.ts';

export interface PolicyFile {
  /** The policy in force: that of the last text that could be used. */
  readonly policy: AccessPolicy;
  /** Oddities of the policy in force, such as expired keys. */
  readonly warnings: readonly string[];
  /** Why the file, as it is now, is not in force. */
  readonly error: AccessPolicyError | undefined;
  /** Stops to follow the file. */
  close(): void;
}

interface PolicyFileOptions {
  path: string;
  /** Milliseconds between two looks at the file. */
  pollMs?: number;
  /** Another policy came into force. Neither callback may throw: nobody is there to catch it. */
  onReload?: (loaded: LoadedPolicy) => void;
  /** The file changed into something that cannot be used; called once for each such text. */
  onError?: (error: AccessPolicyError) => void;
  /** Milliseconds since the epoch. */
  now?: () => number;
}

/**
 * Loads the access policy and follows its file; a broken file leaves the old policy in force. Does not keep the
 * process alive.
 * @throws AccessPolicyError when the file cannot be used at the start
 */
export function followPolicy({
  path,
  pollMs,
  onReload,
  onError,
  now = Date.now,
}: PolicyFileOptions): PolicyFile {
  const text = readPolicyText(path);
  let loaded = parseAccessPolicy(text, { path, now });
  let error: AccessPolicyError | undefined;
  const close = followFile({
    path,
    text,
    pollMs,
    accept(changed) {
      loaded = parseAccessPolicy(changed, { path, now });
      error = undefined;
      onReload?.(loaded);
    },
    unreadable: cause => unreadable(path, cause),
    onError(fault) {
      error = fault as AccessPolicyError | undefined;
      if (error) onError?.(error);
    },
  });

  return {
    get policy() {
      return loaded.policy;
    },
    get warnings() {
      return loaded.warnings;
    },
    get error() {
      return error;
    },
    close,
  };
}
