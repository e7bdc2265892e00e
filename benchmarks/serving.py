"""`maskfast serve` beside the bare model and beside a plain FastAPI handler around `learn.predict`, under load.

    python benchmarks/serving.py [--model export/model] [--pictures FOLDER] [--seconds 20] [--out serving.json]

Servers and client are processes of their own on loopback. Measured: pictures a second with 32 clients that each wait
for their answer; the time of an answer without load; what becomes of four times as many requests as can be answered;
the servers' memory. Every loop is bounded in count and time. Without --model the model inside the package is served.
FastAPI is no dependency of maskfast (pip install fastapi); without it that row is left out.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import processes
from results import describe_machine

CLIENT = Path(__file__).with_name("serving_client.py")
CLIENTS = 32
OVERLOAD = 4
TARGETS = {"throughput_ratio": 0.8, "p99_over_p50": 3.0, "memory_growth": 1.1}


# ---- the servers ---------------------------------------------------------------------------------------------------


@contextmanager
def start(command: Sequence[str], port: int) -> Iterator[int]:
    """Run a server until the block ends; yields its process id once it listens."""
    with subprocess.Popen(command) as process:
        try:
            for _ in range(1200):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                assert process.poll() is None, "the server did not start"
                time.sleep(0.05)
            yield process.pid
        finally:
            process.terminate()


def find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def serve_fastapi(folder: str, port: int) -> None:
    """What a fastai user writes first: FastAPI, an uploaded file, `learn.predict`."""
    import io

    import uvicorn
    from fastai.vision.all import PILImage, ProgressCallback
    from fastapi import FastAPI, UploadFile

    # neither the bar nor two predictions at a time: a Learner keeps its state in itself
    learn = open_learner(Path(folder)).remove_cbs(ProgressCallback)
    app = FastAPI()

    @app.post("/predict")
    async def predict(file: UploadFile) -> dict[str, float]:
        probs = learn.predict(PILImage.create(io.BytesIO(await file.read())))[2]
        return {"mask": float(probs[1])}

    uvicorn.run(app, port=port, log_level="warning")


def open_learner(folder: Path) -> Any:
    """A fastai Learner with the bundle's network: its export.pkl, or random weights, which are as fast."""
    from fastai.vision.all import (
        CategoryBlock,
        CrossEntropyLossFlat,
        DataBlock,
        ImageBlock,
        Learner,
        Normalize,
        PILImage,
        Resize,
        ResizeMethod,
        load_learner,
    )

    if (folder / "export.pkl").is_file():
        return load_learner(folder / "export.pkl")
    from maskfast.bundle.manifest import read_manifest
    from maskfast.bundle.network import build_network

    manifest = read_manifest(folder)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock(vocab=list(manifest.classes))),
        get_x=lambda number: PILImage.create(np.full((64, 64, 3), number, np.uint8)),
        get_y=lambda number: manifest.classes[number % 2],
        item_tfms=Resize(manifest.size, method=ResizeMethod.Squish),
        batch_tfms=Normalize.from_stats(manifest.mean, manifest.std),
    )
    dls = block.dataloaders(list(range(8)), bs=2)
    return Learner(dls, build_network(manifest.network), loss_func=CrossEntropyLossFlat())


def measure_memory(pid: int) -> float:
    """Mebibytes that the process and its children hold, shared pages counted once by halves (PSS)."""
    total = 0
    for each in [pid, *list_children(pid)]:
        rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
        total += int(rollup.split("Pss:")[1].split()[0])
    return round(total / 1024, 1)


def list_children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


# ---- the measurement -----------------------------------------------------------------------------------------------


def ask_client(plan: dict[str, Any]) -> dict[str, Any]:
    """Run a client with the plan in a process of its own."""
    command = [sys.executable, str(CLIENT), json.dumps(plan)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=plan["seconds"] * 3 + 60)
    return dict(json.loads(done.stdout))


def measure_bare(model: Path, pictures: list[str], seconds: float) -> dict[str, float]:
    """Pictures a second of the model alone: on decoded arrays, and on files through `predict_many`."""
    from maskfast.core.image import load_image
    from maskfast.score.loading import load

    predictor = load(model)
    arrays = np.stack([load_image(path, predictor.size, predictor.method) for path in pictures])[:16]
    files = [(path, Path(path).read_bytes()) for path in pictures]
    return {
        "arrays_per_second": count_rate(lambda: len(predictor.predict_arrays(arrays)), seconds),
        "files_per_second": count_rate(lambda: len(list(predictor.predict_many(files))), seconds),
    }


