#!/usr/bin/env python3
"""TensorBoard's own reader on the events of a run (pip install tensorboard): all of results.csv, under its names.

    report.py RUN_FOLDER
"""

import csv
import sys

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TOLERANCE = 1e-4  # results.csv has five digits.


def main(folder):
    with open(f"{folder}/results.csv") as file:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    events = EventAccumulator(folder)
    events.Reload()
    tags = [key for key in rows[0] if key != "epoch"]
    assert sorted(events.Tags()["scalars"]) == sorted(tags), events.Tags()["scalars"]
    worst = 0.0
    for tag in tags:
        scalars = events.Scalars(tag)
        assert [event.step for event in scalars] == [int(row["epoch"]) for row in rows], tag
        for event, row in zip(scalars, rows):
            value = float(row[tag])
            worst = max(worst, abs(event.value - value) / max(abs(value), 1e-6))
    assert worst < TOLERANCE, worst
    print(f"TensorBoard reads {len(tags)} series of {len(rows)} epochs; largest relative difference from results.csv {worst:.1e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
