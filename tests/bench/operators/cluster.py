"""The test cluster as the benchmark needs it: started with large limits, pretend nodes, controllers one at a time."""

import contextlib
import glob
import os
import pathlib
import re
import subprocess
import sys
import time

from api import Api, parallel
from kinds import NAMESPACE

ROOT = pathlib.Path(__file__).resolve().parents[3]
STATE = pathlib.Path("/var/lib/yolo-operator-cluster")
AUDIT_LOG = STATE / "logs/audit.log"
NODES = 50
# Where pretend pods have their addresses (FAKE_POD_RANGE of tests/cluster).
FAKE_PODS = "10.213.64.0/18"
AGENT_PORT = 9464


def run(*command, env=None, quiet=True):
    words = [str(word) for word in command]
    done = subprocess.run(words, text=True, stdout=subprocess.PIPE if quiet else None, cwd=ROOT,
                          env={**os.environ, **(env or {})})
    if done.returncode != 0:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}\n{done.stdout or ''}")
    return done.stdout


def start():
    """A fresh cluster with our operator, the peers and pretend nodes; returns its client."""
    stop()
    run("tests/cluster/up.sh", env={"CLUSTER_BENCH": "1"})
    run("tests/cluster/fake-nodes.sh", "up", NODES)
    run("tests/bench/operators/install.sh")
    api = Api(STATE / "kubeconfig")
    api.post("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    for name in ("data", "runs"):
        claim(api, name)
    return api


def claim(api, name):
    """A claim that is bound; pretend pods mount nothing."""
    size = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    api.post("/api/v1/persistentvolumes", {
        "metadata": {"name": f"bench-{name}"},
        "spec": {**size, "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/tmp"},
                 "claimRef": {"namespace": NAMESPACE, "name": name}},
    })
    claims = f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims"
    api.post(claims, {"metadata": {"name": name},
                      "spec": {**size, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": f"bench-{name}"}})
    deadline = time.monotonic() + 60
    while api.get(f"{claims}/{name}")["status"]["phase"] != "Bound":
        if time.monotonic() > deadline:
            sys.exit(f"the claim {name} is not bound")
        time.sleep(0.2)


def stop():
    # Of agents() in a run that was killed.
    subprocess.run(["ip", "route", "delete", "local", FAKE_PODS, "dev", "lo"], check=False, stderr=subprocess.DEVNULL)
    run("tests/cluster/down.sh")


@contextlib.contextmanager
def agents():
    """Something that answers at the address of every pretend pod, also to the real nodes' pods."""
    route = ["ip", "route", "replace", "local", FAKE_PODS, "dev", "lo"]
    subprocess.run(route, check=True)
    run("bash", "-c", 'cd tests/cluster && source ./lib.sh && source ./lib-process.sh && source ./lib-network.sh && '
        f'for n in "${{NODES[@]}}"; do in_node "$n" ip route replace {FAKE_PODS} via "$HOST_IP"; done')
    server = subprocess.Popen([sys.executable, ROOT / "tests/bench/operators/agent.py", str(AGENT_PORT)])
    try:
        yield
    finally:
        server.kill()
        server.wait()
        subprocess.run(["ip", "route", "delete", "local", FAKE_PODS, "dev", "lo"], check=False)


def scale(api, deployment, replicas):
    namespace, name = deployment
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    api.patch(f"{path}/scale", {"spec": {"replicas": replicas}})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        found = api.get(path)
        status = found.get("status", {})
        current = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
        if current and status.get("replicas", 0) == replicas and status.get("readyReplicas", 0) == replicas:
            if replicas > 0 or not pods_of(api, deployment):
                return
        time.sleep(0.2)
    sys.exit(f"the Deployment {name} did not come to have {replicas} replicas")


def only(api, kind, kinds):
    """Runs the controllers of this kind and of no other: what is not measured must not take part."""
    wanted = set(kind.controllers)
    every = {controller for each in kinds for controller in each.controllers}
    for controller in every - wanted:
        scale(api, controller, 0)
    for controller in kind.controllers:
        scale(api, controller, 1)


def pods_of(api, deployment):
    namespace, name = deployment
    found = api.get(f"/api/v1/namespaces/{namespace}/pods")["items"]
    return [pod for pod in found if pod["metadata"]["name"].startswith(f"{name}-")]


def process(api, deployment):
    """The process of a Deployment's one pod."""
    pods = pods_of(api, deployment)
    for pod in pods:
        for file in glob.glob("/proc/[0-9]*/cgroup"):
            with contextlib.suppress(OSError):
                if f"pod{pod['metadata']['uid']}" in open(file).read():
                    pid = int(file.split("/")[2])
                    if open(f"/proc/{pid}/comm").read().strip() != "pause":
                        return pid
    sys.exit(f"no process of {deployment} was found")


def resident(pid):
    """In MiB."""
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) / 1024


def processor(pid):
    """Seconds of processor time so far."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def metrics(api, deployment):
    namespace, _ = deployment
    name = pods_of(api, deployment)[0]["metadata"]["name"]
    return api.raw("GET", f"/api/v1/namespaces/{namespace}/pods/{name}:8080/proxy/metrics", accept="text/plain").decode()


def remove(api, kind, names, pods, limit=180):
    """Deletes objects with all they own and waits until nothing of them is left."""
    parallel(16, names, lambda name: api.delete(kind.path(name), propagationPolicy="Background"))
    pods.until("the end of the pods", lambda pods: not pods.there, limit)
    deadline = time.monotonic() + limit
    owned = [kind.path(), *(f"/api/v1/namespaces/{NAMESPACE}/{plural}" for plural in ("services", "endpoints"))]
    owned += [f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs"]
    while any(api.count(path) for path in owned):
        if time.monotonic() > deadline:
            sys.exit(f"something of {kind} is not deleted")
        time.sleep(0.2)
    # The controllers' queues run empty.
    time.sleep(2)


def end_pod(api, kind, name, phase, exit_code):
    """Writes what the kubelet would when the worker has ended."""
    ended = {"name": kind.container, "image": "", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"terminated": {"exitCode": exit_code}}}
    api.patch(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/status", {"status": {"phase": phase, "containerStatuses": [ended]}})
