"""Faults of the schedule of the learning rate (T6)."""

from __future__ import annotations

from benchmarks.detection.fault import Fault, line

LM_OPTIMIZER = "    optimizer = build_optimizer(model, args.lr, args.weight_decay)\n"

SCHEDULE_FAULTS = (
    Fault(
        id="schedule-per-micro-batch",
        summary="The schedule advances with every micro-batch, and is through too early.",
        expected=("T608",),
        source="https://github.com/huggingface/accelerate/issues/963",
        edits={
            "language_model": (
                ("            schedule.step()\n", ""),
                ("step_loss += loss.item()\n", "step_loss += loss.item()\n                schedule.step()\n"),
            )
        },
    ),
    Fault(
        id="schedule-per-batch",
        summary="A schedule meant for epochs advances with every batch.",
        expected=("T606", "T608", "T604", "T612"),
        source="",
        edits={
            "image_classifier": (
                ("        schedule.step()\n", ""),
                ("            step += 1\n", "            step += 1\n            schedule.step()\n"),
            )
        },
    ),
    Fault(
        id="schedule-never-stepped",
        summary="The schedule is built and never advanced.",
        expected=("T609",),
        source="",
        edits={
            "lightning_trainer": line(
                'return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}',
                'return {"optimizer": optimizer}',
            ),
            "autoencoder": line("                warmup.step()\n", ""),
            "language_model": line("            schedule.step()\n", ""),
            "image_classifier": line("        schedule.step()\n", ""),
        },
    ),
    Fault(
        id="schedule-before-optimizer",
        summary="The schedule advances before the optimizer's first step, and its first value is skipped.",
        expected=("T610",),
        source="",
        edits={
            "autoencoder": (
                ("                warmup.step()\n", ""),
                (
                    "                scaler.step(optimizer)\n",
                    "                warmup.step()\n                scaler.step(optimizer)\n",
                ),
            ),
            "language_model": (
                ("            schedule.step()\n", ""),
                (
                    "            optimizer.step()\n",
                    "            schedule.step()\n            optimizer.step()\n",
                ),
            ),
            "image_classifier": (
                ("        schedule.step()\n", ""),
                ("        model.train()\n", "        model.train()\n        schedule.step()\n"),
            ),
        },
    ),
    Fault(
        id="schedule-too-short",
        summary="The schedule is set up for a fraction of the steps, and swings back up again.",
        expected=("T606", "T604"),
        source="",
        edits={
            "language_model": (
                (
                    "build_schedule(optimizer, args.warmup, args.steps)",
                    "build_schedule(optimizer, args.warmup, 16)",
                ),
                ("min(1.0, progress)", "progress"),
            ),
            "image_classifier": line("T_max=epochs", "T_max=1"),
        },
    ),
    Fault(
        id="schedule-of-another-optimizer",
        summary="The schedule moves the learning rate of an optimizer that is not used.",
        expected=("T611",),
        source="",
        edits={
            "language_model": line(
                LM_OPTIMIZER.removeprefix("    ") + "    schedule = build_schedule(optimizer,",
                LM_OPTIMIZER.removeprefix("    ")
                + "    schedule = build_schedule(build_optimizer(model, args.lr, args.weight_decay),",
            ),
            "image_classifier": line(
                "schedule = build_schedule(optimizer,",
                "schedule = build_schedule(build_optimizer(model, args.lr, args.weight_decay),",
            ),
        },
    ),
    Fault(
        id="schedule-per-epoch",
        summary="A schedule meant for steps advances with every epoch, and hardly leaves its start.",
        expected=("T605", "T612", "T602"),
        source="https://github.com/huggingface/transformers/issues/24088",
        edits={"lightning_trainer": line('"interval": "step"', '"interval": "epoch"')},
    ),
    Fault(
        id="warm-up-never-ends",
        summary="The warm-up takes ten thousand steps, and the run ends within it.",
        expected=("T605",),
        source="",
        edits={
            "autoencoder": line("start_factor=0.2, total_iters=5", "start_factor=1e-4, total_iters=1000000"),
            "hf_trainer": line("warmup_steps=5", "warmup_steps=100000"),
            "language_model": line('"--warmup", type=int, default=8', '"--warmup", type=int, default=10000'),
        },
    ),
    Fault(
        id="schedule-decays-to-nothing",
        summary="The learning rate falls tenfold at every step, and training stops after a few.",
        expected=("T607",),
        source="",
        edits={
            "language_model": line(
                "return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, progress)))",
                "return 0.1 ** (step - warmup + 1)",
            ),
            "image_classifier": line(
                "torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)",
                "torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=1e-3)",
            ),
        },
    ),
)
