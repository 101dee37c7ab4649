"""Times the peer's matching and average precision: matching.py FILE writes made-up detections, and prints what came of them.

The file, little-endian: per image the counts of detections and labels as u32, then rows of f32: detections `[x1, y1, x2,
y2, confidence, class]` by falling confidence, labels `[class, x1, y1, x2, y2]`.
"""

import json
import pathlib
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "parity"))
import peer  # noqa: E402,F401
import torch  # noqa: E402
from yolov5.utils.metrics import ap_per_class  # noqa: E402
from yolov5.val import process_batch  # noqa: E402

IMAGES, CLASSES, LABELS, FALSE = 5000, 80, 7, 60


def image(random):
    """As COCO: some 7 objects of 80 classes, most of them found, more found that are not there."""
    count = random.poisson(LABELS)
    corner, size = random.uniform(0, 480, (count, 2)), random.uniform(10, 160, (count, 2))
    classes = random.integers(0, CLASSES, count)
    labels = np.concatenate([classes[:, None], corner, corner + size], 1)
    found = random.random(count) < 0.8
    near = labels[found, 1:] + random.normal(0, 6, (found.sum(), 4))
    wrong_corner, wrong_size = random.uniform(0, 480, (FALSE, 2)), random.uniform(10, 160, (FALSE, 2))
    boxes = np.concatenate([near, np.concatenate([wrong_corner, wrong_corner + wrong_size], 1)])
    confidence = np.concatenate([random.beta(4, 2, len(near)), random.beta(1, 8, FALSE)])
    of = np.concatenate([labels[found, 0], random.integers(0, CLASSES, FALSE)])
    return np.concatenate([boxes, confidence[:, None], of[:, None]], 1), labels.astype("<f4")


def ranked(images):
    """The same with confidences that are all different: the peer puts equal ones in any order."""
    all_confidences = np.concatenate([detections[:, 4] for detections, _ in images])
    rank = all_confidences.argsort(kind="stable").argsort(kind="stable") + 1
    begin = 0
    for detections, labels in images:
        detections[:, 4] = rank[begin:begin + len(detections)] / (len(rank) + 1)
        begin += len(detections)
        yield detections[np.argsort(-detections[:, 4])].astype("<f4"), labels


def main(path):
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    images = list(ranked([image(random) for _ in range(IMAGES)]))
    with open(path, "wb") as file:
        for detections, labels in images:
            file.write(np.array([len(detections), len(labels)], "<u4").tobytes() + detections.tobytes() + labels.tobytes())
    thresholds = torch.linspace(0.5, 0.95, 10)
    tensors = [(torch.from_numpy(detections), torch.from_numpy(labels)) for detections, labels in images]
    seconds = []
    for _ in range(3):
        begun = time.process_time()
        stats = []
        for detections, labels in tensors:
            correct = torch.zeros(len(detections), 10, dtype=torch.bool)
            if len(labels):
                correct = process_batch(detections, labels, thresholds)
            stats.append((correct, detections[:, 4], detections[:, 5], labels[:, 0]))
        stats = [torch.cat(parts, 0).cpu().numpy() for parts in zip(*stats)]
        _, _, precision, recall, _, ap, _ = ap_per_class(*stats, plot=False, names={k: str(k) for k in range(CLASSES)})
        seconds.append(time.process_time() - begun)
    print(json.dumps({"seconds": seconds, "precision": precision.mean(), "recall": recall.mean(),
                      "mAP50": ap[:, 0].mean(), "mAP50_95": ap.mean()}))


main(sys.argv[1])
