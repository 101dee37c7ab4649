#!/usr/bin/env python3
"""How many training samples one core makes per second: the peer's data set object beside our loader.

    loader.py FOLDER LOADER_SPEED [--json]

Both read the same photographs' stand-ins (640 x 480 JPEGs of about 108 kB), lay mosaics, and augment with v5's
defaults to tensors of 640 pixels; and of 320 pixels, for which ours decodes at half the size. Time is the processor's, so
other programs on the machine cost little; runs alternate, medians count.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

import peer  # must come before its modules: it sets where they look
import cv2
import numpy as np
import torch
from yolov5.utils.dataloaders import LoadImagesAndLabels

IMAGES, RUNS, SAMPLES = 64, 5, 192
AUGMENTATION = {
    "hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4, "degrees": 0.0, "translate": 0.1, "scale": 0.5, "shear": 0.0,
    "perspective": 0.0, "flipud": 0.0, "fliplr": 0.5, "mosaic": 1.0, "mixup": 0.0, "copy_paste": 0.0,
}
# As loader_speed calls them: what it is, the side of the tensors, the peer's cache, the ratio that is wanted.
KINDS = {
    "files": ("decoding files", 640, False, 1.7),
    "memory": ("from the RAM cache", 640, "ram", 2.5),
    "scaled": ("320 px, scaled decoding", 320, False, 2.5),
}
# What the trainer tells its allocator when it starts: the example knows no libtorch and cannot.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30)}


def picture(number):
    """Detail at every scale, as in a photograph."""
    random = np.random.default_rng(number)
    image = np.zeros((480, 640, 3))
    for level in range(8):
        step = 1 << level
        noise = random.normal(0, 1, (480 // step + 1, 640 // step + 1, 3)) * 3 * step ** 0.9
        # Most detail has no colour.
        noise = 0.8 * noise.mean(2, keepdims=True) * 3 ** 0.5 + 0.2 * noise
        image += cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
    return np.clip(image + 120, 0, 255).astype(np.uint8)


def prepare(folder):
    if (folder / "data.yaml").exists():
        return
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(IMAGES):
        path = folder / f"images/{number:03}.jpg"
        cv2.imwrite(str(path), picture(number), [cv2.IMWRITE_JPEG_QUALITY, 97])
        (folder / f"labels/{number:03}.txt").write_text("0 0.3 0.3 0.2 0.2\n1 0.7 0.6 0.3 0.4\n")
    (folder / "data.yaml").write_text("train: images\nval: images\nnames: [a, b]\n")


def open_peer(folder, side, cache):
    return LoadImagesAndLabels(str(folder / "images"), side, 16, augment=True, hyp=dict(AUGMENTATION),
                               cache_images=cache)


def measure_ours(program, folder, side):
    answer = subprocess.run([program, folder, str(side), str(SAMPLES)], check=True, capture_output=True, text=True,
                            env={**os.environ, **KEEP_MEMORY})
    return json.loads(answer.stdout)


def measure_peer(dataset, side):
    start = time.process_time()
    for number in range(SAMPLES):
        image = dataset[number % IMAGES][0]
        assert image.shape == (3, side, side) and image.dtype == torch.uint8
    return SAMPLES / (time.process_time() - start)


def main(folder, program, as_json):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    prepare(folder)
    # The peer writes a cache beside the labels: it gets a copy of its own.
    own = folder / "peer"
    for name in ("images", "labels"):
        shutil.copytree(folder / name, own / name, dirs_exist_ok=True)
    datasets = {kind: open_peer(own, side, cache) for kind, (_, side, cache, _) in KINDS.items()}
    size = statistics.mean(path.stat().st_size for path in (folder / "images").iterdir())
    if not as_json:
        print(f"{IMAGES} JPEGs of 640 x 480, {size / 1000:.0f} kB on average; one core, {RUNS} runs of {SAMPLES} samples")
    results = {(who, kind): [] for who in ("ours", "peer") for kind in KINDS}
    for _ in range(RUNS):
        rates = {side: measure_ours(program, folder, side) for side in {side for _, side, _, _ in KINDS.values()}}
        for kind, (_, side, _, _) in KINDS.items():
            results["ours", kind].append(rates[side][kind])
            results["peer", kind].append(measure_peer(datasets[kind], side))
    if as_json:
        print(json.dumps({who: {kind: results[who, kind] for kind in KINDS} for who in ("ours", "peer")}))
        return
    for kind, (name, _, _, goal) in KINDS.items():
        ours, theirs = (statistics.median(results[who, kind]) for who in ("ours", "peer"))
        ratio = ours / theirs
        print(f"{name:24} ours {ours:6.1f}/s ({1000 / ours:.2f} ms)  peer {theirs:6.1f}/s ({1000 / theirs:.2f} ms)"
              f"  ratio {ratio:.2f}, goal {goal}: {'met' if ratio >= goal else 'NOT met'}")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3:] == ["--json"])
