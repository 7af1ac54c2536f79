#!/usr/bin/env bash
# One visit to a GPU: is it right, how fast is it beside gsplat, the headline first.
#
#   benchmarks/on_gpu.sh OUT [SECONDS]       on the GPU machine; results and log into OUT   [540]
#   REHEARSE=1 benchmarks/on_gpu.sh OUT      the same steps at tiny sizes in Triton's interpreter,
#                                            on any machine
#
# Steps, and the seconds each may take (LIMIT_<step>=... changes one):
#   environment 15   versions, devices
#   parity 100       three scenes against the oracle, gradients, bit-identical runs
#   gsplat 130       with GSPLAT_WHEEL: built with nvcc meanwhile, ready before anything is timed
#   bench 120        the target case with every stage, then 1M, 20k, 8 cameras, 8 scenes, D = 32, ...
#   memcheck 60      every kernel under compute-sanitizer
#   graphs 45        the target case with XLA's command buffers from the first launch on
#   parity_rest 90   the other scenes
#   tests            the gpu tests, a process a file, until SECONDS are over
#   tune             only if ONLY names it, in a visit of its own
#   train            only with TRAIN="python train.py ...", the command at the head of
#                    configs/small.py with another --workdir, in a visit of its own: ONLY=train
#
# Environment:
#   PYTHON        interpreter with jax (CUDA), triton, absl-py and pytest   [python3]
#   COMMIT        commit of the sources, where the tree came without its history
#   GSPLAT_WHEEL  gsplat-1.5.3-py3-none-any.whl
#   GSPLAT_PYTHON interpreter that has gsplat already, instead of a wheel
#   ONLY          steps to run, e.g. "parity bench"; empty: all but tune
#   SCRATCH       folder for builds   [a new one, removed at the end]
#
# Every result is in OUT as soon as it exists. The last step joins them into OUT/<device>.json (a
# rehearsal: OUT/rehearsal.json), which belongs into benchmarks/results/, as does OUT/gpu-*.json, the
# verification that `make test` looks for; OUT/tuned.json, if tuned, is the new
# kernels/rasterize/triton_tuned.json. Then: python -m benchmarks.table
#
# A step that fails does not stop the next; the last line tells which failed, and which did not run,
# or not to their end (out of time, a program missing). The exit status is 0 if there are none of
# both. Nothing is installed, and the GPU's settings stay as they are.
set -u
cd "$(dirname "$0")/.." || exit 1
if [ $# -lt 1 ]; then
  echo "usage: benchmarks/on_gpu.sh OUT [SECONDS]" >&2
  exit 2
fi
mkdir -p "$1"
OUT=$(cd "$1" && pwd)
REHEARSE=${REHEARSE:-}
SCALE=1
[ -n "$REHEARSE" ] && SCALE=20 # an interpreter on a busy machine takes its time
DEADLINE=$(($(date +%s) + ${2:-$((540 * SCALE))}))
ONLY=${ONLY:-}
TRAIN=${TRAIN:-}
for name in $ONLY; do
  case " environment parity gsplat bench memcheck graphs parity_rest tests tune train " in
    *" $name "*) ;;
    *) echo "ONLY: no step $name; the head of this file lists them" >&2 && exit 2 ;;
  esac
  if [ "$name" = train ] && [ -z "$TRAIN" ]; then
    echo "ONLY=train: TRAIN is empty; give it the command, as the head of this file says" >&2
    exit 2
  fi
  if [ "$name" = gsplat ] && [ -z "${GSPLAT_WHEEL:-}" ]; then
    echo "ONLY=gsplat: GSPLAT_WHEEL is empty; give it the wheel to build" >&2
    exit 2
  fi
done
GSPLAT_WHEEL=${GSPLAT_WHEEL:-}
GSPLAT_PYTHON=${GSPLAT_PYTHON:-}
PYTHON=${PYTHON:-python3}
KEEP_SCRATCH=${SCRATCH:-}
SCRATCH=${SCRATCH:-$(mktemp -d)}
NOT_WHOLE=69 # exit status of a step that lacks a program, or ends for want of time
LOG=$OUT/log.txt
: >"$LOG"
FAILED= NOT_RUN=
COMMIT=${COMMIT:-$(git rev-parse HEAD 2>/dev/null || true)}
# JAX would take three quarters of the memory at once; the sanitizer and torch need some.
export PYTHONUNBUFFERED=1 XLA_PYTHON_CLIENT_PREALLOCATE=false
export OUT PYTHON COMMIT NOT_WHOLE REHEARSE SCRATCH GSPLAT_WHEEL

