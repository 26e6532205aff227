/** Where spans go, and which; undefined settings: nowhere, and nothing of OpenTelemetry is loaded. */
export interface TracingSettings {
  /** Takes OTLP over HTTP, as JSON. */
  url: string;
  /** Share of the traces that begin here which is recorded, 0 to 1. */
  ratio: number;
  /** Whether a trace that a caller began is recorded when, and only when, the caller says so. */
  followCaller: boolean;
  /** Time for which spans are gathered before they are sent, in ms. */
  flushMs: number;
}

const PATH = 'v1/traces';
const FLUSH_MS = 5000;
const SAMPLER = /^(parentbased_)?(always_on|always_off|traceidratio)$/;
/** A receiver of OTLP over HTTP takes either encoding. */
const PROTOCOLS = ['http/json', 'http/protobuf'];

/**
 * Reads the variables of the OpenTelemetry specification ("Environment Variable Specification", "OTLP Exporter") that
 * say whether and where to; headers, time-outs, compression, certificates and resource attributes are read by the SDK.
 * @throws Error naming the variable when a value makes no sense
 */
export function tracingSettings(
  env: Readonly<Record<string, string | undefined>>,
): TracingSettings | undefined {
  if (env.OTEL_SDK_DISABLED?.toLowerCase() === 'true' || env.OTEL_TRACES_EXPORTER === 'none')
    return undefined;
  const url = endpoint(env);
  if (url === undefined) return undefined;
  const protocol = env.OTEL_EXPORTER_OTLP_TRACES_PROTOCOL || env.OTEL_EXPORTER_OTLP_PROTOCOL;
  if (protocol && !PROTOCOLS.includes(protocol)) {
    throw new Error(`OTEL_EXPORTER_OTLP_PROTOCOL: "${protocol}" is not spoken here; use http/json`);
  }
  return { url, ...sampling(env), flushMs: whole(env, 'OTEL_BSP_SCHEDULE_DELAY', FLUSH_MS) };
}

/** The variable for traces is the whole address, the general one its beginning. */
function endpoint(env: Readonly<Record<string, string | undefined>>): string | undefined {
  const whole = env.OTEL_EXPORTER_OTLP_TRACES_ENDPOINT;
  if (whole) return httpUrl('OTEL_EXPORTER_OTLP_TRACES_ENDPOINT', whole);
  const base = env.OTEL_EXPORTER_OTLP_ENDPOINT;
  if (!base) return undefined;
  return `${httpUrl('OTEL_EXPORTER_OTLP_ENDPOINT', base).replace(/\/+$/, '')}/${PATH}`;
}

function httpUrl(name: string, text: string): string {
  if (/^https?:$/.test(URL.parse(text)?.protocol ?? '')) return text;
  throw new Error(`${name}: not an http(s) URL, as in http://localhost:4318`);
}

function sampling(env: Readonly<Record<string, string | undefined>>) {
  const name = env.OTEL_TRACES_SAMPLER || 'parentbased_always_on';
  const [, follow, kind] = SAMPLER.exec(name) ?? [];
  if (kind === undefined) {
    throw new Error(`OTEL_TRACES_SAMPLER: "${name}" is not known; use parentbased_traceidratio, for one`);
  }
  const argument = env.OTEL_TRACES_SAMPLER_ARG || '1';
  const ratio = kind === 'traceidratio' ? Number(argument) : Number(kind === 'always_on');
  if (!(ratio >= 0 && ratio <= 1))
    throw new Error(`OTEL_TRACES_SAMPLER_ARG: "${argument}" is not from 0 to 1`);
  return { ratio, followCaller: follow !== undefined };
}

function whole(env: Readonly<Record<string, string | undefined>>, name: string, fallback: number): number {
  const text = env[name];
  if (!text) return fallback;
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new Error(`${name}: "${text}" is not a whole number`);
  return value;
}
