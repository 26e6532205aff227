import { type Delivered, MeshError } from '../../mesh/errors.ts';
import type { Refusal } from './answers.ts';
import { Unreachable } from './link.ts';

/** The server's answer was no 2xx. */
export class Refused extends Error {
  override name = 'Refused';
  readonly refusal: Refusal;

  constructor(refusal: Refusal) {
    super(refusal.reason);
    this.refusal = refusal;
  }
}

/** The answer broke off before the response was there. */
export class Lost extends Error {
  override name = 'Lost';
}

const UNAVAILABLE = 503;
/** What stands between us and the mesh says so of itself, or of what it could not reach. */
const OF_PROXIES = new Set([502, 504]);

/**
 * Milliseconds to wait before a request may be sent again after this fault; undefined: never.
 * @param isRepeatable whether it does no harm when it is executed twice
 */
export function waitAfter(fault: unknown, isRepeatable: boolean): number | undefined {
  if (fault instanceof Unreachable) {
    if (fault.isFinal) return undefined;
    return fault.delivered === 'no' || isRepeatable ? 0 : undefined;
  }
  if (fault instanceof Lost) return isRepeatable ? 0 : undefined;
  if (!(fault instanceof Refused)) return undefined;
  const { status, code, delivered, retryAfterMs = 0 } = fault.refusal;
  if (status === UNAVAILABLE && (delivered ?? 'no') === 'no') return retryAfterMs;
  return code === undefined && OF_PROXIES.has(status) && isRepeatable ? retryAfterMs : undefined;
}

/** The error that the client is told, under its request's id, as JSON text. */
export function describeFault(
  fault: unknown,
  idText: string,
  errorText: (idText: string, error: MeshError) => string,
): string {
  if (fault instanceof Refused) return fault.refusal.toText(idText);
  const delivered: Delivered = fault instanceof Unreachable ? fault.delivered : 'unknown';
  const detail = fault instanceof Error ? fault.message : String(fault);
  if (delivered === 'no')
    return errorText(idText, new MeshError('no_healthy_instance', { detail, delivered }));
  return errorText(idText, new MeshError('worker_lost', { detail, delivered }));
}
