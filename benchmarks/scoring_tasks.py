"""One measurement of benchmarks/scoring.py in a process of its own: a task as JSON comes in, figures as JSON go out."""

import contextlib
import io
import json
import os
import resource
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

SIZE = 224
MATRIX = 1024
"""Side of the matrices whose product tells what this machine can do at a precision."""
IN_MEMORY_SECONDS = 4.0
"""Of the network alone, before and again after a folder is scored: on a shared machine its speed wanders."""


def build_models(folder: str, pictures: list[str]) -> dict[str, Any]:
    """Write folder/export.pkl (plain fastai resnet34, random weights) and folder/model (the bundle of the same)."""
    import numpy as np
    import torch
    from fastai.vision.all import ImageDataLoaders, Normalize, Resize, imagenet_stats, resnet34, vision_learner

    import maskfast.bundle.int8
    from maskfast.bundle.convert import draft_export
    from maskfast.bundle.store import write_bundle
    from maskfast.core.image import load_image

    torch.manual_seed(0)
    files = [Path(path) for path in pictures[:128]]
    dls = ImageDataLoaders.from_path_func(
        files[0].parent, files, lambda path: "mask" if files.index(path) % 2 else "no_mask",
        item_tfms=Resize(SIZE, method="squish"), batch_tfms=[Normalize.from_stats(*imagenet_stats)],
        bs=32, num_workers=0,
    )  # fmt: skip
    learn = vision_learner(dls, resnet34, pretrained=False, normalize=False)
    images = np.stack([load_image(path, SIZE) for path in files])
    _settle(learn.model, images)
    learn.path = Path(folder)
    learn.export("export.pkl")
    # random weights answer to rounding as to anything else; here only the speed of 8 bits counts
    maskfast.bundle.int8.MAX_PROBABILITY_CHANGE = 1.0
    draft = draft_export(Path(folder) / "export.pkl")
    manifest = write_bundle(Path(folder) / "model", type(draft)(**(vars(draft) | {"check_images": images})))
    return {"left_out": manifest.left_out}


def _settle(model: Any, images: Any) -> None:
    """Give random weights the statistics and the spread of answers that trained ones have."""
    import torch

    pixels = torch.from_numpy(images[:32]).permute(0, 3, 1, 2) / 255
    for part in model.modules():
        if hasattr(part, "momentum"):
            part.momentum = 1.0
    with torch.no_grad():
        model.train()((pixels - 0.45) / 0.225)
        logits = model.eval()((pixels - 0.45) / 0.225)
        model[1][-1].weight *= 0.1 / (logits[:, 0] - logits[:, 1]).std()


def score_with_fastai(folder: str, pictures: list[str]) -> dict[str, Any]:
    """Pictures per second of load_learner, test_dl, get_preds, after loading."""
    learn = _load_learner(folder)
    files = [Path(path) for path in pictures]
    start = time.perf_counter()
    with learn.no_bar():
        dl = learn.dls.test_dl(files, bs=32, num_workers=os.cpu_count())
        learn.get_preds(dl=dl)
    return {"rate": len(files) / (time.perf_counter() - start)}


def score_with_maskfast(folder: str, pictures: list[str], backend: str, out: str) -> dict[str, Any]:
    """Pictures per second of score_to_file after loading, and of the same backend on arrays already in memory."""
    import numpy as np

    from maskfast import load, load_image
    from maskfast.score.batch import score_to_file

    predictor = load(f"{folder}/model", backend=backend)
    arrays = np.stack([load_image(path, SIZE, predictor.method) for path in pictures[:64]])
    predictor.predict_arrays(arrays[:32])
    before = _rate_in_memory(predictor.backend, arrays)
    start = time.perf_counter()
    counts = score_to_file(predictor, pictures, out)
    seconds = time.perf_counter() - start
    in_memory = (before + _rate_in_memory(predictor.backend, arrays)) / 2
    rates = {"rate": counts.images / seconds, "in_memory": in_memory}
    return rates | {"backend": predictor.backend.name, "failed": counts.failed}


