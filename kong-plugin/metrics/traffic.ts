import { STATUS_CODES } from 'node:http';
import { Counter, Histogram, type Registry } from 'prom-client';
import { METRIC_PREFIX } from '../../mesh/names.ts';
import type { KnownService } from '../discovery.ts';
import type { Outcome } from '../log.ts';

const PREFIX = `${METRIC_PREFIX}gateway_`;
const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
/** nginx's own, for a client that went away. */
const CLIENT_CLOSED = 499;
/** Service of a refusal that was of none; and of one that asked for a service nobody knows. */
const NONE = 'none';
const OTHER = 'other';

/** Counts requests and how they ended, by service and by instance; series of those that are gone are dropped. */
export class TrafficMetrics {
  readonly #requests: Counter<'service' | 'status'>;
  readonly #duration: Histogram<'service' | 'status_class'>;
  readonly #retries: Counter<'service'>;
  readonly #denials: Counter<'service' | 'reason'>;
  readonly #tries: Counter<'service' | 'instance' | 'result'>;
  readonly #opened: Counter<'service'>;
  /** What has series, so that a scrape at which nothing is gone costs nothing. */
  readonly #services = new Set<string>();
  readonly #instances = new Set<string>();

  constructor(registers: Registry[]) {
    this.#requests = new Counter({
      name: `${PREFIX}requests_total`,
      help: 'Routed requests that have ended, by the HTTP status that the client got; 499: it went away',
      labelNames: ['service', 'status'],
      registers,
    });
    this.#duration = new Histogram({
      name: `${PREFIX}request_duration_seconds`,
      help: 'Time of a routed request at the gateway, listening streams apart, by class of its HTTP status',
      labelNames: ['service', 'status_class'],
      buckets: SECONDS,
      registers,
    });
    this.#retries = new Counter({
      name: `${PREFIX}retries_total`,
      help: 'Connections to an instance that failed and were followed by another instance',
      labelNames: ['service'],
      registers,
    });
    this.#denials = new Counter({
      name: `${PREFIX}denials_total`,
      help: 'Requests that the gateway refused, by reason; service "other": unknown to it, "none": none was asked for',
      labelNames: ['service', 'reason'],
      registers,
    });
    this.#tries = new Counter({
      name: `${PREFIX}instance_tries_total`,
      help: 'Requests sent to an instance, by what came of it: answered, failed, or unknown (the client went first)',
      labelNames: ['service', 'instance', 'result'],
      registers,
    });
    this.#opened = new Counter({
      name: `${PREFIX}breaker_opened_total`,
      help: 'Times that the breaker of an instance opened, failed probes included',
      labelNames: ['service'],
      registers,
    });
  }

  observe({ service, status, tries, latencyMs, stream }: Outcome): void {
    this.#services.add(service);
    this.#requests.inc({ service, status: statusLabel(status) });
    if (!stream) this.#duration.observe({ service, status_class: classOf(status) }, latencyMs / 1000);
    if (tries.length > 1) this.#retries.inc({ service }, tries.length - 1);
    for (const { instance, result } of tries) {
      this.#instances.add(instance);
      this.#tries.inc({ service, instance, result });
    }
  }

  /** `service` as the caller wrote it: only a name that is `known` becomes a label. */
  denied(reason: string, service: string | undefined, known: (name: string) => boolean): void {
    const label = service === undefined ? NONE : known(service) ? service : OTHER;
    this.#services.add(label);
    this.#denials.inc({ service: label, reason });
  }

  opened(service: string): void {
    this.#services.add(service);
    this.#opened.inc({ service });
  }

  /** Drops the series of all other services and instances: they come and go for as long as the gateway lives. */
  async retain(services: readonly KnownService[]): Promise<void> {
    const names = new Set([NONE, OTHER, ...services.map(({ name }) => name)]);
    const ids = new Set(services.flatMap(({ instances }) => instances.map(({ id }) => id)));
    if (this.#services.isSubsetOf(names) && this.#instances.isSubsetOf(ids)) return;
    const isGone = ({ service, instance }: Labels) =>
      !names.has(String(service)) || (instance !== undefined && !ids.has(String(instance)));
    for (const metric of [this.#requests, this.#retries, this.#denials, this.#tries, this.#opened]) {
      for (const { labels } of (await metric.get()).values) if (isGone(labels)) metric.remove(labels);
    }
    for (const { labels } of (await this.#duration.get()).values) {
      // prom-client's types leave the bucket's own label out.
      const { le: _le, ...own } = labels as typeof labels & { le?: unknown };
      if (isGone(own)) this.#duration.remove(own);
    }
    for (const name of this.#services) if (!names.has(name)) this.#services.delete(name);
    for (const id of this.#instances) if (!ids.has(id)) this.#instances.delete(id);
  }
}

type Labels = Partial<Record<'service' | 'instance', string | number>>;

/** A worker may answer with any number; the ones that are statuses are few. */
function statusLabel(status: number): string {
  return status in STATUS_CODES || status === CLIENT_CLOSED ? String(status) : OTHER;
}

function classOf(status: number): string {
  return status >= 100 && status < 600 ? `${Math.floor(status / 100)}xx` : OTHER;
}