left() { echo $((DEADLINE - $(date +%s))); }

say() { echo "== $*" | tee -a "$LOG"; }

# limit STEP SECONDS: the seconds that a step may take, no more than are left.
limit() {
  local chosen="LIMIT_$1" seconds=$(($2 * SCALE))
  seconds=${!chosen:-$seconds}
  [ "$(left)" -lt "$seconds" ] && seconds=$(left)
  echo "$seconds"
}

wanted() {
  case " ${ONLY:-$1} " in *" $1 "*) ;; *) return 1 ;; esac
}

# step NAME SECONDS COMMAND...: runs it, its output as it comes, unless out of time.
step() {
  local name=$1 seconds start status
  seconds=$(limit "$1" "$2")
  shift 2
  wanted "$name" || return 0
  if [ "$seconds" -lt 5 ]; then
    say "$name: out of time, not run"
    NOT_RUN="$NOT_RUN $name"
    return 0
  fi
  start=$(date +%s)
  say "$name, at most $seconds s"
  # timeout starts programs only, so that a function goes through a shell.
  if declare -F "$1" >/dev/null; then set -- bash -c '"$@"' "$name" "$@"; fi
  timeout -k 5 "$seconds" "$@" 2>&1 | tee -a "$LOG"
  status=${PIPESTATUS[0]}
  say "$name: exit $status after $(($(date +%s) - start)) s"
  case $status in
    0) ;;
    "$NOT_WHOLE") NOT_RUN="$NOT_RUN $name" ;;
    *) FAILED="$FAILED $name" ;;
  esac
}

environment() {
  command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version --format=csv
  "$PYTHON" -c 'import importlib.util, sys
needed = ("jax", "triton", "absl", "pytest")
missing = [name for name in needed if importlib.util.find_spec(name) is None]
sys.exit(f"{sys.executable} lacks {missing}" if missing else 0)' || return
  "$PYTHON" -c 'import jax, triton, platform
print("python", platform.python_version(), "jax", jax.__version__, "triton", triton.__version__)
print(jax.devices())'
}

# Leaves SCRATCH/gsplat-python, an interpreter that has gsplat.
gsplat_build() {
  local site=$SCRATCH/gsplat-site capability
  capability=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1)
  [[ $capability =~ ^[0-9]+\.[0-9]+$ ]] || capability=9.0
  "$PYTHON" -m pip install -q --no-index --no-deps --target "$site" "$GSPLAT_WHEEL" || return
  cat >"$SCRATCH/building" <<EOF
#!/usr/bin/env bash
export PYTHONPATH=$site TORCH_EXTENSIONS_DIR=$SCRATCH/gsplat-ext MAX_JOBS=16
export TORCH_CUDA_ARCH_LIST=\${TORCH_CUDA_ARCH_LIST:-$capability}
exec $(command -v "$PYTHON") "\$@"
EOF
  chmod +x "$SCRATCH/building" &&
    "$SCRATCH/building" -c 'from gsplat.cuda._backend import _C; assert _C is not None' &&
    mv "$SCRATCH/building" "$SCRATCH/gsplat-python"
}

# Each kernel alone, each buffer an allocation of its own: see benchmarks/gpu_memcheck.py.
memcheck() {
  local status
  local watch=(compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 9)
  if [ -n "$REHEARSE" ]; then
    watch=()
  elif ! command -v compute-sanitizer >/dev/null; then
    echo "compute-sanitizer is not on the PATH, not run" | tee "$OUT/sanitizer.txt"
    return "$NOT_WHOLE"
  fi
  echo "memcheck: not finished" >"$OUT/sanitizer.txt"
  XLA_PYTHON_CLIENT_ALLOCATOR=platform \
    "${watch[@]+"${watch[@]}"}" "$PYTHON" -m benchmarks.gpu_memcheck
  status=$?
  echo "memcheck: exit $status${REHEARSE:+, rehearsed without compute-sanitizer}" \
    >"$OUT/sanitizer.txt"
  return $status
}

