import { startSettings } from '../mesh/settings.ts';
import { type ControlClient, connectControl } from '../workers/fleet/control-client.ts';
import { controlPath } from '../workers/fleet/control-path.ts';

/** Path of the control socket of the registry's supervisor, as that one itself finds it. */
export function controlPathOf({ registryPath, environment } = startSettings()): string {
  const { MESH_STATE_DIR, XDG_RUNTIME_DIR } = environment;
  return controlPath({ registryPath, stateDir: MESH_STATE_DIR, runtimeDir: XDG_RUNTIME_DIR });
}

/** The supervisor on this host of a registry file; default: that of MESH_REGISTRY. Opens no connection yet. */
export function connectSupervisor(registry: string | undefined): ControlClient {
  const settings = startSettings();
  return connectControl(controlPathOf({ ...settings, registryPath: registry ?? settings.registryPath }));
}
