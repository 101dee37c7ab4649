"""What is measured. Each part returns rows."""

import datetime
import itertools
import json
import math
import os
import re
import statistics
import time

import cluster
from api import Pods, parallel
from kinds import NAMESPACE, IndexedJob, JobSet, Ours, Trainer

# BENCH_ROUNDS=1 is for trying.
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
OURS, JOB, JOBSET, TRAINER = Ours(), IndexedJob(), JobSet(), Trainer()
KINDS = (OURS, JOB, JOBSET, TRAINER)
LATEST = itertools.count()
ONLY_OURS = False


def row(name, unit, ours, peers, goal, **more):
    """`ours` and each of `peers` are lists of runs; goals are on ratios where they name peers."""
    median = lambda runs: statistics.median(runs) if runs else None
    medians = {str(peer): median(runs) for peer, runs in peers.items()}
    own = median(ours)
    ratios = {peer: value / own for peer, value in medians.items() if value is not None and own}
    met = None
    if own is not None and goal:
        met = all(own <= goal["atMost"] if key == "atMost" else ratios.get(key, 0) >= least for key, least in goal.items())
    runs = {"ours": ours, **{str(peer): runs for peer, runs in peers.items()}}
    return {"name": name, "unit": unit, "ours": own, "peers": medians, "ratio": ratios, "goal": goal, "met": met, "runs": runs, **more}


def fresh(kind):
    return f"{kind.plural[:4]}-{next(LATEST)}"


def prepare(api):
    """What the kinds have in common is read from a pod of ours, while all controllers still run."""
    pods = Pods(api, NAMESPACE)
    name = fresh(OURS)
    api.post(OURS.path(), OURS.manifest(name, 2))
    pods.until("two pods of ours", lambda pods: len(pods.running) == 2, 60)
    pod = api.get(f"/api/v1/namespaces/{NAMESPACE}/pods/{name}-worker-1-0")
    for kind in KINDS:
        kind.prepare(api, pod)
    cluster.remove(api, OURS, [name], pods)
    pods.close()


def in_turn(api, kinds, measure, rounds=None):
    """So many times each kind, in turn; the values of each."""
    if ONLY_OURS:
        kinds = (OURS,)
    runs = {kind: [] for kind in kinds}
    for turn in range(rounds or ROUNDS):
        for kind in kinds:
            cluster.only(api, kind, KINDS)
            pods = Pods(api, NAMESPACE)
            try:
                runs[kind].append(measure(kind, pods))
            finally:
                pods.close()
            print(f"  round {turn + 1}, {kind}: {json.dumps(runs[kind][-1])}", flush=True)
    return runs


def each(runs, key):
    return {kind: [run[key] for run in found] for kind, found in runs.items()}


def create(api):
    """A job of 1,000 workers."""
    count = 1000

    def measure(kind, pods):
        name = fresh(kind)
        with open(cluster.AUDIT_LOG) as log:
            log.seek(0, 2)
            begun, at = time.monotonic(), time.time()
            api.post(kind.path(), kind.manifest(name, count))
            shown = pods.until("1,000 pods", lambda pods: len(pods.there) >= count, 180) - begun
            running = pods.until("1,000 running pods", lambda pods: len(pods.running) >= count, 180) - begun
            # The log is written in parts, a second apart.
            time.sleep(3)
            there = created(log)[count - 1] - at
        cluster.remove(api, kind, [name], pods)
        return {"there": there, "shown": shown, "running": running}

    runs = in_turn(api, KINDS, measure)
    there, shown, running = each(runs, "there"), each(runs, "shown"), each(runs, "running")
    return [
        row("apply to 1,000 pods that exist", "s", there.pop(OURS), there, {"JobSet": 3, "Trainer": 3, "Indexed Job": 1}),
        row("apply to 1,000 pods that a watch has shown", "s", shown.pop(OURS), shown, {}),
        row("apply to 1,000 pods that run", "s", running.pop(OURS), running, {}),
    ]


def created(log):
    """When each pod was, by the API server's own clock: its watches lag behind by seconds when it has so much to do."""
    pods = (json.loads(line) for line in log if '"resource":"pods"' in line)
    ours = lambda entry: (entry["verb"] == "create" and entry["objectRef"].get("namespace") == NAMESPACE
                          and "subresource" not in entry["objectRef"] and entry["responseStatus"]["code"] == 201)
    moment = lambda entry: datetime.datetime.fromisoformat(entry["stageTimestamp"]).timestamp()
    return sorted(moment(entry) for entry in pods if ours(entry))


