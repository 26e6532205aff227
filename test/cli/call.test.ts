import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { closedPort } from '../kong/gateway-helpers.ts';
import { startTracedMesh } from '../kong-plugin/traced-mesh.ts';
import { until } from '../until.ts';
import { folderFor, mesh, meshWith } from './helpers.ts';
import { json, startStubGateway } from './stub-gateway.ts';

const HI = { content: [{ type: 'text', text: 'hi' }] };
const KEY = 'mk_secret-of-a-caller';

test('through the real gateway: an answer, an isError, an error, a time-out, and what `mesh why` is given', async t => {
  const traced = await startTracedMesh(t);
  const call = (...args: string[]) => meshWith({ env: { MESH_URL: traced.url } }, 'call', 'wiretap', ...args);
  const [told, failed, refused, late, method, stranger] = await Promise.all([
    call('tell', '--arg', 'a=1', '--arg', 'b.c=x'),
    call('fail'),
    call('refuse', '--json'),
    call('wait', '--args', '{"ms":60000}', '--timeout', '0.3'),
    call('tools/list'),
    meshWith({ env: { MESH_URL: traced.url } }, 'call', 'wiertap', 'tell'),
  ]);
  assert.deepEqual([told.code, told.err], [0, '']);
  assert.deepEqual(JSON.parse(told.out).params.arguments, { a: 1, b: { c: 'x' } });
  assert.deepEqual([failed.code, failed.err], [3, 'mesh: the tool says that it failed\n']);
  assert.equal(refused.code, 1);
  assert.equal(JSON.parse(refused.out).error.code, 'server_error');
  assert.equal(late.code, 1);
  assert.match(late.err, /^mesh: MCP server did not answer in time: .*\n/);
  assert.equal(JSON.parse(method.out).tools.length, 5);
  assert.equal(stranger.code, 1);
  assert.match(stranger.err, /Unknown service: .*"wiertap".*\n {2}there are: wiretap\n$/);
  const [, id = ''] = /call (\S+): `mesh why \1`/.exec(late.err) ?? [];
  const why = await until('the decision', async () => {
    const found = await mesh('why', id, '--gateway', traced.metricsUrl);
    return found.code === 0 ? found : undefined;
  });
  assert.match(why.out, /decision +\S+Z {2}POST \/api\/v1\/mcp\/wiretap\/execute\n/);
});

