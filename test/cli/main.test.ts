import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

/** The program as users start it: the built one. `npm test` builds first. */

const BIN = resolve(import.meta.dirname, '../../bin/raftkv.js');

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'raftkv-main-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function raftkv(args: string[], environment: NodeJS.ProcessEnv = {}) {
  return new Promise<{ code: number; stdout: string; stderr: string }>((resolveRun) => {
    const options = { cwd: folder, env: { ...process.env, ...environment } };
    execFile(process.execPath, [BIN, ...args], options, (error, stdout, stderr) => {
      resolveRun({ code: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

describe.concurrent('raftkv', () => {
  it.each([
    [[], ['spawn', 'node', 'status', 'Exit codes: 0 done, 1 failure, 2 wrong usage']],
    [['spawn'], ['--config', '--data-dir', '--log-level', '$ raftkv spawn --config examples/five-nodes.json']],
    [['node'], ['--id <number>', 'RAFTKV_ID', '$ raftkv node --id 1']],
    [['node'], ['--join', '$ raftkv node --id 4 --join']],
    [['member'], ['list', 'add', 'replace', 'remove', 'promote', '$ raftkv member replace 2 5 --host']],
    [
      ['member', 'add'],
      ['--learner', '--no-wait', '--node <id>', '--client-port <port>', '--json'],
    ],
    [
      ['log', 'dump'],
      ['--from <index>', '$ raftkv log dump data/node-1'],
    ],
    [['log', 'verify'], ['Ends with exit code 0 if all of it verifies']],
    [['snapshot'], ['save', 'restore', 'inspect']],
    [
      ['snapshot', 'restore'],
      ['--id <number>', 'backup.snapshot'],
    ],
    [['recover'], ['--force-new-cluster', '--yes', 'raftkv recover --force-new-cluster --id 1']],
    [['status'], ['--json', 'RAFTKV_CONFIG', '$ raftkv status --json | jq .leader']],
  ])('%j explains itself, with examples', async (command, parts) => {
    const { code, stdout, stderr } = await raftkv([...command, '--help']);
    expect([code, stderr]).toEqual([0, '']);
    for (const part of parts) expect(stdout).toContain(part);
  });

  it('tells its version', async () => {
    expect(await raftkv(['--version'])).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\d+\.\d+\.\d+\n$/) });
  });

  it.each<[args: string[], message: string]>([
    [[], 'Usage: raftkv'],
    [['nod'], "unknown command 'nod'"],
    [['spawn', '--confg', 'x'], "unknown option '--confg'"],
    [['spawn', 'x'], 'too many arguments'],
    [['node'], "required option '--id <number>' not specified"],
    [['node', '--id', 'one'], 'It must be a whole number from 1.'],
    [['member'], 'Usage: raftkv member'],
    [['member', 'add'], "missing required argument 'id'"],
    [['member', 'replace', '1'], "missing required argument 'new'"],
    [['member', 'add', '4', '--peer-port', '70000'], 'It must be a port, from 1 to 65535.'],
    [['log', 'dump', 'x', '--from', '0'], 'It must be a whole number from 1.'],
    [['recover', '--force-new-cluster'], "required option '--id <number>' not specified"],
    [['spawn', '--log-level', 'loud'], 'Allowed choices are debug, info, warn, error.'],
  ])('refuses %j as wrong usage, with 2', async (args, message) => {
    const { code, stdout, stderr } = await raftkv(args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/^\s+at /m);
  });

  it.each(['spawn', 'status', 'node --id 1', 'member list', 'snapshot save x', 'snapshot restore x', 'recover --id 1'])(
    '%s says which file it missed, and what to do',
    async (command) => {
      const { code, stderr } = await raftkv([...command.split(' '), '--config', 'none.json']);
      expect(code).toBe(1);
      expect(stderr).toBe(
        `raftkv: none.json does not exist (${join(folder, 'none.json')})\n` +
          'Pass the file with --config or RAFTKV_CONFIG, or run in the folder that contains cluster.json.\n' +
          '(CONFIG_NOT_FOUND)\n',
      );
    },
  );

  it('lists what is wrong with the configuration that RAFTKV_CONFIG names', async () => {
    writeFileSync(join(folder, 'bad.json'), '{"cluster":"demo","nodes":[]}');
    const { code, stderr } = await raftkv(['spawn'], { RAFTKV_CONFIG: 'bad.json', RAFTKV_DATA_DIR: '' });
    expect(code).toBe(1);
    expect(stderr).toBe(
      'raftkv: bad.json: the configuration has 2 problems\n' +
        '  RAFTKV_DATA_DIR (dataDir): must be the path of a folder, not ""\n' +
        '  nodes: must name at least one node, not []\n' +
        'Correct these settings and start again.\n(CONFIG_INVALID)\n',
    );
  });

  it('knows which nodes the cluster has', async () => {
    const node = { host: '127.0.0.1', clientPort: 1, peerPort: 2, adminPort: 3 };
    writeFileSync(join(folder, 'one.json'), JSON.stringify({ cluster: 'demo', nodes: [{ id: 4, ...node }] }));
    const { code, stderr } = await raftkv(['node', '--id', '5', '--config', 'one.json']);
    expect([code, stderr]).toEqual([2, 'raftkv: cluster demo has no node 5; it has 4\n']);
  });
});
