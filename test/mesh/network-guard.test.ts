import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { isIPv4 } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../mesh/errors.ts';
import {
  createNetworkGuard,
  createResolver,
  pinAddress,
  type ResolveHost,
} from '../../mesh/network-guard.ts';

const EVERYWHERE = ['0.0.0.0/0', '::/0'];

/** Where the address leads, or `code: detail` of its refusal; names are looked up in `hosts`. */
async function pin(
  address: string,
  allowed: readonly string[] = EVERYWHERE,
  hosts: Record<string, string[]> = {},
): Promise<string> {
  const resolve: ResolveHost = async host => (Object.hasOwn(hosts, host) ? (hosts[host] ?? []) : []);
  try {
    return await pinAddress(address, createNetworkGuard(allowed), resolve);
  } catch (error) {
    assert.ok(error instanceof MeshError, String(error));
    return `${error.code}: ${error.message}`;
  }
}

describe('an address is pinned in its canonical form', () => {
  const cases: [address: string, allowed: string[], pinned: string][] = [
    ['10.1.2.3', ['10.0.0.0/8'], '10.1.2.3'],
    ['93.184.216.34', ['0.0.0.0/0'], '93.184.216.34'],
    ['2606:2800:220:1:248:1893:25c8:1946', ['::/0'], '2606:2800:220:1:248:1893:25c8:1946'],
    ['FD12:0:0:0::5', ['fd12::/16'], 'fd12::5'],
    ['fd12::10.0.0.1', ['fd12::/16'], 'fd12::a00:1'],
    ['127.0.0.1', ['127.0.0.0/8'], '127.0.0.1'],
    ['127.0.0.1', ['127.0.0.1/32'], '127.0.0.1'],
    ['0:0:0:0:0:0:0:1', ['::1/128'], '::1'],
    ['169.254.9.9', ['169.254.0.0/16'], '169.254.9.9'],
    ['169.254.169.254', ['169.254.169.254/32'], '169.254.169.254'],
    ['100.64.0.9', ['100.64.0.0/10'], '100.64.0.9'],
    ['fe80::9', ['fe80::/64'], 'fe80::9'],
    ['fd00:ec2::254', ['fd00:ec2::254/128'], 'fd00:ec2::254'],
    // Named by their very range, they are what somebody wants.
    ['64:ff9b::10.0.0.5', ['64:ff9b::/96'], '64:ff9b::a00:5'],
    ['64:ff9b:1::10.0.0.5', ['64:ff9b:1::/48'], '64:ff9b:1::a00:5'],
    ['2002:a00:5::1', ['2002:a00::/24'], '2002:a00:5::1'],
    ['::ffff:10.0.0.5', ['::ffff:10.0.0.0/104'], '::ffff:a00:5'],
    ['fd12::5efe:10.0.0.5', ['fd12::5efe:10.0.0.0/104'], 'fd12::5efe:a00:5'],
  ];
  for (const [address, allowed, pinned] of cases) {
    test(`${address} in ${allowed.join(', ')}`, async () => {
      assert.equal(await pin(address, allowed), pinned);
    });
  }
});

describe('an address outside the allowed networks is refused', () => {
  const cases: [address: string, allowed: string[]][] = [
    ['10.0.0.1', []],
    ['11.0.0.1', ['10.0.0.0/8']],
    ['fd13::1', ['fd12::/16']],
    // BlockList would let these pass.
    ['93.184.216.34', ['::/0']],
    ['2606:2800::1', ['0.0.0.0/0']],
  ];
  for (const [address, allowed] of cases) {
    test(`${address} in [${allowed.join(', ')}]`, async () => {
      assert.match(await pin(address, allowed), /^forbidden: address: .* is in none of the allowed_networks/);
    });
  }
});

