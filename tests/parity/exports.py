#!/usr/bin/env python3
"""Networks with every module, exported by our program and run by others.

    exports.py FOLDER DATASET TRAINER

The peer makes each network; what it predicts is compared with what it, onnxruntime and torch.jit predict from the files
that our program writes of it. `--half` and `--nms` are compared with the same network and with our `predict`.
"""

import json
import pathlib
import subprocess
import sys

import peer  # must come before its modules: it sets where they look
import numpy as np
import onnxruntime
import torch
from PIL import Image
from yolov5.models.experimental import attempt_load
from yolov5.models.yolo import Model

SIDE, CLASSES = 96, 3
# Largest difference of a prediction, relative to the largest one: in single and in half precision; of a detection.
SINGLE, HALF, PIXELS = 1e-5, 4e-3, 1e-2
CONFIDENCE = 0.45
# Rows between a first convolution with stride 2 to 16 channels and a head on what they give.
MODULES = {
    "C3TR": [[-1, 2, "C3TR", [16]]],
    "C3Ghost": [[-1, 2, "C3Ghost", [16]]],
    "C3SPP": [[-1, 1, "C3SPP", [16]]],
    "C3x": [[-1, 2, "C3x", [16]]],
    "GhostConv": [[-1, 1, "GhostConv", [16, 3, 2]]],
    "GhostBottleneck": [[-1, 1, "GhostBottleneck", [16, 3, 2]], [-1, 1, "GhostBottleneck", [16, 3, 1]]],
    "CrossConv": [[-1, 1, "CrossConv", [16, 3, 1]], [-1, 1, "CrossConv", [16, 3, 1, 1, 1.0, True]]],
    "BottleneckCSP": [[-1, 2, "BottleneckCSP", [16]]],
    "Bottleneck": [[-1, 2, "Bottleneck", [16]]],
    "DWConv": [[-1, 1, "DWConv", [16, 3, 1]]],
    "Focus": [[-1, 1, "Focus", [16, 3]]],
    "SPP": [[-1, 1, "SPP", [16, [3, 5]]]],
    "SPPF": [[-1, 1, "SPPF", [16, 5]]],
    "MaxPool2d": [[-1, 1, "nn.MaxPool2d", [3, 2, 1]]],
    "AvgPool2d": [[-1, 1, "nn.AvgPool2d", [3, 1, 1]]],
    "BatchNorm2d": [[-1, 1, "nn.BatchNorm2d", [16]]],
    "Contract": [[-1, 1, "Contract", [2]]],
    "Expand": [[-1, 1, "Contract", [2]], [-1, 1, "Expand", [2]]],
    "Upsample": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "nn.Upsample", ["None", 2, "bilinear"]]],
}


