import { acceptCallId } from '../mesh/names.ts';
import { gatewaySettings, startSettings } from '../mesh/settings.ts';
import { type CommonOptions, EXIT, type MeshCommand, UsageError } from './command.ts';
import { answer } from './output.ts';
import { printCall } from './why/print.ts';
import { readAudit } from './why/read-audit.ts';

const ABOUT = `Tells what became of one call: who made it and what allowed it, which instances there were and why one
was chosen, the tries, how long it waited and ran, and its trace. The call's id is in the answer's x-request-id
header, in error bodies (call_id) and in logs.

Gateways are asked for their last decisions, at the loopback port of their metrics; what the workers did is in their
audit logs. So this runs where both can be reached.`;

const TIMEOUT_MS = 5000;

/** What is known of a call. */
export interface KnownCall {
  id: string;
  /** As gateways tell it (`GET /decisions/<call-id>`), the newest first. */
  decisions: Record<string, unknown>[];
  /** Lines of audit logs, in their order. */
  audit: Record<string, unknown>[];
  /** What could not be asked, and why. */
  trouble: string[];
}

interface Options extends CommonOptions {
  gateway?: string[];
  audit?: string[];
}

/** `mesh why <call-id>` */
export function whyCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .argument('<call-id>')
    .repeatable(
      '--gateway <url>',
      "a gateway's metrics address; may stand several times (default: 127.0.0.1, port $MESH_GATEWAY_METRICS_PORT, else $MESH_PORT + 1, as npm start has it)",
    )
    .repeatable(
      '--audit <path>',
      'an audit log, with the older files beside it (PATH.1 …); %p stands for any process id; may stand several times (default: $MESH_AUDIT_LOG)',
    )
    .note('Exit codes: 0 found, 1 not found, 2 wrong usage. --json prints what was found.')
    .run(explain);
}

async function explain(text: string, { gateway, audit, json }: Options): Promise<number> {
  const id = acceptCallId(text);
  if (id === undefined) throw new UsageError(`"${text}" is no call id: 8 to 128 of A-Z a-z 0-9 . _ : -`);
  const defaults = gatewaySettings();
  const port = defaults.metricsPort ?? startSettings().port + 1;
  const gateways = gateway ?? [`http://127.0.0.1:${port}`];
  const logs = audit ?? (defaults.audit.path === undefined ? [] : [defaults.audit.path]);
  const call = await gather(id, gateways, logs);
  const found = call.decisions.length > 0 || call.audit.length > 0;
  answer(json, call, printCall(call));
  return found ? EXIT.ok : EXIT.failed;
}

async function gather(id: string, gateways: string[], logs: string[]): Promise<KnownCall> {
  const call: KnownCall = { id, decisions: [], audit: [], trouble: [] };
  for (const gateway of gateways) {
    try {
      call.decisions.push(...(await askGateway(gateway, id)));
    } catch (error) {
      call.trouble.push(`${gateway}: ${(error as Error).message}`);
    }
  }
  for (const path of logs) {
    try {
      call.audit.push(...(await readAudit(path, id)));
    } catch (error) {
      call.trouble.push(`${path}: ${(error as Error).message}`);
    }
  }
  call.audit.sort((a, b) => String(a.time).localeCompare(String(b.time)));
  return call;
}

/** The decisions that a gateway still knows. */
async function askGateway(address: string, id: string): Promise<Record<string, unknown>[]> {
  const base = URL.parse(address);
  if (!base) throw new UsageError(`--gateway: "${address}" is no URL, as in http://127.0.0.1:9550`);
  const url = new URL(`/decisions/${id}`, base);
  const response = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT_MS) }).catch((error: Error) => {
    const { cause } = error as { cause?: Error };
    throw new Error(
      `cannot be asked (${cause?.message ?? error.message}); is it the gateway's metrics port?`,
    );
  });
  if (response.status === 404) return [];
  if (!response.ok) throw new Error(`answers ${response.status}`);
  const { decisions } = (await response.json()) as { decisions?: unknown };
  return Array.isArray(decisions) ? decisions : [];
}
