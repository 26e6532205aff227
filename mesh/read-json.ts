import { MeshError } from './errors.ts';

/** What a text says that may be no JSON; undefined when it is none. */
export function readJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** @throws MeshError `parse_error` */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MeshError('parse_error', { detail: (cause as Error).message, cause });
  }
}
