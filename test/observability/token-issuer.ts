import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';

export interface TokenIssuer {
  /** Its entry in access.yaml. */
  entry: { issuer: string; jwks_uri: string; audience: string };
  /** A token that is good for a minute, of a caller who has the role. */
  token(role: string): Promise<string>;
  /** Tokens are signed with a new key from now on, which nobody can fetch: the server of the keys is gone. */
  vanish(): Promise<void>;
  close(): Promise<void>;
}

const ALGORITHM = 'ES256';
const AUDIENCE = 'https://mesh.example.com';

/** An issuer of access tokens, with the server that gives its public keys away (RFC 7517). */
export async function startTokenIssuer(): Promise<TokenIssuer> {
  let kid = 'first';
  let pair = await generateKeyPair(ALGORITHM);
  const published = JSON.stringify({ keys: [{ ...(await exportJWK(pair.publicKey)), kid }] });
  const server = createServer((_request, response) => response.end(published)).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const close = async () => {
    if (!server.listening) return;
    const closed = once(server, 'close');
    server.close();
    server.closeAllConnections();
    await closed;
  };
  return {
    entry: { issuer, jwks_uri: `${issuer}/keys`, audience: AUDIENCE },
    token: role =>
      new SignJWT({ roles: [role] })
        .setProtectedHeader({ alg: ALGORITHM, kid, typ: 'at+jwt' })
        .setIssuer(issuer)
        .setAudience(AUDIENCE)
        .setSubject('somebody')
        .setExpirationTime('1m')
        .sign(pair.privateKey),
    async vanish() {
      kid = 'second';
      pair = await generateKeyPair(ALGORITHM);
      await close();
    },
    close,
  };
}
