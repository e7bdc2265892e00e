"""`maskfast predict --engine ray`: inputs and a bundle go in, a folder of scored partitions comes out."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from maskfast.apps.cluster.flow import Flow
from maskfast.apps.cluster.output import Finished, Output
from maskfast.apps.cluster.partitions import BLOCK, PARTITION, Block, Partition, cut_partitions
from maskfast.apps.cluster.session import open_ray
from maskfast.apps.cluster.sources import list_pictures
from maskfast.apps.cluster.stages import Model, Scorer, read_bundle_files
from maskfast.bundle.manifest import MANIFEST_FILE, Manifest, format_manifest
from maskfast.bundle.verify import verify_bundle
from maskfast.core.errors import ConfigError
from maskfast.score.backends import BackendName
from maskfast.score.loading import find_model
from maskfast.score.predictor import Prediction
from maskfast.score.rows import ROW_WRITERS

Track = Callable[[Iterator[Finished]], Iterable[Finished]]
"""Passes finished partitions on while it shows progress."""
GPU_BACKENDS = ("auto", "torch", "torch-fp32")


@dataclass(frozen=True)
class ClusterCounts:
    """Pictures of the whole output, failed ones among them, and those that an earlier, stopped run had scored."""

    images: int
    failed: int
    resumed: int
    first_failure: str


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How to score.

    `address` as in `open_ray`; `scorers` models are held (default: one a GPU, else one a node), each with `gpus` of a
    GPU (default: one where the cluster has any); `partition` pictures make one output file.
    """

    address: str | None = None
    backend: BackendName = "auto"
    threshold: float | None = None
    tta: bool = False
    scorers: int | None = None
    gpus: float | None = None
    partition: int = PARTITION


def score_cluster(
    inputs: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | Path | None = None,
    options: ClusterOptions = ClusterOptions(),
    track: Track = iter,
) -> ClusterCounts:
    """Score every picture of `inputs` (see `list_pictures`) with the bundle `model` into the folder or URL `out`.

    `out` gets Parquet files with the local engine's columns, a row for each picture in the order of the inputs, and
    manifest.json. A run that was stopped goes on with what is missing when it is called again in the same way.
    Raises ConfigError where `out` holds something else, or no cluster answers.
    """
    folder = find_model(model)
    manifest = verify_bundle(folder)
    _check_options(str(out), options)
    output = Output(os.fspath(out), _describe_run(manifest, inputs, options))
    run = _Run(output, folder, manifest, options)
    finished = sorted(track(run.score(list_pictures(inputs))), key=lambda each: each.file)
    output.finish(finished)
    images, failed = sum(each.rows for each in finished), sum(each.failed for each in finished)
    first = next((each.first_failure for each in finished if each.failed), "")
    return ClusterCounts(images, failed, run.resumed, first)


def _check_options(out: str, options: ClusterOptions) -> None:
    if Path(out).suffix.lower() in ROW_WRITERS:
        raise ConfigError(f"--out {out}: the ray engine writes a folder of Parquet files; name a folder or a URL")
    if options.partition < 1 or options.partition % BLOCK:
        raise ConfigError(f"--partition {options.partition}: use a multiple of {BLOCK}")


def _describe_run(
    manifest: Manifest, inputs: Sequence[str | os.PathLike[str]], options: ClusterOptions
) -> dict[str, Any]:
    """What must be the same for partitions of an earlier run to be of use."""
    model = hashlib.sha256(format_manifest(manifest)).hexdigest()
    shared = {name: getattr(options, name) for name in ("backend", "threshold", "tta", "partition")}
    return {"model": model, "inputs": [os.fspath(given) for given in inputs], **shared}


@dataclass
class _Run:
    output: Output
    folder: Path
    manifest: Manifest
    options: ClusterOptions
    resumed: int = 0
    _open: dict[int, tuple[Partition, dict[int, list[Prediction]]]] = field(default_factory=dict)

    def score(self, pictures: Iterator[Any]) -> Iterator[Finished]:
        """Yield every partition once its file is there; Ray is started only where one is missing."""
        partitions = cut_partitions(pictures, self.output.run, rows=self.options.partition)
        for partition in partitions:
            done = self.output.find(partition)
            if done is None:
                yield from self._score_rest(chain([partition], partitions))
                return
            self.resumed += done.rows
            yield done

    def _score_rest(self, partitions: Iterator[Partition]) -> Iterator[Finished]:
        with open_ray(self.options.address) as ray:
            found: list[Finished] = []
            scorers, start = _plan_scorers(ray, self._ship_model(ray), self.manifest, self.options)
            flow = Flow(ray, start, self.manifest.size, self.manifest.method)
            for block, rows in flow.run(self._cut_missing(partitions, found), scorers=scorers):
                yield from self._collect(block, rows)
                yield from found
                found.clear()
            yield from found

    def _cut_missing(self, partitions: Iterator[Partition], found: list[Finished]) -> Iterator[Block]:
        """Yield the blocks of partitions that are not there yet; those that are go to `found`."""
        for partition in partitions:
            done = self.output.find(partition)
            if done is None:
                self._open[partition.index] = (partition, {})
                yield from partition.cut_blocks()
            else:
                self.resumed += done.rows
                found.append(done)

    def _collect(self, block: Block, rows: list[Prediction]) -> Iterator[Finished]:
        partition, parts = self._open[block.partition]
        assert block.index not in parts
        parts[block.index] = rows
        if sum(map(len, parts.values())) == len(partition.pictures):
            del self._open[block.partition]
            yield self.output.write(partition, [row for index in sorted(parts) for row in parts[index]])

    def _ship_model(self, ray: Any) -> Model:
        """The folder alone where all nodes are this machine, else with its files in the object store."""
        content = (self.folder / MANIFEST_FILE).read_bytes()
        hosts = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
        files = [ray.put(read_bundle_files(self.folder))] if len(hosts) > 1 else []
        return Model(str(self.folder.absolute()), content, files)


def _plan_scorers(ray: Any, model: Model, manifest: Manifest, options: ClusterOptions) -> tuple[int, Callable[[], Any]]:
    """Return how many scorers to hold and what starts one.

    A scorer without a GPU asks for no core: it uses those of its node as far as decoding, which is held back while
    blocks wait for it, leaves them; asking for one would leave no core to decode on a node of one.
    """
    devices = int(ray.cluster_resources().get("GPU", 0)) if options.backend in GPU_BACKENDS and manifest.weights else 0
    gpus = options.gpus if options.gpus is not None else float(devices > 0)
    nodes = sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())
    count = options.scorers or max(1, int(devices / gpus) if gpus else nodes)
    actor = ray.remote(num_cpus=0, num_gpus=gpus, max_restarts=0, scheduling_strategy="SPREAD")(Scorer)

    def start() -> Any:
        return actor.remote(model, backend=options.backend, threshold=options.threshold, tta=options.tta)

    return count, start