describe('a special address is refused, however wide the allowed networks are', () => {
  const cases: [address: string, what: RegExp][] = [
    ['127.0.0.1', /loopback/],
    ['127.255.255.254', /loopback/],
    ['::1', /loopback/],
    ['0.0.0.0', /unspecified/],
    ['0.1.2.3', /unspecified/],
    ['::', /unspecified/],
    ['169.254.1.1', /link-local/],
    ['169.254.169.254', /link-local|metadata/],
    ['169.254.170.2', /link-local|metadata/],
    ['fe80::1', /link-local/],
    ['febf::1', /link-local/],
    ['fec0::1', /site-local/],
    ['fd00:ec2::254', /metadata/],
    ['fd20:ce::254', /metadata/],
    ['fd00:c1::a9fe:a9fe', /metadata/],
    ['100.100.100.200', /providers|metadata/],
    ['168.63.129.16', /metadata/],
    ['192.0.0.192', /IETF/],
    ['224.0.0.1', /multicast/],
    ['ff02::1', /multicast/],
    ['240.0.0.1', /reserved/],
    ['255.255.255.255', /reserved|broadcast/],
    ['198.18.0.1', /benchmarks/],
    ['192.0.2.1', /documentation/],
    ['2001:db8::1', /documentation/],
    ['2001:2::1', /IETF/],
    ['100::1', /discard/],
  ];
  for (const [address, what] of cases) {
    test(address, async () => {
      const refusal = await pin(address);
      assert.match(refusal, /^forbidden: address: .*only an entry of allowed_networks inside/);
      assert.match(refusal, what);
    });
  }
});

describe('an entry opens the special range that it lies in, and no other', () => {
  const cases: [address: string, allowed: string[]][] = [
    ['127.0.0.1', ['126.0.0.0/7']],
    ['127.0.0.2', ['127.0.0.1/32']],
    ['169.254.169.254', ['169.254.0.0/16']],
    ['100.100.100.200', ['100.64.0.0/10']],
    ['fd00:ec2::254', ['fd00::/8']],
    ['::1', ['127.0.0.0/8']],
    ['127.0.0.1', ['::1/128', '0.0.0.0/0']],
    ['::ffff:127.0.0.1', ['127.0.0.0/8']],
    ['2002:7f00:1::', ['127.0.0.0/8', '::/0']],
    // What is named is the way, not where it leads.
    ['64:ff9b::127.0.0.1', ['64:ff9b::/96']],
    ['64:ff9b::169.254.169.254', ['64:ff9b::/96', '169.254.0.0/16']],
    ['2002:a9fe:a9fe::1', ['2002::/16']],
    ['2001::5601:5601', ['2001::/32']],
    ['::ffff:127.0.0.1', ['::ffff:0:0/96']],
    ['fd12::5efe:127.0.0.1', ['fd12::5efe:0:0/96']],
  ];
  for (const [address, allowed] of cases) {
    test(`${address} in ${allowed.join(', ')}`, async () => {
      assert.match(await pin(address, allowed), /^forbidden: address: .*only an entry of allowed_networks/);
    });
  }
});

/** Each harmless address in a form that stands for it somewhere: refused unless the policy names the form. */
describe('an address that stands for an IPv4 address is refused', () => {
  const cases: [address: string, what: RegExp][] = [
    ['::ffff:10.0.0.5', /IPv4-mapped/],
    ['::FFFF:a00:5', /IPv4-mapped/],
    ['0:0:0:0:0:ffff:10.0.0.5', /IPv4-mapped/],
    ['::10.0.0.5', /IPv4-compatible/],
    ['::a00:5', /IPv4-compatible/],
    ['::ffff:0:10.0.0.5', /IPv4-translated/],
    ['64:ff9b::10.0.0.5', /NAT64/],
    ['64:ff9b::a00:5', /NAT64/],
    ['64:ff9b:1::10.0.0.5', /NAT64/],
    ['64:ff9b:1:a00:0:500::', /NAT64/],
    ['2002:a00:5::1', /6to4/],
    ['2002:0a00:0005:ffff::', /6to4/],
    ['2001::f5ff:fffa', /Teredo/],
    ['2001:0:4136:e378:8000:63bf:f5ff:fffa', /Teredo/],
    ['fd12::5efe:10.0.0.5', /ISATAP/],
    ['fd12::200:5efe:a00:5', /ISATAP/],
    ['2606:2800:220:1:0:5efe:a00:5', /ISATAP/],
  ];
  for (const [address, what] of cases) {
    test(address, async () => {
      const refusal = await pin(address, [...EVERYWHERE, '10.0.0.0/8', 'fd12::/16']);
      assert.match(refusal, /^forbidden: /);
      assert.match(refusal, what);
    });
  }
});

