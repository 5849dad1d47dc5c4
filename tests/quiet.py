"""A trainer that prints and writes nothing."""

from typing import Any

from lightning import Trainer


def trainer(**kwargs: Any) -> Trainer:
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**quiet | {"max_epochs": 1} | kwargs)