def restart(api):
    """One of 64 workers fails, and all are replaced."""
    count = 64

    def measure(kind, pods):
        name = fresh(kind)
        api.post(kind.path(), kind.manifest(name, count, restarts=True))
        pods.until("64 running pods", lambda pods: len(pods.running) >= count, 60)
        time.sleep(5)
        old = dict(pods.there)
        begun = time.monotonic()
        cluster.end_pod(api, kind, next(iter(old.values())), "Failed", 1)
        first = pods.until("a new pod", lambda pods: len(pods.there.keys() - old.keys()) > 0, 60) - begun
        running = pods.until("64 new running pods", lambda pods: len(pods.running - old.keys()) >= count, 60) - begun
        time.sleep(3)
        cluster.remove(api, kind, [name], pods)
        return {"first": first, "running": running}

    runs = in_turn(api, (OURS, JOBSET), measure)
    floor = [floor_of_restart(api, count) for _ in range(ROUNDS)]
    print(f"  the API server's own floor: {floor}", flush=True)
    first, running = each(runs, "first"), each(runs, "running")
    return [
        row("one of 64 pods fails to 64 fresh ones that run", "s", running.pop(OURS), running, {"JobSet": 2},
            floor=statistics.median(floor), floorRuns=floor),
        row("one of 64 pods fails to the first fresh one", "s", first.pop(OURS), first, {}),
    ]


def floor_of_restart(api, count):
    """64 pods deleted and 64 created by a client that does nothing else."""
    pods = Pods(api, NAMESPACE)
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    pod = lambda name: {"metadata": {"name": name}, "spec": JOB.template["spec"]}
    one = lambda name: api.post(path, pod(name))
    parallel(32, [f"floor-a-{index}" for index in range(count)], one)
    pods.until("64 running pods", lambda pods: len(pods.running) >= count, 60)
    time.sleep(3)
    old = dict(pods.there)
    begun = time.monotonic()
    work = [(api.delete, f"{path}/floor-a-{index}") for index in range(count)]
    work += [(one, f"floor-b-{index}") for index in range(count)]
    parallel(32, work, lambda item: item[0](item[1]))
    took = pods.until("64 new running pods", lambda pods: len(pods.running - old.keys()) >= count, 60) - begun
    parallel(32, [f"{path}/floor-b-{index}" for index in range(count)], api.delete)
    pods.until("the end of the pods", lambda pods: not pods.there, 60)
    pods.close()
    return took


def many(api):
    """200 jobs of 4 workers, applied at once."""
    jobs, workers = 200, 4

    def measure(kind, pods):
        names = [fresh(kind) for _ in range(jobs)]
        begun = time.monotonic()
        parallel(32, names, lambda name: api.post(kind.path(), kind.manifest(name, workers)))
        applied = time.monotonic() - begun
        running = pods.until("800 running pods", lambda pods: len(pods.running) >= jobs * workers, 300) - begun
        memory = sum(cluster.resident(cluster.process(api, controller)) for controller in kind.controllers)
        time.sleep(3)
        cluster.remove(api, kind, names, pods)
        return {"applied": applied, "running": running, "memory": memory}

    runs = in_turn(api, (OURS, JOBSET, TRAINER), measure)
    running, memory = each(runs, "running"), each(runs, "memory")
    return [
        row("200 jobs of 4 workers applied at once to all running", "s", running.pop(OURS), running, {"JobSet": 2, "Trainer": 2}),
        row("resident memory of the controllers after that", "MiB", memory.pop(OURS), memory, {"JobSet": 1}),
    ]


def histogram(text):
    """The reconciles so far, by upper bound."""
    found = re.findall(r'yolo_operator_reconcile_seconds_bucket\{[^}]*le="([^"]+)"\} (\S+)', text)
    return {float(bound.replace("+Inf", "inf")): float(count) for bound, count in found}


def quantile(before, after, part):
    """As Prometheus computes it: linear within a bucket."""
    total = after[math.inf] - before.get(math.inf, 0)
    below, lower = 0.0, 0.0
    for bound in sorted(after):
        count = after[bound] - before.get(bound, 0)
        if count >= part * total:
            if bound == math.inf:
                return lower
            return lower + (bound - lower) * (part * total - below) / (count - below)
        below, lower = count, bound
    return lower


