#!/usr/bin/env python3
"""Trains the peer some steps on tensors that both programs are given, and compares.

    steps.py prepare FOLDER DATASET SEED    initial weights made by the peer, batches decoded once
    steps.py peer FOLDER double|float       the peer's half; ours is trainer/model/examples/parity_steps.rs
    steps.py compare FOLDER...              both halves, of several seeds; fails where they differ by more than the
                                            limits below
"""

import json
import pathlib
import sys

import peer  # must come before its modules: it sets where they look
import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from yolov5.models.yolo import Model
from yolov5.utils.loss import ComputeLoss

STEPS, BATCH, SIDE, CLASSES = 20, 16, 160, 10
# Number format, steps that are compared, largest relative difference of a loss. In float32 two runs of one
# program drift apart too (threads, memory layout): only the first steps mean something. And a box whose edge lies
# within float32's rounding of its label's edge has another gradient on either side of it: where one seed differs and
# the others do not, look for that first.
LIMITS = [("double", STEPS, 1e-6), ("float", 5, 1e-5)]
# Its loss is added up in float32 whatever the network computes in. With gains that float32 holds exactly (cls and
# obj are: 10/160 and 1/16) the gradients are still exact.
# A fresh network amplifies rounding: with v5's own rates the peer differs from itself, with one thread and with
# two, by 3e-5 after 20 steps in float64. With these it does not.
HYPERPARAMETERS = {**peer.HYPERPARAMETERS, "box": 0.0625, "lr0": 0.005, "warmup_bias_lr": 0.001}
# The warm-up of a long run with 25 steps in an epoch, one step of the optimiser for each batch.
EPOCHS, STEPS_PER_EPOCH, WARMUP_STEPS = 100, 25, 100


def model(seed=0):
    torch.manual_seed(seed)
    return Model(str(peer.MODELS / "yolov5n.yaml"), ch=3, nc=CLASSES)


def exact(row):
    """A label whose numbers need few bits: on every grid it is the same number in float32 and float64, and no
    centre lies on or half-way between two cells, where the last bit would decide which cells learn it."""
    category, x, y, w, h = map(float, row)
    centre = [(2 * int(value * 1024) + 1) / 2048 for value in (x, y)]
    return [category, *centre, *(max(round(value * 2048), 1) / 2048 for value in (w, h))]


def prepare(folder, dataset, seed):
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.float().contiguous().clone() if tensor.is_floating_point() else tensor.clone()
             for name, tensor in model(seed).state_dict().items()}
    save_file(state, folder / "init.safetensors")
    images = sorted((dataset / "images/train").iterdir())[:STEPS * BATCH]
    if len(images) < STEPS * BATCH:
        sys.exit(f"{dataset} has fewer than {STEPS * BATCH} training images")
    batches = {}
    for step in range(STEPS):
        pixels, targets = [], []
        for number, path in enumerate(images[step * BATCH:(step + 1) * BATCH]):
            pixels.append(cv2.imread(str(path))[:, :, ::-1].transpose(2, 0, 1))
            labels = dataset / "labels/train" / (path.stem + ".txt")
            targets += [[number, *exact(row.split())] for row in labels.read_text().splitlines()]
        batches[f"images.{step}"] = torch.from_numpy(np.ascontiguousarray(np.stack(pixels)))
        batches[f"targets.{step}"] = torch.tensor(targets, dtype=torch.float32)
    save_file(batches, folder / "batches.safetensors")
    settings = {"classes": CLASSES, "imageSize": SIDE, "epochs": EPOCHS, "stepsPerEpoch": STEPS_PER_EPOCH,
                "batchSize": BATCH, "hyperparameters": HYPERPARAMETERS}
    (folder / "settings.json").write_text(json.dumps(settings))