describe('what programs read differently, or what is no address, is not even looked up', () => {
  const cases: [address: string, detail: RegExp][] = [
    ['0x7f.1', /write four decimal numbers, such as 127\.0\.0\.1/],
    ['2130706433', /such as 127\.0\.0\.1/],
    ['127.1', /such as 127\.0\.0\.1/],
    ['0177.0.0.1', /such as 127\.0\.0\.1/],
    ['010.0.0.1', /such as 8\.0\.0\.1/],
    ['0x7f000001', /such as 127\.0\.0\.1/],
    ['0X7F.0.0.1', /such as 127\.0\.0\.1/],
    ['127.0.0.0x1', /such as 127\.0\.0\.1/],
    ['017700000001', /such as 127\.0\.0\.1/],
    ['0', /such as 0\.0\.0\.0/],
    ['256.256.256.256', /write four decimal numbers$/],
    ['1.2.3.4.5', /write four decimal numbers$/],
    ['worker.10', /write four decimal numbers$/],
    ['127.0.0.1.', /ends with a dot/],
    ['metadata.google.internal.', /ends with a dot/],
    ['fe80::1%eth0', /has a zone/],
    ['::1%lo', /has a zone/],
    ['10.0.0.1%eth0', /has a zone/],
    ['[::1]', /without scheme, port, brackets and path/],
    ['[10.0.0.1]', /without scheme/],
    ['10.0.0.1:8080', /without scheme/],
    ['http://10.0.0.1', /without scheme/],
    ['10.0.0.1/health', /without scheme/],
    ['user@10.0.0.1', /without scheme/],
    ['10.0.0.1\n', /must be an IP address or a host name/],
    [' 10.0.0.1', /must be an IP address or a host name/],
    ['10.0.0.1\0', /must be an IP address or a host name/],
    ['１27.0.0.1', /must be an IP address or a host name/],
    ['①②⑦.0.0.①', /must be an IP address or a host name/],
    ['127。0。0。1', /must be an IP address or a host name/],
    ['ⓛocalhost', /must be an IP address or a host name/],
    ['::ffff:0x7f.1', /must be an IP address|write four decimal/],
    ['::g', /must be an IP address or a host name/],
    ['-a.example', /must be an IP address or a host name/],
    ['a..example', /must be an IP address or a host name/],
    [`${'a'.repeat(64)}.example`, /must be an IP address or a host name/],
    [`${'a.'.repeat(126)}toolong`, /must be an IP address or a host name/],
    ['', /must be an IP address or a host name/],
  ];
  for (const [address, detail] of cases) {
    test(JSON.stringify(address.slice(0, 40)), async () => {
      const resolve = () => Promise.reject(new Error('was looked up'));
      const pinning = pinAddress(address, createNetworkGuard(EVERYWHERE), resolve);
      await assert.rejects(pinning, (error: MeshError) => {
        assert.equal(error.code, 'invalid_request');
        assert.match(error.message, detail);
        return true;
      });
    });
  }
});

describe('of a host name', () => {
  const allowed = ['10.0.0.0/8', 'fd12::/16'];

  test('the address counts, whatever the case and order of what DNS says', async () => {
    const hosts = { 'worker.example': ['fd12::9', '10.0.0.9', '10.0.0.10', '10.0.0.9'] };
    assert.equal(await pin('Worker.EXAMPLE', allowed, hosts), '10.0.0.10');
    const mixed = { mixed: ['2606:2800::1', '93.184.216.34'] };
    assert.equal(await pin('mixed', EVERYWHERE, mixed), '93.184.216.34');
    assert.equal(await pin('six', allowed, { six: ['FD12:0::9'] }), 'fd12::9');
    assert.equal(await pin('my_worker-1', allowed, { 'my_worker-1': ['10.0.0.1'] }), '10.0.0.1');
  });

  const bad: [found: string[], refusal: RegExp][] = [
    [['10.0.0.9', '127.0.0.1'], /^forbidden: address: "x" leads to 127\.0\.0\.1, but .*loopback/],
    [
      ['10.0.0.9', '::ffff:169.254.169.254'],
      /^forbidden: .*"x" leads to ::ffff:a9fe:a9fe, but .*IPv4-mapped/,
    ],
    [['10.0.0.9', 'fd13::1'], /^forbidden: .*"x" leads to fd13::1, but .*in none of/],
    [['169.254.169.254'], /^forbidden: .*169\.254\.169\.254/],
    [[], /^invalid_request: address: "x" is not known to DNS/],
    [['localhost'], /^invalid_request: .*no IP address/],
    [['127.1'], /^invalid_request: /],
    [Array.from({ length: 33 }, (_, i) => `10.0.0.${i}`), /^invalid_request: .*too many addresses/],
  ];
  for (const [found, refusal] of bad) {
    test(`all addresses must be allowed: ${found.slice(0, 3).join(', ') || 'none'}`, async () => {
      assert.match(await pin('x', allowed, { x: found }), refusal);
    });
  }

  test('a fault of DNS is a refusal that tells its code', async () => {
    const resolve = () => Promise.reject(Object.assign(new Error('x'), { code: 'ESERVFAIL' }));
    await assert.rejects(pinAddress('x.example', createNetworkGuard(EVERYWHERE), resolve), {
      code: 'invalid_request',
      message: 'address: "x.example" cannot be resolved (ESERVFAIL); write its IP address',
    });
  });

  test('DNS is asked for both families, and both must be answered', async t => {
    const records: Records = {
      both: { A: ['10.0.0.9'], AAAA: ['fd12::9'] },
      four: { A: ['10.0.0.9'], AAAA: [] },
      rebound: { A: ['10.0.0.9'], AAAA: ['::1'] },
      hidden: { A: ['10.0.0.9'], AAAA: 'SERVFAIL' },
      nobody: { A: 'NXDOMAIN', AAAA: 'NXDOMAIN' },
    };
    const resolve = createResolver([await startDns(t, records)]);
    const seen = (host: string) =>
      pinAddress(host, createNetworkGuard(allowed), resolve).catch(error => error.message);
    assert.deepEqual((await resolve('both')).sort(), ['10.0.0.9', 'fd12::9']);
    assert.equal(await seen('four'), '10.0.0.9');
    assert.match(await seen('rebound'), /"rebound" leads to ::1, but .*loopback/);
    assert.match(await seen('hidden'), /"hidden" cannot be resolved \(ESERVFAIL\)/);
    assert.match(await seen('nobody'), /"nobody" is not known to DNS/);
  });

  test('localhost is both loopback addresses, and needs no DNS', async () => {
    const lookUp = (networks: string[]) => pinAddress('localhost', createNetworkGuard(networks));
    assert.equal(await lookUp(['127.0.0.0/8', '::1/128']), '127.0.0.1');
    await assert.rejects(lookUp(['127.0.0.0/8']), /"localhost" leads to ::1/);
    await assert.rejects(lookUp(EVERYWHERE), /loopback/);
  });
});

