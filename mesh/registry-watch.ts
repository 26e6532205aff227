import { followFile } from './followed-file.ts';
import { parseRegistry, type Registry, readRegistryText, unreadableRegistry } from './registry.ts';

export interface RegistryWatch {
  /** The registry in force: that of the last text that could be used. */
  readonly registry: Registry;
  /** Why the file, as it is now, is not in force. */
  readonly error: Error | undefined;
  /** Stops to follow the file. */
  close(): void;
}

interface RegistryWatchOptions {
  path: string;
  /** Where `${VAR}` is read from. */
  env: Readonly<Record<string, string | undefined>>;
  /** Milliseconds between two looks at the file. */
  pollMs?: number | undefined;
  /** Another registry came into force. Neither callback may throw: nobody is there to catch it. */
  onReload?: (registry: Registry) => void;
  /** The file changed into something that cannot be used; called once for each such text. */
  onError?: (error: Error) => void;
}

/**
 * Loads the registry and follows its file; a broken file leaves the old registry in force.
 * @throws RegistryError when the file cannot be used at the start
 */
export function followRegistry({
  path,
  env,
  pollMs,
  onReload,
  onError,
}: RegistryWatchOptions): RegistryWatch {
  const text = readRegistryText(path);
  let registry = parseRegistry(text, path, { env });
  let error: Error | undefined;
  const close = followFile({
    path,
    text,
    pollMs,
    accept(changed) {
      registry = parseRegistry(changed, path, { env });
      error = undefined;
      onReload?.(registry);
    },
    unreadable: cause => unreadableRegistry(path, cause),
    onError(fault) {
      error = fault;
      if (fault) onError?.(fault);
    },
  });
  return {
    get registry() {
      return registry;
    },
    get error() {
      return error;
    },
    close,
  };
}
