#!/usr/bin/env bash
# One visit to a GPU: verify every kernel, time it beside gsplat, tune, then train.
#
#   benchmarks/on_gpu.sh OUT [MINUTES]             on the GPU machine; results and log into OUT
#   REHEARSE=1 benchmarks/on_gpu.sh OUT            the same steps at tiny sizes in Triton's
#                                                  interpreter, on any machine
#
# Environment:
#   PYTHON        interpreter with jax (CUDA) and triton        [python3]
#   GSPLAT_WHEEL  gsplat-1.5.3-py3-none-any.whl: builds it with nvcc (1 minute) and times it, too
#   TRAIN         what to train with the minutes left; empty: nothing
#                 [$PYTHON train.py --config=configs/demo.py --workdir=OUT/train]
#   SKIP          steps to leave out, e.g. "tune train"
#
# A step that fails does not stop the next; the last lines tell which failed. Nothing is installed
# outside OUT, and the GPU's settings stay as they are.
set -u
cd "$(dirname "$0")/.." || exit 1
if [ $# -lt 1 ]; then
  echo "usage: benchmarks/on_gpu.sh OUT [MINUTES]" >&2
  exit 2
fi
OUT=$1
MINUTES=${2:-9}
REHEARSE=${REHEARSE:-}
SKIP=${SKIP:-}
PYTHON=${PYTHON:-python3}
TRAIN=${TRAIN-"$PYTHON train.py --config=configs/demo.py --workdir=$OUT/train"}
mkdir -p "$OUT"
LOG=$OUT/log.txt
: >"$LOG"
DEADLINE=$(($(date +%s) + MINUTES * 60))
FAILED=
export PYTHONUNBUFFERED=1

left() { echo $((DEADLINE - $(date +%s))); }

# step NAME SECONDS COMMAND...: runs it unless skipped or out of time, at most SECONDS.
step() {
  local name=$1 limit=$2 start status
  shift 2
  case " $SKIP " in *" $name "*) return ;; esac
  start=$(date +%s)
  [ "$(left)" -lt "$limit" ] && limit=$(left)
  if [ "$limit" -lt 5 ]; then
    echo "== $name: out of time, not run" | tee -a "$LOG"
    return
  fi
  echo "== $name" | tee -a "$LOG"
  timeout "$limit" "$@" 2>&1 | tee -a "$LOG" | tail -n 40
  status=${PIPESTATUS[0]}
  echo "== $name: exit $status after $(($(date +%s) - start)) s" | tee -a "$LOG"
  [ "$status" -eq 0 ] || FAILED="$FAILED $name"
}

environment() {
  command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version --format=csv
  "$PYTHON" -c 'import jax, triton, platform
print("python", platform.python_version(), "jax", jax.__version__, "triton", triton.__version__)
print(jax.devices())'
}

gsplat_build() {
  local site=$OUT/gsplat-site
  "$PYTHON" -m pip install -q --no-index --no-deps --target "$site" "$GSPLAT_WHEEL" &&
    cat >"$OUT/gsplat-python" <<EOF
#!/usr/bin/env bash
export PYTHONPATH=$site TORCH_EXTENSIONS_DIR=$OUT/gsplat-ext MAX_JOBS=16
export TORCH_CUDA_ARCH_LIST=\${TORCH_CUDA_ARCH_LIST:-9.0}
exec $(command -v "$PYTHON") "\$@"
EOF
  chmod +x "$OUT/gsplat-python" &&
    "$OUT/gsplat-python" -c 'from gsplat.cuda._backend import _C; assert _C is not None'
}

if [ -n "$REHEARSE" ]; then
  export TRITON_INTERPRET=1 JAX_PLATFORMS=cpu
  step environment 120 environment
  step parity 600 "$PYTHON" -m benchmarks.gpu_parity --rehearse --out="$OUT/parity.json"
  step bench 600 "$PYTHON" -m benchmarks.gpu_bench --rehearse --out="$OUT/bench.json"
  step tune 600 "$PYTHON" -m kernels.tune --channels=3 --splats=8 --size=16 --loops=1 \
    --minutes=0.01 --out="$OUT/tuned.json"
else
  # JAX would take three quarters of the memory at once; the sanitizer and torch need some.
  export XLA_PYTHON_CLIENT_PREALLOCATE=false
  step environment 60 environment
  step parity 180 "$PYTHON" -m benchmarks.gpu_parity --out="$OUT/parity.json"
  step tests 150 "$PYTHON" -m pytest -q -p no:cacheprovider tests/kernels -k triton
  if command -v compute-sanitizer >/dev/null; then
    step sanitizer 90 compute-sanitizer --tool memcheck --error-exitcode 9 \
      "$PYTHON" -m benchmarks.gpu_parity --small
  else
    echo "== sanitizer: compute-sanitizer is not on the PATH, not run" | tee -a "$LOG"
  fi
  GSPLAT=()
  if [ -n "${GSPLAT_WHEEL:-}" ]; then
    step gsplat 150 gsplat_build
    [ -x "$OUT/gsplat-python" ] && GSPLAT=("--gsplat_python=$OUT/gsplat-python")
  else
    echo "== gsplat: no GSPLAT_WHEEL, not compared" | tee -a "$LOG"
  fi
  step bench 240 "$PYTHON" -m benchmarks.gpu_bench --out="$OUT/bench.json" --minutes=3 \
    "${GSPLAT[@]+"${GSPLAT[@]}"}"
  step tune 180 "$PYTHON" -m kernels.tune --out="$OUT/tuned.json" --minutes=1.3
fi
if [ -n "$TRAIN" ] && [ -z "$REHEARSE" ] && [ "$(left)" -gt 60 ]; then
  # shellcheck disable=SC2086  # TRAIN is a command with its arguments
  step train "$(left)" $TRAIN
fi
# Builds are large and of no use elsewhere.
rm -rf "$OUT/gsplat-site" "$OUT/gsplat-ext" "$OUT/gsplat-python"
echo "== done; failed:${FAILED:- none}" | tee -a "$LOG"
[ -z "$FAILED" ]
