#!/usr/bin/env python3
"""Which classes are taken for which: writes cases and the peer's counts as JSON.

    confusion.py trainer/core/testdata/confusion.json

Each case is one image's detections `[x1, y1, x2, y2, confidence, class]`, its labels `[class, x1, y1, x2, y2]`, and
the matrix of three classes and the background, rows found and columns real.
"""

import json
import random
import sys

import peer  # noqa: F401
import torch
from matching import box, near
from yolov5.utils.metrics import ConfusionMatrix

CASES = 120
CLASSES = 3


def case(rng):
    """Objects found well, badly, twice, as something else or not at all, and a few that are not there."""
    crowd = rng.random() < 0.4
    first = box(rng)
    labels = [(rng.randrange(CLASSES), near(rng, first, 12) if crowd else box(rng)) for _ in range(rng.randrange(1, 6))]
    detections = []
    for category, xyxy in labels:
        for _ in range(rng.randrange(0, 3)):
            found = category if rng.random() < 0.7 else rng.randrange(CLASSES)
            detections.append((near(rng, xyxy, rng.choice([1, 5, 14])), rng.random(), found))
    detections += [(box(rng), rng.random(), rng.randrange(CLASSES)) for _ in range(rng.randrange(0, 3))]
    detections.sort(key=lambda one: -one[1])
    return detections, labels


def main(path):
    rng = random.Random(1)
    cases = []
    for _ in range(CASES):
        detections, labels = case(rng)
        rows = [[*(round(value, 2) for value in xyxy), round(conf, 4), category] for xyxy, conf, category in detections]
        truth = [[category, *(round(value, 2) for value in xyxy)] for category, xyxy in labels]
        matrix = ConfusionMatrix(nc=CLASSES)
        if rows:
            matrix.process_batch(torch.tensor(rows), torch.tensor(truth))
        else:
            matrix.process_batch(None, torch.tensor(truth)[:, 0])
        counts = [[int(value) for value in row] for row in matrix.matrix]
        cases.append({"detections": rows, "labels": truth, "matrix": counts})
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(one) for one in cases) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
