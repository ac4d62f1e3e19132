"""What `check` finds in runs with one known fault, and what it finds in healthy runs.

Result, one run of each case, in `results/diagnosis_faults.csv`, a row a case:

    listed faults (43)   125 cases: FAIL 82, WARN 40, INFO 3 (the squared error); named 125
    further faults (34)   83 cases: FAIL 56, WARN 18; named 74
    healthy (49 recipes) 142 cases: false FAIL 0, false WARN 0 (INFO 17)
    torchtest2 0.1.0     listed 24 FAIL, 36 WARN, 60 missed, 5 it cannot judge; healthy 5 FAIL, 8 WARN

10 s a case (median), at most 27 s; two processes, one thread each; AMD EPYC, 2 cores; python 3.11.7, torch
2.15.0, lightning 2.6.6. The checks were made with these cases at hand: thresholds and causes were mended
where they missed, so that a fault of another kind will be found less often. The further faults were thought
out by somebody who had not seen the checks; before any mending 72 of 83 were detected and 64 named.

Every case is a module, a datamodule and the Trainer's settings (`faults/`). "Detected" means that the worst
finding is FAIL or WARN (INFO or worse for faults that only slow a run), "named" that one of the first three
causes of the first finding is one that names the fault. The same cases go to torchtest2 where it is
installed (`pip install torchtest2`), through its Lightning plugin, with one training batch.

    python benchmarks/diagnosis_faults.py
    python benchmarks/diagnosis_faults.py --kind faults --only 'softmax|nll' --seconds 30
    python benchmarks/diagnosis_faults.py --train            # no checks: train each run through its budget

With `--train` the healthy runs must reach the metric that is written beside them, else they are not healthy.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
import multiprocessing
import os
import re
import signal
import threading
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from pathlib import Path

import torch
from _common import RESULTS, machine, versions
from faults.cases import Case
from faults.faulty import FAULTS
from faults.healthy import HEALTHY

KEY = ["kind", "fault", "arch", "data"]
CHECKED = [*KEY, "expected", "status", "check", "causes", "named", "message", "seconds", "error"]
OTHER = ["torchtest2", "torchtest2 checks", "torchtest2 seconds"]
TRAINED = [*KEY, "metric", "value", "goal", "healthy", "steps", "seconds", "error"]
ALARMS = ("FAIL", "WARN")
Row = dict[str, str]
Work = Callable[[str], Row]


def cases() -> dict[str, Case]:
    """Return all cases by their keys."""
    return {case.key: case for case in [*FAULTS, *HEALTHY]}


def _start(case: Case) -> Row:
    return {"kind": case.kind, "fault": case.name, "arch": case.arch, "data": case.data}


def _end_with_parent() -> None:
    """End this worker soon after the benchmark was killed."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _late(*_: object) -> None:
    raise TimeoutError("the limit of the case")


