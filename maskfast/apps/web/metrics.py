"""The server's own numbers, in a registry of its own, for Prometheus to read at /metrics."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("maskfast_requests", "Requests answered.", ("path", "status"), registry=self.registry)
        self.seconds = Histogram(
            "maskfast_request_seconds",
            "Seconds from a request's head to the end of its answer.",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.pictures = Counter("maskfast_pictures", "Pictures by outcome.", ("status",), registry=self.registry)
        self.batches = Histogram(
            "maskfast_batch_pictures", "Pictures in one call of the model.", buckets=BATCHES, registry=self.registry
        )
        self.waiting = Gauge("maskfast_waiting_pictures", "Pictures that wait for a seat.", registry=self.registry)
        self.working = Gauge("maskfast_working_pictures", "Pictures being decoded or scored.", registry=self.registry)
        self.held = Gauge("maskfast_held_bytes", "Bytes of request bodies held in memory.", registry=self.registry)
        self.decoders = Gauge("maskfast_decoders_replaced", "Decoder processes replaced.", registry=self.registry)

    def observe_request(self, path: str, status: int, seconds: float) -> None:
        """Count one request; `path` is a known route or `other`."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
