"""What the demo asks of the cluster, through kubectl and Prometheus' HTTP interface."""

import json
import os
import pathlib
import subprocess
import urllib.parse
import urllib.request


class Cluster:
    """The cluster of scripts/cluster-env.sh."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        script = "source scripts/cluster-env.sh && env -0"
        text = subprocess.run(
            ["bash", "-c", script], cwd=root, check=True, capture_output=True, text=True
        ).stdout
        self.env = dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)
        self.local = self.env["LOCAL_CLUSTER"] == "1"
        self.namespace = self.env["NAMESPACE"]
        self.prometheus: str | None = None

    def _call(self, *command: str | os.PathLike, text: str | None = None) -> str:
        done = subprocess.run(
            command, env=self.env, cwd=self.root, input=text, check=True, capture_output=True, text=True
        )
        return done.stdout

    def run(self, *arguments: str) -> str:
        return self._call("kubectl", *arguments)

    def get(self, *arguments: str) -> dict:
        return json.loads(self.run("get", *arguments, "-o", "json"))

    def apply_text(self, text: str) -> None:
        """Applies a manifest; the trainer's image is the one of this cluster."""
        text = text.replace("localhost/yolo-trainer", self.env["TRAINER_IMAGE"])
        self._call("kubectl", "apply", "-f", "-", text=text)

    def exists(self, kind: str, name: str) -> bool:
        return self._call("kubectl", "get", kind, name, "--ignore-not-found", "--output=name") != ""

    def apply(self, path: pathlib.Path) -> None:
        self.apply_text(path.read_text())

    def start_prometheus(self, config: pathlib.Path) -> None:
        """A Prometheus beside the local cluster; another cluster is expected to have its own."""
        if self.local:
            self._call(self.root / "tests/cluster/prometheus.sh", "up", config)
            self.prometheus = self._call(self.root / "tests/cluster/prometheus.sh", "url").strip()

    def series(self, query: str, start: float, end: float) -> list[tuple[float, float]]:
        """(time, value) pairs every two seconds; empty without a Prometheus."""
        if self.prometheus is None:
            return []
        parameters = urllib.parse.urlencode({"query": query, "start": start, "end": end, "step": 2})
        url = f"{self.prometheus}/api/v1/query_range?{parameters}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        return [(float(at), float(value)) for one in result for at, value in one["values"]]

    def volume_folder(self, claim: str) -> pathlib.Path | None:
        """The folder behind a claim, where this machine can see it."""
        if not self.local:
            return None
        volume = self.get("pvc", claim)["spec"]["volumeName"]
        spec = self.get("pv", volume)["spec"]
        source = spec.get("local") or spec.get("hostPath")
        return pathlib.Path(source["path"]) if source else None

    def operator_rss_mib(self) -> float | None:
        """The operator's resident memory, from its own metrics."""
        pods = self.get("pods", "-n", self.namespace, "-l", "app.kubernetes.io/name=yolo-operator")
        for pod in pods["items"]:
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}:8080/proxy/metrics"
            for line in self.run("get", "--raw", path).splitlines():
                if line.startswith("process_resident_memory_bytes "):
                    return round(float(line.split()[1]) / 2**20, 1)
        return None

    def versions(self, root: pathlib.Path) -> dict:
        server = json.loads(self.run("version", "-o", "json"))["serverVersion"]["gitVersion"]
        commit = self._call("git", "-C", root, "rev-parse", "--short", "HEAD").strip()
        return {"kubernetes": server, "commit": commit, "libtorch": "2.11.0"}
