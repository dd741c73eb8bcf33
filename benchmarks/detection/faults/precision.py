"""Faults of mixed precision and loss scaling (T2, T4, T5)."""

from __future__ import annotations

from benchmarks.detection.fault import Fault, line

PRECISION_FAULTS = (
    Fault(
        id="clipped-before-unscale",
        summary="Gradients are clipped while they still carry the loss scale.",
        expected=("T421",),
        source="https://github.com/pytorch/examples/issues/1196",
        edits={"autoencoder": line("                scaler.unscale_(optimizer)\n", "")},
    ),
    Fault(
        id="backward-without-scale",
        summary="Backward runs on the loss that is not scaled, and gradients are unscaled all the same.",
        expected=("T4", "T204"),
        source="",
        edits={
            "autoencoder": line(
                "scaler.scale(loss).backward()", "scaler.scale(loss)\n                loss.backward()"
            )
        },
    ),
    Fault(
        id="step-without-unscale",
        summary="The optimizer steps past the scaler, with gradients that carry the loss scale.",
        expected=("T4", "T5", "T204"),
        source="",
        edits={
            "autoencoder": (
                ("                scaler.unscale_(optimizer)\n", ""),
                ("                scaler.step(optimizer)\n", "                optimizer.step()\n"),
                ("                scaler.update()\n", ""),
            )
        },
    ),
    Fault(
        id="every-step-skipped",
        summary="The loss scale is so large that every step is skipped, and it hardly falls.",
        expected=("T204",),
        source="",
        edits={
            "autoencoder": line(
                "init_scale=1024.0, growth_interval=20",
                "init_scale=float('inf'), growth_interval=20",
            )
        },
    ),
    Fault(
        id="loss-in-low-precision",
        summary="The loss is computed in bfloat16.",
        expected=("T3", "T2", "T5"),
        source="",
        edits={
            "autoencoder": (
                ("_logits(logits.float(), images)", "_logits(logits.bfloat16(), images.bfloat16())"),
                (
                    "mean, log_variance = mean.float(), log_variance.float()",
                    "mean, log_variance = mean.bfloat16(), log_variance.bfloat16()",
                ),
            )
        },
    ),
    Fault(
        id="checkpoint-without-scaler",
        summary="The state of the loss scaler is not in the checkpoint.",
        expected=("A106",),
        source="",
        edits={"autoencoder": line('                            "scaler": scaler.state_dict(),\n', "")},
    ),
)
