"""Makes the images of trainer/data/testdata and what OpenCV, which the Python trainer reads images with, makes of them.

    images_testdata.py FOLDER        needs opencv-python, pillow and numpy
"""

import json
import pathlib
import sys

import cv2
import numpy as np
from PIL import Image

folder = pathlib.Path(sys.argv[1])
random = np.random.default_rng(1)
WIDTH, HEIGHT = 5, 3
colour = random.integers(0, 65536, (HEIGHT, WIDTH, 3), dtype=np.uint16)
grey = random.integers(0, 65536, (HEIGHT, WIDTH), dtype=np.uint16)
# High bytes that rounding would change.
colour[0, 0] = [0x00ff, 0x7fff, 0xfffe]
grey[0, 0] = 0x12ff
for ending in ("png", "tif"):
    cv2.imwrite(str(folder / f"colour16.{ending}"), colour)
    cv2.imwrite(str(folder / f"grey16.{ending}"), grey)
    Image.fromarray((grey >> 8).astype(np.uint8)).save(folder / f"grey8.{ending}")
with_alpha = np.dstack([colour >> 8, grey >> 8]).astype(np.uint8)
Image.fromarray(with_alpha, "RGBA").save(folder / "alpha8.png")
cv2.imwrite(str(folder / "alpha16.png"), np.dstack([colour, grey]))
Image.fromarray(with_alpha[..., :3]).quantize(8).save(folder / "palette.png")
Image.fromarray((grey >> 15 << 7).astype(np.uint8)).convert("1").save(folder / "bits.png")
# JPEGs of which a part can be decoded, and some of which it cannot.
tall = Image.fromarray(cv2.resize(random.integers(0, 256, (40, 8, 3), dtype=np.uint8), (40, 200)))
for name, more in {"444": {"subsampling": 0}, "422": {"subsampling": 1}, "420": {"subsampling": 2},
                   "420-progressive": {"subsampling": 2, "progressive": True}}.items():
    tall.save(folder / f"tall-{name}.jpg", quality=60, **more)
cv2.imwrite(str(folder / "tall-420-restarts.jpg"), np.asarray(tall), [cv2.IMWRITE_JPEG_QUALITY, 60, cv2.IMWRITE_JPEG_RST_INTERVAL, 2])
exif = Image.Exif()
exif[0x112] = 3
tall.save(folder / "tall-turned.jpg", quality=60, exif=exif)

# Every way that colours are thinned out and stored, with sizes that end inside a block.
turned = Image.Exif()
turned[0x112] = 6
small = Image.fromarray(cv2.resize(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), (19, 13)))
for name, more in {"444": {"subsampling": 0}, "422": {"subsampling": 1}, "420": {"subsampling": 2},
                   "progressive": {"subsampling": 2, "progressive": True}, "rgb": {"keep_rgb": True},
                   "turned": {"exif": turned}}.items():
    small.save(folder / f"small-{name}.jpg", quality=80, **more)
small.convert("L").save(folder / "small-grey.jpg", quality=80)
cv2.imwrite(str(folder / "small-440.jpg"), np.asarray(small), [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440])

names = sorted(p for p in folder.iterdir() if p.suffix in (".png", ".tif") or p.name.startswith("small-"))
expected = {p.name: cv2.imread(str(p), cv2.IMREAD_COLOR)[..., ::-1].flatten().tolist() for p in names}
(folder / "opencv.json").write_text("{\n" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in expected.items()) + "\n}\n")
