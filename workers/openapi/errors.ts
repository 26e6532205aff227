import { ERROR_CODES, type ErrorCode, MeshError, toProblem } from '../../mesh/errors.ts';
import type { JsonObject } from '../../mesh/jsonrpc.ts';

/** Of other routes, other protocols, or of a caller who is gone: a call of a tool by REST never gets them. */
const ELSEWHERE = new Set<ErrorCode>([
  'unknown_instance',
  'unknown_session',
  'unknown_path',
  'conflict',
  'method_not_allowed',
  'not_acceptable',
  'cancelled',
]);

const CODES = ERROR_CODES.filter(code => !ELSEWHERE.has(code));

/** Problem details (RFC 9457) as the mesh has them. */
export const PROBLEM_SCHEMA: JsonObject = {
  type: 'object',
  required: ['type', 'title', 'status', 'code', 'detail', 'advice', 'delivered'],
  properties: {
    type: { type: 'string', format: 'uri' },
    title: { type: 'string' },
    status: { type: 'integer' },
    code: { type: 'string', enum: CODES },
    detail: { type: 'string' },
    advice: { type: 'string', description: 'What the caller can do about it.' },
    delivered: {
      type: 'string',
      enum: ['no', 'yes', 'unknown'],
      description:
        'Whether the call may have reached the MCP server, so whether it is safe to send it again.',
    },
    call_id: { type: 'string', description: "The call's id in logs (x-request-id)." },
    retry_after_ms: { type: 'integer' },
    errors: {
      type: 'array',
      description: 'What is wrong with the arguments.',
      items: {
        type: 'object',
        required: ['pointer', 'detail'],
        properties: {
          pointer: { type: 'string', description: 'JSON pointer (RFC 6901) into the arguments.' },
          detail: { type: 'string' },
        },
      },
    },
  },
};

/** The catalogue as responses, by name: one for each status, saying which codes have it. */
export const ERROR_RESPONSES: JsonObject = Object.fromEntries(
  statuses().map(status => [
    `Error${status}`,
    {
      description: problemsWith(status)
        .map(({ code, title, advice }) => `\`${code}\`: ${title}. ${advice}`)
        .join('\n\n'),
      content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
    },
  ]),
);

/** An operation's responses of errors: references to those, by status. */
export const ERROR_REFERENCES: JsonObject = Object.fromEntries(
  statuses().map(status => [String(status), { $ref: `#/components/responses/Error${status}` }]),
);

function statuses(): number[] {
  return [...new Set(CODES.map(code => new MeshError(code).status))].sort((a, b) => a - b);
}

function problemsWith(status: number) {
  return CODES.map(code => toProblem(new MeshError(code))).filter(problem => problem.status === status);
}
