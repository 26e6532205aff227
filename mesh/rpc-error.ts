/** An error that the MCP specification gives a code of its own; what is ours alone is a MeshError. */
export class RpcError extends Error {
  override name = 'RpcError';
  /** HTTP status of the answer while none has begun. */
  readonly status: number;
  readonly code: number;
  readonly data: unknown;

  constructor(status: number, code: number, message: string, data?: unknown) {
    super(message);
    this.status = status;
    this.code = code;
    this.data = data;
  }

  /** The response's text; `idText` is `null` when the request's id is not known. */
  toText(idText: string): string {
    const data = this.data === undefined ? {} : { data: this.data };
    return `{"jsonrpc":"2.0","id":${idText},"error":${JSON.stringify({ code: this.code, message: this.message, ...data })}}`;
  }
}
