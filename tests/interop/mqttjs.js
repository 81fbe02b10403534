// Scripted talks of MQTT.js with a broker: every version of MQTT, over TCP and WebSocket.
//
//   NODE_PATH=…/node_modules node mqttjs.js --tcp 127.0.0.1:1883 --ws 127.0.0.1:7171/mqtt [--username U --password P]
//
// Prints one line per talk; ends with 1 when one failed.
'use strict';
const { parseArgs } = require('node:util');
const assert = require('node:assert/strict');
const mqtt = require('mqtt');

const PATIENCE_MS = 15_000;
const VERSIONS = {
  3.1: { protocolId: 'MQIsdp', protocolVersion: 3 },
  '3.1.1': { protocolId: 'MQTT', protocolVersion: 4 },
  5: { protocolId: 'MQTT', protocolVersion: 5 },
};
const { values: args } = parseArgs({
  options: {
    tcp: { type: 'string' },
    ws: { type: 'string' },
    username: { type: 'string' },
    password: { type: 'string' },
    only: { type: 'string' },
  },
});

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

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

class Peer {
  static async connect(talk, name, options = {}) {
    const peer = new Peer();
    const url = talk.transport === 'tcp' ? `mqtt://${args.tcp}` : `ws://${args.ws}`;
    peer.client = mqtt.connect(url, {
      ...VERSIONS[talk.version],
      clientId: `${talk.run}${name}`,
      username: args.username,
      password: args.password,
      keepalive: 30,
      reconnectPeriod: 0,
      connectTimeout: PATIENCE_MS,
      ...options,
    });
    peer.messages = new Inbox();
    peer.closed = new Inbox();
    peer.client.on('message', (topic, payload, packet) => peer.messages.put({ topic, payload, packet }));
    peer.client.on('close', () => peer.closed.put(true));
    const connack = new Promise((resolve, reject) => {
      peer.client.once('connect', resolve);
      peer.client.once('error', reject);
    });
    peer.connack = await within(connack, `CONNACK for ${name}`);
    peer.client.on('error', () => {});
    talk.peers.push(peer);
    return peer;
  }
  async subscribe(topic, qos, options = {}) {
    const granted = await within(this.client.subscribeAsync(topic, { qos, ...options }), `SUBACK for ${topic}`);
    assert.equal(granted[0].qos, qos, `SUBACK for ${topic}`);
  }
  publish(topic, payload, qos, options = {}) {
    return within(this.client.publishAsync(topic, payload, { qos, ...options }), `ack of QoS ${qos}`);
  }
  message() {
    return this.messages.take('message');
  }
  async expect(...payloads) {
    for (const wanted of payloads) {
      const got = await this.message();
      assert.equal(got.payload.toString(), wanted);
    }
  }
  leave() {
    return within(this.client.endAsync(), 'end of the connection');
  }
  // The connection breaks: no DISCONNECT.
  cut() {
    this.client.stream.destroy();
    return this.closed.take('end of the connection');
  }
}

async function everyQosBothWays(talk) {
  const sub = await talk.peer('sub');
  const pub = await talk.peer('pub');
  for (const granted of [0, 1, 2]) {
    const topic = `${talk.prefix}/qos/${granted}`;
    await sub.subscribe(topic, granted);
    for (const sent of [0, 1, 2]) {
      await pub.publish(topic, `${sent} to ${granted} é😀`, sent);
      const { payload, packet } = await sub.message();
      assert.equal(payload.toString(), `${sent} to ${granted} é😀`);
      assert.equal(packet.qos, Math.min(sent, granted), payload.toString());
      assert.equal(packet.retain, false);
    }
  }
}

async function emptyAndLargePayloads(talk) {
  const sub = await talk.peer('sub');
  const pub = await talk.peer('pub');
  const topic = `${talk.prefix}/size`;
  await sub.subscribe(topic, 2);
  for (const size of [0, 1, 127, 128, 16_383, 16_384, 60_000]) {
    const body = Buffer.from(Array.from({ length: size }, (_, n) => n % 256));
    await pub.publish(topic, body, 1);
    assert.ok((await sub.message()).payload.equals(body), `${size} bytes`);
  }
}

