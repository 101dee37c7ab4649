"""A script as teams have them: it learns its place from the variables of torch.distributed, knows nothing of who
starts it, and goes on from a checkpoint of its own.

    train.py FOLDER STEPS
"""

import os
import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

# A step as long as that of a larger network, so that there is something to interrupt.
PAUSE = 0.03
CHECKPOINT_EVERY = 10


def samples(step, rank):
    """Drawn from step and rank alone: whoever takes a step again takes the same one."""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    inputs = torch.randn(32, 16, generator=generator)
    return inputs, inputs.sin().sum(dim=1, keepdim=True)


def save(value, path):
    """Whoever reads the file finds the last one or this one, never a part."""
    with open(path + ".new", "wb") as file:
        torch.save(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def main(folder, steps):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    os.makedirs(folder, exist_ok=True)
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1))
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    checkpoint, first = folder + "/checkpoint.pt", 0
    if os.path.exists(checkpoint):
        state = torch.load(checkpoint)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    print(f"rank {rank} of {world} begins at step {first}", flush=True)
    for step in range(first + 1, steps + 1):
        inputs, targets = samples(step, rank)
        loss = nn.functional.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        time.sleep(PAUSE)
        print(f"step {step} loss {loss.item():.6f}", flush=True)
        if rank == 0 and step % CHECKPOINT_EVERY == 0:
            state = {"step": step, "network": network.state_dict(), "optimizer": optimizer.state_dict()}
            save(state, checkpoint)
    if rank == 0:
        save(network.state_dict(), folder + "/weights.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
