// Opens page.html in a headless Chromium, with the unmodified Paho client and protobufjs, and prints what it reports.
//
//   NODE_PATH=…/node_modules node drive.js --ws 127.0.0.1:7171 [--no-protobuf] [--chromium chromium]
//
// The page is served on loopback, so that it has an origin, and tells its results by POST. Ends with 1 when a talk
// failed or nothing came in time.
'use strict';
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const http = require('node:http');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');

const { values: args } = parseArgs({
  options: {
    ws: { type: 'string' },
    'no-protobuf': { type: 'boolean', default: false },
    chromium: { type: 'string', default: 'chromium' },
    proto: { type: 'string', default: path.join(__dirname, '../../../proto/feedlog.proto') },
    'patience-ms': { type: 'string', default: '90000' },
  },
});

const FILES = {
  '/': [path.join(__dirname, 'page.html'), 'text/html'],
  '/talks.js': [path.join(__dirname, 'talks.js'), 'text/javascript'],
  '/paho.js': [require.resolve('paho-mqtt/paho-mqtt.js'), 'text/javascript'],
  '/protobuf.js': [require.resolve('protobufjs/dist/protobuf.js'), 'text/javascript'],
  '/feedlog.proto': [args.proto, 'text/plain'],
};

let failed = 0;
const server = http.createServer((request, response) => {
  const url = new URL(request.url, 'http://page');
  if (request.method === 'POST') {
    let body = '';
    request.on('data', (part) => (body += part));
    request.on('end', () => {
      response.end();
      if (url.pathname === '/done') finish(failed > 0 ? 1 : 0);
      else {
        if (body.startsWith('FAILED')) failed += 1;
        console.log(body);
      }
    });
    return;
  }
  const file = FILES[url.pathname];
  if (!file) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'Content-Type': `${file[1]}; charset=utf-8` });
  fs.createReadStream(file[0]).on('error', () => response.destroy()).pipe(response);
});

const profile = fs.mkdtempSync(path.join(os.tmpdir(), 'feedlog-chromium-'));
let chromium;
let ending = false;

function finish(code) {
  if (ending) return;
  ending = true;
  const remove = () => {
    fs.rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    process.exit(code);
  };
  if (!chromium || chromium.exitCode !== null) return remove();
  chromium.once('exit', remove);
  // Its own group, so that its helper processes end with it.
  process.kill(-chromium.pid, 'SIGKILL');
}

server.listen(0, '127.0.0.1', () => {
  const query = new URLSearchParams({ ws: args.ws, protobuf: args['no-protobuf'] ? '0' : '1' });
  const page = `http://127.0.0.1:${server.address().port}/?${query}`;
  // No sandbox: in containers it needs what they do not give, and the page is our own. Nothing else is contacted.
  const flags = [
    '--headless',
    '--no-sandbox',
    '--disable-gpu',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--no-proxy-server',
    `--user-data-dir=${profile}`,
    // Without a debugging port a headless Chromium would leave once the page is loaded.
    '--remote-debugging-port=0',
    page,
  ];
  chromium = spawn(args.chromium, flags, { stdio: ['ignore', 'ignore', 'pipe'], detached: true });
  let said = '';
  chromium.stderr.on('data', (part) => (said = (said + part).slice(-4000)));
  chromium.on('error', (error) => {
    console.log(`FAILED  chromium: ${error.message}`);
    chromium = undefined;
    finish(1);
  });
  chromium.on('exit', (code) => {
    if (ending) return;
    console.log(`FAILED  chromium ended with ${code}:\n${said}`);
    finish(1);
  });
  setTimeout(() => {
    console.log(`FAILED  the page is not done in time; chromium said:\n${said}`);
    finish(1);
  }, Number(args['patience-ms']));
});
