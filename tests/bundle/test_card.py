"""The model card, read back by the hub's own reader."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pytest
from huggingface_hub import ModelCard

from maskfast.bundle.card import describe_data, write_card


@dataclass(frozen=True)
class Network:
    arch: str = "mobilenet_v2"
    head: str = "concat"


@dataclass(frozen=True)
class Model:
    network: Network = Network()
    size: int = 224
    method: str = "squish"
    temperature: float = 1.25
    threshold: float = 0.4
    views: tuple[str, ...] = ("plain", "flip")
    weights: tuple[str, ...] = ("model.0.safetensors", "model.1.safetensors")
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)


METRICS = {"accuracy": 0.98765, "accuracy_low": 0.97, "accuracy_high": 0.995, "auc": 0.999, "log_loss": 0.0321}
SETTINGS = {
    "epochs": 4,
    "arch": "a|b",
    "data": ["/home/me/faces", "night"],
    "weights": "/home/me/net.safetensors",
    "drop": None,
    "out": "/home/me/model",
}
ITEMS = pd.DataFrame(
    {
        "image": list("abcde"),
        "label": pd.array([1, 0, 1, None, 1], dtype="Int64"),
        "source": ["/home/me/street: 'night' & day", "/home/me/street: 'night' & day", "faces", "faces", "faces"],
        "split": ["train", "valid", "train", "test", "train"],
        "group": [0, 1, 2, 3, 4],
        "status": ["ok", "ok", "ok", "ok", "refused"],
    }
)


def test_the_hub_reads_the_figures_back() -> None:
    card = ModelCard(write_card(Model(metrics=METRICS, data=describe_data(ITEMS)), name="Masks: | a 'test'"))
    results = {result.metric_type: result for result in card.data.eval_results}
    assert {name: result.metric_value for name, result in results.items()} == {
        "accuracy": 0.98765,
        "roc_auc": 0.999,
        "log_loss": 0.0321,
    }
    assert results["accuracy"].dataset_name == "faces, street: 'night' & day"
    assert (card.data.pipeline_tag, card.data.library_name) == ("image-classification", "fastai")
    assert card.data.model_name == "Masks: | a 'test'"


def test_figures_intervals_counts_and_settings_are_shown() -> None:
    text = write_card(Model(metrics=METRICS, data=describe_data(ITEMS), config=SETTINGS))
    assert "| Accuracy | 0.9877 | 0.9700 to 0.9950 |" in text
    assert "| Log loss | 0.0321 | not measured |" in text
    assert "| street: 'night' & day | 2 | 1 |" in text
    assert "| train | 2 | 2 |" in text
    assert "Left out: 1 refused." in text
    assert "3 groups, of which none\nare in more than one split" in text
    assert "| arch | `a\\|b` |" in text
    assert "| data | `faces, night` |" in text
    assert "| weights | `net.safetensors` |" in text
    assert "/home" not in text, "where files lie on this machine is nobody's business"
    assert "| drop |" not in text
    assert "comes from the mean of 2 networks, each asked about 2 views of a picture." in text
    assert "temperature of 1.2500, fitted on held-out pictures." in text


def test_nothing_is_claimed_that_was_not_measured() -> None:
    text = write_card(Model(temperature=1.0))
    assert "## Results\n\nNot measured." in text
    assert "The sources were not recorded." in text
    assert "no failures can be shown" in text
    assert "No temperature was fitted" in text
    assert ModelCard(text).data.eval_results is None


def test_temperature_names_the_log_loss_before_and_after() -> None:
    text = write_card(Model(metrics={"log_loss_uncalibrated": 0.05, "log_loss": 0.04}))
    assert "fitted on held-out pictures: log loss 0.0500 before, 0.0400 after." in " ".join(text.split())


@pytest.mark.parametrize(
    ("probabilities", "said"),
    [
        ([0.9, 0.1, 0.45], "No held-out picture was answered wrongly. With 3 pictures"),
        ([0.2, 0.1, 0.01], "2 of 3 held-out pictures were answered wrongly:"),
    ],
)
def test_failures_are_those_beyond_the_threshold_worst_first(probabilities: list[float], said: str) -> None:
    validation = pd.DataFrame(
        {"image": ["a.jpg", "b.jpg", "c_|.jpg"], "label": [1, 0, 1], "probability": probabilities}
    )
    text = write_card(Model(), validation=validation)
    assert said in text
    if "2 of 3" in said:
        worst, second = text.index(r"| c\_\|.jpg | mask | 0.0100 |"), text.index("| a.jpg | mask | 0.2000 |")
        assert worst < second
        assert "b.jpg" not in text
