// What protocols/mqtt-protobuf describes, with the unmodified Paho client of a browser. The driver reads the reports.
'use strict';
const PATIENCE_MS = 15000;
const query = new URLSearchParams(location.search);
const run = Math.random().toString(36).slice(2, 8);

// A frame of the page for a client that dies with it: its WebSocket closes without a DISCONNECT.
const dying = query.get('dying');

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
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error(`no ${what} in time`)), PATIENCE_MS));
  return Promise.race([promise, late]);
}

function equal(got, wanted, what) {
  const [a, b] = [JSON.stringify(got), JSON.stringify(wanted)];
  if (a !== b) throw new Error(`${what}: ${a}, wanted ${b}`);
}

class Peer {
  static async connect(name, { user = 'alice', path, will, clean = true, version } = {}) {
    const peer = new Peer();
    const [host, port] = query.get('ws').split(':');
    // Without a path the client's own default: /mqtt.
    const place = path ? [host, Number(port), path] : [host, Number(port)];
    const client = new Paho.Client(...place, name);
    peer.client = client;
    peer.messages = new Inbox();
    peer.delivered = new Inbox();
    peer.lost = new Inbox();
    client.onMessageArrived = (message) => peer.messages.put(message);
    client.onMessageDelivered = (message) => peer.delivered.put(message);
    client.onConnectionLost = (reason) => peer.lost.put(reason);
    const connected = new Promise((resolve, reject) => {
      client.connect({
        userName: user,
        password: user,
        cleanSession: clean,
        ...(version ? { mqttVersion: version } : {}),
        ...(will ? { willMessage: will } : {}),
        onSuccess: resolve,
        onFailure: (failure) => reject(new Error(`connect: ${failure.errorMessage}`)),
      });
    });
    await within(connected, 'CONNACK');
    return peer;
  }
  async subscribe(filter, qos) {
    const granted = new Promise((resolve, reject) => {
      this.client.subscribe(filter, {
        qos,
        onSuccess: (answer) => resolve(answer.grantedQos),
        onFailure: (failure) => reject(new Error(`subscribe: ${failure.errorMessage}`)),
      });
    });
    equal((await within(granted, 'SUBACK'))[0], qos, 'granted');
  }
  // Returns once onMessageDelivered told of it.
  async publish(topic, payload, qos, retained = false) {
    const message = new Paho.Message(payload);
    message.destinationName = topic;
    message.qos = qos;
    message.retained = retained;
    this.client.send(message);
    const told = await this.delivered.take(`ack of QoS ${qos}`);
    if (told !== message) throw new Error('onMessageDelivered tells of another message');
  }
  async leave() {
    this.client.disconnect();
    await this.lost.take('end of the connection');
  }
}

const bytes = (array) => Array.from(array);

async function binaryPayloadsOfEveryQos(prefix, version) {
  const reader = await Peer.connect(`${run}r`, { version });
  const writer = await Peer.connect(`${run}w`, { version });
  for (const granted of [0, 1, 2]) {
    const topic = `${prefix}/qos/${granted}`;
    await reader.subscribe(topic, granted);
    for (const sent of [0, 1, 2]) {
      const body = Uint8Array.of(0, 255, 128, sent, granted);
      await writer.publish(topic, body, sent);
      const got = await reader.messages.take('message');
      equal([got.destinationName, bytes(got.payloadBytes)], [topic, bytes(body)], 'message');
      equal(got.qos, Math.min(sent, granted), 'QoS');
    }
  }
  await reader.leave();
  await writer.leave();
}

async function retainedMessages(prefix, version) {
  const topic = `${prefix}/retained`;
  const writer = await Peer.connect(`${run}w`, { version });
  await writer.publish(topic, 'kept', 1, true);
  const reader = await Peer.connect(`${run}r`, { version });
  await reader.subscribe(topic, 1);
  let got = await reader.messages.take('retained message');
  equal([got.payloadString, got.retained], ['kept', true], 'retained');
  await writer.publish(topic, new Uint8Array(0), 1, true);
  got = await reader.messages.take('clearing message');
  equal(got.payloadBytes.length, 0, 'clearing message');
  await reader.leave();
  await writer.leave();
}

async function willOfAClosedTab(prefix, version) {
  const topic = `${prefix}/will`;
  const reader = await Peer.connect(`${run}r`, { version });
  await reader.subscribe(topic, 1);
  const frame = document.createElement('iframe');
  const ready = new Inbox();
  const listener = (event) => ready.put(event.data);
  addEventListener('message', listener);
  frame.src = `/?${new URLSearchParams({ ws: query.get('ws'), dying: topic, version })}`;
  document.body.append(frame);
  equal(await ready.take('client of the frame'), 'connected', 'frame');
  removeEventListener('message', listener);
  frame.remove();
  const got = await reader.messages.take('will');
  equal(got.payloadString, 'cut off', 'will');
  await reader.leave();
}

async function sessionResume(prefix, version) {
  const topic = `${prefix}/session`;
  const keep = { version, clean: false };
  let reader = await Peer.connect(`${run}keep`, keep);
  await reader.subscribe(topic, 1);
  await reader.leave();
  const writer = await Peer.connect(`${run}w`, { version });
  for (let n = 0; n < 10; n += 1) await writer.publish(topic, `offline ${n}`, 1);
  reader = await Peer.connect(`${run}keep`, keep);
  for (let n = 0; n < 10; n += 1) {
    equal((await reader.messages.take('offline message')).payloadString, `offline ${n}`, 'offline');
  }
  await reader.leave();
  await writer.leave();
}

