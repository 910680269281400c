'use strict';
// npm's cassandra-driver against one node: definitions, types, prepared statements, paging, batches, events, errors.

const assert = require('node:assert/strict');
const { after, before, beforeEach, afterEach, describe, it } = require('node:test');
const cassandra = require('cassandra-driver');
const { start } = require('./server');

const { types } = cassandra;
const { responseErrorCodes } = types;
const EVENT_TIMEOUT_MS = 20_000;

let server;
let client;
let keyspace;
let keyspaceNumber = 0;

function connect(options = {}) {
  return new cassandra.Client({
    contactPoints: [`127.0.0.1:${server.port}`],
    localDataCenter: 'datacenter1',
    socketOptions: { readTimeout: 30_000 },
    policies: { retry: new cassandra.policies.retry.FallthroughRetryPolicy() },
    ...options,
  });
}

async function eventually(condition) {
  const deadline = Date.now() + EVENT_TIMEOUT_MS;
  while (Date.now() < deadline) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail('it did not happen');
}

async function fails(promise, code, fragment) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.code, code, error.message);
    if (fragment) assert.match(error.message, fragment);
    return true;
  });
}

before(async () => {
  server = await start(2);
  client = connect();
  await client.connect();
});

after(async () => {
  if (client) await client.shutdown();
  if (server) assert.equal(await server.stop(), 0, 'exit status after SIGTERM');
});

beforeEach(async () => {
  keyspace = `node_${keyspaceNumber++}`;
  await client.execute(
    `CREATE KEYSPACE ${keyspace} WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`);
});

afterEach(() => client.execute(`DROP KEYSPACE ${keyspace}`));

const run = (query, parameters, options) => client.execute(query, parameters, { prepare: true, ...options });

const VALUES = {
  ascii: 'plain',
  bigint: types.Long.fromString('-9223372036854775808'),
  blob: Buffer.from([0, 255, 127]),
  boolean: true,
  date: types.LocalDate.fromString('2024-02-29'),
  decimal: types.BigDecimal.fromString('-123456789.0123456789'),
  double: -1.5e300,
  duration: types.Duration.fromString('1mo2d3ns'),
  float: 0.5,
  inet: types.InetAddress.fromString('2001:db8::1'),
  int: -2147483648,
  smallint: 32767,
  text: 'grüße, 世界 🐋',
  time: types.LocalTime.fromString('23:59:59.999999999'),
  timestamp: new Date('2024-02-29T23:59:59.999Z'),
  timeuuid: types.TimeUuid.fromString('50554d6e-29bb-11e5-b345-feff819cdc9f'),
  tinyint: -128,
  uuid: types.Uuid.fromString('ffffffff-ffff-4fff-bfff-ffffffffffff'),
  varint: types.Integer.fromString('-170141183460469231731687303715884105728'),
  'list<int>': [3, 1, 2],
  'set<text>': ['a', 'b'],
  'map<text, bigint>': { a: types.Long.fromNumber(1) },
  'frozen<map<int, frozen<list<text>>>>': { 1: ['x', 'y'] },
  'tuple<int, text>': new types.Tuple(1, 'a'),
  'vector<float, 3>': new Float32Array([1, -2.5, 0]),
};

describe('types', () => {
  for (const [name, value] of Object.entries(VALUES)) {
    it(`${name} comes back`, async () => {
      await client.execute(`CREATE TABLE ${keyspace}.t (k int PRIMARY KEY, v ${name})`);
      await run(`INSERT INTO ${keyspace}.t (k, v) VALUES (?, ?)`, [0, value]);
      await run(`INSERT INTO ${keyspace}.t (k, v) VALUES (?, ?)`, [1, null]);
      const found = (await run(`SELECT v FROM ${keyspace}.t WHERE k = ?`, [0])).first().v;
      if (name.startsWith('vector')) {
        assert.deepEqual(Array.from(found), Array.from(value));
      } else {
        assert.deepEqual(found, value);
      }
      assert.equal((await run(`SELECT v FROM ${keyspace}.t WHERE k = ?`, [1])).first().v, null);
    });
  }

  it('user-defined types come back', async () => {
    await client.execute(`CREATE TYPE ${keyspace}.phone (country int, number text)`);
    await client.execute(`CREATE TABLE ${keyspace}.t (k int PRIMARY KEY, p frozen<phone>, l list<frozen<phone>>)`);
    const phone = { country: 49, number: '123' };
    await run(`INSERT INTO ${keyspace}.t (k, p, l) VALUES (0, ?, ?)`, [phone, [phone, { country: 1, number: null }]]);
    const row = (await run(`SELECT p, l FROM ${keyspace}.t`)).first();
    assert.deepEqual({ ...row.p }, phone);
    assert.equal(row.l.length, 2);
    assert.equal(row.l[1].country, 1);
  });

  it('unset leaves what is there', async () => {
    await client.execute(`CREATE TABLE ${keyspace}.t (k int PRIMARY KEY, v text, w int)`);
    const insert = `INSERT INTO ${keyspace}.t (k, v, w) VALUES (?, ?, ?)`;
    await run(insert, [0, 'kept', 1]);
    await run(insert, [0, types.unset, 2]);
    assert.deepEqual((await run(`SELECT v, w FROM ${keyspace}.t`)).first().values(), ['kept', 2]);
  });

  it('counters count', async () => {
    await client.execute(`CREATE TABLE ${keyspace}.t (k int PRIMARY KEY, n counter)`);
    for (let step = 0; step < 5; step++) {
      await run(`UPDATE ${keyspace}.t SET n = n + ? WHERE k = 0`, [types.Long.fromNumber(step)]);
    }
    assert.equal((await run(`SELECT n FROM ${keyspace}.t`)).first().n.toNumber(), 10);
  });
});