describe('mesh call', { concurrency: 4 }, () => {
  test('sends typed arguments, the key of the environment, and no key of the command line', async t => {
    const { url, asked } = await startStubGateway(t, json(200, HI));
    const env = { MESH_API_KEY: KEY };
    const done = await meshWith(
      { env },
      ...[
        'call',
        's',
        'add',
        '--arg',
        'a=12345678901234567890',
        '--arg',
        'note=5',
        '--timeout',
        '7',
        '--url',
        url,
      ],
    );
    assert.deepEqual(done, { code: 0, out: 'hi\n', err: '' });
    const [one] = asked;
    assert.deepEqual([one?.method, one?.path], ['POST', '/api/v1/mcp/s/execute']);
    assert.equal(
      one?.body,
      '{"command":"add","params":{"a":12345678901234567890,"note":"5"},"timeout_ms":7000}',
    );
    assert.equal(one?.headers.authorization, `Bearer ${KEY}`);
    const { code, err } = await mesh('call', 's', 'add', '--key', 'x', '--url', url);
    assert.deepEqual([code, asked.length], [2, 1]);
    assert.match(err, /unknown option --key/);
  });

  test('takes all arguments as text, from a file and from stdin, byte for byte', async t => {
    const { url, asked } = await startStubGateway(t, json(200, HI));
    const text = '{ "n": 9007199254740993 }';
    const path = join(folderFor(t), 'args.json');
    writeFileSync(path, text);
    for (const given of [text, `@${path}`, '-']) {
      const { code } = await meshWith({ input: text }, 'call', 's', 'x', '--args', given, '--url', url);
      assert.equal(code, 0);
    }
    assert.deepEqual(
      asked.map(({ body }) => body),
      Array.from({ length: 3 }, () => `{"command":"x","params":${text}}`),
    );
  });

  test('prints what is no text in a word, and --json as the server wrote it', async t => {
    const text =
      '{"content":[{"type":"image","mimeType":"image/png","data":"AAAA"},{"type":"resource","resource":{"uri":"a:b","text":"inside"}},{"type":"resource_link","uri":"a:c","name":"there"}],"n":9007199254740993}';
    const { url } = await startStubGateway(t, json(200, text));
    const plain = await mesh('call', 's', 'evil', '--url', url);
    assert.equal(plain.out, '[image image/png, 3 bytes; --json has it]\ninside\n[there: a:c]\n');
    assert.equal((await mesh('call', 's', 'evil', '--json', '--url', url)).out, `${text}\n`);
  });

  test('follows events: progress and logs to stderr, then the result', async t => {
    const { url, asked } = await startStubGateway(t, response => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write(
        ': alive\n\nevent: progress\ndata: {"progress":1,"total":4,"message":"a\\u001b[2Jb"}\n\n',
      );
      response.write('event: log\ndata: {"level":"info","logger":"l","data":{"x":1}}\n\n');
      response.end(`event: result\ndata: ${JSON.stringify(HI)}\n\n`);
    });
    const done = await mesh('call', 's', 'evil', '--progress', '--url', url);
    assert.deepEqual(done, { code: 0, out: 'hi\n', err: ' 25 %  ab\ninfo  l: {"x":1}\n' });
    assert.match(asked[0]?.headers.accept ?? '', /^text\/event-stream/);
    await mesh('call', 's', 'evil', '--url', url);
    assert.equal(asked[1]?.headers.accept, 'application/json', 'stderr is no terminal');
  });

  test('an error event, and a stream that ends before the result, are failures', async t => {
    const problem = {
      code: 'child_crashed',
      title: 'MCP server crashed',
      detail: 'exit 3',
      call_id: 'c-12345678',
    };
    const replies = [`event: error\ndata: ${JSON.stringify(problem)}\n\n`, 'event: progress\ndata: {}\n\n'];
    const { url } = await startStubGateway(t, response => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).end(replies.shift());
    });
    const crashed = await mesh('call', 's', 'evil', '--progress', '--url', url);
    assert.equal(crashed.code, 1);
    assert.match(crashed.err, /^mesh: MCP server crashed: exit 3\n.*`mesh why c-12345678`/);
    const lost = await mesh('call', 's', 'evil', '--progress', '--json', '--url', url);
    assert.equal(JSON.parse(lost.out).error.code, 'connection_lost');
  });

  test('Ctrl-C cancels: the connection is closed, exit code 130', async t => {
    let child: ChildProcess | undefined;
    const { url, asked } = await startStubGateway(t, () => child?.kill('SIGINT'));
    const onStart = (started: ChildProcess) => {
      child = started;
    };
    const done = await meshWith({ onStart }, 'call', 's', 'evil', '--url', url);
    assert.deepEqual(done, { code: 130, out: '', err: 'mesh: cancelled\n' });
    await asked[0]?.closed;
  });

  test('a refusal tells what helps: a key, a tool that there is, a gateway', async t => {
    const refusal = { code: 'unauthenticated', title: 'Authentication required', detail: 'no key' };
    const { url } = await startStubGateway(t, json(401, refusal));
    const html = await startStubGateway(t, response =>
      response.writeHead(302, { 'content-type': 'text/html', location: 'http://127.0.0.1:1/' }).end('<html>'),
    );
    const gone = `http://127.0.0.1:${await closedPort()}`;
    const cases: [string[], RegExp][] = [
      [['evil', '--url', url], /Authentication required: no key\n {2}MESH_API_KEY holds/],
      [['evli', '--url', url], /s has no tool "evli"; did you mean "evil"\?\n {2}there are: add, evil/],
      [['evil', '--url', html.url], /answers 302 and not as a gateway does: a web page/],
      [['evil', '--url', gone], /no gateway listens at .*\n.*`mesh up`/],
    ];
    for (const [args, wanted] of cases) {
      const { code, out, err } = await mesh('call', 's', ...args);
      assert.deepEqual([code, out], [1, '']);
      assert.match(err, wanted);
    }
  });

  test('what makes no sense is refused before anything is called', async t => {
    const { url, asked } = await startStubGateway(t, json(200, HI));
    const cases: [string[], RegExp][] = [
      [['add'], /"add" wants "a"; give it by --arg a=…/],
      [['add', '--arg', 'b=1'], /has no argument "b"/],
      [['add', '--arg', 'a=1', '--args', '{}'], /cannot be used with/],
      [['add', '--args', '{"a":'], /--args: no JSON/],
      [['add', '--args', '[]'], /must be a JSON object/],
      [['add', '--args', '@/no/such/file'], /--args: cannot read \/no\/such\/file/],
      [['add', '--arg', '--timeout', '1'], /--arg <name=value>: the value is missing before --timeout/],
      [['add', '--timeout', '-1'], /--timeout: "-1" is no time in seconds/],
      [['add', '--url', 'ftp://x'], /--url: "ftp:\/\/x" is no http\(s\) URL/],
    ];
    for (const [args, wanted] of cases) {
      const { code, err } = await mesh(
        'call',
        's',
        ...args,
        ...(args.includes('--url') ? [] : ['--url', url]),
      );
      assert.equal(code, 2, err);
      assert.match(err, wanted);
    }
    assert.deepEqual(asked, []);
  });
});

describe('mesh tools', () => {
  test('lists all pages, explains one, and gives both to programs', async t => {
    const { url } = await startStubGateway(t, json(200, HI));
    const tools = (...args: string[]) => mesh('tools', 's', ...args, '--url', url);
    const [all, one, list, object, none] = await Promise.all([
      tools(),
      tools('add'),
      tools('--json'),
      tools('add', '--json'),
      tools('ad', '--json'),
    ]);
    assert.equal(all.out, 'TOOL  WHAT\nadd   Adds numbers\nevil  xy\n');
    assert.match(
      one.out,
      /^add \(readOnlyHint\)\n\nAdds numbers\nand tells the sum\n\nARGUMENT +TYPE +NEEDED +WHAT\n/,
    );
    assert.match(
      one.out,
      /\na +number +yes +first one\nnote +string\nmode +fast\|slow\n\nmesh call s add --arg a=…\n$/,
    );
    assert.deepEqual(
      JSON.parse(list.out).tools.map(({ name }: { name: string }) => name),
      ['add', 'evil'],
    );
    assert.equal(JSON.parse(object.out).annotations.readOnlyHint, true);
    assert.equal(none.code, 1);
    assert.deepEqual(JSON.parse(none.out).error, {
      code: 'unknown_tool',
      message: 's has no tool "ad"; did you mean "add"?',
    });
  });
});
