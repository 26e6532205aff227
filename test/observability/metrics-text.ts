/** One sample of Prometheus' text format. */
export interface Sample {
  name: string;
  labels: Record<string, string>;
  value: number;
}

/** @throws Error for a line that is neither a sample nor a comment */
export function readSamples(text: string): Sample[] {
  return text
    .split('\n')
    .filter(line => line !== '' && !line.startsWith('#'))
    .map(line => {
      const [, name, labels = '', value] = /^([a-z_0-9]+)(?:\{(.*)\})? (\S+)$/i.exec(line) ?? [];
      if (name === undefined) throw new Error(`no sample: ${line}`);
      const pairs = labels.matchAll(/([a-z_0-9]+)="((?:[^"\\]|\\.)*)"/gi);
      return {
        name,
        labels: Object.fromEntries([...pairs].map(([, key, text]) => [key, text])),
        value: Number(value),
      };
    });
}

export function valuesOf(text: string, name: string): Sample[] {
  return readSamples(text).filter(sample => sample.name === name);
}

export function seriesCount(text: string): number {
  return readSamples(text).filter(({ name }) => !/_(nodejs|process)_/.test(name)).length;
}
