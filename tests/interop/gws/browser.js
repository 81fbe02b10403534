// Two pages of docs/examples/gws.html in a headless Chromium, driven as people would: they talk in one room, one
// recalls a message, the server is not asked for anything that the page does not ask for.
//
//   NODE_PATH=…/node_modules node browser.js --server 127.0.0.1:7171 [--chromium chromium]
//
// Prints one line per step; ends with 1 when one failed. Nothing here waits for a time: every wait is for a state.
'use strict';
const assert = require('node:assert/strict');
const { execFileSync } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { chromium } = require('playwright-core');

const PATIENCE_MS = 20_000;
const PAGE = path.join(__dirname, '../../../docs/examples/gws.html');
const { values: args } = parseArgs({
  options: { server: { type: 'string' }, chromium: { type: 'string', default: 'chromium' } },
});

const step = (what) => console.log(`ok      gotapi-ws in Chromium: ${what}`);

async function open(browser, origin, room, who) {
  const context = await browser.newContext();
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  page.on('pageerror', (error) => {
    throw new Error(`${who}: ${error.message}`);
  });
  // What the page's socket is sent, as text.
  page.frames = [];
  page.on('websocket', (socket) => socket.on('framereceived', ({ payload }) => page.frames.push(payload)));
  await page.goto(`${origin}?${new URLSearchParams({ server: args.server, room, token: who })}`);
  await connected(page);
  return page;
}

const connected = (page) => page.locator('#state', { hasText: 'connected' }).waitFor();

async function send(page, words) {
  await page.fill('#text', words);
  await page.click('#send');
  // Until it is acknowledged it is in italics.
  await line(page, words).and(page.locator(':not(.waiting)')).waitFor();
}

const line = (page, words) => page.locator('#messages li', { hasText: words });

const kept = (page) => page.locator('#messages li.kept').evaluateAll((all) => all.map((one) => one.firstChild.data));

async function main() {
  const executablePath = execFileSync('which', [args.chromium]).toString().trim();
  // No sandbox: in containers it needs what they do not give, and the page is our own.
  const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-dev-shm-usage', '--no-proxy-server'] });
  // The page has an origin of its own, as it would have; the server must allow it (http.cors_origins).
  const pages = http.createServer((_, response) => {
    response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' });
    fs.createReadStream(PAGE).pipe(response);
  });
  await once(pages.listen(0, '127.0.0.1'), 'listening');
  const origin = `http://127.0.0.1:${pages.address().port}/`;
  try {
    const room = '/browser/Tee & Gebäck/1';
    const ada = await open(browser, origin, room, 'ada');
    const bob = await open(browser, origin, room, 'bob');

    await send(ada, 'one by ada');
    await line(bob, 'one by ada').waitFor();
    await send(bob, 'two by bob');
    await line(ada, 'two by bob').waitFor();
    await send(ada, 'three by ada');
    await line(bob, 'three by ada').waitFor();
    step('packets are acknowledged and come to the other page');

    await bob.fill('#text', 'only passed on');
    await bob.click('#pass');
    await line(ada, 'only passed on').waitFor();
    step('any other text is passed on');

    const uuid = await line(ada, 'two by bob').getAttribute('data-uuid');
    await line(bob, 'two by bob').locator('button').click();
    await line(ada, 'two by bob').waitFor({ state: 'detached' });
    await line(bob, 'two by bob').waitFor({ state: 'detached' });
    const told = ada.frames.map((frame) => { try { return JSON.parse(frame); } catch { return null; } });
    assert.deepEqual(told.filter((packet) => packet?.command === 6), [{ uuid, type: 1, command: 6 }]);
    step('a recall takes the message from the other page');

    await Promise.all([ada.reload(), bob.reload()]);
    await Promise.all([connected(ada), connected(bob)]);
    assert.deepEqual(await kept(ada), ['one by ada', 'three by ada']);
    assert.deepEqual(await kept(bob), await kept(ada));
    step('after a reload both find the same history, without what was recalled');

    await send(bob, 'four by bob');
    await line(ada, 'four by bob').waitFor();
    const late = await open(browser, origin, room, 'cem');
    assert.deepEqual(await kept(late), ['one by ada', 'three by ada', 'four by bob']);
    assert.deepEqual(await kept(ada), await kept(late));
    step('who comes late finds the same');
  } finally {
    await browser.close();
    pages.close();
  }
}

main().catch((error) => {
  console.log(`FAILED  gotapi-ws in Chromium: ${error.stack ?? error}`);
  process.exitCode = 1;
});
