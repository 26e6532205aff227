import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { callers } from './dashboards/callers.ts';
import { fleet } from './dashboards/fleet.ts';
import { compactJson, toGrafana } from './dashboards/grafana.ts';
import type { Dashboard } from './dashboards/panel.ts';
import { resilience } from './dashboards/resilience.ts';
import { service } from './dashboards/service.ts';
import { worker } from './dashboards/worker.ts';

/** `node cli/dashboards.ts` writes config/grafana/dashboards/ from cli/dashboards/; a test keeps them equal. */

export const DASHBOARDS: Readonly<Record<string, Dashboard>> = {
  fleet,
  service,
  worker,
  callers,
  resilience,
};

const FOLDER = fileURLToPath(new URL('../config/grafana/dashboards/', import.meta.url));

/** The text of a dashboard's file. */
export function dashboardText(dashboard: Dashboard): string {
  return `${compactJson(toGrafana(dashboard))}\n`;
}

if (import.meta.main) {
  for (const [name, dashboard] of Object.entries(DASHBOARDS))
    writeFileSync(`${FOLDER}${name}.json`, dashboardText(dashboard));
}
