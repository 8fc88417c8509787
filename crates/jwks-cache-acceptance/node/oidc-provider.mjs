// oidc-provider, certified: `at+jwt` access tokens by client credentials, one resource an algorithm.
// Its keys live in the provider instance, so a rotation builds a new one and swaps the handler.
import { randomUUID } from 'node:crypto';
import { exportJWK, generateKeyPair } from 'jose';
import Provider from 'oidc-provider';
import { JWKS_PATH, serve } from './part.mjs';

const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'ES512', 'EdDSA'];
const CLIENT = { client_id: 'acceptance', client_secret: randomUUID() };
const RESOURCE = 'urn:resource:';
const SCOPE = 'read';

// Static clients with JWT access tokens store nothing; the built-in store warns at every rotation.
class NoStore {}

async function newKey(alg) {
  const { privateKey } = await generateKeyPair(alg, { extractable: true });
  return { ...(await exportJWK(privateKey)), alg, use: 'sig', kid: randomUUID() };
}

function provider(issuer, keys) {
  return new Provider(issuer, {
    adapter: NoStore,
    jwks: { keys },
    routes: { jwks: JWKS_PATH },
    cookies: { keys: [randomUUID()] },
    clients: [{ ...CLIENT, redirect_uris: [], response_types: [], grant_types: ['client_credentials'] }],
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: SCOPE,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: resource.slice(RESOURCE.length) } },
        }),
      },
    },
    clientAuthMethods: ['client_secret_basic'],
  }).callback();
}

await serve(async (issuer) => {
  let keys = await Promise.all(ALGORITHMS.map(newKey));
  let handle = provider(issuer, keys);
  return {
    algorithms: ALGORITHMS,
    handle: (req, res) => handle(req, res),

    async token(alg) {
      const { client_id: id, client_secret: secret } = CLIENT;
      const answer = await fetch(`${issuer}/token`, {
        method: 'POST',
        headers: { authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}` },
        body: new URLSearchParams({
          grant_type: 'client_credentials',
          scope: SCOPE,
          resource: RESOURCE + alg,
        }),
      });
      const body = await answer.text();
      if (!answer.ok) throw new Error(`token endpoint: ${answer.status} ${body}`);
      return JSON.parse(body).access_token;
    },

    // The first key that fits an algorithm signs; the older ones stay published.
    async rotate(alg) {
      const key = await newKey(alg);
      keys = [key, ...keys];
      handle = provider(issuer, keys);
      return key.kid;
    },

    // Drops every key for the algorithm but the one that signs.
    async retire(alg) {
      const signing = keys.find((key) => key.alg === alg);
      const retired = keys.filter((key) => key.alg === alg && key !== signing);
      keys = keys.filter((key) => !retired.includes(key));
      handle = provider(issuer, keys);
      return retired.map((key) => key.kid);
    },
  };
});
