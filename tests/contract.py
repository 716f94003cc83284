"""Bodies that schemathesis does not make by itself; tests/contract.sh hands it this file."""

import json

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """One observation, and the same again: sending again does no harm."""
    if isinstance(value, (bytes, str)):
        return value
    return (json.dumps(value) + "\n").encode() * 2


@schemathesis.serializer("application/toml")
def text(context, value):
    """The description says text: most of it is no TOML, and is to be refused as such."""
    return value if isinstance(value, (bytes, str)) else json.dumps(value)
