import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { MODERN_VERSION } from '../../mesh/eras.ts';
import { adHocService } from '../../mesh/registry.ts';
import { INITIALIZE, ready, startTestWorker, type TestWorker } from '../workers/helpers.ts';
import { type Json, MODERN_META, SEED } from '../workers/hostile/helpers.ts';
import { identityOf, makeKeys, policyOf, workerKeys } from './keys.ts';
import {
  jsonSpellings,
  PROMPTS,
  pathSpellings,
  RESOURCES,
  spellings,
  TEMPLATES,
  TOOLS,
} from './spellings.ts';

/**
 * For every role the set listed is the set callable, however a name is written. The server is as lenient as any: what it
 * says it ran is what the request reached.
 */

const LENIENT = fileURLToPath(new URL('./lenient.mjs', import.meta.url));
const SERVICE = 'lenient';
const RUNS = 3;
const keys = makeKeys();

type Identity = Record<string, string>;
/** Kinds with what was listed of them, or reached: `tools get_public`. */
type Names = Set<string>;

interface Ask {
  method: string;
  /** JSON text. */
  params: string;
}

const CLIMBING = [
  'file:///pub/../secret/key',
  'file:///pub/%2e%2e/secret/key',
  'file:///pub/..%2fsecret%2fkey',
];
const LISTS: Ask[] = ['tools/list', 'prompts/list', 'resources/list', 'resources/templates/list'].map(
  method => ({
    method,
    params: '{}',
  }),
);

const MEMBERS = { tools: 'name', prompts: 'name', resources: 'uri', resourceTemplates: 'uriTemplate' };
const KINDS: Record<string, string> = { resourceTemplates: 'resources' };
const patterns = (names: string[], more: string[]) =>
  fc.uniqueArray(fc.constantFrom(...names, ...more), { minLength: 1, maxLength: 2 });
const rule = fc.oneof(
  fc.constant({}),
  fc.record(
    {
      tools: patterns(TOOLS, ['*', 'get_*', '*_secret', '*']),
      prompts: patterns(PROMPTS, ['*', '*_secret']),
      resources: patterns(RESOURCES, ['*', 'file:///pub/*', 'file:///secret/*', 'file:///*', 'note://*']),
    },
    { requiredKeys: [] },
  ),
);
const named = rule.filter(fields => Object.keys(fields).length > 0);
const role = fc.record({
  allow: fc.array(rule, { minLength: 1, maxLength: 2 }),
  deny: fc.array(named, { maxLength: 2 }),
});
const policy = fc.record({ one: role, two: role });
/** Of the spellings each run tries every fourth, and the names as they are. */
const SHARE = 4;
const share = fc.nat({ max: SHARE - 1 });

for (const ERA of ['legacy', 'modern']) {
  test(`what a role is listed it can call, and nothing else: ${ERA} server (${RUNS} policies, FC_SEED=${SEED})`, async t => {
    const worker = await start(t, ERA);
    const some = fc.subarray(['one', 'two'], { minLength: 1 });
    const property = fc.asyncProperty(policy, some, share, async (roles, held, turn) => {
      const fields = Object.fromEntries(
        Object.entries(roles).map(([name, { allow, deny }]) => [
          name,
          {
            allow: allow.map(fields => ({ service: SERVICE, ...fields })),
            deny: deny.map(fields => ({ service: SERVICE, ...fields })),
          },
        ]),
      );
      const identity = identityOf(keys, {
        service: SERVICE,
        policy: policyOf({ roles: fields }),
        roles: held,
      });
      for (const [way, { listed, reached }] of [
        ['legacy', await overLegacy(worker, identity, turn)],
        ['modern', await overModern(worker, identity, turn)],
        ['REST', await overRest(worker, identity, turn)],
      ] as const) {
        const shown = `${way}: ${JSON.stringify(fields)} as ${held}`;
        assert.deepEqual([...reached].sort(), [...listed].sort(), shown);
      }
    });
    await fc.assert(property, { numRuns: RUNS, seed: SEED, endOnFailure: true });
  });
}

async function start(t: TestContext, ERA: string): Promise<TestWorker> {
  const adHoc = adHocService({ name: SERVICE, command: process.execPath, args: [LENIENT] });
  const limits = { ...adHoc.limits, batch: 1000 };
  const worker = await startTestWorker(t, { ...adHoc, limits, env: { ERA } }, workerKeys(keys, SERVICE));
  await ready(worker);
  return worker;
}

