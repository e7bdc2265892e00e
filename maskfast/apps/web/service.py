"""From uploads to rows: the waiting room, the decoders and the batched model joined to one scoring service."""

import asyncio
import base64
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from maskfast.apps.web.admission import CROWDED_PATIENCE, WaitingRoom
from maskfast.apps.web.answers import Explanation, ModelInfo, Row
from maskfast.apps.web.batching import Batcher
from maskfast.apps.web.decode import DecoderPool
from maskfast.apps.web.heat import draw_heat_map
from maskfast.apps.web.metrics import Metrics
from maskfast.apps.web.settings import ServeSettings
from maskfast.apps.web.uploads import Upload
from maskfast.core.errors import ImageError
from maskfast.core.image import MAX_PIXELS
from maskfast.score.decode_worker import make_command

if TYPE_CHECKING:
    from maskfast.score.predictor import Predictor

WARM_ANSWERS = 5
"""Blank pictures that are answered at the start."""
LEAST_PATIENCE = 0.005
"""Seconds that a request may wait under overload, however fast the model is."""
EXPLAIN_PLACES = 4
"""Explanations that may wait: each takes as long as dozens of pictures."""


class Scorer:
    """Scores uploads with one predictor; `start` before and `stop` after use, in one event loop."""

    def __init__(self, predictor: "Predictor", settings: ServeSettings, metrics: Metrics) -> None:
        self.predictor = predictor
        self.settings = settings
        self.metrics = metrics
        self.room = WaitingRoom(
            seats=settings.count_seats(),
            crowded_seats=settings.count_crowded_seats(),
            places=settings.max_waiting,
            patience=settings.patience,
        )
        self.explain_room = WaitingRoom(seats=1, places=EXPLAIN_PLACES, patience=settings.patience)
        self.explain_room.crowded_patience = settings.patience
        self.decoders = DecoderPool(
            make_command(predictor.size, predictor.method, settings.max_pixels or MAX_PIXELS),
            size=predictor.size,
            count=settings.count_decoders(),
            seconds=settings.decode_seconds,
        )
        self.batcher = Batcher(predictor.predict_arrays, max_batch=settings.max_batch, observe=metrics.batches.observe)
        self.explain_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="explain")
        metrics.waiting.set_function(lambda: self.room.waiting)
        metrics.working.set_function(lambda: self.room.working)
        metrics.decoders.set_function(lambda: self.decoders.replaced)

    async def start(self) -> None:
        """Start the decoders and answer blank pictures: so the first real one is not slow, and the model's pace known.

        Under overload nobody waits longer than one answer takes: what is answered then is answered nearly as fast.
        """
        await self.decoders.start()
        self.batcher.start()
        blank = np.zeros((self.predictor.size, self.predictor.size, 3), np.uint8)
        seconds = [await self._time_answer(blank) for _ in range(WARM_ANSWERS)]
        self.room.crowded_patience = min(max(median(seconds), LEAST_PATIENCE), CROWDED_PATIENCE)

    async def stop(self) -> None:
        """Finish what is at work and end the decoders."""
        await self.batcher.stop()
        await self.decoders.stop()
        self.explain_thread.shutdown()

    async def score(self, uploads: Sequence[Upload]) -> list[Row]:
        """One row an upload, in order; a picture that cannot be used has a row with the reason."""
        try:
            async with self.room.seat(len(uploads)), asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._score_one(upload)) for upload in uploads]
        except ExceptionGroup as errors:  # what went wrong with one picture is the request's answer
            raise errors.exceptions[0] from None
        rows = [task.result() for task in tasks]
        for row in rows:
            self.metrics.pictures.labels(row.status).inc()
        return rows

    async def explain(self, upload: Upload) -> Explanation | Row:
        """The picture's row and heat map; only the failed row where the picture cannot be used."""
        async with self.explain_room.seat(1):
            try:
                array = await self.decoders.decode(upload.name, upload.data)
            except ImageError as error:
                return fail_row(upload.name, error.reason)
            row = self._judge(upload.name, await self.batcher.score(array))
            loop, began = asyncio.get_running_loop(), time.perf_counter()
            png = await loop.run_in_executor(self.explain_thread, draw_heat_map, self.predictor, array)
            self._follow_pace(time.perf_counter() - began)
        return Explanation(result=row, method=self.predictor.method, heat_map=base64.b64encode(png).decode())

    def _follow_pace(self, seconds: float) -> None:
        """Let whoever waits for an explanation wait until those before are done, each in `seconds`."""
        room = self.explain_room
        room.patience = room.crowded_patience = max(self.settings.patience, (EXPLAIN_PLACES + 1) * seconds)
        room.retry_after = math.ceil(seconds)

    async def _time_answer(self, array: np.ndarray) -> float:
        began = time.perf_counter()
        await self.batcher.score(array)
        return time.perf_counter() - began

    def describe(self) -> ModelInfo:
        """What answers, and the bounds a client has to keep."""
        manifest = self.predictor.manifest
        return ModelInfo(
            arch=manifest.network.arch,
            classes=list(manifest.classes),
            positive=manifest.positive,
            threshold=self.predictor.threshold,
            size=self.predictor.size,
            method=self.predictor.method,
            created=str(manifest.created),
            metrics={name: value for name, value in manifest.metrics.items() if isinstance(value, int | float)},
            max_files=self.settings.max_files,
            max_body=self.settings.max_body,
        )

    async def _score_one(self, upload: Upload) -> Row:
        try:
            array = await self.decoders.decode(upload.name, upload.data)
        except ImageError as error:
            return fail_row(upload.name, error.reason)
        return self._judge(upload.name, await self.batcher.score(array))

    def _judge(self, name: str, prob: float) -> Row:
        label = self.predictor.classes[int(prob >= self.predictor.threshold)]
        return Row.model_validate({"image": name, "probability": prob, "label": label, "status": "ok", "reason": ""})


def fail_row(name: str, reason: str) -> Row:
    """The row of a picture that could not be used."""
    return Row(image=name, probability=None, label="", status="failed", reason=reason)