describe('reading', () => {
  beforeEach(async () => {
    await client.execute(`CREATE TABLE ${keyspace}.t (k int, c int, v text, PRIMARY KEY (k, c))`);
    const arguments_ = [];
    for (let key = 0; key < 10; key++) {
      for (let row = 0; row < 30; row++) arguments_.push([key, row, `${key}/${row}`]);
    }
    await cassandra.concurrent.executeConcurrent(
      client, `INSERT INTO ${keyspace}.t (k, c, v) VALUES (?, ?, ?)`, arguments_, { concurrencyLevel: 50 });
  });

  it('pages of any size hold every row once', async () => {
    for (const fetchSize of [1, 7, 30, 299, 300, 301]) {
      const rows = [];
      let pageState;
      do {
        const result = await run(`SELECT k, c FROM ${keyspace}.t`, [], { fetchSize, pageState });
        rows.push(...result.rows.map((row) => `${row.k}/${row.c}`));
        pageState = result.pageState;
      } while (pageState);
      assert.equal(rows.length, 300, `pages of ${fetchSize}`);
      assert.equal(new Set(rows).size, 300);
    }
  });

  it('rows are iterated and streamed over pages', async () => {
    let count = 0;
    for await (const row of await run(`SELECT v FROM ${keyspace}.t`, [], { fetchSize: 13 })) {
      assert.ok(row.v);
      count++;
    }
    assert.equal(count, 300);
    count = await new Promise((resolve, reject) => {
      let streamed = 0;
      client.stream(`SELECT v FROM ${keyspace}.t`, [], { prepare: true, fetchSize: 13 })
        .on('data', () => streamed++).on('end', () => resolve(streamed)).on('error', reject);
    });
    assert.equal(count, 300);
  });

  it('values are bound by name', async () => {
    const query = `SELECT v FROM ${keyspace}.t WHERE k = :key AND c = :row`;
    assert.equal((await run(query, { row: 2, key: 1 })).first().v, '1/2');
    const plain = await client.execute(query, { key: 1, row: 2 }, { hints: { key: 'int', row: 'int' } });
    assert.equal(plain.first().v, '1/2');
  });

  it('many requests at once', async () => {
    const answers = await Promise.all(
      Array.from({ length: 2000 }, (_, number) =>
        run(`SELECT v FROM ${keyspace}.t WHERE k = ? AND c = ?`, [number % 10, number % 30])));
    answers.forEach((answer, number) => assert.equal(answer.first().v, `${number % 10}/${number % 30}`));
  });

  it('a statement is prepared again after the table has changed', async () => {
    const select = `SELECT * FROM ${keyspace}.t WHERE k = ? AND c = ?`;
    assert.deepEqual((await run(select, [1, 1])).first().keys().sort(), ['c', 'k', 'v']);
    await client.execute(`ALTER TABLE ${keyspace}.t ADD w int`);
    await run(`INSERT INTO ${keyspace}.t (k, c, w) VALUES (1, 1, 5)`);
    assert.equal((await run(`SELECT w FROM ${keyspace}.t WHERE k = 1 AND c = 1`)).first().w, 5);
    assert.equal((await run(select, [1, 1])).first().v, '1/1');
  });
});