def _rate_in_memory(backend: Any, arrays: Any) -> float:
    """Pictures per second of the network alone, in as many threads and as large batches as folders are scored in."""
    from maskfast.score.backends import LANE_IMAGES
    from maskfast.score.predictor import BATCH

    size = LANE_IMAGES if backend.lanes > 1 else BATCH

    def measure(lane: Any) -> float:
        start, count = time.perf_counter(), 0
        while time.perf_counter() < start + IN_MEMORY_SECONDS:
            lane.run(arrays[:size])
            count += size
        return count / (time.perf_counter() - start)

    with ThreadPoolExecutor(backend.lanes) as threads:
        return sum(threads.map(measure, [backend.lane] * backend.lanes))


def predict_warm_with_fastai(folder: str, pictures: list[str]) -> dict[str, Any]:
    """Median seconds of learn.predict(path)."""
    learn = _load_learner(folder)
    with learn.no_bar():
        return {"seconds": _time_each(learn.predict, pictures)}


def predict_warm_with_maskfast(folder: str, pictures: list[str], backend: str) -> dict[str, Any]:
    """Median seconds of Predictor.predict(path)."""
    from maskfast import load

    return {"seconds": _time_each(load(f"{folder}/model", backend=backend).predict, pictures)}


def predict_cold_with_fastai(folder: str, pictures: list[str]) -> dict[str, Any]:
    """What a script does that imports fastai, loads export.pkl and predicts; timed from outside."""
    learn = _load_learner(folder)
    with learn.no_bar():
        return {"answer": float(learn.predict(pictures[0])[2][0])}


def measure_memory(folder: str, pictures: list[str], out: str, backend: str) -> dict[str, Any]:
    """Peak bytes of this process and its largest child, and seconds a picture."""
    from maskfast import load
    from maskfast.score.batch import score_to_file

    predictor = load(f"{folder}/model", backend=backend)
    start = time.perf_counter()
    counts = score_to_file(predictor, pictures, out)
    seconds = time.perf_counter() - start
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"images": counts.images, "peak": own, "peak_child": child, "seconds_a_picture": seconds / counts.images}


def multiply_matrices() -> dict[str, float]:
    """Billions of multiply-adds a second: float32 and bfloat16 in torch, int8 in onnxruntime."""
    import numpy as np
    import onnxruntime
    import torch
    from onnx import TensorProto, helper

    left = torch.randn(MATRIX, MATRIX)
    half = left.bfloat16()
    rates = {"fp32": _rate(lambda: left @ left), "bf16": _rate(lambda: half @ half)}
    node = helper.make_node("MatMulInteger", ["a", "b"], ["c"])
    inputs = [helper.make_tensor_value_info(name, kind, [MATRIX, MATRIX]) for name, kind in (("a", 2), ("b", 3))]
    output = [helper.make_tensor_value_info("c", TensorProto.INT32, [MATRIX, MATRIX])]
    model = helper.make_model(
        helper.make_graph([node], "product", inputs, output), opset_imports=[helper.make_opsetid("", 17)], ir_version=9
    )
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    feed = {
        "a": rng.integers(0, 256, (MATRIX, MATRIX), np.uint8),
        "b": rng.integers(-128, 128, (MATRIX, MATRIX), np.int8),
    }
    return rates | {"int8": _rate(lambda: session.run(None, feed))}


def _rate(product: Any) -> float:
    product()
    seconds = []
    for _ in range(7):
        start = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - start)
    return MATRIX**3 / median(seconds) / 1e9


def _load_learner(folder: str) -> Any:
    from fastai.vision.all import load_learner

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="load_learner", category=UserWarning)
        return load_learner(f"{folder}/export.pkl")


def _time_each(predict: Any, pictures: list[str]) -> float:
    predict(pictures[0])
    seconds = []
    for path in pictures:
        start = time.perf_counter()
        predict(path)
        seconds.append(time.perf_counter() - start)
    return median(seconds)


def main() -> None:
    task = json.loads(sys.stdin.read())
    name = task.pop("task")
    with contextlib.redirect_stdout(io.StringIO()):  # libraries that print progress
        found = globals()[name](**task)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
