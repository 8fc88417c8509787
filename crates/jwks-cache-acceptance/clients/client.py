"""PyJWT or joserfc beside the server: `client.py NAME JWKS_URL ISSUER`.

Each line of standard input is an algorithm and a token; each is answered by a line that begins with `ok` or `no`.
"""

import json
import sys
import urllib.request


def pyjwt(url):
    import jwt

    # Without its cooldown: a test rotates more often than a provider does.
    keys = jwt.PyJWKClient(url, cooldown_duration=0)

    def verify(token, alg, audience, issuer):
        key = keys.get_signing_key_from_jwt(token)
        return jwt.decode(token, key, algorithms=[alg], audience=audience, issuer=issuer)

    return verify


def joserfc(url):
    from joserfc import jwt
    from joserfc.jwk import KeySet

    held = {"etag": None, "keys": None}

    def fetch():
        request = urllib.request.Request(url, headers={"If-None-Match": held["etag"]} if held["etag"] else {})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                held["etag"] = answer.headers["ETag"]
                held["keys"] = KeySet.import_key_set(json.load(answer))
        except urllib.error.HTTPError as error:
            if error.code != 304:
                raise

    def verify(token, alg, audience, issuer):
        for last in (False, True):
            if held["keys"] is None or last:
                fetch()
            try:
                found = jwt.decode(token, held["keys"], algorithms=[alg])
                break
            except Exception:
                if last:
                    raise
        rules = jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": issuer}, aud={"essential": True, "value": audience}
        )
        rules.validate(found.claims)
        return found.claims

    return verify


name, url, issuer = sys.argv[1:]
verify = {"pyjwt": pyjwt, "joserfc": joserfc}[name](url)
print("ready", flush=True)
for line in sys.stdin:
    alg, token = line.split()
    try:
        claims = verify(token, alg, f"urn:resource:{alg}", issuer)
        print("ok", claims["client_id"], flush=True)
    except Exception as error:
        print("no", repr(error).replace("\n", " "), flush=True)
