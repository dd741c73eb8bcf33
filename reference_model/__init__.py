"""A small transformer that learns handwritten digits, or any text file, the way larger ones are trained.

```python
from reference_model import TrainConfig, build_config, train

result = train(TrainConfig(max_steps=30))
result = train(build_config({"mode": "ci", "model.width": 32}))
```

Importing the package imports no torch; the names are looked up when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reference_model.config import DataConfig, ModelConfig, OptimConfig, TrainConfig
    from reference_model.errors import ConfigError, TrainingError
    from reference_model.settings import build_config
    from reference_model.training import TrainResult, train

_HOMES = {
    "ConfigError": "errors",
    "DataConfig": "config",
    "ModelConfig": "config",
    "OptimConfig": "config",
    "TrainConfig": "config",
    "TrainResult": "training",
    "TrainingError": "errors",
    "build_config": "settings",
    "train": "training",
}

__all__ = [
    "ConfigError",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "TrainConfig",
    "TrainResult",
    "TrainingError",
    "build_config",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