async function manyAtOnce(talk) {
  const sub = await talk.peer('sub');
  const pub = await talk.peer('pub');
  const topic = `${talk.prefix}/many`;
  await sub.subscribe(topic, 1);
  // MQTT.js does not keep to the broker's receive maximum by itself; so a window of ten.
  const wanted = Array.from({ length: 200 }, (_, n) => `n ${n}`);
  for (let at = 0; at < wanted.length; at += 10) {
    await Promise.all(wanted.slice(at, at + 10).map((payload) => pub.publish(topic, payload, 1)));
  }
  await sub.expect(...wanted);
}

async function wildcards(talk) {
  const sub = await talk.peer('sub');
  const pub = await talk.peer('pub');
  await sub.subscribe(`${talk.prefix}/w/+/end`, 1);
  await sub.subscribe(`${talk.prefix}/deep/#`, 1);
  await pub.publish(`${talk.prefix}/w/a/b/end`, 'no', 1);
  await pub.publish(`${talk.prefix}/w/a/end`, 'plus', 1);
  await pub.publish(`${talk.prefix}/deep`, 'parent', 1);
  await pub.publish(`${talk.prefix}/deep/a//b`, 'deep', 1);
  await sub.expect('plus', 'parent', 'deep');
  await within(sub.client.unsubscribeAsync(`${talk.prefix}/deep/#`), 'UNSUBACK');
  await pub.publish(`${talk.prefix}/deep/a`, 'gone', 1);
  await pub.publish(`${talk.prefix}/w/x/end`, 'still', 1);
  await sub.expect('still');
}

async function retained(talk) {
  const pub = await talk.peer('pub');
  const topic = `${talk.prefix}/retained`;
  await pub.publish(topic, 'old', 1, { retain: true });
  await pub.publish(topic, 'new', 1, { retain: true });
  const first = await talk.peer('one');
  await first.subscribe(topic, 1);
  let got = await first.message();
  assert.deepEqual([got.payload.toString(), got.packet.retain], ['new', true]);
  await pub.publish(topic, 'live', 1);
  got = await first.message();
  assert.deepEqual([got.payload.toString(), got.packet.retain], ['live', false]);
  await pub.publish(topic, '', 1, { retain: true });
  await first.expect('');
  const second = await talk.peer('two');
  await second.subscribe(topic, 1);
  await pub.publish(topic, 'after', 1);
  await second.expect('after');
}

async function will(talk) {
  const topic = `${talk.prefix}/will`;
  const sub = await talk.peer('sub');
  await sub.subscribe(topic, 2);
  const polite = await talk.peer('polite', { will: { topic, payload: 'never', qos: 1, retain: false } });
  await polite.leave();
  const dying = await talk.peer('cut', { will: { topic, payload: 'cut off', qos: 2, retain: false } });
  await dying.cut();
  await sub.expect('cut off');
}

async function sessionResume(talk) {
  const keep = { clean: false, ...(talk.version === '5' ? { properties: { sessionExpiryInterval: 300 } } : {}) };
  const topic = `${talk.prefix}/session`;
  let sub = await talk.peer('keep', keep);
  assert.equal(sub.connack.sessionPresent, false);
  await sub.subscribe(topic, 1);
  await sub.leave();
  const pub = await talk.peer('pub');
  const wanted = Array.from({ length: 20 }, (_, n) => `offline ${n}`);
  for (const payload of wanted) await pub.publish(topic, payload, 1);
  sub = await talk.peer('keep', keep);
  if (talk.version !== '3.1') assert.equal(sub.connack.sessionPresent, true);
  await sub.expect(...wanted);
  await pub.publish(topic, 'live', 2);
  await sub.expect('live');
  await sub.leave();
  sub = await talk.peer('keep', { clean: true });
  assert.equal(sub.connack.sessionPresent, false);
}