def train(folder, kind):
    dtype = {"double": torch.float64, "float": torch.float32}[kind]
    network = model()
    network.load_state_dict(load_file(folder / "init.safetensors"))
    network = network.to(dtype).train()
    network.hyp = peer.scaled(HYPERPARAMETERS, CLASSES, SIDE)
    loss = ComputeLoss(network)
    modules = list(network.named_modules())
    norms = {f"{name}.weight" for name, module in modules if isinstance(module, torch.nn.BatchNorm2d)}
    groups = {"bias": [], "weight": [], "norm": []}
    for name, parameter in network.named_parameters():
        group = "bias" if name.endswith(".bias") else "norm" if name in norms else "weight"
        groups[group].append(parameter)
    hyp = HYPERPARAMETERS
    optimizer = torch.optim.SGD(groups["bias"], lr=hyp["lr0"], momentum=hyp["momentum"], nesterov=True)
    optimizer.add_param_group({"params": groups["weight"], "weight_decay": hyp["weight_decay"]})
    optimizer.add_param_group({"params": groups["norm"], "weight_decay": 0.0})
    batches = load_file(folder / "batches.safetensors")
    lines = []
    for step in range(STEPS):
        part = step / WARMUP_STEPS
        for group in optimizer.param_groups:
            start = hyp["warmup_bias_lr"] if group is optimizer.param_groups[0] else 0.0
            group["lr"] = start + (hyp["lr0"] - start) * part
            group["momentum"] = hyp["warmup_momentum"] + (hyp["momentum"] - hyp["warmup_momentum"]) * part
        predictions = network(batches[f"images.{step}"].to(dtype) / 255)
        total, parts = loss(predictions, batches[f"targets.{step}"].to(dtype))
        total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), max_norm=10.0)
        optimizer.step()
        optimizer.zero_grad()
        box, obj, cls = map(float, parts)
        lines.append(json.dumps({"step": step, "loss": float(total.detach()), "box": box, "obj": obj, "cls": cls}))
        print(f"{step + 1} of {STEPS} steps in {kind}", file=sys.stderr)
    (folder / f"peer-{kind}.jsonl").write_text("\n".join(lines) + "\n")
    save_file({name: tensor.contiguous().clone() for name, tensor in network.state_dict().items()},
              folder / f"peer-{kind}.safetensors")


def compare(folders):
    failed = False
    for kind, steps, limit in LIMITS:
        worst = max(compare_one(folder, kind, steps) for folder in folders)
        good = worst <= limit
        failed |= not good
        print(f"{kind}: at most {worst:.1e} (allowed {limit:.0e}): {'equal' if good else 'DIFFERENT'}")
    return failed


def compare_one(folder, kind, steps):
    """The largest relative difference of a loss in these steps."""
    halves = [[json.loads(line) for line in (folder / f"{who}-{kind}.jsonl").read_text().splitlines()]
              for who in ("peer", "ours")]
    if [len(half) for half in halves] != [STEPS, STEPS]:
        sys.exit(f"{folder.name}, {kind}: not all {STEPS} steps are there")
    worst = {}
    for peers, ours in list(zip(*halves))[:steps]:
        for part in ("loss", "box", "obj", "cls"):
            difference = abs(ours[part] - peers[part]) / abs(peers[part])
            worst[part] = max(worst.get(part, 0.0), difference)
    states = [load_file(folder / f"{who}-{kind}.safetensors") for who in ("peer", "ours")]
    if states[0].keys() != states[1].keys():
        sys.exit(f"{folder.name}, {kind}: the states have different names: {states[0].keys() ^ states[1].keys()}")
    # Over a whole tensor, so that a number near 0 does not count alone.
    weights = max(float((states[1][name] - value).norm() / value.norm()) for name, value in states[0].items()
                  if value.is_floating_point() and value.norm() > 0)
    parts = ", ".join(f"{part} {value:.1e}" for part, value in worst.items())
    print(f"{kind}, {folder.name}: largest relative difference over {steps} steps: {parts}; "
          f"state after {STEPS} steps: {weights:.1e}")
    return max(worst.values())


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["prepare", folder, dataset, seed]:
            prepare(pathlib.Path(folder), pathlib.Path(dataset), int(seed))
        case ["peer", folder, kind]:
            train(pathlib.Path(folder), kind)
        case ["compare", _, *_]:
            sys.exit(compare([pathlib.Path(folder) for folder in sys.argv[2:]]))
        case _:
            sys.exit(__doc__)