def count_rate(work: Callable[[], int], seconds: float) -> float:
    work()
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        count += work()
    return round(count / (time.perf_counter() - began), 2)


def measure_maskfast(model: Path, pictures: list[str], seconds: float) -> dict[str, Any]:
    port = find_port()
    command = [sys.executable, "-m", "maskfast", "serve", "--port", str(port), "--quiet", "--model", str(model)]
    plan = {"port": port, "path": "/api/predict", "kind": "image/jpeg", "pictures": pictures, "seconds": seconds}
    with start(command, port) as pid:
        ask_client({**plan, "clients": 4, "seconds": min(3.0, seconds)})
        alone = ask_client({**plan, "clients": 1})
        together = ask_client({**plan, "clients": CLIENTS})
        ask_client({**plan, "rate": OVERLOAD * together["per_second"], "seconds": min(3.0, seconds)})
        before = measure_memory(pid)
        overload = ask_client({**plan, "rate": OVERLOAD * together["per_second"]})
        after = measure_memory(pid)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as health:
            assert health.status == 200
    return {
        "one_client": alone,
        f"{CLIENTS}_clients": together,
        "overload": overload,
        "memory_mib": {"before_overload": before, "after_overload": after},
    }


def measure_fastapi(model: Path, pictures: list[str], seconds: float) -> dict[str, Any] | None:
    try:
        import fastapi  # noqa: F401  only asked for
    except ModuleNotFoundError:
        return None
    port = find_port()
    kind = "multipart/form-data; boundary=b"
    plan = {"port": port, "path": "/predict", "kind": kind, "pictures": pictures, "seconds": seconds}
    with start([sys.executable, __file__, "--fastapi", str(model), str(port)], port):
        ask_client({**plan, "clients": 1, "seconds": min(3.0, seconds)})
        return {
            "one_client": ask_client({**plan, "clients": 1}),
            f"{CLIENTS}_clients": ask_client({**plan, "clients": CLIENTS}),
        }


def compare(bare: dict[str, float], ours: dict[str, Any], plain: dict[str, Any] | None) -> dict[str, float | None]:
    together, overload = ours[f"{CLIENTS}_clients"], ours["overload"]
    memory = ours["memory_mib"]
    return {
        "throughput_ratio": round(together["per_second"] / bare["files_per_second"], 3),
        "throughput_over_arrays": round(together["per_second"] / bare["arrays_per_second"], 3),
        "p99_over_p50": round(overload["settled_p99_ms"] / ours["one_client"]["p50_ms"], 2),
        "p99_over_p50_from_the_start": round(overload["p99_ms"] / ours["one_client"]["p50_ms"], 2),
        "unanswered": sum(count for status, count in overload["statuses"].items() if status not in ("200", "503")),
        "memory_growth": round(memory["after_overload"] / memory["before_overload"], 3),
        "times_fastapi": plain and round(together["per_second"] / plain[f"{CLIENTS}_clients"]["per_second"], 2),
    }


@contextmanager
def find_pictures(folder: Path | None) -> Iterator[list[str]]:
    """The paths of at most 64 JPEG files: of the folder, or drawn."""
    if folder is not None:
        yield [str(path) for path in sorted(folder.rglob("*.jp*g"))[:64]]
        return
    from maskfast.data.demo import draw_demo

    with tempfile.TemporaryDirectory() as drawn:
        draw_demo(drawn, count=64)
        yield [str(path) for path in unpack(Path(drawn))]


def unpack(folder: Path) -> list[Path]:
    """The JPEG files of a challenge, whose pictures may lie in a zip."""
    import zipfile

    for archive in folder.glob("*.zip"):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    return sorted(folder.rglob("*.jp*g"))[:64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--fastapi", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.fastapi:
        serve_fastapi(args.fastapi[0], int(args.fastapi[1]))
    else:
        measure(args.model, args.pictures, min(args.seconds, 120), args.out)


def measure(model: Path | None, folder: Path | None, seconds: float, out: Path | None) -> None:
    from maskfast.core.errors import DataError
    from maskfast.score.loading import find_model

    model = find_model(model)
    with find_pictures(folder) as pictures:
        if not pictures:
            raise DataError(f"{folder}: no JPEG files there")
        bare = measure_bare(model, pictures, seconds / 2)
        ours = measure_maskfast(model, pictures, seconds)
        plain = measure_fastapi(model, pictures, seconds)
    result = {
        "machine": describe_machine(),
        "bare": bare,
        "maskfast_serve": ours,
        "fastapi_learn_predict": plain,
        "compared": compare(bare, ours, plain),
        "targets": TARGETS,
    }
    print(json.dumps(result, indent=2))
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    processes.run_main(main)
