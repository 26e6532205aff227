import { createHash } from 'node:crypto';
import type { Catalog, Service } from './catalog.ts';
import { LocalChecks, type ReapTimes, type Status } from './checks.ts';
import { type CheckDefinition, parseJson, readRegistration, type ServiceDefinition } from './definition.ts';
import { Refusal, type Reply, reply } from './reply.ts';

const STATUSES: readonly string[] = ['passing', 'warning', 'critical'];
const MAINTENANCE_NOTES =
  'Maintenance mode is enabled for this service, but no reason was provided. This is a default message.';

/** The agent's side: services registered here, kept in the catalogue. */
export class Agent {
  readonly #catalog: Catalog;
  readonly #services = new Map<string, Service>();
  readonly #checks: LocalChecks;
  readonly #knowsRedirects: boolean;

  constructor(catalog: Catalog, reap: ReapTimes, { knowsRedirects = false } = {}) {
    this.#catalog = catalog;
    this.#knowsRedirects = knowsRedirects;
    this.#checks = new LocalChecks({
      node: catalog.node.Node,
      reap,
      sync: check => this.#sync(check.ServiceID),
      removeService: id => void this.deregister(id),
    });
  }

  /** PUT /v1/agent/service/register[?replace-existing-checks] */
  register(query: URLSearchParams, body: Buffer): Reply {
    const definition = readRegistration(body, { knowsRedirects: this.#knowsRedirects });
    const service = serviceOf(definition);
    const wanted = checksOf(service, definition);
    this.#services.set(service.ID, service);
    if (['', 'true'].includes(query.get('replace-existing-checks') ?? 'no')) {
      for (const { CheckID } of this.#checks.of(service.ID))
        if (!wanted.has(CheckID)) this.#removeCheck(CheckID);
    }
    for (const [id, check] of wanted) this.#checks.add(service, id, check);
    this.#sync(service.ID);
    return reply();
  }

  /** PUT /v1/agent/service/deregister/<id>; like 1.8, silent about an unknown one. */
  deregister(id: string): Reply {
    for (const { CheckID } of this.#checks.of(id)) this.#checks.remove(CheckID);
    this.#services.delete(id);
    this.#catalog.remove(id);
    return reply();
  }

  /** PUT /v1/agent/service/maintenance/<id>?enable=<true|false>[&reason] */
  maintain(id: string, query: URLSearchParams): Reply {
    const enable = query.get('enable');
    if (enable === null) throw new Refusal(400, 'Missing value for enable');
    if (!['true', 'false'].includes(enable)) throw new Refusal(400, `Invalid value for enable: "${enable}"`);
    const service = this.#services.get(id);
    if (service === undefined) throw new Refusal(404, `No service registered with ID ${JSON.stringify(id)}`);
    const checkId = `_service_maintenance:${id}`;
    if (enable === 'false') {
      this.#removeCheck(checkId);
    } else if (!this.#checks.has(checkId)) {
      this.#checks.addMaintenance(service, checkId, query.get('reason') || MAINTENANCE_NOTES);
      this.#sync(id);
    }
    return reply();
  }

  /** PUT /v1/agent/check/{pass,warn,fail}/<id>[?note] */
  setStatus(status: Status, id: string, query: URLSearchParams): Reply {
    this.#checks.beat(id, status, query.get('note') ?? '');
    return reply();
  }

  /** PUT /v1/agent/check/update/<id> {"Status", "Output"} */
  updateCheck(id: string, body: Buffer): Reply {
    const { Status: status, Output = '' } = parseJson(body) as { Status?: string; Output?: string };
    if (!STATUSES.includes(status ?? '')) throw new Refusal(400, `Invalid check status: '${status ?? ''}'`);
    this.#checks.beat(id, status as Status, Output);
    return reply();
  }

  /** GET /v1/agent/services */
  listServices(): Reply {
    return reply(Object.fromEntries(this.#services));
  }

  /** GET /v1/agent/service/<id> */
  getService(id: string): Reply {
    const service = this.#services.get(id);
    if (service === undefined) throw new Refusal(404, `unknown service ID: ${id}`);
    const ContentHash = createHash('sha256').update(JSON.stringify(service)).digest('hex').slice(0, 16);
    return { ...reply({ ...service, ContentHash }), headers: { 'x-consul-contenthash': ContentHash } };
  }

  /** GET /v1/agent/checks */
  listChecks(): Reply {
    const rows = this.#checks
      .all()
      .map(check => [check.CheckID, { ...check, CreateIndex: 0, ModifyIndex: 0 }]);
    return reply(Object.fromEntries(rows));
  }

  close(): void {
    this.#checks.close();
  }

  /** What the agent holds back (a change of the output alone) stays out of it. */
  #sync(id: string): void {
    const service = this.#services.get(id);
    if (service !== undefined) this.#catalog.put(service, this.#checks.toSync(id));
  }

  #removeCheck(id: string): void {
    this.#checks.remove(id);
    this.#catalog.removeCheck(id);
  }
}

function serviceOf({ Check, Checks, Name, ID, Tags, Meta, ...rest }: ServiceDefinition): Service {
  return { ID: ID || Name, Service: Name, ...rest, Tags: Tags ?? [], Meta: Meta ?? {} };
}

/** Check id → definition, with the ids that the agent gives to checks without one. */
function checksOf({ ID }: Service, { Check, Checks }: ServiceDefinition): Map<string, CheckDefinition> {
  const all = [...(Check === undefined ? [] : [Check]), ...Checks];
  const suffix = (i: number) => (all.length > 1 ? `:${i + 1}` : '');
  return new Map(all.map((check, i) => [check.CheckID || `service:${ID}${suffix(i)}`, check]));
}
