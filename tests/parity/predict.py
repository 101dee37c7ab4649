#!/usr/bin/env python3
"""What our `predict` finds beside what the peer's detect and its loaded model find, on pictures of several shapes.

    predict.py FOLDER DATASET TRAINER

The peer makes the network; both read the same PNGs, which need no resizing: the two resize with other roundings. Detect
tells whole pixels.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import peer  # noqa: F401  (must come before its modules: it sets where they look)
import numpy as np
import torch
from exports import MODULES, network
from PIL import Image
import yolov5
from yolov5 import detect

SIDE, CONFIDENCE, PIXELS = 160, 0.2, 0.01
# Width and height.
SHAPES = [(160, 96), (70, 160), (160, 131)]


def found_by_detect(weights, picture, folder):
    detect.run(weights=str(weights), source=str(picture), imgsz=(SIDE, SIDE), conf_thres=CONFIDENCE, iou_thres=0.45,
               max_det=1000, device="cpu", save_txt=True, save_conf=True, nosave=True, project=str(folder),
               name=picture.stem, exist_ok=True)
    text = folder / picture.stem / "labels" / f"{picture.stem}.txt"
    rows = [list(map(float, line.split())) for line in text.read_text().splitlines()] if text.exists() else []
    rows = np.asarray(rows).reshape(-1, 6)
    # Fractions of the picture: class, centre, size, confidence.
    centre, half = rows[:, 1:3], rows[:, 3:5] / 2
    corners = np.hstack([centre - half, centre + half]) * (Image.open(picture).size * 2)
    return np.hstack([corners, rows[:, 5:], rows[:, :1]])


def difference(ours, theirs):
    """The largest one of a corner, in pixels, to the nearest box of the same class; infinite if others are found."""
    if len(ours) != len(theirs) or len(ours) == 0:
        return float("inf")
    apart = np.abs(ours[:, None, :4] - theirs[None, :, :4]).max(2)
    apart[ours[:, None, 5] != theirs[None, :, 5]] = float("inf")
    return max(apart.min(0).max(), apart.min(1).max())


def main(folder, dataset, trainer):
    model = network(MODULES["SPP"])
    with torch.no_grad():
        model.model[-1].m[0].weight.mul_(8)
    weights = folder / "predict.pt"
    torch.save({"model": model, "epoch": -1}, weights)
    loaded = yolov5.load(str(weights), device="cpu")
    loaded.conf, loaded.iou, loaded.max_det = CONFIDENCE, 0.45, 1000
    # It appends to what is there.
    shutil.rmtree(folder / "peer", ignore_errors=True)
    scenes = sorted((dataset / "images/val").glob("*"))
    good = True
    for size, scene in zip(SHAPES, scenes):
        picture = folder / f"{size[0]}x{size[1]}.png"
        Image.open(scene).convert("RGB").resize(size).save(picture)
        told = folder / "predicted"
        subprocess.run([trainer, "predict", "--weights", weights, "--source", picture, "--output", told, "--conf",
                        str(CONFIDENCE), "--image-size", str(SIDE)], check=True, capture_output=True)
        (answer,) = json.loads((told / "predictions.json").read_text())["images"]
        ours = [[*one["xyxy"], one["confidence"], one["class"]] for one in answer["detections"]]
        ours = np.asarray(ours).reshape(-1, 6)
        from_model = loaded(np.asarray(Image.open(picture)), size=SIDE).xyxy[0].numpy()
        from_detect = found_by_detect(weights, picture, folder / "peer")
        apart, whole = difference(ours, from_model), difference(ours, from_detect)
        equal = apart <= PIXELS and whole <= 0.5 + PIXELS
        good &= bool(equal)
        print(f"{size[0]}x{size[1]}: {len(ours)} boxes, the peer {len(from_model)}, largest difference {apart:.1e} pixels "
              f"(at most {PIXELS}), to whole pixels of detect {whole:.2f} (at most 0.5): {'equal' if equal else 'DIFFERENT'}")
    sys.exit(not good)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    scratch = pathlib.Path(sys.argv[1]).resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    main(scratch, pathlib.Path(sys.argv[2]), sys.argv[3])
