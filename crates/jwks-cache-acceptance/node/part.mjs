// What every Node part shares: a server on loopback, a count of what was answered on
// the JWKS path, and a control surface under `/-/`. Which keys there are is the part's business.
import { createServer } from 'node:http';

export const JWKS_PATH = '/jwks';

/**
 * Serves a provider until the parent process closes our standard input.
 *
 * `build(issuer)` is told the address and gives `{ algorithms, handle(req, res), token(alg), rotate(alg) }`,
 * and `retire(alg)` where the provider can do that. The port is the first argument; without one, a free
 * one is taken. Once all is ready, one line of JSON on standard output tells it.
 */
export async function serve(build) {
  const counts = { requests: 0, full: 0, not_modified: 0 };
  let ready;
  const server = createServer(async (req, res) => {
    // Whoever comes while keys are being made waits for them.
    const part = await ready;
    const url = new URL(req.url, 'http://part');
    if (url.pathname.startsWith('/-/')) {
      control(part, counts, url, res);
      return;
    }
    if (url.pathname === JWKS_PATH) {
      counts.requests += 1;
      res.on('finish', () => {
        if (res.statusCode === 200) counts.full += 1;
        if (res.statusCode === 304) counts.not_modified += 1;
      });
    }
    part.handle(req, res);
  });
  // An orphan would hold its port for ever.
  process.stdin.on('end', () => process.exit(0)).resume();

  await new Promise((listening) => server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', listening));
  const { port } = server.address();
  ready = build(`http://127.0.0.1:${port}`);
  await ready;
  console.log(JSON.stringify({ port }));
}

async function control(part, counts, url, res) {
  const answer = (status, body) => {
    res.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  };
  try {
    const alg = url.searchParams.get('alg');
    switch (url.pathname) {
      case '/-/algorithms': return answer(200, part.algorithms);
      case '/-/counts': return answer(200, counts);
      case '/-/token': return answer(200, await part.token(alg));
      case '/-/rotate': return answer(200, await part.rotate(alg));
      case '/-/retire': return answer(200, await part.retire(alg));
      default: return answer(404, `no control ${url.pathname}`);
    }
  } catch (error) {
    return answer(500, String(error));
  }
}
