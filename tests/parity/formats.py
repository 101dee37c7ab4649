#!/usr/bin/env python3
"""Files of weights in both directions, each read by the other program.

    formats.py FOLDER DATASET TRAINER

`TRAINER` is our program; weights of ours are trained into FOLDER unless they are there already, weights of the peer are made by
its own model. Fails where predictions or mAP differ by more than the limits below.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import peer  # must come before its modules: it sets where they look
import numpy as np
import onnxruntime
import torch
import yaml
from yolov5.models.experimental import attempt_load
from yolov5.models.yolo import Model
from PIL import Image
from yolov5 import val

SIDE, CLASSES = 160, 10
# Largest difference of a prediction, relative to the largest one; of mAP.
PREDICTIONS, MAP = 1e-5, 0.001
JOB = """
apiVersion: yolo-operator.dev/v1alpha1
kind: YoloTrainingJob
metadata: {name: formats}
spec:
  model: {size: yolov5n}
  dataset: {persistentVolumeClaim: {claimName: d}}
  training: {epochs: 40, batchSize: 16, imageSize: 160, device: cpu}
  hyperparameters: {nominalBatchSize: 16, warmupEpochs: 2, clsGain: 4}
  augmentation: {fliplr: 0, mosaic: 0, scale: 0.2}
  output: {persistentVolumeClaim: {claimName: o}}