/** A batch of all of them, and one by one what a batch must not hold. */
async function overLegacy(worker: TestWorker, identity: Identity, turn: number) {
  const body = { ...INITIALIZE, params: { ...INITIALIZE.params, protocolVersion: '2025-03-26' } };
  const { headers } = await worker.post('/mcp', body, identity);
  const session = { ...identity, 'mcp-session-id': headers.get('mcp-session-id') ?? '' };
  const text = ({ method, params }: Ask, id: number) =>
    `{"jsonrpc":"2.0","id":${id},"method":${JSON.stringify(method)},"params":${params}}`;
  const asks = [...LISTS, ...calls(turn)];
  const batch = await worker.post('/mcp', `[${asks.map(text).join(',')}]`, session);
  const answers: Json[] = batch.json;
  assert.deepEqual(
    answers.map(({ id }) => id),
    asks.map((_, id) => id),
  );
  const single = await Promise.all(
    ambiguous().map(ask => worker.post('/mcp', typeof ask === 'string' ? ask : text(ask, 1), session)),
  );
  const subscribed = asks.flatMap(({ method, params }, i) => {
    const uri = String(JSON.parse(params).uri)
      .normalize('NFKC')
      .trim()
      .toLowerCase()
      .replace(/[?#].*/, '');
    return method === 'resources/subscribe' && answers[i].result && RESOURCES.includes(uri)
      ? [`ran:${uri}`]
      : [];
  });
  return {
    listed: listedIn(answers),
    reached: reachedIn([...answers, ...single.map(({ json }) => json), ...subscribed]),
  };
}

async function overModern(worker: TestWorker, identity: Identity, turn: number) {
  const post = async ({ method, params }: Ask) => {
    const meta = JSON.stringify(MODERN_META);
    const withMeta = params === '{}' ? `{"_meta":${meta}}` : `${params.slice(0, -1)},"_meta":${meta}}`;
    const { name, uri } = JSON.parse(params) as { name?: unknown; uri?: unknown };
    const stated = Buffer.from(String(name ?? uri)).toString('base64');
    const { json } = await worker.post(
      '/mcp',
      `{"jsonrpc":"2.0","id":1,"method":"${method}","params":${withMeta}}`,
      {
        ...identity,
        'mcp-protocol-version': MODERN_VERSION,
        'mcp-method': method,
        'mcp-name': `=?base64?${stated}?=`,
      },
    );
    return json as Json;
  };
  const asks = [...LISTS, ...calls(turn), ...ambiguous().filter(ask => typeof ask !== 'string')];
  const answers = await Promise.all(asks.map(post));
  return { listed: listedIn(answers), reached: reachedIn(answers) };
}

/** Tools by their path and as commands; everything else as commands. */
async function overRest(worker: TestWorker, identity: Identity, turn: number) {
  const paths = TOOLS.flatMap(name =>
    some(pathSpellings(name), turn).map(path => worker.post(`/tools/${path}`, '{}', identity)),
  );
  const commands = [
    ...TOOLS.flatMap(name => some(spellings(name), turn)).map(command =>
      JSON.stringify({ command, params: {} }),
    ),
    ...[...LISTS, ...calls(turn)].map(
      ({ method, params }) => `{"command":${JSON.stringify(method)},"params":${params}}`,
    ),
    ...TOOLS.map(name => `{"command":"get_public","command":${JSON.stringify(name)}}`),
    ...TOOLS.map(name => `{"command":${JSON.stringify(name)},"command":"get_public"}`),
  ].map(text => worker.post('/execute', text, identity));
  const list = await fetch(`${worker.url}/tools`, { headers: identity });
  const answers = (await Promise.all([...paths, ...commands])).map(({ json }) => json as Json);
  return {
    listed: listedIn([...answers, await list.json()].map(result => ({ result }))),
    reached: reachedIn(answers),
  };
}

/** Each name in each spelling, in each request that is about one. */
function calls(turn: number): Ask[] {
  const about = (method: string, names: string[], params: (json: string) => string): Ask[] =>
    names.flatMap(name => some(jsonSpellings(name), turn).map(json => ({ method, params: params(json) })));
  return [
    ...about('tools/call', TOOLS, json => `{"name":${json}}`),
    ...about('prompts/get', PROMPTS, json => `{"name":${json}}`),
    ...about('completion/complete', PROMPTS, json => completion(`{"type":"ref/prompt","name":${json}}`)),
    ...about('resources/read', [...RESOURCES, ...CLIMBING], json => `{"uri":${json}}`),
    ...about('resources/subscribe', RESOURCES, json => `{"uri":${json}}`),
    ...about('completion/complete', TEMPLATES, json => completion(`{"type":"ref/resource","uri":${json}}`)),
    // A method in another spelling is another method.
    ...TOOLS.map(name => ({ method: 'Tools/Call', params: `{"name":${JSON.stringify(name)}}` })),
    ...TOOLS.map(name => ({ method: 'tools/call ', params: `{"name":${JSON.stringify(name)}}` })),
    ...PROMPTS.map(name => ({
      method: 'completion/complete',
      params: completion(`{"type":"ref/PROMPT","name":"${name}"}`),
    })),
  ];
}

/** What two parsers may read as two requests; as text where it is no request for us. */
function ambiguous(): (Ask | string)[] {
  return TOOLS.flatMap(name => {
    const json = JSON.stringify(name);
    return [
      { method: 'tools/call', params: `{"name":"get_public","Name":${json}}` },
      { method: 'tools/call', params: `{"Name":${json}}` },
      { method: 'tools/call', params: `{"NAME":${json},"name":"get_public"}` },
      { method: 'tools/call', params: `{"name":"get_public","n\\u0061me":${json}}` },
      `{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call","params":{"name":${json}}}`,
      `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_public"},"param\\u017f":{"name":${json}}}`,
      `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":${json}},"params":{"name":"get_public"}}`,
    ];
  });
}

/** The first, and a share of the others. */
function some<T>(all: T[], turn: number): T[] {
  return all.filter((_, i) => i === 0 || i % SHARE === turn);
}

function completion(ref: string): string {
  return `{"ref":${ref},"argument":{"name":"x","value":""}}`;
}

function listedIn(answers: Json[]): Names {
  return new Set(
    answers.flatMap(answer =>
      Object.entries(MEMBERS).flatMap(([kind, key]) =>
        (answer?.result?.[kind] ?? []).map(
          (item: Record<string, string>) => `${KINDS[kind] ?? kind} ${item[key]}`,
        ),
      ),
    ),
  );
}

/** By what the server says that it ran. */
function reachedIn(answers: Json[]): Names {
  const ran = JSON.stringify(answers).matchAll(/ran:([^"]*)"/g);
  const kindOf = (name: string) =>
    TOOLS.includes(name) ? 'tools' : PROMPTS.includes(name) ? 'prompts' : 'resources';
  return new Set([...ran].map(([, name = '']) => `${kindOf(name)} ${name}`));
}