# A synthetic pack and a training run of seconds.
rehearse_training() {
  "$PYTHON" - "$SCRATCH/pack" <<'EOF' &&
import sys
from instant_gs.data import packing, synthetic
folder = sys.argv[1]
names = [f"blob{i:02d}" for i in range(8)]
source = synthetic.write_pack(f"{folder}/source", names, image_size=32, views=2, frames=2)
packing.pack(source, f"{folder}/packed", packing.Options(image_size=32), workers=1)
EOF
    TRITON_INTERPRET=0 "$PYTHON" train.py --config=configs/demo.py:smoke \
      --workdir="$SCRATCH/train" --config.data.packs="('$SCRATCH/pack/packed',)"
}

export -f environment gsplat_build memcheck rehearse_training
tiny=() gsplat=() tune=() builder=
if [ -n "$REHEARSE" ]; then
  export TRITON_INTERPRET=1 JAX_PLATFORMS=cpu
  export JAX_DISABLE_MOST_OPTIMIZATIONS=1 # half of the time would go into compiling
  tiny=(--rehearse)
  gsplat=("--gsplat_python=$PYTHON")
  tune=(--channels=3 --splats=8 --size=16 --loops=1 --minutes=0.01)
fi

step environment 15 environment
if [ -n "$GSPLAT_WHEEL" ] && { wanted bench || wanted gsplat; }; then
  seconds=$(limit gsplat 130)
  timeout -k 5 "$((seconds > 1 ? seconds : 1))" bash -c gsplat_build >"$OUT/gsplat_build.txt" 2>&1 &
  builder=$!
fi
step parity 100 "$PYTHON" -m benchmarks.gpu_parity --first=3 --out="$OUT/parity.json" \
  "${tiny[@]+"${tiny[@]}"}"
if [ -n "$builder" ]; then # timing beside a compiler would time the compiler
  say "gsplat: waiting for its build"
  if wait "$builder"; then
    gsplat=("--gsplat_python=$SCRATCH/gsplat-python")
  else
    FAILED="$FAILED gsplat"
  fi
  tail -n 5 "$OUT/gsplat_build.txt" | tee -a "$LOG"
  rm "$OUT/gsplat_build.txt"
elif [ -n "$GSPLAT_PYTHON" ]; then
  gsplat=("--gsplat_python=$GSPLAT_PYTHON")
elif [ -z "$REHEARSE" ]; then
  say "gsplat: no GSPLAT_WHEEL, not compared"
fi
step bench 120 "$PYTHON" -m benchmarks.gpu_bench --out="$OUT/bench.json" \
  --seconds=$(($(limit bench 120) - 25)) "${tiny[@]+"${tiny[@]}"}" "${gsplat[@]+"${gsplat[@]}"}"
step memcheck 60 memcheck
XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_graph_min_graph_size=1" \
  step graphs 45 "$PYTHON" -m benchmarks.gpu_bench --first=1 --nostages --out="$OUT/graphs.json" \
  "${tiny[@]+"${tiny[@]}"}"
step parity_rest 90 "$PYTHON" -m benchmarks.gpu_parity --skip=3 --out="$OUT/parity_rest.json" \
  --seconds=$(($(limit parity_rest 90) - 20)) "${tiny[@]+"${tiny[@]}"}"
if [ -n "$ONLY" ]; then
  step tune 480 "$PYTHON" -m kernels.tune --minutes=3.5 --out="$OUT/tuned.json" \
    "${tune[@]+"${tune[@]}"}"
fi
if [ -n "$TRAIN" ] && [ -n "$REHEARSE" ]; then
  step train 480 rehearse_training
elif [ -n "$TRAIN" ]; then
  # XLA would time two ways to write every fusion: minutes, before the first step.
  # shellcheck disable=SC2086  # TRAIN is a command with its arguments
  XLA_FLAGS="${XLA_FLAGS:-} --xla_gpu_experimental_enable_fusion_autotuner=false" \
    step train 540 $TRAIN
fi
seconds=$(($(left) - 15 * SCALE)) # joining the results takes some
step tests $((seconds / SCALE)) "$PYTHON" -m benchmarks.kernel_status --record --out="$OUT" \
  --seconds=$((seconds > 30 ? seconds - 20 : 10)) "${tiny[@]+"${tiny[@]}"}"
if compgen -G "$OUT/parity*.json" >/dev/null || [ -f "$OUT/bench.json" ]; then
  ONLY='' step collect 15 "$PYTHON" -m benchmarks.collect --folder="$OUT"
fi
[ -n "$KEEP_SCRATCH" ] || rm -rf "$SCRATCH"
say "done; failed:${FAILED:- none}; not run, or not whole:${NOT_RUN:- none}"
[ -z "$FAILED$NOT_RUN" ]