def ours(trainer, *arguments):
    done = subprocess.run([trainer, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{arguments[0]} failed: {done.stderr or done.stdout}")


def network(rows):
    torch.manual_seed(0)
    backbone = [[-1, 1, "Conv", [16, 3, 2]], *rows]
    model = Model({"nc": CLASSES, "depth_multiple": 1.0, "width_multiple": 1.0, "anchors": [[8, 12, 14, 20]],
                   "backbone": backbone, "head": [[[len(backbone) - 1], 1, "Detect", ["nc", "anchors"]]]})
    for module in model.modules():
        # Statistics as after a training, so that folding them changes the kernels.
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.7, 1.3)
            torch.nn.init.uniform_(module.bias, -0.2, 0.2)
    with torch.no_grad():
        # So that predictions depend on what the layers before give, and there are confident ones.
        model.model[-1].m[0].weight.mul_(10)
        model.model[-1].m[0].bias.zero_()
    return model.eval()


def run(path, image):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    half = session.get_inputs()[0].type == "tensor(float16)"
    (output,) = session.run(None, {"images": image.numpy().astype(np.float16 if half else np.float32)})
    assert (output.dtype == np.float16) == (half and session.get_outputs()[0].name == "output0")
    return output.astype(np.float32)


def modules(folder, trainer):
    """The largest differences of each module; whether all are small enough."""
    image = torch.rand(1, 3, SIDE, SIDE)
    larger = torch.rand(2, 3, 64, 160)
    good = True
    for name, rows in MODULES.items():
        model = network(rows)
        with torch.no_grad():
            expected, of_larger = model(image)[0].numpy(), model(larger)[0].numpy()
        source = folder / f"{name}.pt"
        torch.save({"model": model, "epoch": -1}, source)

        def export(form, *more):
            path = folder / f"{name}-{'-'.join(more)}.{form}".replace("--", "")
            size = [] if form == "pt" else ["--image-size", SIDE]
            ours(trainer, "export", "--force", "--weights", source, "--format", form, "--output", path, *size, *more)
            return path

        def difference(found, wanted=expected):
            assert found.shape == wanted.shape, f"{name}: {found.shape} instead of {wanted.shape}"
            return np.abs(found - wanted).max() / np.abs(wanted).max()

        def loaded(path):
            with torch.no_grad():
                return attempt_load(str(path), device="cpu", fuse=True).eval()(image)[0].numpy()

        traced = torch.jit.load(str(export("torchscript")))
        single = {
            "pt": difference(loaded(export("pt"))),
            "onnx": difference(run(export("onnx"), image)),
            "onnx --no-fuse": difference(run(export("onnx", "--no-fuse"), image)),
            "onnx --dynamic": difference(run(export("onnx", "--dynamic"), larger), of_larger),
            "torchscript": difference(traced(image).detach().numpy()),
        }
        half = {
            "pt --half": difference(loaded(export("pt", "--half"))),
            "onnx --half": difference(run(export("onnx", "--half"), image)),
        }
        equal = max(single.values()) <= SINGLE and max(half.values()) <= HALF
        good &= equal
        shown = ", ".join(f"{what} {number:.1e}" for what, number in {**single, **half}.items())
        print(f"{name}: {shown}: {'equal' if equal else 'DIFFERENT'}")
    return good


def suppression(folder, dataset, trainer):
    """Detections that the model itself picks beside those of our `predict`, on scenes of digits of 160 pixels."""
    model = network(MODULES["SPP"])
    with torch.no_grad():
        # Wide differences between cells and classes, so that detections are few and none as confident as another.
        model.model[-1].m[0].weight.mul_(8)
    weights = folder / "suppression.pt"
    torch.save({"model": model, "epoch": -1}, weights)
    scenes = sorted((dataset / "images/val").glob("*"))[:20]
    good = True
    for flags in ([], ["--agnostic-nms"]):
        told = folder / "predicted"
        ours(trainer, "predict", "--weights", weights, "--source", *scenes, "--output", told, "--conf", CONFIDENCE,
             "--image-size", 160, *flags)
        wanted = [
            [[*one["xyxy"], one["confidence"], one["class"]] for one in picture["detections"]]
            for picture in json.loads((told / "predictions.json").read_text())["images"]
        ]
        for form in ([], ["--half"]):
            path = folder / "nms.onnx"
            ours(trainer, "export", "--force", "--weights", weights, "--format", "onnx", "--output", path, "--nms", "--conf",
                 CONFIDENCE, "--dynamic", *form, *flags)
            pixels = np.stack([np.asarray(Image.open(scene).convert("RGB")) for scene in scenes])
            images = torch.from_numpy(pixels.transpose(0, 3, 1, 2) / np.float32(255))
            rows = run(path, images)
            found = [rows[rows[:, 0] == number, 1:] for number in range(len(scenes))]
            counts = [sum(map(len, found)), sum(map(len, wanted))]
            if form:
                equal = abs(counts[0] - counts[1]) <= 0.05 * counts[1]
                print(f"onnx {' '.join(['--nms', *flags, *form])}: {counts[0]} detections, predict has {counts[1]}: "
                      f"{'alike' if equal else 'DIFFERENT'}")
            else:
                equal = counts[0] == counts[1] > 0
                largest = 0.0
                for ours_, theirs in zip(wanted, found):
                    ours_ = np.asarray(ours_, np.float32).reshape(-1, 6)
                    # `predict` cuts boxes off where the picture ends.
                    theirs[:, :4] = theirs[:, :4].clip(0, 160)
                    equal &= len(ours_) == len(theirs) and (ours_[:, 5] == theirs[:, 5]).all()
                    if equal and len(ours_):
                        largest = max(largest, np.abs(ours_[:, :5] - theirs[:, :5]).max())
                equal &= largest <= PIXELS
                print(f"onnx {' '.join(['--nms', *flags])}: {counts[0]} detections on {len(scenes)} pictures, largest difference "
                      f"{largest:.1e} (at most {PIXELS:.0e}): {'equal' if equal else 'DIFFERENT'}")
            good &= equal
    return good


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    scratch, digits, program = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    scratch.mkdir(parents=True, exist_ok=True)
    results = [modules(scratch, program), suppression(scratch, digits, program)]
    sys.exit(not all(results))
