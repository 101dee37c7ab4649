"""How the demo looks on a terminal, and in a log."""

import sys
import time

BARS = "▁▂▃▄▅▆▇█"


def step(title: str) -> None:
    mark = "\033[1m==\033[0m" if sys.stdout.isatty() else "=="
    print(f"\n{mark} {title}", flush=True)


class LiveLine:
    """One line that is written anew on a terminal; a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        self.tty = sys.stdout.isatty()
        self.last_text = ""
        self.last_time = 0.0

    def update(self, status: dict, seconds: float) -> None:
        display, progress = status.get("display", {}), status.get("progress", {})
        speed = progress.get("imagesPerSecond")
        text = "  ".join(
            [
                f"{seconds:5.0f} s",
                f"{status.get('state', 'Pending'):<12}",
                f"workers {display.get('workers', '-'):<5}",
                f"epoch {display.get('epoch', '-'):<7}",
                f"loss {display.get('loss', '-'):<7}",
                f"mAP50 {number(status.get('latest', {}).get('mAP50')):<6}",
                f"mAP50-95 {display.get('mAP50_95', '-'):<6}",
                f"{number(speed, 0):>4} images/s",
                f"ETA {display.get('eta', '-')}",
            ]
        )
        if self.tty:
            print(f"\r\033[K{text}", end="", flush=True)
        elif time.time() - self.last_time >= 10:
            print(text, flush=True)
            self.last_time = time.time()
        self.last_text = text

    def close(self) -> None:
        print("" if self.tty else self.last_text, flush=True)


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def sparkline(series: list[tuple[float, float]], width: int = 60) -> None:
    if not series:
        print("  no Prometheus beside this cluster")
        return
    values = [value for _, value in series]
    chosen = [values[i * len(values) // width] for i in range(width)] if len(values) > width else values
    line = "".join(BARS[min(7, int(max(0.0, value) * 8))] for value in chosen)
    seconds = series[-1][0] - series[0][0]
    print(f"  {line}\n  {values[0]:.3f} at first, {values[-1]:.3f} after {seconds:.0f} s, scale 0 to 1")


def table(summary: dict) -> None:
    for name, value in summary.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {word}" for key, word in value.items())
        elif isinstance(value, float):
            value = f"{value:.3f}".rstrip("0").rstrip(".")
        print(f"  {name:<26}{'-' if value is None else value}")
