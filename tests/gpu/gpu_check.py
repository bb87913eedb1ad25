"""Check and time the CUDA kernels on a machine with an NVIDIA GPU, in at most ten minutes.

From a checkout, with torch, cupy, numpy, scipy and numba installed:

    python tests/gpu/gpu_check.py [--json FILE] [STEP ...]

Each step runs in a process of its own with a time limit, so that one that hangs or crashes costs only itself. Prints a
table at the end and exits with 1 where anything failed.
"""

import argparse
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "kernels" / "cuda")]

Facts = dict[str, Any]


def _step(name: str) -> Callable[[], Facts]:
    import block_steps
    import slic_steps
    import steps

    return (steps.STEPS | slic_steps.STEPS | block_steps.STEPS)[name]


def _sanitizer() -> str | None:
    usual = Path("/usr/local/cuda/bin/compute-sanitizer")
    return shutil.which("compute-sanitizer") or (str(usual) if usual.exists() else None)


def plan_steps() -> dict[str, tuple[list[str], int]]:
    """Command and time limit (s) of every step, the most telling first."""
    here = [sys.executable, str(Path(__file__)), "--step"]
    steps = {
        "device": ([*here, "device"], 60),
        "correct": ([*here, "correct"], 90),
        "repeats": ([*here, "repeats"], 60),
        "timing": ([*here, "timing"], 90),
        "slic_correct": ([*here, "slic_correct"], 60),
        "slic_timing": ([*here, "slic_timing"], 60),
        "blocks": ([*here, "blocks"], 60),
        "streams": ([*here, "streams"], 40),
        "graph": ([*here, "graph"], 40),
        "gradients": ([*here, "gradients"], 60),
        "large": ([*here, "large"], 60),
    }
    if shutil.which("g++"):
        steps["emulation"] = ([*here, "emulation"], 60)
    sanitizer = _sanitizer()
    if sanitizer:
        for tool in ("memcheck", "racecheck", "synccheck"):
            command = [sanitizer, "--tool", tool, "--error-exitcode", "9", *here]
            steps[tool] = ([*command, "small"], 60)
            steps[f"slic_{tool}"] = ([*command, "slic_small"], 60)
    return steps


def run_step(command: list[str], limit: float) -> Facts:
    """Run one step; what it found, with `ok`, `seconds` and, where it failed, the end of what it said."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        environment = os.environ | {"GPU_CHECK_FOUND": str(found)}
        if "--tool" in command:
            # else all tensors lie in one allocation, whose bounds say nothing
            environment["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"
        # into a file: a pipe would be held open by whatever a step that is ended leaves behind
        with (Path(folder) / "said").open("w+") as output:
            process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
            )
            try:
                ok = process.wait(limit) == 0
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                ok = False
                output.write(f"\nran past its limit of {limit:.0f} s\n")
            output.seek(0)
            said = output.read()
        facts = json.loads(found.read_text(encoding="utf-8")) if found.exists() else {}
    facts |= {"ok": ok, "seconds": round(time.monotonic() - start, 1)}
    return facts if ok else facts | {"said": said[-3000:]}


def write_table(results: dict[str, Facts]) -> None:
    """Print what failed in full, then one line per step and one per timing."""
    for name, facts in results.items():
        if not facts["ok"]:
            sys.stdout.write(f"\n== {name}\n{facts['said']}\n")
    sys.stdout.write("\n")
    for name, facts in results.items():
        rest = {key: value for key, value in facts.items() if key not in ("ok", "seconds", "said", "rows")}
        notes = ", ".join(f"{key} {value}" for key, value in rest.items())
        sys.stdout.write(f"{'ok' if facts['ok'] else 'FAILED':7}{name:12}{facts['seconds']:6.1f} s  {notes}\n")
    for row in results.get("timing", {}).get("rows", []):
        times = f"{row['ms']:9.3f} ms, floor{row['floor_ms']:9.3f} ms"
        sys.stdout.write(f"{row['op']:36}{times}{row['percent']:7.1f} % of the bandwidth\n")


def main() -> int:
    """Run one step, or all of them each in its own process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="STEP", help="run only these")
    parser.add_argument("--json", type=Path, help="write what was found into this file")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        facts = _step(options.step)()
        if "GPU_CHECK_FOUND" in os.environ:
            Path(os.environ["GPU_CHECK_FOUND"]).write_text(json.dumps(facts), encoding="utf-8")
        return 0
    missing = [name for name in ("torch", "cupy", "numpy", "scipy", "numba") if importlib.util.find_spec(name) is None]
    if missing:
        sys.stdout.write(f"not installed: {', '.join(missing)}\n")
        return 1
    end = time.monotonic() + 580
    results: dict[str, Facts] = {}
    for name, (command, limit) in plan_steps().items():
        if options.names and name not in options.names:
            continue
        left = end - time.monotonic()
        if left < 5:
            results[name] = {"ok": False, "seconds": 0.0, "said": "no time was left"}
        else:
            results[name] = run_step(command, min(limit, left))
        sys.stdout.write(f"{name}: {'ok' if results[name]['ok'] else 'FAILED'}\n")
        sys.stdout.flush()
        if options.json:
            options.json.write_text(json.dumps(results, indent=1))
    write_table(results)
    return 0 if results and all(facts["ok"] for facts in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
