"""The simulated clusters against the laws of queues: a stage that is always busy sets the rate."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))

from scale_simulation import BLOCK, Cluster, Rates, Simulation

RATES = Rates(0.002, 0.1, 0.01, 1e-6, 50_000, 150_000)
FAST = {"network": 1e12, "store": 1e12, "latency": 0.0}


@pytest.mark.parametrize(
    ("cluster", "rates", "expected"),
    [
        (Cluster(1, 4, 0.0, **FAST), {}, 4 / (0.002 + 0.01)),
        (Cluster(3, 4, 0.0, **FAST), {}, 3 * 4 / (0.002 + 0.01)),
        (Cluster(1, 8, 0.001, **FAST), {}, 1 / 0.001),
        (Cluster(1, 2, 0.0001, **FAST), {}, 2 / 0.002),
        (Cluster(4, 8, 0.0001, **FAST), {"driver_block": 0.1}, BLOCK / 0.1),
        (Cluster(4, 8, 0.0001, **FAST | {"store": 5e6}), {}, 5e6 / 50_000),
        (Cluster(4, 8, 0.0001, **FAST | {"network": 5e6}), {}, 4 * 5e6 / 50_000),
    ],
    ids=["cores", "nodes", "gpu", "decoding", "driver", "store", "network"],
)
def test_the_busiest_stage_sets_the_rate(cluster, rates, expected):
    found = Simulation(cluster, Rates(**{**vars(RATES), **rates})).run(600)
    assert found["rate"] == pytest.approx(expected, rel=0.05)
