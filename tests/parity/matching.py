#!/usr/bin/env python3
"""Which detections are right: writes cases and the peer's answers as JSON.

    matching.py trainer/core/testdata/matching.json

Each case is one image's detections `[x1, y1, x2, y2, confidence, class]` in the order of their confidence, as
NMS leaves them, its labels `[class, x1, y1, x2, y2]`, and for each detection a number whose bit k says
whether it is right at the k-th threshold.
"""

import json
import random
import sys

import peer  # noqa: F401
import torch
from yolov5.val import process_batch

CASES = 150


def box(rng, side=100):
    x, y = rng.uniform(0, side * 0.6), rng.uniform(0, side * 0.6)
    return [x, y, x + rng.uniform(10, side * 0.4), y + rng.uniform(10, side * 0.4)]


def near(rng, xyxy, spread):
    return [value + rng.uniform(-spread, spread) for value in xyxy]


def case(rng):
    """A few objects, close to each other in half of the cases, and several detections of each."""
    crowd = rng.random() < 0.5
    first = box(rng)
    labels = [(rng.randrange(2), near(rng, first, 8) if crowd else box(rng)) for _ in range(rng.randrange(1, 6))]
    detections = []
    for category, xyxy in labels:
        for _ in range(rng.randrange(0, 4)):
            found = category if rng.random() < 0.85 else 1 - category
            detections.append((near(rng, xyxy, rng.choice([1, 4, 10])), rng.random(), found))
    detections.sort(key=lambda one: -one[1])
    return detections, labels


def main(path):
    rng = random.Random(0)
    iouv = torch.linspace(0.5, 0.95, 10)
    cases = []
    while len(cases) < CASES:
        detections, labels = case(rng)
        if not detections:
            continue
        rows = [[*(round(value, 2) for value in xyxy), round(conf, 4), category] for xyxy, conf, category in detections]
        truth = [[category, *(round(value, 2) for value in xyxy)] for category, xyxy in labels]
        right = process_batch(torch.tensor(rows), torch.tensor(truth), iouv)
        bits = [sum(int(yes) << k for k, yes in enumerate(row)) for row in right]
        cases.append({"detections": rows, "labels": truth, "right": bits})
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(one) for one in cases) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
