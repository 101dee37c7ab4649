#!/usr/bin/env python3
"""Measures the operator beside its peers on the local test cluster: `make bench-operator`.

    main.py [--ours] [PART...]    parts: create restart many life steady; default all; --ours leaves out the peers

Starts a cluster of its own in place of one that is up, and removes it in the end. Prints a table and writes
target/bench/operator.json, in which rows of parts that were not run stay. A goal that was missed says so.
"""

import json
import os
import platform
import signal
import subprocess
import sys

import cluster
import parts

OUT = cluster.ROOT / "target/bench/operator.json"


def versions():
    text = "".join((cluster.ROOT / file).read_text() for file in ("tests/cluster/versions.env", "tests/neighbours/versions.env"))
    found = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name: found[f"{name}_VERSION"] for name in ("KUBERNETES", "KWOK", "JOBSET", "TRAINER")}


def show(each):
    number = lambda value: "-" if value is None else f"{value:.4g}"
    peers = ", ".join(f"{peer} {number(value)} ({number(each['ratio'].get(peer))}x)" for peer, value in each["peers"].items())
    goal = ", ".join(f"<= {bound}" if key == "atMost" else f"{key} >= {bound:.3g}x" for key, bound in each["goal"].items())
    verdict = {True: "met", False: "MISSED", None: "no goal"}[each["met"]]
    floor = f"; floor {number(each['floor'])}" if "floor" in each else ""
    print(f"{each['name']}\n    ours {number(each['ours'])} {each['unit']}  {peers}{floor}  goal {goal or '-'}: {verdict}", flush=True)


def main():
    chosen = [word for word in sys.argv[1:] if word != "--ours"] or list(parts.PARTS)
    parts.ONLY_OURS = "--ours" in sys.argv
    unknown = [part for part in chosen if part not in parts.PARTS]
    if unknown:
        sys.exit(f"unknown part {unknown[0]}: choose from {' '.join(parts.PARTS)}")
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    ours = subprocess.run(["git", "-C", cluster.ROOT, "describe", "--always", "--dirty"], text=True, stdout=subprocess.PIPE, check=True)
    about = {"machine": f"{os.cpu_count()} cores of {cpu}, {platform.release()}", "ours": ours.stdout.strip(), **versions(),
             "rounds": parts.ROUNDS, "load": os.getloadavg()[0], "controllers": "all in pods, by their charts; only those measured run", "nodes": cluster.NODES}
    print(json.dumps(about), flush=True)
    rows = []
    # Also then the cluster is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("asked to stop"))
    try:
        api = cluster.start()
        parts.prepare(api)
        for part in chosen:
            print(f"{part}:", flush=True)
            rows += [{**each, "part": part, "about": about} for each in parts.PARTS[part](api)]
    finally:
        cluster.stop()
        if not parts.ONLY_OURS:
            write(rows)
    for each in rows + recovery():
        show(each)
    if not parts.ONLY_OURS:
        print(f"written to {OUT.relative_to(cluster.ROOT)}")


def recovery():
    """What faults cost: the cluster tests measure it, since it needs real training on real nodes."""
    rows = json.loads(OUT.read_text()) if OUT.exists() else []
    rows = [each for each in rows if each["part"] == "recovery"]
    if not rows:
        print("rank killed, pod deleted, node cut off: not measured here; make test-cluster measures them")
    return rows


def write(rows):
    """Also when a later part failed: what was measured is kept."""
    measured = {each["part"] for each in rows}
    if not rows:
        return
    before = json.loads(OUT.read_text()) if OUT.exists() else []
    rows = [each for each in before if each["part"] not in measured] + rows
    order = [*parts.PARTS, "recovery"]
    rows.sort(key=lambda each: order.index(each["part"]))
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(rows, indent=1) + "\n")


main()
