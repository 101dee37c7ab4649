#!/usr/bin/env python3
"""Trains both programs on the digit scenes from different seeds, and compares the models they end with.

    training.py FOLDER DATASET TRAINER     (TRAINER is our program; this file is run by the peer's Python)

Runs that FOLDER already holds are not done again. Fails where the means of mAP50-95 differ by more than 0.01
and by more than two standard errors.
"""

import csv
import json
import math
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import peer

EPOCHS, SEEDS, THREADS = 60, (0, 1, 2), 1
# Boxes are easy in these scenes and ten digits are hard to tell apart; a mirrored 2 is no 2.
HYPERPARAMETERS = {"cls": 4.0}
AUGMENTATION = {
    "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "degrees": 0.0, "translate": 0.1, "scale": 0.2, "shear": 0.0,
    "perspective": 0.0, "flipud": 0.0, "fliplr": 0.0, "mosaic": 0.0,
}


def run(command, log, **environment):
    began = time.monotonic()
    with open(log, "w") as file:
        code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **environment}).returncode
    if code != 0:
        sys.exit(f"{command[0]} ended with {code}, see {log}")
    return time.monotonic() - began


def train_peer(folder, dataset, seed):
    # It writes caches beside the labels, so it gets a copy.
    data = folder / "dataset"
    if not data.exists():
        shutil.copytree(dataset, data)
        config = data / "data.yaml"
        config.write_text(f"path: {data}\n{config.read_text()}")
    hyp = {**peer.HYPERPARAMETERS, **HYPERPARAMETERS, **AUGMENTATION,
           "iou_t": 0.2, "fl_gamma": 0.0, "mixup": 0.0, "copy_paste": 0.0}
    (folder / "hyp.yaml").write_text("".join(f"{name}: {value}\n" for name, value in hyp.items() if name != "label_smoothing"))
    name = f"peer-{seed}"
    seconds = run(
        [sys.executable, pathlib.Path(sys.executable).parent / "yolov5", "train", "--weights", "", "--cfg", "yolov5n.yaml",
         "--data", data / "data.yaml", "--hyp", folder / "hyp.yaml", "--imgsz", "160", "--batch-size", "16",
         "--epochs", str(EPOCHS), "--device", "cpu", "--workers", "1", "--seed", str(seed), "--noplots",
         "--project", folder, "--name", name, "--exist-ok"],
        folder / f"{name}.log", OMP_NUM_THREADS=str(THREADS), PYTHONWARNINGS="ignore")
    return folder / name / "results.csv", seconds


def train_ours(folder, dataset, seed, trainer):
    name = f"ours-{seed}"
    job = {
        "apiVersion": "yolo-operator.dev/v1alpha1", "kind": "YoloTrainingJob", "metadata": {"name": name},
        "spec": {
            "model": {"size": "yolov5n"},
            "dataset": {"persistentVolumeClaim": {"claimName": "digits"}},
            "training": {"epochs": EPOCHS, "batchSize": 16, "imageSize": 160, "seed": seed, "computeThreads": THREADS,
                         "loaderThreads": 1},
            "hyperparameters": {**peer.HYPERPARAMETERS, **HYPERPARAMETERS},
            "augmentation": AUGMENTATION,
            "output": {"persistentVolumeClaim": {"claimName": "runs"}},
        },
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(job))
    seconds = run([trainer, "train", "-f", path, "--dataset", dataset, "--output", folder], folder / f"{name}.log")
    return folder / f"{name}-local" / "results.csv", seconds


def last_row(path):
    rows = [{key.strip(): value.strip() for key, value in row.items()} for row in csv.DictReader(open(path))]
    if len(rows) != EPOCHS:
        sys.exit(f"{path} has {len(rows)} rows, not {EPOCHS}")
    return {"mAP50": float(rows[-1]["metrics/mAP_0.5"]), "mAP50_95": float(rows[-1]["metrics/mAP_0.5:0.95"])}


def main(folder, dataset, trainer):
    folder.mkdir(parents=True, exist_ok=True)
    results = {"peer": [], "ours": []}
    for seed in SEEDS:
        for who in results:
            record = folder / f"{who}-{seed}.result.json"
            if not record.exists():
                print(f"training {who}, seed {seed}, {EPOCHS} epochs", flush=True)
                path, seconds = (train_peer(folder, dataset, seed) if who == "peer"
                                 else train_ours(folder, dataset, seed, trainer))
                record.write_text(json.dumps({"seed": seed, "seconds": round(seconds, 1), **last_row(path)}))
            results[who].append(json.loads(record.read_text()))
            print(who, results[who][-1], flush=True)
    mean = {who: statistics.mean(one["mAP50_95"] for one in runs) for who, runs in results.items()}
    error = math.sqrt(sum(statistics.variance(one["mAP50_95"] for one in runs) / len(runs) for runs in results.values()))
    difference, allowed = abs(mean["peer"] - mean["ours"]), max(0.01, 2 * error)
    seconds = {who: statistics.median(one["seconds"] for one in runs) for who, runs in results.items()}
    print(f"mean mAP50-95 of {len(SEEDS)} seeds: peer {mean['peer']:.4f}, ours {mean['ours']:.4f}; difference "
          f"{difference:.4f}, allowed {allowed:.4f} (two standard errors are {2 * error:.4f})")
    print(f"median time: peer {seconds['peer']:.0f} s, ours {seconds['ours']:.0f} s, ratio "
          f"{seconds['peer'] / seconds['ours']:.2f}")
    return difference > allowed


if __name__ == "__main__":
    sys.exit(main(*map(pathlib.Path, sys.argv[1:])))
