import fc from 'fast-check';

/** What is hardly HTTP, or stops in the middle, as the pieces that are sent one by one. */
export const rawRequest = fc.oneof(
  fc.uint8Array({ maxLength: 300 }).map(bytes => [Buffer.from(bytes)]),
  fc
    .constantFrom(
      'GET /mcp',
      'GET /mcp HTTP/9.9\r\n\r\n',
      'GET /mcp HTTP/1.0\r\n\r\n',
      'GET /mcp HTTP/1.1\r\n\r\n',
      'GET /mcp HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n',
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n',
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef',
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n',
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffffff\r\n',
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n',
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{"a":',
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}',
      'GET /mcp HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n',
      'GET /mcp HTTP/1.1\r\nhost: localhost\r\nupgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\r\n',
      'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
      'GET /mcp HTTP/1.1\nhost: localhost\n\n',
      'GET /mcp HTTP/1.1\r\nhost: localhost\r\nbad header: x\r\n\r\n',
      'GET /mcp HTTP/1.1\r\nhost: localhost\r\nx: a\r\n b\r\n\r\n',
      '\r\n\r\nGET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n',
      '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
      `GET /mcp HTTP/1.1\r\nhost: localhost\r\nx: ${'a'.repeat(100_000)}\r\n\r\n`,
      `GET /${'a'.repeat(100_000)} HTTP/1.1\r\nhost: localhost\r\n\r\n`,
      `GET /mcp HTTP/1.1\r\nhost: localhost\r\n${Array.from({ length: 3000 }, (_, i) => `x${i}: 1\r\n`).join('')}\r\n`,
    )
    .map(text => [Buffer.from(text, 'latin1')]),
  // A good request cut anywhere, its parts sent one by one, the end never.
  fc.tuple(fc.nat({ max: 160 }), fc.nat({ max: 160 })).map(([a, b]) => {
    const good = Buffer.from(
      'POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: */*\r\ncontent-length: 40\r\n\r\n{"jsonrpc":"2.0","id":1,"method":"ping"}',
    );
    return [good.subarray(0, Math.min(a, b)), good.subarray(Math.min(a, b), Math.max(a, b))];
  }),
);
