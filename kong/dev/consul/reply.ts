/** What an endpoint answers; the index only where the real one sends X-Consul-Index. */
export interface Reply {
  status: number;
  /** JSON for 2xx unless it is a Buffer; plain text else. */
  body: unknown;
  index?: number;
  headers?: Record<string, string>;
}

/** 200 with a JSON body; `undefined` is an empty one. */
export function reply(body?: unknown, index?: number): Reply {
  return { status: 200, body, ...(index === undefined ? {} : { index }) };
}

/** An answer that is not 2xx, with the real Consul's status and text. */
export class Refusal extends Error {
  readonly status: number;
  constructor(status: number, text: string) {
    super(text);
    this.status = status;
  }
}
