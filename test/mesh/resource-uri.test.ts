import assert from 'node:assert/strict';
import { posix, win32 } from 'node:path';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { mayUse } from '../../mesh/grants.ts';

describe('a resource cannot be reached by another spelling of its URI', () => {
  /** Where servers on any system may be led: decoded as often as one likes, then resolved. */
  function destinations(uri: string): string[] {
    const decoded = [uri];
    for (let i = 0; i < 6; i += 1) {
      decoded.push(
        (decoded.at(-1) ?? '').replace(/%([0-7][0-9a-f])/gi, (_all, hex) =>
          String.fromCharCode(Number.parseInt(hex, 16)),
        ),
      );
    }
    return decoded.flatMap(text => {
      const path = text.replace(/^file:\/\/(localhost)?/i, '').replace(/[?#].*/s, '');
      const url = URL.parse(text)?.pathname ?? '/';
      return [posix.normalize(path), win32.normalize(path).replaceAll('\\', '/'), posix.normalize(url)];
    });
  }
  const piece = fc.constantFrom(
    '..',
    '.',
    '/',
    '//',
    '\\',
    '%2e',
    '%2E%2e',
    '%2f',
    '%5c',
    '%252e',
    '%25252525252e',
    '%',
    '\t',
    '\n',
    '%09',
    ';',
    '?',
    '#',
    'a',
    'public',
    'secret',
    '%73ecret',
    's%65cret',
    'public/',
    'secret/',
    '/secret/x',
    '%2fsecret%2fx',
    'é',
    '%C3%A9',
    '%ff',
  );
  const tail = fc.array(piece, { minLength: 1, maxLength: 7 }).map(pieces => pieces.join(''));

  test('what a pattern allows leads nowhere but where it says', () => {
    const grants = { allow: [{ resources: ['file:///public/*'] }], deny: [] };
    let allowed = 0;
    fc.assert(
      fc.property(tail, text => {
        const uri = `file:///public/${text}`;
        if (!mayUse(grants, 'resources', uri)) return;
        allowed += 1;
        for (const path of destinations(uri))
          assert.match(path, /^\/public(\/|$)/, `${JSON.stringify(uri)} leads to ${path}`);
      }),
      { numRuns: 3000 },
    );
    assert.ok(allowed > 300, `only ${allowed} were allowed`);
  });

  test('what is denied stays denied', () => {
    const grants = { allow: [{}], deny: [{ resources: ['file:///secret', 'file:///secret/*'] }] };
    let allowed = 0;
    fc.assert(
      fc.property(
        fc.constantFrom(
          'file:///',
          'file:/',
          'FILE:///',
          'file://localhost/',
          'file://elsewhere/',
          ' file:///',
        ),
        tail,
        (start, text) => {
          const uri = `${start}${text}`;
          if (!mayUse(grants, 'resources', uri)) return;
          allowed += 1;
          const secret = destinations(uri).find(path => /^\/+secret(\/|$)/.test(path));
          assert.equal(secret, undefined, `${JSON.stringify(uri)} leads to ${secret}`);
        },
      ),
      { numRuns: 3000 },
    );
    assert.ok(allowed > 300, `only ${allowed} were allowed`);
  });

  test('plain URIs pass, encoded or not', () => {
    const may = (uri: string) =>
      mayUse(
        { allow: [{ resources: ['*://host/docs/*', 'a%20b'] }], deny: [{ resources: ['x*'] }] },
        'resources',
        uri,
      );
    for (const uri of [
      'https://host/docs/a b',
      'https://host/docs/a%20b?x=1#y',
      'test://host/docs/100%',
      'a%20b',
      'db://host/docs/v1..2/.hidden/a...b',
    ]) {
      assert.ok(may(uri), uri);
    }
    assert.ok(!may('a b'));
  });

  test('who may use all resources may use any URI', () => {
    assert.ok(mayUse({ allow: [{}], deny: [{ tools: ['x'] }] }, 'resources', 'file:///a/../b'));
  });
});
