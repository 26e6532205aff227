import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { Consul } from '../../mesh/consul.ts';
import { look, lookAtInstances, openConsul, put, registrationOf, request } from './consul-helpers.ts';

/** Contract cases of the KV definitions: names of their own under the one prefix. */
export const definitionCases: Record<string, (t: TestContext, url: string) => Promise<void>> = {
  async 'a definition is read back and seen; an equal one is not written again'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtDefinitions(consul);
    await seen.until(() => true);
    assert.equal(await consul.getDefinition('first'), undefined);
    await consul.putDefinition('first', { instances: 3, tags: ['a'] });
    assert.deepEqual(await consul.getDefinition('first'), { instances: 3, tags: ['a'] });
    await seen.until(all => all.has('first'));
    assert.deepEqual(seen.values.at(-1)?.get('first'), { instances: 3, tags: ['a'] });

    const { index } = await request(url, 'kv/mcp-mesh/services/first');
    await consul.putDefinition('first', { tags: ['a'], instances: 3 });
    assert.equal((await request(url, 'kv/mcp-mesh/services/first')).index, index);
    await consul.putDefinition('first', { instances: 4, tags: ['a'] });
    assert.ok((await request(url, 'kv/mcp-mesh/services/first')).index > index);
    await seen.until(all => (all.get('first') as { instances: number }).instances === 4);
  },

  async 'many workers publish one definition at once and all succeed'(t, url) {
    const consul = openConsul(t, url);
    await Promise.all(Array.from({ length: 20 }, () => consul.putDefinition('shared', { era: 'both' })));
    const [item] = (await request(url, 'kv/mcp-mesh/services/shared')).json() as [Record<string, number>];
    assert.equal(item.CreateIndex, item.ModifyIndex);
  },

  async 'a deleted definition is gone from the watch'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtDefinitions(consul);
    await consul.putDefinition('short-lived', true);
    await seen.until(all => all.get('short-lived') === true);
    await request(url, 'kv/mcp-mesh/services/short-lived', { method: 'DELETE' });
    await seen.until(all => !all.has('short-lived'));
  },

  async 'a definition is removed once its service has no instance, and not when it changes meanwhile'(
    t,
    url,
  ) {
    const consul = openConsul(t, url);
    const key = 'kv/mcp-mesh/services/leaving';
    assert.equal(await consul.removeDefinition('leaving', 'mcp-leaving'), true, 'there is none');
    await consul.putDefinition('leaving', { a: 1 });
    const instance = registrationOf('mcp-leaving');
    await consul.register(instance);
    assert.equal(await consul.removeDefinition('leaving', 'mcp-leaving'), false);
    assert.deepEqual(await consul.getDefinition('leaving'), { a: 1 });
    await consul.deregister(instance.id);
    await lookAtInstances(consul, 'mcp-leaving').until(instances => instances.length === 0);
    const { index } = await request(url, key);
    await consul.putDefinition('leaving', { a: 2 });
    assert.equal((await request(url, `${key}?cas=${index}`, { method: 'DELETE' })).text.trim(), 'false');
    assert.deepEqual(await consul.getDefinition('leaving'), { a: 2 });
    assert.equal(await consul.removeDefinition('leaving', 'mcp-leaving'), true);
    assert.equal(await consul.getDefinition('leaving'), undefined);
  },

  async 'a definition that is no JSON is told once and leaves its last good value'(t, url) {
    const consul = openConsul(t, url);
    const seen = lookAtDefinitions(consul);
    await consul.putDefinition('spoilt', { good: 1 });
    await seen.until(all => all.has('spoilt'));
    const error = seen.untilError();
    await put(url, 'kv/mcp-mesh/services/spoilt', '{"half');
    assert.match((await error).message, /mcp-mesh\/services\/spoilt .*not JSON/);
    await put(url, 'kv/mcp-mesh/services/', '');
    await consul.putDefinition('after-spoilt', 1);
    const all = await seen.until(definitions => definitions.has('after-spoilt'));
    assert.deepEqual(all.get('spoilt'), { good: 1 });
    assert.equal(all.has(''), false);
    assert.equal(seen.errors.length, 1);
    await assert.rejects(consul.getDefinition('spoilt'), /not JSON/);
    await consul.putDefinition('spoilt', { good: 2 });
    await seen.until(definitions => (definitions.get('spoilt') as { good: number }).good === 2);
  },
};

function lookAtDefinitions(consul: Consul) {
  return look<Map<string, unknown>>((onChange, onError) => consul.watchDefinitions(onChange, onError));
}
