// `node health-check.mjs PORT`: whether the worker of this container is well. It listens at the address that it
// advertises, which is one of this machine's: all of them are asked, with TLS and without.
import { get } from 'node:http';
import { get as getSecurely } from 'node:https';
import { networkInterfaces } from 'node:os';

const TIMEOUT_MS = 4000;

const [port] = process.argv.slice(2);
const addresses = Object.values(networkInterfaces()).flatMap(entries => entries ?? []);

const asked = addresses.flatMap(({ address: host }) =>
  [get, getSecurely].map(
    ask =>
      new Promise((resolve, reject) => {
        // Its certificate is for a name, which is nobody's here.
        const options = { host, port, path: '/health', timeout: TIMEOUT_MS, rejectUnauthorized: false };
        const request = ask(options, response => {
          if (response.statusCode === 200) resolve(undefined);
          else reject(new Error(`${host}:${port} answers ${response.statusCode}`));
        });
        request.on('timeout', () => request.destroy(new Error(`${host}:${port} is silent`)));
        request.on('error', reject);
      }),
  ),
);
await Promise.any(asked).catch(error => {
  process.stderr.write(`${error.errors.map(String).join('\n')}\n`);
  process.exit(1);
});
process.exit(0);
