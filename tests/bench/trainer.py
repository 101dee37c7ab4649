#!/usr/bin/env python3
"""Measures the trainer beside the Python YOLOv5, in turns on the same cores: `make bench-trainer`.

    trainer.py PEER_PYTHON [PART...]    parts: steps160 steps640 start memory loader matching; default all

Prints a table and writes target/bench/trainer.json. A goal that was missed, or not measured, says so.
"""

import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OURS = ROOT / "target/release/yolo-trainer"
LOADER = ROOT / "target/release/examples/loader_speed"
OUT = ROOT / "target/bench/trainer.json"
THREADS = os.cpu_count()
# Each program in turn, so often; what is compared are the medians.
ROUNDS = 5


def run(command, **more):
    done = subprocess.run([str(word) for word in command], text=True, stdout=subprocess.PIPE, **more)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}")
    return done.stdout


def peer(python, script, *arguments):
    # The two programs bring a libtorch each.
    environment = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    environment["PYTHONWARNINGS"] = "ignore"
    output = run([python, script, *arguments], env=environment, stderr=subprocess.DEVNULL)
    return json.loads(output.strip().splitlines()[-1])


def row(name, unit, ours, theirs, goal, faster_is_smaller=True):
    ours_median = statistics.median(ours)
    peer_median = statistics.median(theirs) if theirs else None
    ratio = None
    if peer_median is not None:
        ratio = peer_median / ours_median if faster_is_smaller else ours_median / peer_median
    value = ratio if ratio is not None else ours_median
    met = value >= goal["atLeast"] if "atLeast" in goal else value <= goal["atMost"]
    return {"name": name, "unit": unit, "ours": ours_median, "peer": peer_median, "ratio": ratio,
            "goal": goal, "met": met, "runs": {"ours": ours, "peer": theirs}}


def steps(python, side, batch, count):
    def ours(precision, layout):
        command = [OURS, "bench", "yolov5n", "--image-size", side, "--batch-size", batch, "--steps", count,
                   "--threads", THREADS, "--precision", precision, "--layout", layout, "--device", "cpu", "--json"]
        return json.loads(run(command))["median"]

    def theirs(tuned):
        settings = {"imageSize": side, "batchSize": batch, "steps": count, "threads": THREADS, "tuned": tuned}
        return peer(python, HERE / "steps.py", json.dumps(settings))["median"]

    measured = {"bf16": [], "fp32": [], "nchw": [], "shipped": [], "tuned": []}
    for _ in range(ROUNDS):
        measured["shipped"].append(theirs(False))
        measured["bf16"].append(ours("bfloat16", "channels-last"))
        measured["tuned"].append(theirs(True))
        measured["fp32"].append(ours("float32", "channels-last"))
        measured["nchw"].append(ours("float32", "channels-first"))
    what = f"training step, yolov5n {side} px batch {batch}"
    return [
        row(f"{what}: bfloat16 / peer as shipped", "s", measured["bf16"], measured["shipped"], {"atLeast": 2.2}),
        row(f"{what}: float32 channels last / peer as shipped", "s", measured["fp32"], measured["shipped"], {"atLeast": 1.4}),
        row(f"{what}: float32 channels first / peer as shipped", "s", measured["nchw"], measured["shipped"], {"atLeast": 1.05}),
        row(f"{what}: bfloat16 / PyTorch tuned alike", "s", measured["bf16"], measured["tuned"], {"atLeast": 1.0}),
    ]


def manifest(folder, epochs):
    text = f"""apiVersion: yolo-operator.dev/v1alpha1
kind: YoloTrainingJob
metadata: {{name: bench}}
spec:
  model: {{size: yolov5n}}
  dataset: {{persistentVolumeClaim: {{claimName: data}}}}
  training: {{epochs: {epochs}, batchSize: 16, imageSize: 160, device: cpu, evaluateEvery: 1}}
  output: {{persistentVolumeClaim: {{claimName: runs}}}}
"""
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def scenes(folder, train):
    data = folder / "data"
    run([OURS, "make-dataset", "digits", "--output", data, "--train", train, "--val", 32])
    return data


