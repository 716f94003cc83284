"""A client of peregrine: paste it into a cell, or save it as peregrine_client.py. Needs numpy and websocket-client."""

import json
import time
import urllib.error
import urllib.request
import warnings

import numpy
import websocket


class Client:
    """One node, or whatever stands before several. `key` is an API key, where the node asks for one."""

    def __init__(self, url="http://127.0.0.1:8080", key=None, timeout=10.0, tries=3):
        self.url, self.timeout, self.tries = url.rstrip("/"), timeout, tries
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.regions = {}  # by path: where on Fly its large requests are answered, once an answer has said so

    def forecast(self, series, model=None, levels=(), horizon=None):
        """Forecasts `{name: values}`, or the latest windows of names that the node knows: one dict for each."""
        series = [series] if isinstance(series, str) else series
        named = series.items() if isinstance(series, dict) else ((name, None) for name in series)
        body = {
            "series": [
                {"id": name, "symbol": name} if values is None
                else {"id": name, "values": numpy.asarray(values, float).tolist()}
                for name, values in named
            ],
            "levels": list(levels),
        }
        body |= {key: value for key, value in (("model", model), ("horizon", horizon)) if value is not None}
        return json.loads(self._post("/v1/forecast", json.dumps(body).encode())[0])["forecasts"]

    def infer(self, model, windows):
        """Forecasts `windows` [B, L] over binary tensors: an array [B, h, C]. Fastest for many windows."""
        windows = numpy.ascontiguousarray(windows, dtype="<f4")
        head = json.dumps({
            "inputs": [{"name": "y", "shape": list(windows.shape), "datatype": "FP32",
                        "parameters": {"binary_data_size": windows.nbytes}}],
            "outputs": [{"name": "forecast", "parameters": {"binary_data": True}}],
        }).encode()
        body, headers = self._post(
            f"/v2/models/{model}/infer", head + windows.tobytes(),
            {"content-type": "application/octet-stream", "inference-header-content-length": str(len(head))},
        )
        head_len = int(headers["inference-header-content-length"])
        output = json.loads(body[:head_len])["outputs"][0]
        return numpy.frombuffer(body[head_len:], dtype="<f4").reshape(output["shape"])

    def ticks(self, ticks):
        """Feeds `(series, milliseconds since 1970 or RFC 3339, value)`; returns how many did what."""
        lines = [json.dumps({"series": name, "ts": ts, "value": value}) for name, ts, value in ticks]
        return json.loads(self._post("/v1/ticks", "\n".join(lines).encode())[0])

    def stream(self, model, series=("*",), levels=(), start=None, patience=60.0):
        """Yields snapshots, predictions and gaps for ever. A connection that ends is opened again and goes on where it
        was, at `start`: the first number wanted by series. Raises once none could be had for `patience` seconds, and where
        the subscription is refused; what the node says of it later, as of levels that a new version lacks, is a warning."""
        series = [series] if isinstance(series, str) else list(series)
        following, epochs, wait, since = dict(start or {}), {}, 0.1, time.monotonic()
        while True:
            try:
                for message in self._subscribed(model, series, levels, following, epochs):
                    wait, since = 0.1, time.monotonic()
                    if message["op"] == "goodbye":
                        wait = message["reconnect_after_ms"] / 1000
                        break
                    if message["op"] in ("snapshot", "prediction", "gap"):
                        following[message["series"]] = message.get("seq", message.get("to")) + 1
                        if "epoch" in message:
                            epochs[message["series"]] = message["epoch"]
                        yield message
            except (OSError, websocket.WebSocketException) as error:
                refused = getattr(error, "status_code", None) in (400, 401, 403, 404)
                if refused or time.monotonic() - since > patience:
                    raise
            time.sleep(wait)
            wait = min(2 * wait, 5.0)

    def _subscribed(self, model, series, levels, following, epochs):
        connection = websocket.create_connection(
            "ws" + self.url.removeprefix("http") + "/v1/stream", timeout=30,
            subprotocols=["peregrine.v1.json"], header=self.headers,
        )
        try:
            wish = {"op": "subscribe", "id": 1, "model": model, "series": series, "levels": list(levels)}
            place = {"from": following, "epoch": epochs} if following else {"snapshot": True}
            connection.send(json.dumps(wish | place))
            refused = True  # until it is said to be accepted
            while text := connection.recv():
                message = json.loads(text)
                if message["op"] == "error":
                    said = f"{message['code']}: {message['detail']}"
                    if refused:
                        raise ValueError(said)
                    warnings.warn(said, stacklevel=3)
                refused = refused and message["op"] != "subscribed"
                yield message
        finally:
            connection.close()

    def _post(self, path, body, headers=None):
        for left in reversed(range(self.tries)):
            request = urllib.request.Request(self.url + path, body, self.headers | (headers or {}))
            if region := self.regions.get(path):
                request.add_header("fly-prefer-region", region)
            try:
                with urllib.request.urlopen(request, timeout=self.timeout) as response:
                    self.regions[path] = response.headers.get("fly-prefer-region") or self.regions.get(path)
                    return response.read(), response.headers
            except urllib.error.HTTPError as error:
                # Busy, or not there yet: come back when it says. Anything else is for the caller.
                if error.code not in (429, 503) or not left:
                    raise ValueError(f"{error.code}: {error.read().decode()}") from error
                time.sleep(float(error.headers.get("retry-after") or 1))
