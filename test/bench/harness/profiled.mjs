// Preloaded into a program: SIGUSR2 begins a profile of its processor time, the next one ends it and writes it to
// BENCH_FOLDER/profile.json.
import { renameSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import { join } from 'node:path';

const INTERVAL_US = 100;
const path = join(process.env.BENCH_FOLDER, 'profile.json');
let session;

process.on('SIGUSR2', () => {
  if (session === undefined) {
    session = new Session();
    session.connect();
    session.post('Profiler.enable');
    session.post('Profiler.setSamplingInterval', { interval: INTERVAL_US });
    session.post('Profiler.start');
    writeFileSync(`${path}.begun`, '');
    return;
  }
  session.post('Profiler.stop', (_error, { profile }) => {
    // Whoever waits for the file must not read half of it.
    writeFileSync(`${path}.part`, JSON.stringify(profile));
    renameSync(`${path}.part`, path);
  });
  session.disconnect();
  session = undefined;
});
