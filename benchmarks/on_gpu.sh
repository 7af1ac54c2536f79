#!/usr/bin/env bash
# One visit to a GPU: verify every kernel, time it beside gsplat, tune, then train.
#
#   benchmarks/on_gpu.sh OUT [MINUTES]             on the GPU machine; results and log into OUT
#   REHEARSE=1 benchmarks/on_gpu.sh OUT            the same steps at tiny sizes in Triton's
#                                                  interpreter, on any machine
#
# Environment:
#   PYTHON        interpreter with jax (CUDA), triton and pytest   [python3]
#   COMMIT        commit of the sources, where the tree came without its history
#   GSPLAT_WHEEL  gsplat-1.5.3-py3-none-any.whl: builds it with nvcc (1 minute) and times it, too
#   TRAIN         what to train with the minutes left; empty: nothing
#                 [$PYTHON train.py --config=configs/demo.py --workdir=OUT/train]
#   SKIP          steps to leave out, e.g. "tune train"
#
# Leaves OUT/<device>.json (a rehearsal: OUT/rehearsal.json), which belongs into benchmarks/results/,
# as does OUT/gpu-*.json, the verification that `make test` looks for; OUT/tuned.json is the new
# kernels/rasterize/triton_tuned.json. Then: python -m benchmarks.table
#
# Where a visit is shorter than everything takes, make two, and join their files in one folder:
#   SKIP="gsplat bench tune train" benchmarks/on_gpu.sh OUT       correctness
#   SKIP="parity tests sanitizer" benchmarks/on_gpu.sh OUT        speed
#   python -m benchmarks.collect --folder=JOINED                  anywhere
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
COMMIT=${COMMIT:-$(git rev-parse HEAD 2>/dev/null || true)}
export COMMIT

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
  # timeout starts programs only, so that a function goes through a shell.
  if declare -F "$1" >/dev/null; then set -- bash -c '"$@"' "$name" "$@"; fi
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

# sanitize COMMAND...: under compute-sanitizer where there is one; a rehearsal runs it bare.
sanitize() {
  local status
  if [ -n "$REHEARSE" ]; then
    "$@"
    status=$?
    echo "rehearsed without compute-sanitizer: exit $status" >"$OUT/sanitizer.txt"
  elif command -v compute-sanitizer >/dev/null; then
    compute-sanitizer --tool memcheck --error-exitcode 9 "$@"
    status=$?
    echo "memcheck: exit $status" >"$OUT/sanitizer.txt"
  else
    echo "compute-sanitizer is not on the PATH, not run" | tee "$OUT/sanitizer.txt"
    status=0
  fi
  return $status
}

# A synthetic pack and a training run of seconds.
rehearse_training() {
  "$PYTHON" - "$OUT/pack" <<'EOF' &&
import sys
from instant_gs.data import packing, synthetic
folder = sys.argv[1]
names = [f"blob{i:02d}" for i in range(8)]
source = synthetic.write_pack(f"{folder}/source", names, image_size=32, views=2, frames=2)
packing.pack(source, f"{folder}/packed", packing.Options(image_size=32), workers=1)
EOF
    TRITON_INTERPRET=0 "$PYTHON" train.py --config=configs/demo.py:smoke --workdir="$OUT/train" \
      --config.data.packs="('$OUT/pack/packed',)"
}

export OUT PYTHON REHEARSE GSPLAT_WHEEL=${GSPLAT_WHEEL:-}
export -f environment gsplat_build sanitize rehearse_training
tiny=() gsplat=()
scale=1
if [ -n "$REHEARSE" ]; then
  export TRITON_INTERPRET=1 JAX_PLATFORMS=cpu
  export JAX_DISABLE_MOST_OPTIMIZATIONS=1 # half of the time would go into compiling
  tiny=(--rehearse)
  scale=20 # an interpreter on a busy machine takes its time
  MINUTES=240
  DEADLINE=$(($(date +%s) + MINUTES * 60))
fi
# JAX would take three quarters of the memory at once; the sanitizer and torch need some.
export XLA_PYTHON_CLIENT_PREALLOCATE=false

step environment $((60 * scale)) environment
step parity $((200 * scale)) "$PYTHON" -m benchmarks.gpu_parity "${tiny[@]+"${tiny[@]}"}" \
  --out="$OUT/parity.json"
step tests $((260 * scale)) "$PYTHON" -m benchmarks.kernel_status --record --out="$OUT" \
  "${tiny[@]+"${tiny[@]}"}"
step sanitizer $((90 * scale)) sanitize "$PYTHON" -m benchmarks.gpu_parity --small \
  "${tiny[@]+"${tiny[@]}"}"
if [ -n "$REHEARSE" ]; then
  gsplat=("--gsplat_python=$PYTHON")
elif [ -n "$GSPLAT_WHEEL" ]; then
  step gsplat 150 gsplat_build
  [ -x "$OUT/gsplat-python" ] && gsplat=("--gsplat_python=$OUT/gsplat-python")
else
  echo "== gsplat: no GSPLAT_WHEEL, not compared" | tee -a "$LOG"
fi
step bench $((300 * scale)) "$PYTHON" -m benchmarks.gpu_bench --out="$OUT/bench.json" \
  --minutes=$((3 * scale)) "${tiny[@]+"${tiny[@]}"}" "${gsplat[@]+"${gsplat[@]}"}"
if [ -n "$REHEARSE" ]; then
  step tune $((120 * scale)) "$PYTHON" -m kernels.tune --channels=3 --splats=8 --size=16 --loops=1 \
    --minutes=0.01 --out="$OUT/tuned.json"
else
  step tune 150 "$PYTHON" -m kernels.tune --out="$OUT/tuned.json" --minutes=1.2
fi
step collect $((30 * scale)) "$PYTHON" -m benchmarks.collect --folder="$OUT"
if [ -n "$REHEARSE" ]; then
  step train $((120 * scale)) rehearse_training
elif [ -n "$TRAIN" ] && [ "$(left)" -gt 60 ]; then
  # shellcheck disable=SC2086  # TRAIN is a command with its arguments
  step train "$(left)" $TRAIN
fi
# Builds are large and of no use elsewhere.
rm -rf "$OUT/gsplat-site" "$OUT/gsplat-ext" "$OUT/gsplat-python" "$OUT/pack"
echo "== done; failed:${FAILED:- none}" | tee -a "$LOG"
[ -z "$FAILED" ]