describe('for all addresses', () => {
  const ipv4 = fc.integer({ min: 0, max: 0xffff_ffff }).map(dotted);
  const ipv6 = fc.bigInt({ min: 0n, max: (1n << 128n) - 1n }).map(written);

  test('an address passes exactly where arithmetic says so', async () => {
    const cidr = fc.oneof(
      fc.tuple(ipv4, fc.integer({ min: 0, max: 32 })),
      fc.tuple(ipv6, fc.integer({ min: 0, max: 128 })),
    );
    const property = fc.asyncProperty(
      fc.array(cidr, { maxLength: 4 }),
      fc.oneof(ipv4, ipv6),
      fc.boolean(),
      async (networks, random, near) => {
        // Else hardly any address would be in any network.
        const address = near && networks[0] ? networks[0][0] : random;
        const passes = !/^(forbidden|invalid)/.test(
          await pin(
            address,
            networks.map(([a, b]) => `${a}/${b}`),
          ),
        );
        if (passes) assert.ok(networks.some(([base, bits]) => inNetwork(address, base, bits)));
        const ordinary = isIPv4(address) ? !isSpecial4(address) : /^2[4-9a-f]/.test(address);
        if (!passes && ordinary && !address.includes('5efe')) {
          assert.ok(!networks.some(([base, bits]) => inNetwork(address, base, bits)));
        }
      },
    );
    await fc.assert(property, { numRuns: 1500 });
  });

  test('no spelling of an IPv4 address leads to one that is not allowed', async () => {
    const property = fc.asyncProperty(ipv4, fc.nat(), async (address, seed) => {
      const all = spellings(address);
      const spelling = all[seed % all.length] as string;
      const result = await pin(spelling, EVERYWHERE);
      assert.match(result, /^(forbidden|invalid_request): /, `${spelling} became ${result}`);
    });
    await fc.assert(property, { numRuns: 1500 });
  });

  test('any text is pinned as an IP address or refused, and nothing else', async () => {
    const text = fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(...'0123456789abcdefx.:%[]/-') }));
    const property = fc.asyncProperty(text, async address => {
      const result = await pin(address, EVERYWHERE);
      assert.match(result, /^(forbidden: |invalid_request: |[0-9.]+$|[0-9a-f:]+$)/);
    });
    await fc.assert(property, { numRuns: 1500 });
  });
});

type Answer = string[] | 'SERVFAIL' | 'NXDOMAIN';
type Records = Record<string, { A: Answer; AAAA: Answer }>;