def start(_python):
    """From the start of the process to the end of the first training step, labels read already once."""
    took = []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        data, job = scenes(folder, 400), manifest(folder, 1)
        for number in range(ROUNDS):
            output = folder / f"runs-{number}"
            begun = time.time()
            process = subprocess.Popen([str(OURS), "train", "-f", str(job), "--dataset", str(data), "--output", str(output)],
                                       text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            process.communicate()
            state = next((output / "bench-local/checkpoints").glob("step-*/state.json"))
            first = json.loads(state.read_text())["firstStepTime"]
            seconds = subprocess.run(["date", "-d", first, "+%s.%N"], text=True, stdout=subprocess.PIPE, check=True).stdout
            took.append(float(seconds) - begun)
    return [row("start of the process to the first step's end", "s", took, [], {"atMost": 2.0})]


def memory(_python):
    """Resident memory after the second and after the twentieth epoch."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        data, job = scenes(folder, 160), manifest(folder, 20)
        process = subprocess.Popen([str(OURS), "train", "-f", str(job), "--dataset", str(data), "--output", str(folder / "runs")],
                                   text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        resident = []
        for line in process.stdout:
            if re.search(r"epoch \d+/20", line):
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                resident.append(int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024)
        if process.wait() != 0 or len(resident) < 20:
            sys.exit("the training whose memory was to be measured failed")
    growth = statistics.median(resident[-3:]) / statistics.median(resident[1:4])
    return [row("memory: last epochs of 20 / first epochs", "ratio", [growth], [], {"atMost": 1.05})]


def matching(python):
    """Which detections are right, and average precision, of 5,000 images; each program on one core."""
    run(["cargo", "build", "--quiet", "--locked", "--release", "-p", "trainer-core", "--example", "matching_speed"], cwd=ROOT)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "detections"
        theirs = peer(python, HERE / "matching.py", file)
        ours = json.loads(run([ROOT / "target/release/examples/matching_speed", file]))
    apart = max(abs(ours[name] - theirs[name]) for name in ("precision", "recall", "mAP50", "mAP50_95"))
    return [
        row("matching and AP of 5,000 images", "s", ours["seconds"], theirs["seconds"], {"atLeast": 10.0}),
        row("matching and AP: largest difference of P, R, mAP50, mAP50-95", "", [apart], [], {"atMost": 1e-9}),
    ]


def loader(python):
    """Augmented samples per second of processor time on one core."""
    found = peer(python, ROOT / "tests/parity/loader.py", ROOT / "target/parity/loader", LOADER, "--json")
    kinds = {
        "files": ("samples of 640 px, mosaics of 640 x 480 JPEGs, decoded", 1.7),
        "memory": ("samples of 640 px, mosaics of 640 x 480 images in memory", 2.5),
        "scaled": ("samples of 320 px, mosaics of 640 x 480 JPEGs, scaled decoding", 2.5),
    }
    return [row(what, "1/s", found["ours"][kind], found["peer"][kind], {"atLeast": goal}, faster_is_smaller=False)
            for kind, (what, goal) in kinds.items()]


PARTS = {
    "steps160": lambda python: steps(python, 160, 16, 15),
    "steps640": lambda python: steps(python, 640, 4, 5),
    "start": start,
    "memory": memory,
    "matching": matching,
    "loader": loader,
}


def main():
    python, *parts = sys.argv[1:]
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        sys.exit(f"unknown part {unknown[0]}: choose from {' '.join(PARTS)}")
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    versions = peer(python, HERE / "versions.py")
    ours = run(["git", "-C", ROOT, "describe", "--always", "--dirty"]).strip()
    about = {"machine": f"{THREADS} cores of {cpu}, {platform.release()}", "ours": ours, "peer": versions, "rounds": ROUNDS}
    print(json.dumps(about))
    rows = []
    for part in parts or PARTS:
        measured = PARTS[part](python)
        for each in measured:
            show(each)
        rows += measured
    absent = {"ours": None, "peer": None, "ratio": None, "met": None, "runs": {}}
    not_measured = [{"name": "GPU, yolov5s 640 px AMP batch 64", "unit": "s", "goal": {"atLeast": 2.0}, **absent}]
    for each in not_measured:
        show(each)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"about": about, "rows": rows + not_measured}, indent=1) + "\n")
    print(f"written to {OUT.relative_to(ROOT)}")


def show(each):
    number = lambda value: "-" if value is None else f"{value:.4g}"
    goal = " ".join(f"{'>=' if bound == 'atLeast' else '<='} {value}" for bound, value in each["goal"].items())
    verdict = {True: "met", False: "MISSED", None: "not measured here"}[each["met"]]
    print(f"{each['name']:<75} {number(each['ours']):>8} {number(each['peer']):>8} {each['unit']:<5} "
          f"ratio {number(each['ratio']):>6}  goal {goal:<8} {verdict}", flush=True)


main()
