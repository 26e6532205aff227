import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from './rendered.ts';

/** A Dockerfile without a container engine: its stages as folders, put together by its own instructions. */

export interface Stage {
  name: string;
  /** What it begins with: another stage, or somebody's image. */
  from: string;
  instructions: { name: string; text: string }[];
}

export interface Image {
  folder: string;
  /** Of the stage, ENTRYPOINT and CMD together. */
  command: string[];
  env: Record<string, string>;
}

const NPM_TIMEOUT_MS = 300_000;

/** The stages of a Dockerfile of the repository, in their order. */
export function readDockerfile(path: string): Stage[] {
  const text = readFileSync(join(ROOT, path), 'utf8')
    .replaceAll(/^\s*#.*\n/gm, '')
    .replaceAll(/\\\n\s*/g, ' ');
  const stages: Stage[] = [];
  for (const line of text.split('\n').filter(each => each.trim() !== '')) {
    const [, name = '', rest = ''] = /^(\w+)\s+(.*)$/.exec(line.trim()) ?? [];
    if (name === 'FROM') {
      const [, from = '', alias = ''] = /^(\S+)(?:\s+AS\s+(\S+))?$/.exec(rest) ?? [];
      stages.push({ name: alias, from, instructions: [] });
    } else stages.at(-1)?.instructions.push({ name, text: rest });
  }
  return stages;
}

/**
 * Makes the file trees of all stages below a folder. What is copied must be there, and must not be kept out by the file
 * of ignored paths.
 * @throws Error naming the instruction that cannot be carried out
 */
export function assemble(dockerfile: string, folder: string): (stage: string) => Image {
  const stages = readDockerfile(dockerfile);
  const ignored = readFileSync(join(ROOT, `${dockerfile}.dockerignore`), 'utf8').split('\n');
  const context = makeContext(ignored, join(folder, 'context'));
  const place = (name: string) => join(folder, name);
  for (const { name, from, instructions } of stages) {
    mkdirSync(place(name), { recursive: true });
    if (stages.some(other => other.name === from)) cpSync(place(from), place(name), { recursive: true });
    let workdir = '/';
    for (const { name: instruction, text } of instructions) {
      if (instruction === 'WORKDIR') workdir = text;
      else if (instruction === 'COPY') copy(text, { context, place, root: place(name), workdir });
      else if (instruction === 'RUN') run(text, join(place(name), workdir));
    }
  }
  return stage => {
    const found = stages.find(({ name }) => name === stage);
    if (!found) throw new Error(`${dockerfile} has no stage ${stage}`);
    return { folder: place(stage), ...describe(found.instructions) };
  };
}

/** The files that the build may see: `*` and what `!` lets in, as our files of ignored paths have it. */
function makeContext(ignored: string[], folder: string): string {
  for (const line of ignored.filter(each => each.startsWith('!'))) {
    const path = line.slice(1);
    if (!existsSync(join(ROOT, path)))
      throw new Error(`the file of ignored paths names ${path}, which is not there`);
    cpSync(join(ROOT, path), join(folder, path), { recursive: true });
  }
  return folder;
}

interface CopyParts {
  context: string;
  place(stage: string): string;
  root: string;
  workdir: string;
}

function copy(text: string, { context, place, root, workdir }: CopyParts): void {
  const words = text.split(/\s+/);
  const from = words.find(word => word.startsWith('--from='))?.slice('--from='.length);
  const paths = words.filter(word => !word.startsWith('--'));
  const target = paths.pop() ?? '';
  const base = from === undefined ? context : place(from);
  for (const source of paths) {
    const path = join(base, source);
    // The node program comes with the stage's own image.
    if (source === '/usr/local/bin/node') continue;
    if (!existsSync(path)) throw new Error(`COPY ${text}: ${source} is not there`);
    const into = join(root, target.startsWith('/') ? '/' : workdir, target);
    // A folder's content, or a file into a folder.
    const isFolder = source.endsWith('/');
    const to = isFolder || !target.endsWith('/') ? into : join(into, source.split('/').at(-1) ?? '');
    mkdirSync(isFolder ? into : dirname(to), { recursive: true });
    cpSync(path, to, { recursive: true, verbatimSymlinks: true });
  }
}

/** Each command that may stand in our files; another one fails the test, so that none goes unnoticed. */
function run(text: string, cwd: string): void {
  mkdirSync(cwd, { recursive: true });
  const command = text.replace(/^--mount=\S+\s+/, '');
  // The distribution's packages are the image's own matter.
  if (command.startsWith('apt-get ')) return;
  if (command === 'npm ci --ignore-scripts') {
    // All packages, of this lock file: those that the checkout has.
    symlinkSync(join(ROOT, 'node_modules'), join(cwd, 'node_modules'));
    return;
  }
  if (command.startsWith('npm ci --omit=dev')) {
    const offline = spawnSync('sh', ['-c', `${command} --offline --no-audit || ${command} --no-audit`], {
      cwd,
      timeout: NPM_TIMEOUT_MS,
      encoding: 'utf8',
    });
    if (offline.status !== 0) throw new Error(`${command}: ${offline.stderr}`);
    return;
  }
  const [program, script] = command.split(' ');
  if (program !== 'node' || script === undefined) throw new Error(`RUN ${command} is not known to this test`);
  const { status, stderr } = spawnSync(process.execPath, [script], { cwd, encoding: 'utf8' });
  if (status !== 0) throw new Error(`RUN ${command}: ${stderr}`);
  rmSync(join(cwd, 'node_modules'), { force: true });
}

function describe(instructions: Stage['instructions']): Omit<Image, 'folder'> {
  const last = (name: string) => instructions.findLast(each => each.name === name)?.text ?? '[]';
  const env: Record<string, string> = {};
  for (const { text } of instructions.filter(({ name }) => name === 'ENV'))
    for (const [, name = '', quoted, bare] of text.matchAll(/(\w+)=(?:"([^"]*)"|(\S+))/g))
      env[name] = quoted ?? bare ?? '';
  const words = (name: string) => JSON.parse(last(name)) as string[];
  return { command: [...words('ENTRYPOINT'), ...words('CMD')], env };
}
