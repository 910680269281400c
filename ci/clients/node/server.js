'use strict';
// A node under test: the ceto binary on free loopback ports, started and ended by its process id.

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');

const READY_TIMEOUT_MS = 60_000;
const repository = path.resolve(__dirname, '..', '..', '..');

function binary() {
  const target = process.env.CARGO_TARGET_DIR || path.join(repository, 'target');
  return process.env.CETO_BINARY || path.join(target, 'release', 'ceto');
}

/** Ports that were free a moment ago, all different. */
async function freePorts(count) {
  const servers = [];
  for (let number = 0; number < count; number++) {
    const server = net.createServer();
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    servers.push(server);
  }
  const ports = servers.map((server) => server.address().port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** Starts a node and waits until it serves. */
async function start(shards) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'ceto-node-driver-'));
  const [native, shardAware, admin, metrics] = await freePorts(4);
  const child = spawn(binary(), [
    'dev', '--shards', String(shards), '--data', path.join(folder, 'data'), '--listen', '127.0.0.1',
    '--native-port', String(native), '--shard-aware-port', String(shardAware),
    '--admin-port', String(admin), '--metrics-port', String(metrics),
  ], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = new Promise((resolve) => child.once('exit', (code, signal) => resolve(signal || code)));
  const ready = new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('the server did not become ready')), READY_TIMEOUT_MS);
    readline.createInterface({ input: child.stdout }).once('line', (line) => {
      clearTimeout(timer);
      if (line.startsWith('ready: CQL ')) resolve(); else reject(new Error(`unexpected output: ${line}`));
    });
    exited.then((status) => reject(new Error(`the server ended: ${status}`)));
  });
  try {
    await ready;
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
  return {
    port: native,
    /** SIGTERM; resolves to the exit status. */
    async stop() {
      child.kill('SIGTERM');
      const status = await exited;
      fs.rmSync(folder, { recursive: true, force: true });
      return status;
    },
  };
}

module.exports = { start };
