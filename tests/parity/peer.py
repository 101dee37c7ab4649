"""The Python program as this comparison drives it: through its public model, loss and matching."""

import logging
import os
import pathlib
import sys

HOME = pathlib.Path(sys.executable).parents[2]
os.environ.setdefault("YOLOV5_CONFIG_DIR", str(HOME / "settings"))
os.environ.setdefault("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import yolov5  # noqa: E402

logging.getLogger("yolov5").setLevel(logging.WARNING)

MODELS = pathlib.Path(yolov5.__file__).parent / "models"

# Its hyp.scratch-low, in its own names.
HYPERPARAMETERS = {
    "lr0": 0.01, "lrf": 0.01, "momentum": 0.937, "weight_decay": 0.0005,
    "warmup_epochs": 3.0, "warmup_momentum": 0.8, "warmup_bias_lr": 0.1,
    "box": 0.05, "cls": 0.5, "cls_pw": 1.0, "obj": 1.0, "obj_pw": 1.0, "anchor_t": 4.0,
    "label_smoothing": 0.0,
}


def scaled(hyperparameters, classes, image_size, levels=3):
    """The gains as its training scales them before it makes its loss."""
    result = dict(hyperparameters, fl_gamma=0.0)
    result["box"] *= 3 / levels
    result["cls"] *= classes / 80 * 3 / levels
    result["obj"] *= (image_size / 640) ** 2 * 3 / levels
    return result
