"""A client of the API server that costs little: the machine it runs on is the one that is measured."""

import base64
import concurrent.futures
import http.client
import json
import re
import ssl
import tempfile
import threading
import time

USER_AGENT = "yolo-bench"
# The first uid, name and version of an object are its own.
UID = re.compile(rb'"uid":"([^"]+)"')
NAME = re.compile(rb'"name":"([^"]+)"')
VERSION = re.compile(rb'"resourceVersion":"([^"]+)"')
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Refused(Exception):
    def __init__(self, method, path, code, text):
        super().__init__(f"{method} {path}: {code} {text[:500]}")
        self.code = code


class Api:
    """A connection a thread, kept open."""

    def __init__(self, kubeconfig):
        text = open(kubeconfig).read()
        value = lambda key: re.search(rf"{key}: (\S+)", text)[1]
        decoded = lambda key: base64.b64decode(value(key)).decode()
        self.host, self.port = re.fullmatch(r"https://([^:]+):(\d+)", value("server")).groups()
        self.tls = ssl.create_default_context(cadata=decoded("certificate-authority-data"))
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
            file.write(decoded("client-certificate-data") + decoded("client-key-data"))
            file.flush()
            self.tls.load_cert_chain(file.name)
        self.local = threading.local()

    def connect(self, timeout=60):
        return http.client.HTTPSConnection(self.host, int(self.port), context=self.tls, timeout=timeout)

    def raw(self, method, path, body=None, kind="application/json", accept="application/json"):
        headers = {"User-Agent": USER_AGENT, "Accept": accept}
        if body is not None:
            headers["Content-Type"] = kind
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        for attempt in (0, 1):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = self.local.connection = self.connect()
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                text = answer.read()
                break
            except (http.client.HTTPException, OSError):
                connection.close()
                self.local.connection = None
                if attempt:
                    raise
        if answer.status >= 400:
            raise Refused(method, path, answer.status, text.decode(errors="replace"))
        return text

    def get(self, path, **more):
        return json.loads(self.raw("GET", path, **more))

    def post(self, path, body):
        return json.loads(self.raw("POST", path, body))

    def patch(self, path, body):
        return self.raw("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path, missing_ok=True, **options):
        try:
            self.raw("DELETE", path, options or None)
        except Refused as refused:
            if refused.code != 404 or not missing_ok:
                raise

    def there(self, path):
        try:
            self.raw("GET", path)
            return True
        except Refused as refused:
            if refused.code != 404:
                raise
            return False

    def count(self, path):
        """How many objects a list has, without reading them."""
        found = self.get(path + ("&" if "?" in path else "?") + "limit=1", accept=PARTIAL_LIST)
        return len(found["items"] or []) + (found["metadata"].get("remainingItemCount") or 0)


def parallel(width, items, work):
    with concurrent.futures.ThreadPoolExecutor(width) as pool:
        return list(pool.map(work, items))


class Pods:
    """Watches the pods of a namespace: which there are, which run, and when that was seen."""

    def __init__(self, api, namespace):
        self.there = {}
        self.running = set()
        self.changed = threading.Condition()
        self.failure = None
        self.api = api
        self.path = f"/api/v1/namespaces/{namespace}/pods"
        self.version = api.get(self.path, accept=PARTIAL_LIST)["metadata"]["resourceVersion"]
        self.closed = False
        self.connect()
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def connect(self):
        self.connection = self.api.connect(timeout=900)
        self.connection.request("GET", f"{self.path}?watch=1&resourceVersion={self.version}",
                                headers={"User-Agent": USER_AGENT, "Accept": "application/json"})
        self.answer = self.connection.getresponse()

    def read(self):
        try:
            while not self.closed:
                rest = b""
                # Iterating over the lines of an answer in chunks ends early in http.client.
                while data := self.answer.read1(1 << 16):
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        self.note(line)
                # The API server ends the watch of a client that reads too slowly in a burst.
                self.connection.close()
                self.connect()
        except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
            with self.changed:
                self.failure = error
                self.changed.notify_all()

    def note(self, line):
        kind = line[9:20]
        with self.changed:
            if kind.startswith(b"ERROR"):
                self.failure = line
            else:
                uid = UID.search(line)[1].decode()
                self.version = VERSION.search(line)[1].decode()
                if kind.startswith(b"DELETED"):
                    self.there.pop(uid, None)
                    self.running.discard(uid)
                else:
                    self.there.setdefault(uid, NAME.search(line)[1].decode())
                    leaves = b'"deletionTimestamp":"' in line
                    if b'"phase":"Running"' in line and not leaves:
                        self.running.add(uid)
                    else:
                        self.running.discard(uid)
            self.changed.notify_all()

    def until(self, what, holds, limit):
        """The moment at which `holds(self)` was first seen."""
        deadline = time.monotonic() + limit
        with self.changed:
            while not holds(self):
                left = deadline - time.monotonic()
                if self.failure is not None:
                    raise RuntimeError(f"the watch of pods ended: {self.failure}")
                if left <= 0:
                    raise TimeoutError(f"{what}: {len(self.there)} pods, {len(self.running)} running after {limit} s")
                self.changed.wait(left)
            return time.monotonic()

    def close(self):
        self.closed = True
        try:
            self.connection.sock.shutdown(2)
        except (OSError, AttributeError):
            pass
        self.thread.join(5)
        self.connection.close()