def _quietly(work: Callable[[Case, Row], None], key: str, limit: int) -> Row:
    """Return the row that `work` fills; what it raises, and being late, become its error."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    case = cases()[key]
    row = _start(case)
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(limit)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            work(case, row)
    except Exception as error:  # a case that fails is a row, not the end of the benchmark
        row["error"] = f"{type(error).__name__}: {error}".replace("\n", " ")[:200]
    finally:
        signal.alarm(0)
    return row


def _check(seconds: float, case: Case, row: Row) -> None:
    """Let torchtest2 and then our `check` look at a case."""
    row["expected"] = " ".join(case.expected)
    _torchtest2(case, row)
    from lightning_recipes.recipe import check

    run, start = case.build(), time.perf_counter()
    report = check(run.module, run.data, seconds=seconds, trainer=run.trainer())
    row["seconds"] = f"{time.perf_counter() - start:.1f}"
    if not report.findings:
        row["status"] = "PASS"
        return
    first = report.findings[0]
    causes = list(first.causes)[:3]
    row |= {"status": first.status, "check": first.check, "causes": " ".join(causes)}
    row |= {"message": first.message, "named": str(any(cause in case.expected for cause in causes))}


def _torchtest2(case: Case, row: Row) -> None:
    """Let torchtest2 look at a case, if it is installed: it does without schedules."""
    try:
        import torchtest2
    except ImportError:
        return
    run, start = case.build(), time.perf_counter()
    if not run.module.automatic_optimization:  # as it documents; the step's None is no fault
        row["torchtest2"] = "unsupported"
        return
    if hasattr(run.module, "make_schedule"):
        run.module.make_schedule = None
    try:
        if hasattr(run.data, "setup"):
            run.data.setup("fit")
        inputs, targets = next(iter(run.data.train_dataloader()))
        found = torchtest2.check_model(run.module, inputs, targets, plugin="lightning")
    except Exception as error:
        row |= {"torchtest2": "error", "torchtest2 checks": f"{type(error).__name__}: {error}"[:100]}
        return
    status = "FAIL" if found.failures else "WARN" if found.warnings else "missed"
    row |= {"torchtest2": status, "torchtest2 seconds": f"{time.perf_counter() - start:.1f}"}
    row["torchtest2 checks"] = " ".join(each.name for each in [*found.failures, *found.warnings])


def _train(steps: int, case: Case, row: Row) -> None:
    """Train a case without any check, through its budget or for a few steps."""
    run = case.build()
    settings: dict[str, object] = {"max_steps": steps} if steps else {}
    trainer = run.trainer(**settings)
    start = time.perf_counter()
    try:
        trainer.fit(run.module, datamodule=run.data)
    finally:
        row |= {"steps": str(trainer.global_step), "seconds": f"{time.perf_counter() - start:.1f}"}
    if (value := trainer.callback_metrics.get(case.metric)) is not None:
        row |= {"metric": case.metric, "value": f"{float(value):.3f}"}
        if case.kind == "healthy":
            row |= {"goal": f"{case.goal:g}", "healthy": str(case.reached(float(value)))}


def over(keys: Iterable[str], work: Work, workers: int) -> Iterable[Row]:
    """Yield the rows of the cases as they come; a worker that dies costs the cases that were under way."""
    todo = list(keys)[::-1]
    while todo:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, _end_with_parent, max_tasks_per_child=40) as pool:
            under_way = {}
            try:
                while todo or under_way:
                    while todo and len(under_way) < workers:
                        key = todo.pop()
                        under_way[pool.submit(work, key)] = key
                    for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                        row = done.result()
                        del under_way[done]
                        yield row
            except BrokenProcessPool:
                yield from (
                    _start(cases()[key]) | {"error": "the process died"} for key in under_way.values()
                )


def save(path: Path, columns: list[str], rows: list[Row]) -> None:
    """Write the CSV: the rows, and those that it has of other cases."""
    new = {tuple(row[name] for name in KEY) for row in rows}
    old: list[Row] = []
    if path.exists():
        with path.open(newline="") as file:
            old = [row for row in csv.DictReader(file) if tuple(row[name] for name in KEY) not in new]
    place = {key: number for number, key in enumerate(cases())}
    known = [row for row in [*old, *rows] if "/".join(row[name] for name in KEY) in place]
    known.sort(key=lambda row: place["/".join(row[name] for name in KEY)])
    path.parent.mkdir(exist_ok=True, parents=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(known)


def detected(row: Row) -> bool:
    """Return whether our finding counts as an alarm for this case."""
    mild = cases()["/".join(row[name] for name in KEY)].mild
    return row.get("status") in (*ALARMS, *(["INFO"] if mild else []))


def percent(count: int, total: int) -> str:
    """Return a share."""
    return f"{100 * count / max(total, 1):5.1f} % ({count}/{total})"


def summary(rows: list[Row]) -> None:
    """Print what was detected and named, by fault, and the false alarms, torchtest2's beside them."""
    for kind in ("faults", "extra"):
        of_kind = [row for row in rows if row["kind"] == kind]
        if not of_kind:
            continue
        print(
            f"\n{kind:38}     FAIL     WARN   missed    named   torchtest2 FAIL/WARN/missed/error/unsupported"
        )
        by_fault: dict[str, list[Row]] = defaultdict(list)
        for row in of_kind:
            by_fault[row["fault"]].append(row)
        for fault, some in by_fault.items():
            counts = [sum(row.get("status") == status for row in some) for status in ALARMS]
            missed = sum(not detected(row) for row in some)
            named = sum(detected(row) and row.get("named") == "True" for row in some)
            others = [
                sum(row.get("torchtest2") == status for row in some)
                for status in (*ALARMS, "missed", "error", "unsupported")
            ]
            cells = "".join(f"{cell:9d}" for cell in (*counts, missed, named))
            print(f"{fault[:36]:36}{len(some):2}{cells}   {'/'.join(map(str, others))}")
        total = len(of_kind)
        print(f"detected {percent(sum(map(detected, of_kind)), total)}", end=", ")
        print(f"at FAIL {percent(sum(row.get('status') == 'FAIL' for row in of_kind), total)}", end=", ")
        right = sum(detected(row) and row.get("named") == "True" for row in of_kind)
        print(f"named {percent(right, total)}", end="; ")
        beside = sum(row.get("torchtest2") in ALARMS for row in of_kind)
        print(f"torchtest2 detected {percent(beside, total)}")
    healthy = [row for row in rows if row["kind"] == "healthy"]
    if healthy:
        print(f"\nhealthy: {len(healthy)}")
    for side in ("status", "torchtest2") if healthy else ():
        for status in ALARMS:
            false = [row for row in healthy if row.get(side) == status]
            print(
                f"{'ours' if side == 'status' else side}: false {status} {percent(len(false), len(healthy))}"
            )
            for row in false:
                what = row.get("check" if side == "status" else "torchtest2 checks", "")
                print(f"    {row['fault']}/{row['arch']}/{row['data']}: {what}")
    failed = [row for row in rows if row.get("error")]
    print(f"\nerrors: {len(failed)}")
    for row in failed:
        print(f"    {'/'.join(row[name] for name in KEY)}: {row['error']}")


