import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { Validator } from '@seriousme/openapi-schema-validator';
import { readAnswer, type TestWorker } from './helpers.ts';
import type { Json } from './hostile/helpers.ts';
import { startListed } from './listed.ts';

export async function documentOf(worker: TestWorker, headers: Record<string, string> = {}): Promise<Json> {
  const { status, json, text } = await readAnswer(await fetch(`${worker.url}/openapi.json`, { headers }));
  assert.equal(status, 200, text);
  return json;
}

/** By the public validator: the document's form, and that all its references lead somewhere. */
export async function requireValid(document: Json): Promise<void> {
  const validator = new Validator();
  const { valid, errors } = await validator.validate(structuredClone(document));
  assert.ok(valid, JSON.stringify(errors));
  assert.equal(validator.version, '3.1');
  for (const ref of refsIn(document)) assert.notEqual(at(document, ref), undefined, ref);
}

export function refsIn(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, child]) =>
    key === '$ref' && typeof child === 'string' ? [child] : refsIn(child),
  );
}

/** What a fragment points to (RFC 6901 §6). */
export function at(document: Json, ref: string): Json {
  const tokens = decodeURIComponent(ref.replace(/^#\//, '')).split('/');
  return tokens.reduce(
    (value, token) => value?.[token.replaceAll('~1', '/').replaceAll('~0', '~')],
    document,
  );
}

export async function operationsOf(
  t: TestContext,
  tools: object[],
): Promise<{ document: Json; ids: Record<string, string> }> {
  const document = await documentOf(await startListed(t, tools));
  await requireValid(document);
  const paths = Object.entries<Json>(document.paths);
  return { document, ids: Object.fromEntries(paths.map(([path, { post }]) => [path, post.operationId])) };
}
