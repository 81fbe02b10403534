// The client library of gotapi-ws, as its protocol page describes it: `node-gotapi-ws` can no longer be installed (it is
// gone from the npm registry), so its frames and times are sent here with npm `ws`, and its requests as its axios sent
// them.
//
//   NODE_PATH=…/node_modules node client.js --feedlog target/debug/feedlog
//
// Starts servers of its own, because it stops and kills them. Prints one line per talk; ends with 1 when one failed.
'use strict';
const assert = require('node:assert/strict');
const { createHash, randomInt } = require('node:crypto');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const WebSocket = require('ws');

const PATIENCE_MS = 20_000;
// The library's own.
const PING_MS = 3000;
const RESEND_MS = 3000;
const { values: args } = parseArgs({ options: { feedlog: { type: 'string' } } });

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Things that come one after the other and are waited for.
class Inbox {
  #came = [];
  #waiting = [];
  put(thing) {
    const waiter = this.#waiting.shift();
    if (waiter) waiter(thing);
    else this.#came.push(thing);
  }
  take(what) {
    if (this.#came.length > 0) return Promise.resolve(this.#came.shift());
    return within(new Promise((resolve) => this.#waiting.push(resolve)), what);
  }
}

class Server {
  static async start() {
    const server = new Server();
    server.data = fs.mkdtempSync(path.join(os.tmpdir(), 'feedlog-gws-'));
    const probe = net.createServer().listen(0, '127.0.0.1');
    await once(probe, 'listening');
    server.at = `127.0.0.1:${probe.address().port}`;
    probe.close();
    await once(probe, 'close');
    await server.up();
    return server;
  }
  async up() {
    const options = ['serve', '--dev', '--http', this.at, '--data-dir', path.join(this.data, 'data')];
    this.child = spawn(args.feedlog, options, { stdio: ['ignore', 'ignore', 'pipe'] });
    let log = '';
    this.child.stderr.on('data', (part) => (log = (log + part).slice(-4000)));
    const until = Date.now() + PATIENCE_MS;
    while (!(await this.get('/readyz').then((answer) => answer.status === 200, () => false))) {
      if (this.child.exitCode !== null || Date.now() > until) throw new Error(`the server is not ready:\n${log}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  signal(name) {
    this.child.kill(name);
  }
  async kill() {
    const ended = once(this.child, 'exit');
    this.child.kill('SIGKILL');
    await ended;
  }
  async end() {
    if (this.child.exitCode === null && this.child.signalCode === null) await this.kill();
    fs.rmSync(this.data, { recursive: true, force: true });
  }
  request(method, target, { body = '', headers = {} } = {}) {
    const [host, port] = this.at.split(':');
    const asked = { host, port, method, path: target, headers: { 'content-length': Buffer.byteLength(body), ...headers }, agent: false };
    return within(new Promise((resolve, reject) => {
      const request = http.request(asked, (answer) => {
        let text = '';
        answer.on('data', (part) => (text += part));
        answer.on('end', () => resolve({ status: answer.statusCode, text, json: () => JSON.parse(text) }));
      });
      request.on('error', reject);
      request.end(body);
    }), `answer to ${method} ${target}`);
  }
  get(target, headers) {
    return this.request('GET', target, { headers });
  }
  // As the library asks: everything is in the query of a POST without a body.
  async history(room, { size = 1000, position = 0, token } = {}) {
    const query = new URLSearchParams({ groupName: room, size, position, ...(token ? { token } : {}) });
    const answer = (await this.request('POST', `/__/history/?${query}`, { headers: { accept: 'application/json, text/plain, */*' } })).json();
    assert.equal(answer.code, 200);
    return answer.data;
  }
  // The feed of a room, as every other wire names it.
  async entries(room) {
    const answer = await this.get(`/v1/feeds/${encodeURIComponent(room)}/entries?limit=1000`, { authorization: 'Bearer admin' });
    assert.equal(answer.status, 200, answer.text);
    return answer.json().entries;
  }
}

const md5 = (text) => createHash('md5').update(text).digest('hex');
const newUuid = () => Array.from({ length: 20 }, (_, n) => randomInt(n === 0 ? 1 : 0, 10)).join('');

// SocketBus and MessageBus of the library: a packet without an ack is sent once more after 3 s; after a reconnect the
// history is pulled, what it shows counts as sent, and the rest is sent again.
class Bus {
  constructor(server, room, token) {
    Object.assign(this, { server, room, token });
    this.frames = new Inbox();
    this.unacknowledged = new Map();
    this.resends = 0;
    this.acks = [];
  }
  async connect() {
    const query = this.token ? `?token=${this.token}` : '';
    // `ws` offers permessage-deflate unless told otherwise, as the library's did.
    this.socket = new WebSocket(`ws://${this.server.at}${encodeURI(this.room)}${query}`);
    this.closed = once(this.socket, 'close');
    this.socket.on('error', () => {});
    this.socket.on('message', (data, isBinary) => this.receive(data, isBinary));
    await within(once(this.socket, 'open'), 'open WebSocket');
    assert.equal(this.socket.extensions, '', 'nothing is compressed');
    this.pings = setInterval(() => this.ping(), PING_MS);
    return this;
  }
  receive(data, isBinary) {
    assert.equal(isBinary, false, 'frames are texts');
    const text = data.toString();
    let packet;
    try { packet = JSON.parse(text); } catch { /* passed on as it is */ }
    if (packet?.type === 1 && packet.command === 1) {
      this.acks.push(packet.uuid);
      const waiting = this.unacknowledged.get(packet.uuid);
      if (waiting) {
        clearTimeout(waiting.timer);
        this.unacknowledged.delete(packet.uuid);
        waiting.done(packet);
      }
      return;
    }
    this.frames.put(text);
  }
  ping() {
    this.socket.send(JSON.stringify({ type: 1, command: 5, uuid: newUuid(), body: { sent: false, data: '', hash: md5('') } }));
  }
  // The packet as it was sent, and a promise of its ack.
  send(data, uuid = newUuid()) {
    const text = JSON.stringify({ body: { sent: false, data, hash: md5(String(data)) }, type: 2, uuid });
    const waiting = { text };
    const acked = new Promise((resolve) => (waiting.done = resolve));
    waiting.timer = setTimeout(() => {
      this.resends += 1;
      this.socket.send(text);
    }, RESEND_MS);
    this.unacknowledged.set(uuid, waiting);
    this.socket.send(text);
    return { uuid, text, acked: () => within(acked, `ack of ${uuid}`) };
  }
  async reconnect() {
    clearInterval(this.pings);
    for (const waiting of this.unacknowledged.values()) clearTimeout(waiting.timer);
    await within(this.closed, 'end of the connection');
    await this.connect();
    for (const { text } of this.unacknowledged.values()) this.socket.send(text);
  }
  async leave() {
    clearInterval(this.pings);
    for (const waiting of this.unacknowledged.values()) clearTimeout(waiting.timer);
    this.socket.close();
    await within(this.closed, 'end of the connection');
  }
}

async function two(server, room) {
  return [await new Bus(server, room).connect(), await new Bus(server, room).connect()];
}

async function messages_acks_and_raw_frames(server) {
  const room = '/talk/one';
  const [ada, bob] = await two(server, room);
  const sent = ada.send('god bless u');
  assert.equal(sent.text.replace(sent.uuid, 'U'),
    '{"body":{"sent":false,"data":"god bless u","hash":"eb2ef7838a7a57d755378bd25208020c"},"type":2,"uuid":"U"}');
  const ack = await sent.acked();
  assert.deepEqual([ack.uuid, ack.type, ack.command], [sent.uuid, 1, 1]);
  assert.equal(await bob.frames.take('packet'), sent.text, 'byte for byte');
  ada.socket.send('not {JSON');
  assert.equal(await bob.frames.take('raw frame'), 'not {JSON');
  const answer = await server.request('POST', room, { body: 'by POST' });
  assert.deepEqual([answer.status, answer.json()], [200, { code: 200, group: room }]);
  // The first thing that ada is sent: neither her packet nor her frame came back to her.
  assert.equal(await ada.frames.take('posted frame'), 'by POST');
  assert.equal(await bob.frames.take('posted frame'), 'by POST');
  assert.deepEqual(await server.history(room), [sent.text]);
  await Promise.all([ada.leave(), bob.leave()]);
}

async function one_packet_in_each_frame_under_load(server) {
  const room = '/talk/load';
  const [ada, bob] = await two(server, room);
  const sent = Array.from({ length: 300 }, (_, n) => ada.send(`number ${n}`));
  for (const { text } of sent) assert.equal(await bob.frames.take('packet'), text);
  for (const { acked } of sent) await acked();
  assert.deepEqual(ada.acks, sent.map(({ uuid }) => uuid), 'acks in the order of the packets');
  assert.deepEqual(await server.history(room), sent.map(({ text }) => text).reverse());
  assert.deepEqual(await server.history(room, { size: 3, position: 3 }), sent.slice(-6, -3).map(({ text }) => text).reverse());
  await Promise.all([ada.leave(), bob.leave()]);
}

async function pings_of_the_library_are_not_answered(server) {
  const room = '/talk/ping';
  const [ada, bob] = await two(server, room);
  ada.ping();
  ada.socket.send('behind the ping');
  assert.equal(await bob.frames.take('frame'), 'behind the ping', 'a ping is not passed on');
  bob.socket.send('to ada');
  assert.equal(await ada.frames.take('frame'), 'to ada', 'a ping is not answered');
  await Promise.all([ada.leave(), bob.leave()]);
}

async function the_token_in_the_url_says_who_sends(server) {
  const room = '/talk/token';
  const ada = await new Bus(server, room, 'ada').connect();
  const sent = ada.send({ any: ['json', 1, null] });
  await sent.acked();
  assert.deepEqual(await server.history(room, { token: 'ada' }), [sent.text]);
  const [entry] = (await server.entries(room)).filter(({ type }) => type === 'message');
  assert.deepEqual([entry.sender, entry.client_msg_id], ['ada', sent.uuid]);
  await ada.leave();
}

async function a_frozen_server_is_sent_the_packet_once_more(server) {
  const room = '/talk/frozen';
  const [ada, bob] = await two(server, room);
  await ada.send('before').acked();
  await bob.frames.take('packet');
  server.signal('SIGSTOP');
  const sent = ada.send('while it is frozen');
  const resent = new Promise((resolve) => {
    const send = ada.socket.send;
    ada.socket.send = (text) => {
      send.call(ada.socket, text);
      if (text === sent.text) resolve();
    };
  });
  await within(resent, 'second try');
  server.signal('SIGCONT');
  await sent.acked();
  // What follows is acknowledged behind both.
  const last = ada.send('after');
  await last.acked();
  assert.equal(ada.resends, 1);
  assert.deepEqual(ada.acks.slice(1), [sent.uuid, sent.uuid, last.uuid], 'each try is acknowledged');
  assert.equal(await bob.frames.take('packet'), sent.text);
  assert.equal(await bob.frames.take('packet'), last.text, 'passed on once');
  assert.deepEqual((await server.history(room)).slice(0, 2), [last.text, sent.text], 'kept once');
  await Promise.all([ada.leave(), bob.leave()]);
}

async function a_kill_between_packet_and_ack_doubles_nothing(server) {
  const room = '/talk/kill';
  const ada = await new Bus(server, room).connect();
  const sent = [];
  for (const reads of [false, true, true]) {
    // Frozen, the server has read nothing of it when it is killed; else it may have come to any point, also past the sync.
    if (!reads) server.signal('SIGSTOP');
    const last = Array.from({ length: 20 }, (_, n) => ada.send(`number ${sent.length + n}`));
    sent.push(...last);
    if (reads) await last[0].acked();
    await server.kill();
    assert.ok(ada.unacknowledged.size > 0 || reads);
    await server.up();
    await ada.reconnect();
    for (const { acked } of last) await acked();
  }
  assert.deepEqual(await server.history(room), sent.map(({ text }) => text).reverse(), 'exactly one of each, in their order');
  await ada.leave();
}

async function main() {
  const talks = [
    messages_acks_and_raw_frames,
    one_packet_in_each_frame_under_load,
    pings_of_the_library_are_not_answered,
    the_token_in_the_url_says_who_sends,
    a_frozen_server_is_sent_the_packet_once_more,
    a_kill_between_packet_and_ack_doubles_nothing,
  ];
  const server = await Server.start();
  try {
    for (const talk of talks) {
      const name = talk.name.replaceAll('_', ' ');
      try {
        await talk(server);
        console.log(`ok      gotapi-ws with npm ws: ${name}`);
      } catch (error) {
        process.exitCode = 1;
        console.log(`FAILED  gotapi-ws with npm ws: ${name}: ${error.stack ?? error}`);
        break;
      }
    }
  } finally {
    server.signal('SIGCONT');
    await server.end();
  }
  process.exit();
}

main();
