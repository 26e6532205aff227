import { stringify } from 'yaml';

/** One YAML document, under a comment unless that is ''. Strings that YAML 1.1 takes for something else are quoted. */
export function toYaml(comment: string, value: unknown): string {
  const text = stringify(value, { lineWidth: 0, version: '1.1', aliasDuplicateObjects: false });
  if (comment === '') return text;
  return `${comment
    .split('\n')
    .map(line => `# ${line}`.trimEnd())
    .join('\n')}\n${text}`;
}

/** First line of everything that is rendered. */
export function origin(kind: string): string {
  return `Written by \`npx mesh render ${kind} --dir .\` from the registry: change that, and render again.`;
}
