// oauth2-mock-server: weak ETags and real 304s, from Express. A token moves its key to the end of
// the published set, so the ETag changes with every token while there is more than one key.
import { OAuth2Issuer, OAuth2Service } from 'oauth2-mock-server';
import { JWKS_PATH, serve } from './part.mjs';

const ALGORITHMS = [
  'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519',
];

await serve(async (url) => {
  const issuer = new OAuth2Issuer();
  issuer.url = url;
  const service = new OAuth2Service(issuer, { jwks: JWKS_PATH });
  const signing = new Map();

  async function rotate(alg) {
    const { kid } = await issuer.keys.generate(alg);
    signing.set(alg, kid);
    return kid;
  }

  for (const alg of ALGORITHMS) await rotate(alg);
  return {
    algorithms: ALGORITHMS,
    handle: service.requestHandler,
    async token(alg) {
      if (!signing.has(alg)) throw new Error(`no key for ${alg}`);
      return issuer.buildToken({ kid: signing.get(alg) });
    },
    rotate,
  };
});
