import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { MeshTls } from '../mesh/tls.ts';

/** A certificate authority for one test. */
export interface Authority {
  /** A certificate for a name, with the paths of its files. */
  issue(name: string): MeshTls & { files: { cert: string; key: string; ca: string } };
  remove(): void;
}

/** Made by openssl, which has to be on PATH, as the README tells operators to. */
export function createAuthority(): Authority {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-ca-'));
  const at = (name: string) => join(folder, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: folder, stdio: 'pipe' });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  const authority = ['-x509', ...newKey, '-keyout', 'ca.key', '-out', 'ca.crt', '-days', '1'];
  openssl('req', ...authority, '-subj', '/CN=mcp-mesh');
  return {
    issue(name) {
      openssl('req', ...newKey, '-keyout', `${name}.key`, '-out', `${name}.csr`, '-subj', `/CN=${name}`);
      writeFileSync(
        at(`${name}.ext`),
        `subjectAltName=DNS:${name}\nextendedKeyUsage=serverAuth,clientAuth\n`,
      );
      const signer = ['-CA', 'ca.crt', '-CAkey', 'ca.key', '-CAcreateserial'];
      const request = ['-req', '-in', `${name}.csr`, '-out', `${name}.crt`, '-extfile', `${name}.ext`];
      openssl('x509', ...request, ...signer, '-days', '1');
      const files = { cert: at(`${name}.crt`), key: at(`${name}.key`), ca: at('ca.crt') };
      const read = (path: string) => readFileSync(path, 'utf8');
      return { cert: read(files.cert), key: read(files.key), ca: read(files.ca), files };
    },
    remove: () => rmSync(folder, { recursive: true }),
  };
}
