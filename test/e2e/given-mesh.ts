import type { Mesh } from './mesh-process.ts';

/** A mesh that runs already, behind a real Kong, in place of one that tests start. */
export interface GivenMesh {
  /** KONG_URL: what clients call. */
  url: string;
  /** KONG_ADMIN_URL: Kong's Admin API. */
  adminUrl: string | undefined;
  /** CONSUL_HTTP_ADDR, as a URL. */
  consulUrl: string | undefined;
}

/** For the `skip` of tests that stop, kill or count processes. */
export const NOT_OURS = 'KONG_URL is set: the processes of that mesh are not ours to end';

export function givenMesh(env: NodeJS.ProcessEnv = process.env): GivenMesh | undefined {
  const { KONG_URL, KONG_ADMIN_URL, CONSUL_HTTP_ADDR } = env;
  if (!KONG_URL) return undefined;
  return {
    url: urlOf('KONG_URL', KONG_URL) ?? '',
    adminUrl: urlOf('KONG_ADMIN_URL', KONG_ADMIN_URL),
    consulUrl: urlOf('CONSUL_HTTP_ADDR', CONSUL_HTTP_ADDR),
  };
}

/** As one that was started here; nothing stops it. */
export function asMesh({ url }: GivenMesh): Mesh {
  return { url, pid: 0, output: () => `(the mesh at ${url} writes elsewhere)`, stop: async () => 0 };
}

/** host:port is one, too. @throws Error naming the variable */
function urlOf(name: string, text: string | undefined): string | undefined {
  if (!text) return undefined;
  const url = URL.parse(text.includes('://') ? text : `http://${text}`);
  if (url === null || !/^https?:$/.test(url.protocol))
    throw new Error(`${name}: "${text}" is no http(s) URL`);
  return url.origin;
}
