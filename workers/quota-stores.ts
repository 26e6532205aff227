import { join } from 'node:path';
import type { Logger } from 'pino';
import { MeshError } from '../mesh/errors.ts';
import { createLimitStore, type WindowStore } from '../mesh/limit-store.ts';
import type { Service } from '../mesh/registry.ts';
import type { WorkerSettings } from '../mesh/settings.ts';
import { createQuota, type Quota } from './quota.ts';
import { openQuotaFile } from './quota-file.ts';

const FILE = 'quotas.sqlite';

/**
 * Where this worker counts: in Redis, else rates in memory and quotas in a file of the host's. With neither, callers
 * that have a quota are refused, since it would begin anew with each restart.
 */
export function openQuotas(
  service: Service,
  { limits, stateDir }: WorkerSettings,
  { log, onFailure }: { log: Logger; onFailure(): void },
): { quota: Quota; close(): Promise<void> } {
  const warn = (text: string) => log.warn(text);
  const store = createLimitStore({ ...limits, log: warn, onFailure });
  const file =
    limits.redisUrl === undefined && stateDir !== undefined
      ? openQuotaFile({
          path: join(stateDir, FILE),
          onStoreFailure: limits.onStoreFailure,
          log: warn,
          onFailure,
        })
      : undefined;
  const quotaStore = file ?? (store.durable ? store : refusing());
  return {
    quota: createQuota({ store, quotaStore, costs: service.costs }),
    async close() {
      await Promise.all([store.close(), file?.close()]);
    },
  };
}

function refusing(): WindowStore {
  const cause = new Error(
    'a quota cannot be counted: set MESH_REDIS_URL, or MESH_STATE_DIR for a single host',
  );
  return {
    durable: true,
    consume: () => Promise.reject(new MeshError('internal', { delivered: 'no', cause })),
    refund: async () => {},
    close: async () => {},
  };
}