// Users are numbers here, because a sender_id is one.
async function protobufBodies(path) {
  const proto = protobuf.parse(await (await fetch('/feedlog.proto')).text(), { keepCase: true }).root;
  const type = (name) => proto.lookupType(`feedlog.${name}`);
  const [Message, ServiceMessage, Statics] = ['Message', 'ServiceMessage', 'BaseUserUnreadStatics'].map(type);
  const number = (value) => Number(value);
  const example = { message_id: 1, sender_id: 2, content: 'hi', create_time: 3, receiver_id: 4 };
  equal(bytes(Message.encode(example).finish()), [8, 1, 16, 2, 26, 2, 104, 105, 32, 3, 40, 4], 'bytes of the example');
  const [one, two] = [1000 + Math.floor(Math.random() * 1e9), 2 * 1e9 + Math.floor(Math.random() * 1e9)];
  const own = 1 + Math.floor(Math.random() * 1e9);
  const body = Message.encode({ message_id: own, sender_id: one, content: 'hi', create_time: 3, receiver_id: two }).finish();

  const a = await Peer.connect(`${run}a`, { user: String(one), path });
  const b = await Peer.connect(`${run}b`, { user: String(two), path });
  // On the standard path who publishes on pb/… becomes a reader of it; the peer does it first, with a message of its own.
  const hello = { message_id: own, sender_id: two, content: 'hello', create_time: 1, receiver_id: one };
  await b.publish('pb/message', Message.encode(hello).finish(), 1);
  const receiptOf = async (peer, id) => {
    const got = await nextOn(peer, `imreceipt://modulus/publish?msg_id=${id}`);
    return JSON.parse(got.payloadString);
  };
  await receiptOf(b, own);

  await a.publish('pb/message', body, 1);
  const receipt = await receiptOf(a, own);
  const down = Message.decode((await nextOn(b, 'pb/message')).payloadBytes);
  equal([number(down.sender_id), down.content, number(down.receiver_id)], [one, 'hi', two], 'Message');
  if (number(down.message_id) === own) throw new Error('the copy carries the sender’s id, not the server’s');
  if (number(down.message_id) >= 2 ** 53) throw new Error('the server’s id does not fit a number');
  if (!JSON.stringify(receipt).includes(String(number(down.message_id)))) {
    throw new Error(`the receipt ${JSON.stringify(receipt)} lacks the server’s id ${down.message_id}`);
  }

  // Unread statistics come by themselves, after each change; several changes may be in one.
  let statics;
  do {
    statics = Statics.decode((await nextOn(b, 'pb/unread')).payloadBytes);
    equal(number(statics.user_id), two, 'user of the statistics');
  } while (number(statics.unread_total) !== 1);
  equal(statics.feeds.length, 1, 'feeds of the statistics');
  equal(number(statics.feeds[0].unread), 1, 'unread of the feed');

  // Sent again with the same id: acknowledged, stored once.
  await a.publish('pb/message', body, 1);
  const service = {
    message_id: String(own + 1),
    user_id: one,
    service_type: 2,
    message_type: 1,
    content: 'help',
    create_date: 4,
    direction: 1,
    agent_id: two,
    post_proc: 7,
    to_reply: 1,
    extend: '{"x":1}',
  };
  await a.publish('pb/service', ServiceMessage.encode(ServiceMessage.fromObject(service)).finish(), 2);
  const got = ServiceMessage.decode((await nextOn(b, 'pb/service', ['pb/message'])).payloadBytes);
  equal([got.content, number(got.post_proc), number(got.to_reply), got.extend], ['help', 7, 1, '{"x":1}'], 'ServiceMessage');
  await a.leave();
  await b.leave();
}

// The next message on a topic; what comes on others is let pass, except on those that must not come.
async function nextOn(peer, topic, never = []) {
  for (;;) {
    const message = await peer.messages.take(`message on ${topic}`);
    if (message.destinationName === topic) return message;
    if (never.includes(message.destinationName)) throw new Error(`a second message on ${message.destinationName}`);
  }
}

const tell = (text, to = '/report') => fetch(to, { method: 'POST', body: text });

async function talk(name, steps) {
  try {
    await steps();
    await tell(`ok      Paho JS in Chromium: ${name}`);
  } catch (error) {
    await tell(`FAILED  Paho JS in Chromium: ${name}: ${error.message ?? JSON.stringify(error)}`);
  }
}

async function die() {
  const will = new Paho.Message('cut off');
  will.destinationName = dying;
  will.qos = 1;
  await Peer.connect(`${run}dying`, { will, version: Number(query.get('version')) });
  parent.postMessage('connected', '*');
}

async function main() {
  for (const [name, version] of [['3.1', 3], ['3.1.1', 4]]) {
    const prefix = `interop/paho-${run}/${version}`;
    for (const steps of [binaryPayloadsOfEveryQos, retainedMessages, willOfAClosedTab, sessionResume]) {
      await talk(`MQTT ${name}: ${steps.name}`, () => steps(prefix, version));
    }
  }
  if (query.get('protobuf') === '1') {
    await talk('protobuf bodies', () => protobufBodies());
    await talk('protobuf bodies, server ids in PUBACK', () => protobufBodies('/mqtt64'));
  }
  await tell('', '/done');
}

addEventListener('load', () => (dying ? die() : main()));