async function takeover(talk) {
  const old = await talk.peer('same');
  const fresh = await talk.peer('same');
  await old.closed.take('end of the old connection');
  await fresh.subscribe(`${talk.prefix}/takeover`, 1);
  await fresh.publish(`${talk.prefix}/takeover`, 'mine', 1);
  await fresh.expect('mine');
}

async function propertiesOf5(talk) {
  const topic = `${talk.prefix}/properties`;
  const sub = await talk.peer('sub', { properties: { topicAliasMaximum: 5, receiveMaximum: 3 } });
  const pub = await talk.peer('pub');
  await sub.subscribe(topic, 1, { properties: { subscriptionIdentifier: 300 } });
  const properties = {
    contentType: 'text/x',
    responseTopic: `${topic}/answer`,
    correlationData: Buffer.from([0, 1]),
    payloadFormatIndicator: true,
    messageExpiryInterval: 100,
    userProperties: { b: ['1', '3'], a: '2' },
  };
  for (let n = 0; n < 10; n += 1) await pub.publish(topic, `n ${n}`, 1, { properties });
  for (let n = 0; n < 10; n += 1) {
    const { topic: name, payload, packet } = await sub.message();
    // MQTT.js puts an alias back to its name before it tells.
    assert.deepEqual([name, payload.toString()], [topic, `n ${n}`]);
    const got = packet.properties;
    assert.equal(got.contentType, 'text/x');
    assert.equal(got.responseTopic, `${topic}/answer`);
    assert.deepEqual([...got.correlationData], [0, 1]);
    assert.equal(got.payloadFormatIndicator, true);
    assert.ok(got.messageExpiryInterval <= 100 && got.messageExpiryInterval > 80);
    assert.equal(got.subscriptionIdentifier, 300);
    assert.deepEqual([got.userProperties.b, got.userProperties.a], [['1', '3'], '2']);
  }
}

async function subscriptionOptionsOf5(talk) {
  const topic = `${talk.prefix}/options`;
  const pub = await talk.peer('pub');
  await pub.publish(topic, 'kept', 1, { retain: true });
  const sub = await talk.peer('sub');
  await sub.subscribe(topic, 1, { nl: true, rap: true, rh: 2 });
  await sub.publish(topic, 'own', 1);
  await pub.publish(topic, 'flagged', 1, { retain: true });
  const { payload, packet } = await sub.message();
  assert.deepEqual([payload.toString(), packet.retain], ['flagged', true]);
  await pub.publish(topic, '', 1, { retain: true });
}

const TALKS = [
  everyQosBothWays,
  emptyAndLargePayloads,
  manyAtOnce,
  wildcards,
  retained,
  will,
  sessionResume,
  takeover,
];
const TALKS_OF_5 = [propertiesOf5, subscriptionOptionsOf5];

async function main() {
  let failed = 0;
  for (const transport of ['tcp', 'ws']) {
    for (const version of Object.keys(VERSIONS)) {
      for (const steps of [...TALKS, ...(version === '5' ? TALKS_OF_5 : [])]) {
        if (args.only && !steps.name.includes(args.only)) continue;
        const run = `j${process.pid % 100000}v${version.replaceAll('.', '')}${transport[0]}`;
        const talk = { transport, version, run, prefix: `interop/${run}`, peers: [] };
        talk.peer = (name, options) => Peer.connect(talk, name, options);
        const name = `MQTT.js ${require('mqtt/package.json').version} MQTT ${version} ${transport}: ${steps.name}`;
        try {
          await steps(talk);
          console.log(`ok      ${name}`);
        } catch (error) {
          failed += 1;
          console.log(`FAILED  ${name}: ${error.message}`);
        }
        for (const peer of talk.peers) peer.client.end(true);
      }
    }
  }
  process.exit(failed > 0 ? 1 : 0);
}

main();
