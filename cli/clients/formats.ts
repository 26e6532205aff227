import { Option } from 'commander';
import { suggestion } from '../../mesh/yaml-faults.ts';
import { UsageError } from '../usage-error.ts';
import { claudeCode } from './claude-code.ts';
import { claudeDesktop } from './claude-desktop.ts';
import { CLIENT_IDS, type ClientFormat, type ClientId } from './client-format.ts';
import { cline } from './cline.ts';
import { codex } from './codex.ts';
import { cursor } from './cursor.ts';
import type { JsonFile } from './json-file.ts';
import { vscode } from './vscode.ts';
import { windsurf } from './windsurf.ts';

const FORMATS: Readonly<Record<ClientId, ClientFormat>> = {
  claude: claudeDesktop,
  'claude-code': claudeCode,
  cursor,
  vscode,
  codex,
  windsurf,
  cline,
};

export function formatOf(id: ClientId): ClientFormat {
  return FORMATS[id];
}

/** `--client <name>`. */
export function clientOption(about: string): Option {
  return new Option('--client <name>', about).choices([...CLIENT_IDS]).argParser(readClient);
}

/** @throws UsageError with the nearest name when there is no such client */
export function readClient(name: string): ClientFormat {
  const id = CLIENT_IDS.find(known => known === name);
  if (id) return FORMATS[id];
  const hint = suggestion(name, CLIENT_IDS);
  throw new UsageError(`--client: "${name}" is not known${hint}; there are: ${CLIENT_IDS.join(', ')}`);
}

/** The client whose file this is; of files that could be several clients', Claude Code's form is the common one. */
export function detectFormat(file: JsonFile): { format: ClientFormat; sure: boolean } {
  // The name of a file says more than its shape, which is all that VS Code and Claude Code also go by.
  const byName = [claudeDesktop, windsurf, cline, cursor, vscode, claudeCode].find(format =>
    format.detect(file),
  );
  return { format: byName ?? claudeCode, sure: byName !== undefined };
}
