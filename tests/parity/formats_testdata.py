#!/usr/bin/env python3
"""Makes trainer/formats/testdata: a small file of weights as the Python program writes it.

    formats_testdata.py FOLDER

`yolov5.pt` is a checkpoint in the middle of a training, `golden.json` what its network predicts in float64.
"""

import copy
import json
import pathlib
import sys

import peer  # must come before its modules: it sets where they look
import torch
from yolov5.models.yolo import Model

ARCHITECTURE = {
    "nc": 3, "depth_multiple": 0.33, "width_multiple": 0.125, "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [[-1, 1, "Conv", [64, 6, 2, 2]], [-1, 1, "Conv", [64, 3, 2]], [-1, 1, "Conv", [64, 3, 2]],
                 [-1, 3, "C3", [64]], [-1, 1, "Conv", [64, 3, 2]], [-1, 1, "SPPF", [64, 5]]],
    "head": [[-1, 1, "nn.Upsample", ["None", 2, "nearest"]], [[-1, 3], 1, "Concat", [1]],
             [-1, 3, "C3", [64, False]], [[8, 5], 1, "Detect", ["nc", "anchors"]]],
}


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model = Model(copy.deepcopy(ARCHITECTURE), ch=3, nc=3)
    model.names = {0: "ant", 1: "bee", 2: "cat"}
    for number, buffer in enumerate(buffer for name, buffer in model.named_buffers() if "running" in name):
        buffer.copy_(1 + 0.25 * torch.sin(torch.arange(buffer.numel()) + number))
    # What auto-anchor does: other anchors than the model file's, in cells.
    model.model[-1].anchors *= 1.5
    ema = copy.deepcopy(model).half()
    for parameter in model.parameters():
        parameter.data.zero_()
    checkpoint = {"epoch": 6, "best_fitness": None, "model": model.half(), "ema": ema, "updates": 12,
                  "optimizer": None, "opt": {"imgsz": 96, "weights": ""}, "git": None, "date": None}
    torch.save(checkpoint, folder / "yolov5.pt")

    network = ema.double().eval()
    image = (0.5 + 0.5 * torch.sin(0.01 * torch.arange(3 * 64 * 64, dtype=torch.float64))).view(1, 3, 64, 64)
    with torch.no_grad():
        decoded = network(image)[0]
    golden = {"sum": float(decoded.sum()), "first": decoded[0, 0].tolist(), "last": decoded[0, -1].tolist()}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
