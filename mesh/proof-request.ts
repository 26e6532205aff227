import { get, type IncomingMessage } from 'node:http';
import { get as getSecurely } from 'node:https';
import { readBounded } from './bounded-body.ts';
import { createNonce, findProofFault, type InstancePlace, PROOF_PATH } from './instance-proof.ts';
import { readJson } from './read-json.ts';
import { type MeshTls, toWorker } from './tls.ts';

export interface ProofFault {
  /** For operators; nothing of what the other side wrote. */
  reason: string;
  /** Whether something answered at the address: then it is not the instance. Else the instance may be there, and slow. */
  answered: boolean;
}

interface ProofRequestOptions {
  /** The service's keys, any of which will do. */
  keys: readonly Buffer[];
  /** Of the whole exchange. */
  timeoutMs: number;
  signal: AbortSignal;
  /** undefined: plain HTTP. */
  tls?: MeshTls | undefined;
}

/** A proof with 16 keys has 1 KB. */
const ANSWER_BYTES = 4096;
const HEADER_BYTES = 8192;
/** Codes of what speaks, but neither our protocol nor under our certificates. */
const SOMETHING_ELSE = /^HPE_|CERT|^ERR_(TLS|SSL)|^UNABLE_TO_VERIFY|^EPROTO/;
const NETWORK_FAULTS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'the connection was closed before it answered',
  EHOSTUNREACH: 'host unreachable',
  ENETUNREACH: 'network unreachable',
  ENOTFOUND: 'its host name is unknown',
};

/**
 * Asks an instance for a proof, on a connection of its own. The other side may be anybody: its answer is bounded in
 * time and size, a redirect is not followed. Resolves with what is wrong, or undefined; never rejects.
 */
export async function requestProof(
  place: InstancePlace,
  { keys, timeoutMs, signal, tls }: ProofRequestOptions,
): Promise<ProofFault | undefined> {
  // Node would connect to localhost, or to port 80, instead.
  if (place.address === '' || !(place.port >= 1 && place.port <= 65_535)) {
    return { reason: 'it is registered without an address or a port', answered: false };
  }
  const nonce = createNonce();
  const ending = new AbortController();
  const end = () => ending.abort();
  const timer = setTimeout(end, timeoutMs);
  signal.addEventListener('abort', end, { once: true });
  try {
    const response = await send(place, nonce, ending.signal, tls);
    const text = await readBounded(response, ANSWER_BYTES);
    if (response.statusCode !== 200) {
      return { reason: `GET ${PROOF_PATH} was answered with status ${response.statusCode}`, answered: true };
    }
    const reason =
      text === undefined ? 'its answer is too large' : findProofFault(readJson(text), keys, nonce, place);
    return reason === undefined ? undefined : { reason, answered: true };
  } catch (error) {
    if (ending.signal.aborted) return { reason: `no whole answer within ${timeoutMs} ms`, answered: false };
    const { code = '' } = error as NodeJS.ErrnoException;
    return {
      reason: NETWORK_FAULTS[code] ?? `no HTTP answer (${code})`,
      answered: SOMETHING_ELSE.test(code),
    };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', end);
    // Also ends what still comes of an answer that was judged already.
    end();
  }
}

function send(
  { address, port, service }: InstancePlace,
  nonce: string,
  signal: AbortSignal,
  tls: MeshTls | undefined,
): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const path = `${PROOF_PATH}?nonce=${nonce}`;
    const options = { host: address, port, path, signal, agent: false, maxHeaderSize: HEADER_BYTES } as const;
    const request = tls
      ? getSecurely({ ...options, ...toWorker(tls, service) }, resolve)
      : get(options, resolve);
    request.on('error', reject);
    // Some ends come without an error, such as an upgrade nobody asked for; a second settling changes nothing.
    request.on('close', () => reject(Object.assign(new Error('closed'), { code: 'ECONNRESET' })));
  });
}