def steady(api, running=1000, finished=10_000, seconds=60):
    """Many jobs that report progress, and very many that have ended."""
    cluster.only(api, OURS, KINDS)
    deployment = OURS.controllers[0]
    pods = Pods(api, NAMESPACE)
    model = fresh(OURS)
    api.post(OURS.path(), OURS.manifest(model, 1))
    pods.until("a pod", lambda pods: len(pods.running) == 1, 60)
    time.sleep(2)
    cluster.end_pod(api, OURS, f"{model}-worker-0-0", "Succeeded", 0)
    deadline = time.monotonic() + 60
    while (status := api.get(OURS.path(model)).get("status", {})).get("state") != "Complete":
        if time.monotonic() > deadline:
            raise TimeoutError("the model of finished jobs does not end")
        time.sleep(0.2)
    cluster.scale(api, deployment, 0)

    def forge(index):
        name = f"done-{index}"
        api.post(OURS.path(), OURS.manifest(name, 1))
        workers = [{**worker, "pod": f"{name}-worker-0-0"} for worker in status["workers"]]
        api.patch(OURS.path(name) + "/status", {"status": {**status, "workers": workers}})

    begun = time.monotonic()
    parallel(16, range(finished), forge)
    print(f"  {finished} finished jobs loaded in {time.monotonic() - begun:.0f} s", flush=True)
    cluster.scale(api, deployment, 1)
    with cluster.agents():
        begun = time.monotonic()
        parallel(16, range(running), lambda index: api.post(OURS.path(), OURS.manifest(f"live-{index}", 1)))
        pods.until("the pods", lambda pods: len(pods.running) >= running, 300)
        print(f"  {running} jobs run after {time.monotonic() - begun:.0f} s", flush=True)
        # Their statuses settle, and the caches with them.
        time.sleep(45)
        pid = cluster.process(api, deployment)
        rows = []
        for _ in range(ROUNDS):
            before, used, then = histogram(cluster.metrics(api, deployment)), cluster.processor(pid), time.monotonic()
            time.sleep(seconds)
            share = 100 * (cluster.processor(pid) - used) / (time.monotonic() - then)
            after = histogram(cluster.metrics(api, deployment))
            count = after[math.inf] - before[math.inf]
            rows.append({"share": share, "memory": cluster.resident(pid), "p99": 1000 * quantile(before, after, 0.99),
                         "reconciles": count / seconds})
            print(f"  {json.dumps(rows[-1])}", flush=True)
        reporting = sum('"step":' in json.dumps(job.get("status", {}).get("progress", {}))
                        for job in api.get(OURS.path() + "?limit=11100")["items"])
    if reporting < running:
        raise RuntimeError(f"only {reporting} of {running} jobs report progress")
    pods.close()
    of = lambda key: [each[key] for each in rows]
    what = f"{running:,} running jobs that report, {finished:,} finished: "
    return [
        row(what + "resident memory", "MiB", of("memory"), {}, {"atMost": 300}),
        row(what + "part of a core", "%", of("share"), {}, {"atMost": 10}),
        row(what + "99 of 100 reconciles within", "ms", of("p99"), {}, {"atMost": 50}, reconcilesPerSecond=of("reconciles")),
    ]


def life(api):
    """Every write on the objects of a job of 64 workers, from its apply to the end of its last object."""
    count, seconds = 64, 30

    def measure(kind, pods):
        name = fresh(kind)
        with open(cluster.AUDIT_LOG) as log, cluster.agents():
            log.seek(0, 2)
            api.post(kind.path(), kind.manifest(name, count))
            pods.until("64 running pods", lambda pods: len(pods.running) >= count, 60)
            time.sleep(seconds)
            parallel(32, list(pods.there.values()), lambda pod: cluster.end_pod(api, kind, pod, "Succeeded", 0))
            time.sleep(10)
            cluster.remove(api, kind, [name], pods)
            time.sleep(3)
            return writes(log)

    # Counts hardly differ between rounds.
    runs = in_turn(api, KINDS, measure, rounds=1)
    total = each(runs, "all")
    rows = [row(f"API writes in the life of a job of 64 workers, {seconds} s of progress included", "", total.pop(OURS), total,
                {str(kind): 1.0001 for kind in (JOB, JOBSET, TRAINER)}, by={str(kind): found[-1]["by"] for kind, found in runs.items()})]
    plain = each(runs, "withoutEvents")
    rows.append(row("the same without events", "", plain.pop(OURS), plain, {}))
    return rows


def writes(log):
    """Those that succeeded, but for the benchmark's own."""
    by = {}
    for line in log:
        entry = json.loads(line)
        target = entry.get("objectRef", {})
        code = entry.get("responseStatus", {}).get("code", 0)
        # Some of the control plane's own requests name no agent.
        who = entry.get("userAgent", "unnamed").split("/")[0]
        if target.get("namespace") != NAMESPACE or code >= 300 or who.startswith("yolo-bench"):
            continue
        resource = "/".join(filter(None, (target.get("resource"), target.get("subresource"))))
        key = f"{who} {entry['verb']} {resource}"
        by[key] = by.get(key, 0) + 1
    events = sum(count for key, count in by.items() if key.endswith(" events"))
    return {"all": sum(by.values()), "withoutEvents": sum(by.values()) - events, "by": by}


PARTS = {"create": create, "restart": restart, "many": many, "life": life, "steady": steady}
