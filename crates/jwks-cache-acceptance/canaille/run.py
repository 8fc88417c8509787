"""Runs canaille on loopback with keys of its own making: `run.py PORT FOLDER`.

Prints one line of JSON with a token for each kid, signed as canaille would sign it, then serves until it is killed.
"""
import json
import os
import sys

from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

port, folder = sys.argv[1], sys.argv[2]
issuer = f"http://127.0.0.1:{port}"
keys = {"RS256": RSAKey.generate_key(2048), "ES256": ECKey.generate_key("P-256")}


def members(key):
    return ", ".join(f"{name} = {json.dumps(value)}" for name, value in key.as_dict(private=True).items())


config = os.path.join(folder, "canaille.toml")
with open(config, "w", encoding="utf-8") as file:
    file.write(f'SECRET_KEY = "acceptance"\nSERVER_NAME = "127.0.0.1:{port}"\nPREFERRED_URL_SCHEME = "http"\n')
    file.write(f'[CANAILLE_SQL]\nDATABASE_URI = "sqlite:///{folder}/canaille.db"\n')
    file.write(f"[CANAILLE_OIDC]\nACTIVE_JWKS = [{', '.join('{ ' + members(key) + ' }' for key in keys.values())}]\n")

tokens = {
    alg: jwt.encode({"alg": alg, "kid": key.thumbprint()}, {"iss": issuer}, key, algorithms=[alg])
    for alg, key in keys.items()
}
print(json.dumps(tokens), flush=True)
os.environ["CANAILLE_CONFIG"] = config
canaille = os.path.join(os.path.dirname(sys.executable), "canaille")
os.execv(canaille, [canaille, "run", "--bind", f"127.0.0.1:{port}"])
