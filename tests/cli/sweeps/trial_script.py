"""Stands for train.py as a trial's program: starts at once, logs a metric and ends as its parameters say.

Parameters: ``values`` of the metric in their order; ``end``: ok, fail, die (by SIGKILL, at the first start), hang.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

parameters = json.loads(Path(sys.argv[1]).read_text())
run = Path(sys.argv[2].removeprefix("--run.dir=")) / "000"
starts = len(list(run.glob("csv/version_*")))
csv = run / "csv" / f"version_{starts}"
csv.mkdir(parents=True)
(csv / "first_step").write_text("0\n")
(run / "environment.json").write_text(json.dumps({k: v for k, v in os.environ.items() if k.isupper()}))
print(f"start {starts}", flush=True)


def leave(number: int, frame: object) -> None:
    (run / "told").write_text(f"{number}\n")
    raise SystemExit(128 + number)


signal.signal(signal.SIGTERM, leave)
with (csv / "metrics.csv").open("w") as file:
    print("step,val/loss", file=file)
    for step, value in enumerate(parameters["values"]):
        print(f"{step},{value}", file=file, flush=True)
end = parameters["end"]
if end == "die" and not starts:
    os.kill(os.getpid(), signal.SIGKILL)
if end == "fail":
    sys.exit("it does not work")
while end == "hang" and not (run / "go").exists():
    time.sleep(0.02)
fit = {
    "monitor": "val/loss",
    "best_score": min(parameters["values"]),
    "metrics": {"val/loss": parameters["values"][-1]},
}
(run / "result.json").write_text(json.dumps({"fit": fit}))