describe('writing', () => {
  beforeEach(() => client.execute(`CREATE TABLE ${keyspace}.t (k int PRIMARY KEY, v text)`));

  it('batches', async () => {
    const insert = `INSERT INTO ${keyspace}.t (k, v) VALUES (?, ?)`;
    const queries = Array.from({ length: 10 }, (_, key) => ({ query: insert, params: [key, `v${key}`] }));
    await client.batch(queries, { prepare: true });
    await client.batch([{ query: `DELETE FROM ${keyspace}.t WHERE k = ?`, params: [3] }], { prepare: true, logged: false });
    assert.equal((await run(`SELECT count(*) FROM ${keyspace}.t`)).first().count.toNumber(), 9);
    await client.execute(`CREATE TABLE ${keyspace}.n (k int PRIMARY KEY, n counter)`);
    const add = { query: `UPDATE ${keyspace}.n SET n = n + 1 WHERE k = 0`, params: [] };
    await client.batch([add, add], { prepare: true, counter: true });
    assert.equal((await run(`SELECT n FROM ${keyspace}.n`)).first().n.toNumber(), 2);
  });

  it('time to live and timestamps', async () => {
    await run(`INSERT INTO ${keyspace}.t (k, v) VALUES (0, 'a') USING TTL ? AND TIMESTAMP ?`, [1000, types.Long.fromNumber(5)]);
    const row = (await run(`SELECT ttl(v) AS t, writetime(v) AS w FROM ${keyspace}.t`)).first();
    assert.ok(row.t > 900 && row.t <= 1000);
    assert.equal(row.w.toNumber(), 5);
  });

  it('tracing', async () => {
    const result = await run(`INSERT INTO ${keyspace}.t (k, v) VALUES (0, 'a')`, [], { traceQuery: true });
    assert.ok(result.info.traceId);
    await eventually(async () => {
      try {
        const trace = await new Promise((resolve, reject) =>
          client.metadata.getTrace(result.info.traceId, (error, found) => (error ? reject(error) : resolve(found))));
        return trace.duration !== null && trace.events.length > 0;
      } catch {
        return false;
      }
    });
  });

  it('warnings', async () => {
    const result = await run(`SELECT count(*) FROM ${keyspace}.t`);
    assert.ok((result.info.warnings || []).some((text) => text.includes('Aggregation query')), String(result.info.warnings));
  });
});

describe('schema', () => {
  it('another client sees changes', async () => {
    const other = connect();
    try {
      await other.connect();
      await client.execute(`CREATE TABLE ${keyspace}.seen (k int PRIMARY KEY)`);
      await eventually(async () => (await other.metadata.getTable(keyspace, 'seen')) !== null);
      await client.execute(`ALTER TABLE ${keyspace}.seen ADD v text`);
      await eventually(async () => (await other.metadata.getTable(keyspace, 'seen')).columnsByName.v !== undefined);
      await client.execute(`DROP TABLE ${keyspace}.seen`);
      await eventually(async () => (await other.metadata.getTable(keyspace, 'seen')) === null);
    } finally {
      await other.shutdown();
    }
  });

  it('metadata', async () => {
    await client.execute(
      `CREATE TABLE ${keyspace}.t (a int, b text, c int, s text static, v map<text, int>, PRIMARY KEY ((a, b), c)) ` +
      'WITH CLUSTERING ORDER BY (c DESC)');
    const table = await client.metadata.getTable(keyspace, 't');
    assert.deepEqual(table.partitionKeys.map((column) => column.name), ['a', 'b']);
    assert.deepEqual(table.clusteringKeys.map((column) => column.name), ['c']);
    assert.deepEqual(table.clusteringOrder, ['DESC']);
    assert.ok(table.columnsByName.s.isStatic);
    assert.equal(client.hosts.length, 1);
    assert.equal(client.hosts.values()[0].datacenter, 'datacenter1');
  });
});

describe('errors', () => {
  it('have their codes', async () => {
    await fails(client.execute('SELEC 1'), responseErrorCodes.syntaxError);
    await fails(client.execute(`SELECT * FROM ${keyspace}.nosuch`), responseErrorCodes.invalid, /nosuch/);
    await fails(client.execute(`CREATE KEYSPACE ${keyspace} WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}`),
      responseErrorCodes.alreadyExists);
    await fails(client.execute("CREATE KEYSPACE bad WITH replication = {'class': 'NoSuchStrategy'}"), responseErrorCodes.configError);
    await fails(client.execute('DROP TABLE system.local'), responseErrorCodes.unauthorized);
    await client.execute(`CREATE TABLE ${keyspace}.t (k int PRIMARY KEY)`);
    await fails(run(`SELECT * FROM ${keyspace}.t WHERE k = 1`, [], { consistency: types.consistencies.three }),
      responseErrorCodes.unavailableException);
  });
});
