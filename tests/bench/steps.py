#!/usr/bin/env python3
"""Measures training steps of the peer: steps.py SETTINGS, where SETTINGS is JSON like

    {"imageSize": 160, "batchSize": 16, "steps": 10, "threads": 2, "tuned": false}

A step is forward, its loss, backward, gradient clipping, its optimiser and its moving average. As shipped, the
peer computes in float32 on a CPU, whatever it is asked for. `tuned` makes of it what PyTorch allows without
changing the program: bfloat16, channels last, the fused optimiser, freed memory kept.
"""

import json
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "parity"))
settings = json.loads(sys.argv[1])
if settings["tuned"] and "MALLOC_TRIM_THRESHOLD_" not in os.environ:
    # The C library reads these when a program starts.
    keep = {"MALLOC_TRIM_THRESHOLD_": "1073741824", "MALLOC_MMAP_THRESHOLD_": "1073741824"}
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **keep})

import peer  # noqa: E402  (must come before its modules: it sets where they look)
import torch  # noqa: E402
from yolov5.models.yolo import Model  # noqa: E402
from yolov5.utils.loss import ComputeLoss  # noqa: E402
from yolov5.utils.torch_utils import ModelEMA, smart_optimizer  # noqa: E402

WARM_UP, OBJECTS, CLASSES = 3, 4, 80
side, batch, tuned = settings["imageSize"], settings["batchSize"], settings["tuned"]

torch.set_num_threads(settings["threads"])
torch.manual_seed(0)
network = Model(str(peer.MODELS / "yolov5n.yaml"), ch=3, nc=CLASSES).train()
network.hyp = peer.scaled(peer.HYPERPARAMETERS, CLASSES, side)
if tuned:
    network = network.to(memory_format=torch.channels_last)
    named = list(network.named_modules())
    norms = {f"{name}.weight" for name, module in named if isinstance(module, torch.nn.BatchNorm2d)}
    groups = {"bias": [], "weight": [], "norm": []}
    for name, parameter in network.named_parameters():
        kind = "bias" if name.endswith("bias") else "norm" if name in norms else "weight"
        groups[kind].append(parameter)
    optimiser = torch.optim.SGD(
        [{"params": groups["bias"]}, {"params": groups["weight"], "weight_decay": 0.0005}, {"params": groups["norm"]}],
        lr=1e-4, momentum=0.937, nesterov=True, fused=True)
else:
    optimiser = smart_optimizer(network, "SGD", 1e-4, 0.937, 0.0005)
loss_of = ComputeLoss(network)
average = ModelEMA(network)
pixels = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
sizes = torch.rand(batch * OBJECTS, 2) * 0.35 + 0.05
centres = sizes / 2 + torch.rand(batch * OBJECTS, 2) * (1 - sizes)
owners = torch.arange(batch).repeat_interleave(OBJECTS)[:, None].float()
targets = torch.cat([owners, torch.randint(0, CLASSES, (batch * OBJECTS, 1)).float(), centres, sizes], 1)

seconds = []
for step in range(WARM_UP + settings["steps"]):
    start = time.perf_counter()
    images = pixels.float() / 255
    if tuned:
        images = images.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=tuned):
        predictions = network(images)
    loss, _ = loss_of([level.float() for level in predictions] if tuned else predictions, targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), max_norm=10.0)
    optimiser.step()
    optimiser.zero_grad()
    average.update(network)
    if step >= WARM_UP:
        seconds.append(time.perf_counter() - start)
print(json.dumps({"seconds": seconds, "median": statistics.median(seconds)}))
