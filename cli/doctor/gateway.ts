import { isObject } from '../../mesh/jsonrpc.ts';
import { MCP_PATH } from '../../mesh/names.ts';
import { type Answer, ask, excerpt, shorten } from './ask.ts';
import { broken, ok, type Patient, skipped, type Verdict } from './verdict.ts';

const WHERE = 'see that the gateway runs, and that --gateway (or MESH_PORT) names it';

/** The gateway knows the service and has instances to send calls to. */
export async function checkGateway(patient: Patient): Promise<Verdict> {
  const { service, gateway } = patient;
  const url = `${gateway}${MCP_PATH}/${service.name}/status`;
  const answer = await askGateway(patient, url);
  if ('state' in answer) return answer;
  const { json } = answer;
  if (!isObject(json) || typeof json.healthy !== 'number') return foreign(url, answer);
  const details = Array.isArray(json.details) ? json.details.filter(isObject) : [];
  if (json.healthy > 0) return ok(`${json.healthy} of ${details.length} instances can be called`);
  const reasons = details.flatMap(({ reason }) => (typeof reason === 'string' ? [reason] : []));
  const why = reasons.length === 0 ? 'it has seen none' : shorten([...new Set(reasons)].join('; '));
  const cure = 'see that the gateway and the workers have the same Consul (CONSUL_HTTP_ADDR)';
  return broken(`no instance can be called: ${why}`, cure);
}

/** A call goes all the way to the MCP server and back. */
export async function checkCall(patient: Patient): Promise<Verdict> {
  const { service, gateway, timeoutMs } = patient;
  const url = `${gateway}${MCP_PATH}/${service.name}/execute`;
  const body = JSON.stringify({ command: 'tools/list' });
  const answer = await askGateway(patient, url, { body, timeoutMs });
  if ('state' in answer) return answer;
  if (!isObject(answer.json)) return foreign(url, answer);
  const { tools } = answer.json;
  return ok(Array.isArray(tools) ? `tools/list has ${tools.length} tools` : 'it answers; it has no tools');
}

/** A good answer, or what is wrong. */
async function askGateway(
  { key, service }: Patient,
  url: string,
  post?: { body: string; timeoutMs: number },
): Promise<Answer | Verdict> {
  const headers = {
    ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
    ...(post ? { 'content-type': 'application/json' } : {}),
  };
  let answer: Answer;
  try {
    answer = await ask(url, { headers, ...(post ? { method: 'POST', ...post } : {}) });
  } catch (error) {
    return broken(`${url}: ${(error as Error).message}`, WHERE);
  }
  const { status, json } = answer;
  if (status === 200) return answer;
  // A server without tools refuses the method: the call has got there all the same.
  const code = isObject(json) ? json.code : undefined;
  if (code === 'invalid_request' && isObject(json) && json.delivered === 'yes')
    return { ...answer, json: {} };
  if (code === undefined && status !== 401 && status !== 403) return foreign(url, answer);
  const text = `${url} answers ${status} ${code ?? ''}: ${excerpt(answer)}`;
  if (status !== 401 && status !== 403) return broken(text, cureOf(code, service.name));
  if (key === undefined) return skipped(`${text}; give a caller's key with --key`);
  return broken(text, 'give another key with --key, or let its role have the service (config/access.yaml)');
}

function cureOf(code: unknown, name: string): string {
  if (code === 'unknown_service')
    return 'the gateway has another Consul, or has not heard of it yet: compare CONSUL_HTTP_ADDR, look again';
  return `\`mesh logs ${name}\` and the gateway's log say more; --key names another caller`;
}

function foreign(url: string, answer: Answer): Verdict {
  return broken(`${url} is no gateway of a mesh: it answers ${answer.status} with ${excerpt(answer)}`, WHERE);
}
