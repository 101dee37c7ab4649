#!/usr/bin/env python3
"""Trains examples/digits.yaml on the cluster that `make install` prepared, and shows it learn.

Ends with `kubectl get` and `describe` of the job, the mAP series as Prometheus has it, a picture of
the first validation images with the boxes that the model found, and target/demo/summary.json.
"""

import datetime
import json
import pathlib
import subprocess
import sys
import time

import cluster
import show

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "target" / "demo"
JOB = "digits"
# Ten minutes is the promise for the training itself; the rest is start-up on a slow machine.
DEADLINE_SECONDS = 30 * 60


def prepare(kube: cluster.Cluster) -> None:
    """Removes what an earlier demo left, and writes the scenes onto the data volume."""
    if not kube.local and kube.exists("ytj", JOB):
        sys.exit(f"there is a YoloTrainingJob {JOB} already, of an earlier demo or of yours: kubectl delete ytj {JOB}, then again")
    kube.run("delete", "ytj", JOB, "--ignore-not-found", "--wait")
    kube.run("delete", "job", "digits-predict", "--ignore-not-found", "--wait")
    show.step("digit scenes on the volume: kubectl apply -f examples/digits-data.yaml")
    kube.apply(ROOT / "examples" / "digits-data.yaml")
    kube.run("wait", "--for=condition=complete", "job/digits-dataset", "--timeout=180s")


def watch(kube: cluster.Cluster) -> tuple[dict, float]:
    """Follows the job to its end; returns its last state and the moment of `kubectl apply`."""
    show.step("kubectl apply -f examples/digits.yaml")
    applied = time.time()
    kube.apply(ROOT / "examples" / "digits.yaml")
    line = show.LiveLine()
    while time.time() < applied + DEADLINE_SECONDS:
        job = kube.get("ytj", JOB)
        line.update(job.get("status", {}), time.time() - applied)
        conditions = {c["type"]: c for c in job.get("status", {}).get("conditions", [])}
        for end in ("Complete", "Failed"):
            if conditions.get(end, {}).get("status") == "True":
                line.close()
                return job, applied
        time.sleep(1)
    line.close()
    sys.exit(f"the job did not end within {DEADLINE_SECONDS} s; see: kubectl describe ytj {JOB}")


def picture(kube: cluster.Cluster, status: dict) -> str | None:
    """Has the best weights find the digits in the first validation images, as a Job of the cluster."""
    weights = status["bestWeights"]
    folder = weights.split("/")[0]
    kube.apply_text(
        (ROOT / "scripts" / "demo" / "predict.yaml")
        .read_text()
        .replace("WEIGHTS", weights)
        .replace("PICTURES", f"{folder}/pictures")
    )
    kube.run("wait", "--for=condition=complete", "job/digits-predict", "--timeout=120s")
    volume = kube.volume_folder("runs")
    if volume is None:
        print(f"  on the volume of claim runs: {folder}/pictures/contact-sheet.png")
        return None
    source = volume / folder / "pictures" / "contact-sheet.png"
    target = OUT / "predictions.png"
    target.write_bytes(source.read_bytes())
    return str(target.relative_to(ROOT))


def summarise(kube: cluster.Cluster, job: dict, applied: float, series: list) -> dict:
    status = job["status"]
    progress, best = status["progress"], status.get("best", {})
    first_step = datetime.datetime.fromisoformat(progress["firstStepTime"]).timestamp()
    sizes = json.loads((ROOT / "target" / "images" / "sizes.json").read_text())
    reached = [at - first_step for at, value in series if value >= 0.5]
    return {
        "state": status["state"],
        "mAP50": best.get("mAP50"),
        "mAP50_95": best.get("mAP50_95"),
        "secondsTraining": round(progress["trainingSeconds"], 1),
        "secondsApplyToFirstStep": round(first_step - applied, 1),
        "secondsToMAP50_0_50": round(reached[0], 1) if reached else None,
        "imagesPerSecond": progress.get("imagesPerSecond"),
        "restarts": status.get("restarts", 0),
        "operatorRssMiB": kube.operator_rss_mib(),
        "operatorImageMiB": sizes["operatorImageMiB"],
        "trainerImageMiB": sizes["trainerImageMiB"],
        "versions": kube.versions(ROOT),
    }


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    kube = cluster.Cluster(ROOT)
    kube.start_prometheus(ROOT / "tests" / "prometheus.yaml")
    prepare(kube)
    job, applied = watch(kube)

    show.step(f"kubectl get ytj {JOB}")
    print(kube.run("get", "ytj", JOB))
    show.step(f"kubectl describe ytj {JOB}")
    print(kube.run("describe", "ytj", JOB))
    if job["status"]["state"] != "Complete":
        sys.exit("the job failed; its conditions above say why")

    series = kube.series(f'max(yolo_eval_map50{{training_job="{JOB}"}})', applied, time.time())
    show.step("mAP50 as Prometheus has it")
    show.sparkline(series)
    show.step("the first validation images, with what the model found")
    drawn = picture(kube, job["status"])
    if drawn:
        print(f"  {drawn}")
    show.step("the weights")
    print(f"  on the volume of claim runs: {job['status']['bestWeights']}")

    summary = summarise(kube, job, applied, series)
    (OUT / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    show.step("summary (target/demo/summary.json)")
    show.table(summary)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f"{' '.join(map(str, error.cmd))} failed:\n{error.stderr or error.stdout}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; the job goes on: kubectl get ytj digits --watch")