"""


def ours(trainer, *arguments):
    done = subprocess.run([trainer, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{arguments[0]} failed: {done.stderr or done.stdout}")
    return done.stdout


def our_map(trainer, weights, data, *more):
    told = json.loads(ours(trainer, "eval", "--json", "--weights", weights, "--data", data, "--image-size", SIDE, *more))
    return told["mAP50"], told["mAP50_95"]


def peer_map(weights, data, folder, task="val"):
    # In batches of one: there its rectangles are those of each image, as ours are. The task `speed` takes squares
    # without a border, our --square.
    results, *_ = val.run(data=str(data), weights=str(weights), batch_size=1, imgsz=SIDE, device="cpu", half=False,
                          plots=False, project=str(folder), name="val", exist_ok=True, verbose=False, workers=0,
                          task=task, conf_thres=0.001, iou_thres=0.6)
    return results[2], results[3]


def shapes(copy):
    """Lays the validation images onto paper of several shapes, labels with them."""
    for number, path in enumerate(sorted((copy / "images/val").iterdir())):
        image = Image.open(path).convert("RGB")
        (width, height), paper = image.size, [(160, 160), (240, 160), (160, 220), (300, 170)][number % 4]
        wide = Image.new("RGB", paper, (90, 120, 60))
        wide.paste(image, (0, 0))
        wide.save(path)
        label = copy / "labels/val" / f"{path.stem}.txt"
        rows = [[float(word) for word in row.split()] for row in label.read_text().splitlines()]
        across, down = width / paper[0], height / paper[1]
        label.write_text("".join(f"{int(c)} {x * across} {y * down} {w * across} {h * down}\n" for c, x, y, w, h in rows))


class Report:
    failed = False

    def line(self, what, difference, limit):
        good = difference <= limit
        self.failed |= not good
        print(f"{what}: {difference:.1e} (at most {limit:.0e}): {'equal' if good else 'DIFFERENT'}")


def main(folder, dataset, trainer):
    folder.mkdir(parents=True, exist_ok=True)
    report = Report()
    # The peer writes caches beside the labels, so it gets a copy.
    copy = folder / "dataset"
    if not copy.exists():
        shutil.copytree(dataset, copy)
        shapes(copy)
    data, described = copy / "data.yaml", yaml.safe_load((copy / "data.yaml").read_text())
    # It takes paths from its own folder on, we take none that could leave the data set.
    peer_data = copy / "peer.yaml"
    peer_data.write_text(yaml.safe_dump({**described, "path": str(copy)}))
    (folder / "job.yaml").write_text(JOB)
    weights = folder / "runs/formats-local/weights/best.safetensors"
    if not weights.exists():
        ours(trainer, "train", "-f", folder / "job.yaml", "--dataset", copy, "--output", folder / "runs")

    files = {}
    for form in ("pt", "onnx", "torchscript", "safetensors"):
        files[form] = folder / f"ours.{form}"
        ours(trainer, "export", "--force", "--weights", weights, "--format", form, "--output", files[form])
    dynamic = folder / "dynamic.onnx"
    ours(trainer, "export", "--force", "--weights", weights, "--format", "onnx", "--dynamic", "--output", dynamic)

    torch.manual_seed(0)
    image = torch.rand(1, 3, SIDE, SIDE)
    model = attempt_load(str(files["pt"]), device="cpu", fuse=False).eval()
    with torch.no_grad():
        expected = model(image)[0].numpy()

    def compare(what, found, wanted=expected):
        assert found.shape == wanted.shape, f"{what}: {found.shape} instead of {wanted.shape}"
        report.line(f"predictions, {what} against .pt in the peer", np.abs(found - wanted).max() / np.abs(wanted).max(),
                    PREDICTIONS)

    session = onnxruntime.InferenceSession(str(files["onnx"]), providers=["CPUExecutionProvider"])
    compare("onnx in onnxruntime", session.run(["output0"], {"images": image.numpy()})[0])
    session = onnxruntime.InferenceSession(str(dynamic), providers=["CPUExecutionProvider"])
    compare("dynamic onnx", session.run(["output0"], {"images": image.numpy()})[0])
    larger = torch.rand(3, 3, 96, 224)
    with torch.no_grad():
        wanted = model(larger)[0].numpy()
    compare("dynamic onnx, 3 images of 96x224", session.run(["output0"], {"images": larger.numpy()})[0], wanted)
    extra = {"config.txt": ""}
    traced = torch.jit.load(str(files["torchscript"]), _extra_files=extra)
    compare("torchscript in torch.jit", traced(image).detach().numpy())
    assert json.loads(extra["config.txt"])["shape"] == [1, 3, SIDE, SIDE]

    for form, task, more in (("pt", "val", []), ("onnx", "speed", ["--square"]), ("torchscript", "speed", ["--square"])):
        own, theirs = our_map(trainer, weights, data, *more), peer_map(files[form], peer_data, folder, task)
        report.line(f"mAP50 and mAP50-95 of our .{form}, {theirs[0]:.4f} and {theirs[1]:.4f} in the peer",
                    max(abs(a - b) for a, b in zip(own, theirs)), MAP)

    # Theirs: the trained network as its trainer would save it, in half precision, read by us.
    saved = folder / "peer.pt"
    torch.save({"epoch": -1, "best_fitness": None, "model": model.half(), "ema": None, "updates": None,
                "optimizer": None, "opt": None, "git": None, "date": None}, saved)
    theirs, own = peer_map(saved, peer_data, folder), our_map(trainer, saved, data)
    report.line(f"mAP50 and mAP50-95 of the peer's .pt, {own[0]:.4f} and {own[1]:.4f} in ours",
                max(abs(a - b) for a, b in zip(own, theirs)), MAP)
    for size in ("yolov5n", "yolov5s", "yolov5n6"):
        config = next(peer.MODELS.rglob(f"{size}.yaml"))
        fresh = Model(str(config), ch=3, nc=CLASSES)
        torch.save({"model": fresh, "epoch": 3}, folder / f"{size}.pt")
        told = json.loads(ours(trainer, "info", "--json", "--image-size", 640, folder / f"{size}.pt"))
        assert (told["name"], told["classes"]) == (size, CLASSES), told
        assert told["parameters"] == sum(p.numel() for p in fresh.parameters())
        print(f"{size}.pt of the peer is known as {told['name']}: equal")
    return report.failed


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]))