def main() -> None:
    """Run the cases, write the CSV, print the summary."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="regular expression on kind/fault/arch/data")
    parser.add_argument("--kind", choices=["faults", "extra", "healthy"])
    parser.add_argument("--seconds", type=float, default=20, help="budget of each check")
    parser.add_argument("--train", action="store_true", help="train the runs and check nothing")
    parser.add_argument("--steps", type=int, default=0, help="with --train: so many, not the whole budget")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=int, default=300, help="seconds after which a case is given up")
    parser.add_argument("--out", type=Path, help="the CSV")
    given = parser.parse_args()
    keys = [
        key for key, case in cases().items() if re.search(given.only, key) and given.kind in (None, case.kind)
    ]
    if not keys:
        raise SystemExit("No case has such a name.")
    if given.train:
        columns, path = TRAINED, given.out or RESULTS / "diagnosis_faults_trained.csv"
        task = partial(_train, given.steps)
    else:
        columns, path = [*CHECKED, *OTHER], given.out or RESULTS / "diagnosis_faults.csv"
        task = partial(_check, given.seconds)
    print(machine(), versions("torch", "lightning"), f"{len(keys)} cases", sep="; ", flush=True)
    rows: list[Row] = []
    for row in over(keys, partial(_quietly, task, limit=given.limit), given.workers):
        rows.append(row)
        save(path, columns, rows)
        shown = [row.get(name, "") for name in columns if name not in ("expected", "message")]
        print(*shown, sep="\t", flush=True)
    if not given.train:
        summary(rows)
        return
    print("\nnot healthy:")
    for row in rows:
        if row["kind"] == "healthy" and row.get("healthy") != "True":
            print(f"    {'/'.join(row[name] for name in KEY)}: {row.get('value')} {row.get('error', '')}")


if __name__ == "__main__":
    main()
