"""The files in launch/ as far as they can be checked without a cluster."""

import ast
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests import own_process

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
FILES = sorted((ROOT / "launch").iterdir())

# Stands for srun, scontrol and gcloud: writes down what it is asked to do.
_RECORDER = f"#!{sys.executable}\nimport sys\nprint(sys.argv[1:])\nsys.exit({{}})\n"


def train_flags():
    help_text = own_process.run("train.py", "--help").stdout
    return set(re.findall(r"--(?:\[no\])?(\w+)", help_text))


def recorded(script, tmp_path, *arguments, trained=0, ends=0, **variables):
    """The words that each of the script's commands got; srun's exit code is ``trained``."""
    for name, code in {"srun": trained, "scontrol": 0, "gcloud": 0}.items():
        (tmp_path / name).write_text(_RECORDER.format(code))
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", **variables}
    run = subprocess.run(
        ["bash", f"launch/{script}", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == ends, run.stderr
    return [ast.literal_eval(line) for line in run.stdout.splitlines()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_shell(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)


def test_every_flag_exists():
    flags = train_flags()
    assert {"config", "workdir", "coordinator", "distributed"} <= flags
    # Of gcloud, srun and sbatch.
    own = {"zone", "worker", "command", "kill-on-bad-exit", "wait", "nodes"}
    for path in FILES:
        text = re.sub(r"^#SBATCH.*", "", path.read_text(), flags=re.MULTILINE)
        names = set(re.findall(r"--([a-z][\w-]*)", text)) - own
        assert names and names <= flags, f"{path.name}: {names - flags}"


def test_configurations_exist():
    for path in FILES:
        for name in re.findall(r"configs/\w+\.py", path.read_text()):
            assert (ROOT / name).is_file(), f"{path.name}: {name}"


def test_slurm_passes_everything_on(tmp_path):
    (words,) = recorded("slurm.sh", tmp_path, "--config.data.packs=('a b',)", PYTHON="py")
    assert words[2:5] == ["py", "train.py", "--distributed"]
    assert words[-1] == "--config.data.packs=('a b',)"
    text = (ROOT / "launch" / "slurm.sh").read_text()
    per_node = [re.search(rf"--{n}-per-node=(\d+)", text)[1] for n in ("ntasks", "gpus")]
    assert per_node[0] == per_node[1], "one process a GPU"
    assert text.index("export SRUN_CPUS_PER_TASK=") < text.index("\nsrun "), "srun asks for its own"


def test_slurm_queues_a_run_again_that_was_stopped_and_saved(tmp_path):
    _, again = recorded("slurm.sh", tmp_path, trained=75, SLURM_JOB_ID="8")
    assert again == ["requeue", "8"]
    (_,) = recorded("slurm.sh", tmp_path, trained=1, ends=1, SLURM_JOB_ID="8")
    text = (ROOT / "launch" / "slurm.sh").read_text()
    assert "#SBATCH --requeue\n" in text and "#SBATCH --open-mode=append\n" in text


def test_the_pod_command_survives_two_shells(tmp_path):
    (words,) = recorded(
        "tpu_pod.sh", tmp_path, "--config.data.packs=('a b',)", TPU="slice", ZONE="zone"
    )
    assert words[:5] == ["compute", "tpus", "tpu-vm", "ssh", "slice"] and "--worker=all" in words
    home = tmp_path / "instant_gs"
    (home / "launch").mkdir(parents=True)
    (home / "launch" / "until_done.sh").write_text(
        "#!/bin/bash\nuntil [ -e ended ]; do sleep 0.1; done; printf '%s\\n' \"$@\"; touch done\n"
    )
    (home / "launch" / "until_done.sh").chmod(0o755)
    remote = words[-1].removeprefix("--command=")
    # The session ends before training does.
    subprocess.run(["bash", "-c", remote], cwd=tmp_path, check=True, timeout=60)
    (home / "ended").touch()
    ends = time.monotonic() + 30
    while not (home / "done").exists() and time.monotonic() < ends:
        time.sleep(0.1)
    assert (home / "train.log").read_text().splitlines() == [
        "--distributed",
        "--config.data.packs=('a b',)",
    ]


def test_a_run_that_was_stopped_and_saved_goes_on(tmp_path):
    """The first two tries end with 75, the third as it is told."""
    stub = tmp_path / "python"
    for ends in (0, 3):
        stub.write_text(
            f'#!/bin/bash\necho "$@" >> tries\n[ $(wc -l < tries) -lt 3 ] && exit 75\nexit {ends}\n'
        )
        stub.chmod(0o755)
        run = subprocess.run(
            ["bash", ROOT / "launch" / "until_done.sh", "--workdir=a b"],
            cwd=tmp_path,
            env={**os.environ, "PYTHON": str(stub)},
            check=False,
        )
        assert run.returncode == ends
        assert (tmp_path / "tries").read_text() == 3 * "train.py --workdir=a b\n"
        (tmp_path / "tries").unlink()


@pytest.mark.parametrize("started", ["child=$!", "sleep 1; child=$!"], ids=["late", "at once"])
def test_a_run_that_is_told_to_stop_does_not_go_on(tmp_path, started):
    """Nor one that is told before the script knows whom it started."""
    text = (ROOT / "launch" / "until_done.sh").read_text()
    assert text.count("child=$!") == 1
    (tmp_path / "until_done.sh").write_text(text.replace("child=$!", started))
    stub = tmp_path / "python"
    stub.write_text(
        "#!/bin/bash\ntrap 'touch saved; exit 75' TERM\ntouch began\n"
        "while true; do sleep 0.1; done\n"
    )
    stub.chmod(0o755)
    script = subprocess.Popen(
        ["bash", tmp_path / "until_done.sh"],
        cwd=tmp_path,
        env={**os.environ, "PYTHON": str(stub)},
    )
    while not (tmp_path / "began").exists():
        time.sleep(0.1)
    script.terminate()
    assert script.wait(timeout=30) == 75 and (tmp_path / "saved").exists()


def test_the_job_set_is_one_process_a_node():
    whole = yaml.safe_load((ROOT / "launch" / "kubernetes.yaml").read_text())
    assert (whole["kind"], whole["apiVersion"]) == ("JobSet", "jobset.x-k8s.io/v1alpha2")
    (job,) = whole["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    assert spec["completionMode"] == "Indexed" and spec["parallelism"] == spec["completions"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    (rule,) = whole["spec"]["failurePolicy"]["rules"]
    assert rule == {
        "action": "RestartJobSetAndIgnoreMaxRestarts",
        "onJobFailureReasons": ["PodFailurePolicy"],
    }
    stopped, disrupted = spec["podFailurePolicy"]["rules"]
    assert stopped["action"] == disrupted["action"] == "FailJob"
    codes = {"containerName": container["name"], "operator": "In", "values": [75]}
    assert stopped["onExitCodes"] == codes and pod["restartPolicy"] == "Never"
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget"}]
    flags = dict(word[2:].split("=", 1) for word in container["command"][2:])
    assert int(flags["num_processes"]) == spec["completions"]
    assert flags["process_id"] == "$(JOB_COMPLETION_INDEX)"
    name = whole["metadata"]["name"]
    port = container["ports"][0]["containerPort"]
    assert flags["coordinator"] == f"{name}-{job['name']}-0-0.{name}:{port}"
    devices = spec["completions"] * container["resources"]["limits"]["nvidia.com/gpu"]
    assert int(flags["config.data.batch_size"]) % devices == 0
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
