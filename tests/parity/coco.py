#!/usr/bin/env python3
"""COCO's numbers for made-up detections, by pycocotools (pip install pycocotools).

    coco.py trainer/report/testdata/coco.json

Writes images with labels `[class, x1, y1, x2, y2]` and detections `[x1, y1, x2, y2, confidence, class]`, of all of
COCO's sizes, and the twelve numbers of its summary.
"""

import contextlib
import io
import json
import random
import sys

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

CLASSES = 4
IMAGES = 40


def scene(rng):
    width, height = rng.choice([(640, 480), (480, 640), (320, 320)])
    labels, detections = [], []
    for _ in range(rng.randrange(0, 9)):
        w, h = (rng.uniform(*rng.choice([(6, 30), (30, 95), (95, 250)])) for _ in range(2))
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        category = rng.randrange(CLASSES)
        labels.append([category, *(round(v, 1) for v in (x, y, x + w, y + h))])
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            spread = rng.choice([0.02, 0.06, 0.15])
            box = [x + rng.gauss(0, spread * w), y + rng.gauss(0, spread * h), x + w + rng.gauss(0, spread * w), y + h + rng.gauss(0, spread * h)]
            found = category if rng.random() < 0.9 else rng.randrange(CLASSES)
            detections.append([*(round(v, 1) for v in box), round(rng.uniform(0.05, 1), 4), found])
    for _ in range(rng.randrange(0, 4)):
        x, y = rng.uniform(0, width - 50), rng.uniform(0, height - 50)
        detections.append([*(round(v, 1) for v in (x, y, x + 50, y + 50)), round(rng.uniform(0.01, 0.6), 4), rng.randrange(CLASSES)])
    detections.sort(key=lambda row: -row[4])
    return {"size": [width, height], "labels": labels, "detections": detections}


def summary(scenes):
    truth = {
        "images": [{"id": i + 1, "width": s["size"][0], "height": s["size"][1]} for i, s in enumerate(scenes)],
        "categories": [{"id": c, "name": str(c)} for c in range(CLASSES)],
        "annotations": [],
    }
    found = []
    for i, s in enumerate(scenes):
        for c, x1, y1, x2, y2 in s["labels"]:
            box = [x1, y1, x2 - x1, y2 - y1]
            number = len(truth["annotations"]) + 1
            truth["annotations"].append({"id": number, "image_id": i + 1, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        for x1, y1, x2, y2, conf, c in s["detections"]:
            found.append({"image_id": i + 1, "category_id": c, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": conf})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in evaluation.stats]


def main(path):
    rng = random.Random(3)
    scenes = [scene(rng) for _ in range(IMAGES)]
    rows = ",\n".join(json.dumps(s) for s in scenes)
    with open(path, "w") as file:
        file.write('{"images": [\n' + rows + '\n],\n"stats": ' + json.dumps(summary(scenes)) + "}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
