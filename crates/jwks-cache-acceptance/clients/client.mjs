// jose or jwks-rsa beside the server: `client.mjs NAME JWKS_URL ISSUER`.
// Each line of standard input is an algorithm and a token; each is answered by a line that begins with `ok` or `no`.
import { createPublicKey } from 'node:crypto';
import { createInterface } from 'node:readline';
import { createRemoteJWKSet, decodeProtectedHeader, jwtVerify } from 'jose';
import jwksClient from 'jwks-rsa';

const [name, url, issuer] = process.argv.slice(2);

const clients = {
  jose() {
    // Without its cooldown: a test rotates more often than a provider does.
    const keys = createRemoteJWKSet(new URL(url), { cooldownDuration: 0 });
    return (token, rules) => jwtVerify(token, keys, rules);
  },
  'jwks-rsa'() {
    const keys = jwksClient({ jwksUri: url });
    return async (token, rules) => {
      const key = await keys.getSigningKey(decodeProtectedHeader(token).kid);
      return jwtVerify(token, createPublicKey(key.getPublicKey()), rules);
    };
  },
};

const verify = clients[name]();
console.log('ready');
for await (const line of createInterface({ input: process.stdin })) {
  const [alg, token] = line.split(' ');
  try {
    const { payload } = await verify(token, { issuer, audience: `urn:resource:${alg}`, algorithms: [alg] });
    console.log(`ok ${payload.client_id}`);
  } catch (error) {
    console.log(`no ${String(error).replaceAll('\n', ' ')}`);
  }
}
