// Runs the public test suite for HTTP caches against the cache whose base URL is the first line of standard
// input. One line of JSON says where the suite's origin listens; the last one, every test and how it went.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline/promises';
import fetch from 'node-fetch';
import { getResults, runTests } from 'http-cache-tests/client/runner.mjs';
import handleConfig from 'http-cache-tests/server/handle-config.mjs';
import handleState from 'http-cache-tests/server/handle-state.mjs';
import handleTest from 'http-cache-tests/server/handle-test.mjs';
import surrogateControl from 'http-cache-tests/tests/surrogate-control.mjs';
import suite from 'http-cache-tests/tests/index.mjs';

// The suite's own server listens on every address, so this is ours around the suite's handlers.
const handlers = { config: handleConfig, test: handleTest, state: handleState };
const origin = createServer((request, response) => {
  const [, handler, ...rest] = new URL(request.url, 'http://origin').pathname.split('/');
  handlers[handler](rest, request, response);
});
await new Promise((listening) => origin.listen(0, '127.0.0.1', listening));
console.log(JSON.stringify({ port: origin.address().port }));

const groups = [...suite, surrogateControl];
for (const test of groups.flatMap((group) => group.tests)) {
  // We are a private cache, so what the suite keeps for browsers is for us too.
  delete test.browser_only;
}
const tests = groups.flatMap((group) =>
  group.tests.map((test) => ({ id: test.id, group: group.id, kind: test.kind ?? 'required' })));

// An orphan would run on for a minute.
const input = createInterface({ input: process.stdin }).on('close', () => process.exit(1));
const cache = await input.question('');
await runTests(groups, fetch, false, cache);
const results = getResults();
console.log(JSON.stringify({
  tests: tests.map((test) => ({ ...test, failure: results[test.id] === true ? null : results[test.id].join(': ') })),
}));
process.exit(0);
