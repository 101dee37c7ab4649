#!/usr/bin/env python3
"""Weighted boxes fusion of made-up detections, by ensemble-boxes (pip install ensemble-boxes).

    fusion.py trainer/core/testdata/fusion.json

Rows are `[x1, y1, x2, y2, confidence, class]`, corners as fractions.
"""

import json
import random
import sys

from ensemble_boxes import weighted_boxes_fusion

CASES = 40


def case(rng):
    count = rng.randrange(2, 5)
    models = [[] for _ in range(count)]
    for _ in range(rng.randrange(1, 7)):
        x, y, w, h = rng.uniform(0.05, 0.5), rng.uniform(0.05, 0.5), rng.uniform(0.1, 0.4), rng.uniform(0.1, 0.4)
        category = rng.randrange(3)
        for model in models:
            for _ in range(rng.choice([0, 1, 1, 1, 2])):
                spread = rng.choice([0.002, 0.02, 0.05])
                box = [v + rng.uniform(-spread, spread) for v in (x, y, x + w, y + h)]
                box = [round(min(max(v, 0), 1), 4) for v in box]
                model.append([*box, round(rng.uniform(0.01, 1), 6), category if rng.random() < 0.9 else rng.randrange(3)])
    return models


def fused(models):
    boxes, scores, labels = weighted_boxes_fusion(
        [[row[:4] for row in model] for model in models],
        [[row[4] for row in model] for model in models],
        [[row[5] for row in model] for model in models],
        iou_thr=0.55,
    )
    return [[*map(float, box), float(score), int(label)] for box, score, label in zip(boxes, scores, labels)]


def main(path):
    rng = random.Random(5)
    cases = [{"models": models, "fused": fused(models)} for models in (case(rng) for _ in range(CASES))]
    with open(path, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(one) for one in cases) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
