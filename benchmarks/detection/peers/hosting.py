"""Turns the loop of a program into the `make_setup` and `step` that the plugin pytest-torch asks its users for.

A user would move the loop's body into a function by hand. Here the program's own source does it: `train` becomes a
generator that stops before its loop and after each pass, so that a fault in the loop is a fault in the step, and one
around it is one in the setup. That is the most the plugin can be given.
"""

from __future__ import annotations

import ast
import os
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from pytest_torch import TrainingSetup  # type: ignore[import-not-found, unused-ignore]

if TYPE_CHECKING:
    from pathlib import Path

# The loop that makes optimizer steps, by what it iterates into, and what its variables are called.
LOOPS: dict[str, dict[str, Any]] = {
    "language_model": {
        "target": "step",
        "optimizers": {"optimizer": "optimizer"},
        "schedule": "schedule",
        "loss": ("step_loss",),
    },
    "image_classifier": {
        "target": "(images, labels)",
        "optimizers": {"optimizer": "optimizer"},
        "schedule": "schedule",
        "loss": ("loss",),
    },
    "gan": {
        "target": "step",
        "optimizers": {"g": "g_optimizer", "d": "d_optimizer"},
        "schedule": None,
        "loss": ("d_loss", "g_loss"),
    },
    "autoencoder": {
        "target": "(images,)",
        "optimizers": {"optimizer": "optimizer"},
        "schedule": "warmup",
        "loss": ("loss",),
    },
}


def load_program(path: Path) -> tuple[dict[str, Any], Any]:
    """The names a program defines, and the arguments that its command line gives to `train`."""
    names: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    program = path.stem
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if program in LOOPS:
        _make_generator(tree, LOOPS[program]["target"])
    module = SimpleNamespace()
    sys.modules[program] = module  # type: ignore[assignment]  # workers and pickles look it up
    exec(compile(tree, str(path), "exec"), names)  # noqa: S102  the program under test
    vars(module).update(names)
    given: list[Any] = []
    real, names["train"] = names["train"], given.append
    sys.argv = [str(path), "--seed", os.environ["DETECTION_SEED"], "--out", str(path.parent / "out")]
    names["main"]()
    names["train"] = real
    return names, given[0]


def _make_generator(tree: ast.Module, target: str) -> None:
    train = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train")
    loop = next(n for n in ast.walk(train) if isinstance(n, ast.For) and ast.unparse(n.target) == target)
    pause = ast.Expr(ast.Yield(None))
    loop.body.append(pause)
    place = next(index for index, node in enumerate(train.body) if loop in ast.walk(node))
    train.body.insert(place, ast.Expr(ast.Yield(None)))
    ast.fix_missing_locations(tree)


class FedLoader:
    """Stands in for the training loader, and gives the batches that the test hands to a step."""

    def __init__(self, feed: list[Any], length: int, dataset: Any) -> None:
        self.feed, self.length, self.dataset = feed, length, dataset

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Any:
        for _ in range(self.length):
            yield self.feed.pop(0)


class Host:
    """One program's loop as setups and steps.

    Args:
        names: What the program defines.
        args: Its arguments.
        program: Its name.
        is_fed: Whether batches come from the test, not from the program's own loader.
    """

    def __init__(self, names: dict[str, Any], args: Any, program: str, *, is_fed: bool = False) -> None:
        self.names, self.args, self.program, self.is_fed = names, args, program, is_fed
        self.loop = LOOPS[program]

    def make_setup(self) -> TrainingSetup:
        """A new run of the program, up to its loop."""
        feed: list[Any] = []
        real = self.names["DataLoader"]
        if self.is_fed:

            def build(dataset: Any, *args: Any, **kwargs: Any) -> Any:
                loader = real(dataset, *args, **kwargs)
                is_training = kwargs.get("shuffle") is not None or "sampler" in kwargs
                return FedLoader(feed, len(loader), dataset) if is_training else loader

            self.names["DataLoader"] = build
        try:
            generator = self.names["train"](self.args)
            next(generator)
        finally:
            self.names["DataLoader"] = real
        found = generator.gi_frame.f_locals
        model = found.get("model")
        if model is None:
            model = torch.nn.ModuleList([found["generator"], found["discriminator"]])
        setup = TrainingSetup(
            model=model,
            optimizers={name: found[variable] for name, variable in self.loop["optimizers"].items()},
            schedulers=found[self.loop["schedule"]] if self.loop["schedule"] else None,
            scaler=found.get("scaler"),
            state={"ema": found["ema"]} if "ema" in found else {},
        )
        setup.generator, setup.feed = generator, feed  # type: ignore[attr-defined, unused-ignore]
        return setup

    def step(self, setup: Any, batch: Any) -> Any:
        """One pass of the loop; returns its loss, or one loss per network."""
        if self.is_fed:
            # The language model takes all micro-batches of its step at once.
            setup.feed += batch if self.program == "language_model" else [batch]
        next(setup.generator)
        found = setup.generator.gi_frame.f_locals
        losses = {name: torch.as_tensor(found[name]).detach() for name in self.loop["loss"]}
        return losses if len(losses) > 1 else next(iter(losses.values()))

    def draw_batches(self, num_batches: int) -> list[Any]:
        """Batches of the program's training data, as its loader collates them."""
        train_set = self._find_train_set()
        collate = self.names.get("collate")
        loader = torch.utils.data.DataLoader(train_set, batch_size=self.args.batch_size, collate_fn=collate)
        return [batch for batch, _ in zip(loader, range(num_batches), strict=False)]

    def _find_train_set(self) -> Any:
        setup = self.make_setup()
        found = setup.generator.gi_frame.f_locals  # type: ignore[attr-defined, unused-ignore]
        return found["loader"].dataset if "loader" in found else found["train_set"]

    def save(self, setup: Any, path: Path) -> None:
        """The program's own checkpoint."""
        found = setup.generator.gi_frame.f_locals
        if self.program == "language_model":
            self.names["save"](
                path, *(found[name] for name in ("model", "ema", "optimizer", "schedule", "step"))
            )
        elif self.program == "image_classifier":
            self.names["save"](
                path, *(found[name] for name in ("model", "optimizer", "schedule", "epoch", "step"))
            )
        else:
            # These write it in their loop, every few steps; the test has them do it at the right one.
            path.write_bytes((self.args.out / "checkpoint.pt").read_bytes())

    def load(self, setup: Any, path: Path) -> None:
        """What a program that resumes would do with its checkpoint."""
        state = torch.load(path, weights_only=True)
        if self.program == "gan":
            setup.model[0].load_state_dict(state["generator"])
            setup.model[1].load_state_dict(state["discriminator"])
            setup.optimizers["g"].load_state_dict(state["g_optimizer"])
            setup.optimizers["d"].load_state_dict(state["d_optimizer"])
        else:
            setup.model.load_state_dict(state["model"])
            setup.optimizer.load_state_dict(state["optimizer"])
            setup.scheduler.load_state_dict(state["scheduler"])
        if setup.scaler is not None:
            setup.scaler.load_state_dict(state["scaler"])
        for name, part in setup.state.items():
            part.load_state_dict(state[name])
        torch.set_rng_state(state["rng"])
