#!/usr/bin/env bash
# Compares our trainer with the Python YOLOv5, each run as a program of its own: `make parity`.
#
#   run.sh                 everything
#   run.sh steps           losses of 20 steps from the same weights and images, three seeds (5 minutes)
#   run.sh formats         files of weights in both directions (5 minutes)
#   run.sh predict         what predict finds on pictures of several shapes (1 minute)
#   run.sh loader          training samples that one core makes per second (2 minutes)
#   run.sh training        whole trainings from three seeds each (half an hour on 2 cores)
#
# Scratch files stay in target/parity; trainings that are already there are not done again.
set -euo pipefail
cd "$(dirname "$0")/../.."

work="$PWD/target/parity"
mkdir -p "$work"
parts=("$@")
((${#parts[@]})) || parts=(steps formats predict loader training report)
python="$(scripts/peer.sh)"
eval "$(scripts/libtorch.sh --env)"
cargo build --quiet --locked --release -p trainer
# The two programs bring a libtorch each.
peer() { env -u LD_LIBRARY_PATH PYTHONWARNINGS=ignore "$python" "$@"; }
[[ -d "$work/digits" ]] || target/release/yolo-trainer make-dataset digits --output "$work/digits"

echo "machine: $(nproc) cores of $(sed -n 's/^model name\s*: //p' /proc/cpuinfo | head -n 1)"
peer -c 'import torch, yolov5; print(f"peer: yolov5 {yolov5.__version__}, torch {torch.__version__}")' | tail -n 1
echo "ours: $(git describe --always --dirty)"

for part in "${parts[@]}"; do
    echo "== $part"
    case "$part" in
    steps)
        cargo build --quiet --locked --release -p trainer-model --example parity_steps
        runs=()
        for seed in 0 1 2; do
            run="$work/steps/seed-$seed"
            runs+=("$run")
            peer tests/parity/steps.py prepare "$run" "$work/digits" "$seed" >"$work/steps.log"
            for kind in double float; do
                OMP_NUM_THREADS=1 peer tests/parity/steps.py peer "$run" "$kind" >>"$work/steps.log"
                OMP_NUM_THREADS=1 target/release/examples/parity_steps "$run" "$kind"
            done
        done
        peer tests/parity/steps.py compare "${runs[@]}"
        ;;
    formats)
        peer tests/parity/formats.py "$work/formats" "$work/digits" target/release/yolo-trainer 2>"$work/formats.log" ||
            { tail -n 20 "$work/formats.log" >&2; exit 1; }
        peer tests/parity/exports.py "$work/exports" "$work/digits" target/release/yolo-trainer 2>"$work/exports.log" ||
            { tail -n 20 "$work/exports.log" >&2; exit 1; }
        ;;
    predict)
        peer tests/parity/predict.py "$work/predict" "$work/digits" target/release/yolo-trainer 2>"$work/predict.log" ||
            { tail -n 20 "$work/predict.log" >&2; exit 1; }
        ;;
    loader)
        cargo build --quiet --locked --release -p trainer-data --example loader_speed
        peer tests/parity/loader.py "$work/loader" target/release/examples/loader_speed 2>"$work/loader.log"
        ;;
    training)
        peer tests/parity/training.py "$work/training" "$work/digits" target/release/yolo-trainer
        ;;
    report)
        rm -rf "$work/report"
        mkdir -p "$work/report"
        cat >"$work/report/job.yaml" <<'YAML'
apiVersion: yolo-operator.dev/v1alpha1
kind: YoloTrainingJob
metadata: { name: report }
spec:
  model: { size: n }
  dataset: { persistentVolumeClaim: { claimName: d } }
  training: { epochs: 3, batchSize: 16, imageSize: 64, device: cpu }
  output: { persistentVolumeClaim: { claimName: o } }
YAML
        target/release/yolo-trainer train -f "$work/report/job.yaml" --dataset "$work/digits" --output "$work/report" >"$work/report.log"
        peer tests/parity/report.py "$work/report/report-local"
        ;;
    *)
        echo "run.sh: unknown part '$part'; the parts are steps, formats, predict, loader, training and report" >&2
        exit 1
        ;;
    esac
done
