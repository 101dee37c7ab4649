#!/usr/bin/env python3
"""Stands in for the agents of pretend pods: answers /progress at every address that reaches this machine.

    agent.py PORT

Every job is 1,000 epochs of 100 steps long and does ten steps a second, so that each answer differs.
"""

import asyncio
import json
import sys
import time

STARTED = time.time()


def progress():
    step = int((time.time() - STARTED) * 10)
    epoch = step // 100
    loss = 1 / (1 + step / 1000)
    losses = {"box": loss, "obj": loss, "cls": loss, "total": 3 * loss}
    measured = {"epoch": epoch, "trainLoss": losses, "valLoss": losses, "precision": 0.5, "recall": 0.5,
                "mAP50": 1 - loss, "mAP50_95": (1 - loss) / 2}
    return {
        "version": 1, "attempt": {"incarnation": 0, "restart": 0}, "nodeRank": 0,
        "report": {
            "phase": "Training",
            "progress": {"epoch": epoch + 1, "epochs": 1000, "step": step, "steps": 100_000, "percent": step / 1000,
                         "etaSeconds": (100_000 - step) // 10, "imagesPerSecond": 160.0, "trainingSeconds": step / 10,
                         "firstStepTime": "2026-01-01T00:00:00Z"},
            "latest": measured, "best": measured,
            "checkpoint": {"step": epoch * 100, "path": f"checkpoints/step-{epoch * 100}"},
            "bestWeights": "best.safetensors", "skippedImages": 0,
        },
        "ranks": [{"rank": 0, "phase": "Training", "step": step, "silentSeconds": 0.1}],
    }


class Agent(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.text = transport, b""

    def data_received(self, data):
        self.text += data
        while b"\r\n\r\n" in self.text:
            _, self.text = self.text.split(b"\r\n\r\n", 1)
            body = json.dumps(progress()).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def main():
    server = await asyncio.get_running_loop().create_server(Agent, "0.0.0.0", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()


asyncio.run(main())
