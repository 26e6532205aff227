import type { CommonOptions } from '../command.ts';

export const RENDER_KINDS = ['compose', 'nomad', 'k8s', 'consul', 'secrets'] as const;

export interface RenderOptions extends CommonOptions {
  registry?: string;
  dir?: string;
}