/** A DNS server (RFC 1035 §4.1) for names of one label, each with its answers; its address. */
async function startDns(t: TestContext, records: Records): Promise<string> {
  const server = createSocket('udp4');
  server.on('message', (query, { port, address }) => {
    const length = query.readUInt8(12);
    const name = query.toString('latin1', 13, 13 + length);
    const question = query.subarray(12, 13 + length + 1 + 4);
    const type = question.readUInt16BE(question.length - 4) === 1 ? 'A' : 'AAAA';
    const answer = records[name]?.[type] ?? 'NXDOMAIN';
    const found = Array.isArray(answer) ? answer : [];
    const header = Buffer.alloc(12);
    query.copy(header, 0, 0, 2);
    const code = answer === 'SERVFAIL' ? 2 : answer === 'NXDOMAIN' ? 3 : 0;
    header.writeUInt16BE(0x8180 | code, 2);
    header.writeUInt16BE(1, 4);
    header.writeUInt16BE(found.length, 6);
    const parts = found.map(text => {
      const value = bitsOf(text)
        .toString(16)
        .padStart(type === 'A' ? 8 : 32, '0');
      const data = Buffer.from(value, 'hex');
      const head = Buffer.from([0xc0, 12, 0, type === 'A' ? 1 : 28, 0, 1, 0, 0, 0, 0, 0, data.length]);
      return Buffer.concat([head, data]);
    });
    server.send(Buffer.concat([header, question, ...parts]), port, address);
  });
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return `127.0.0.1:${server.address().port}`;
}

function dotted(value: number): string {
  return [24, 16, 8, 0].map(shift => (value >>> shift) & 0xff).join('.');
}

function written(value: bigint): string {
  const parts = Array.from({ length: 8 }, (_, i) => ((value >> BigInt(112 - 16 * i)) & 0xffffn).toString(16));
  return new URL(`http://[${parts.join(':')}]`).hostname.slice(1, -1);
}

function bitsOf(address: string): bigint {
  if (isIPv4(address)) return address.split('.').reduce((sum, byte) => sum * 256n + BigInt(byte), 0n);
  const [head = '', tail = ''] = address.split('::');
  const read = (text: string) => (text === '' ? [] : text.split(':'));
  const [before, after] = [read(head), read(tail)];
  const all = [...before, ...Array(8 - before.length - after.length).fill('0'), ...after];
  return all.reduce((sum, part) => sum * 65_536n + BigInt(`0x${part}`), 0n);
}

function inNetwork(address: string, base: string, bits: number): boolean {
  if (isIPv4(address) !== isIPv4(base)) return false;
  const rest = BigInt((isIPv4(address) ? 32 : 128) - bits);
  return bitsOf(address) >> rest === bitsOf(base) >> rest;
}

/** Wider than the table: what is left is surely ordinary. */
function isSpecial4(address: string): boolean {
  const first = Number(address.split('.')[0]);
  return [0, 100, 127, 168, 169, 192, 198, 203].includes(first) || first >= 224;
}

/** All but the plain one. */
function spellings(address: string): string[] {
  const bytes = address.split('.').map(Number) as [number, number, number, number];
  const [a, b, c, d] = bytes;
  const value = Number(bitsOf(address));
  const hex = (n: number) => n.toString(16);
  const [high, low] = [(a << 8) | b, (c << 8) | d];
  return [
    String(value),
    `0x${hex(value)}`,
    `0${value.toString(8)}`,
    `${a}.${(b << 16) | (c << 8) | d}`,
    `${a}.${b}.${low}`,
    bytes.map(byte => `0x${hex(byte)}`).join('.'),
    bytes.map(byte => `0${byte.toString(8)}`).join('.'),
    `${address}.`,
    `::ffff:${address}`,
    `::FFFF:${hex(high)}:${hex(low)}`,
    `::ffff:0:${address}`,
    `64:ff9b::${address}`,
    `64:ff9b:1::${address}`,
    `64:ff9b:1:${hex(high)}:${hex(c)}:${hex(d << 8)}::`,
    `2002:${hex(high)}:${hex(low)}::1`,
    `2001::${hex(high ^ 0xffff)}:${hex(low ^ 0xffff)}`,
    `2606:2800::5efe:${address}`,
    `2606:2800::200:5efe:${address}`,
    `fe80::5efe:${address}`,
    `[::ffff:${address}]`,
    `${address}%eth0`,
    `${address}:80`,
    // Of these, two are no address of their own kind: :: and ::1.
    `::${address}`,
  ];
}
