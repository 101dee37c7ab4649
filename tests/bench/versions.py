"""Names the peer's versions."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "parity"))
import peer  # noqa: E402,F401
import torch  # noqa: E402
import yolov5  # noqa: E402

print(json.dumps(f"yolov5 {yolov5.__version__}, torch {torch.__version__}"))
