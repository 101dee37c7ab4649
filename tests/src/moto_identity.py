"""Exchanges tokens of service accounts for keys of an object store, as the agent of a cloud's nodes does:
moto_identity.py HOST PORT

moto's token service gives the keys. Whoever brings no token gets none.
"""

import json
import sys

import boto3
from moto import mock_aws
from werkzeug.serving import run_simple
from werkzeug.wrappers import Request, Response

ROLE = "arn:aws:iam::123456789012:role/datasets"


@Request.application
def exchange(request):
    token = request.headers.get("Authorization")
    if not token:
        return Response("no token", status=401)
    # What a token says of whose it is stands between its dots.
    if token.count(".") != 2:
        return Response("no token of a service account", status=403)
    with mock_aws():
        tokens = boto3.client("sts", region_name="us-east-1")
        given = tokens.assume_role_with_web_identity(RoleArn=ROLE, RoleSessionName="fetch", WebIdentityToken=token)
    keys = given["Credentials"]
    return Response(json.dumps({
        "AccessKeyId": keys["AccessKeyId"],
        "SecretAccessKey": keys["SecretAccessKey"],
        "Token": keys["SessionToken"],
        "Expiration": keys["Expiration"].isoformat(),
    }), mimetype="application/json")


run_simple(sys.argv[1], int(sys.argv[2]), exchange)
