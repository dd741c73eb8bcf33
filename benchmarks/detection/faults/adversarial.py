"""Faults of two networks that train against each other (T4, T5)."""

from __future__ import annotations

from benchmarks.detection.fault import Fault, line

ADVERSARIAL_FAULTS = (
    Fault(
        id="discriminator-never-updated",
        summary="The discriminator's optimizer never steps.",
        expected=("T501", "T403"),
        source="",
        edits={"gan": line("            d_optimizer.step()\n", "")},
    ),
    Fault(
        id="generator-never-updated",
        summary="The generator's optimizer never steps.",
        expected=("T501", "T403"),
        source="",
        edits={"gan": line("            g_optimizer.step()\n", "")},
    ),
    Fault(
        id="generator-detached-in-own-step",
        summary="The generator's output is detached in its own step, so that it gets no gradient.",
        expected=("T401",),
        source="",
        edits={
            "gan": line("generator_loss(discriminator(fake))", "generator_loss(discriminator(fake.detach()))")
        },
    ),
    Fault(
        id="discriminator-not-cleared",
        summary="The discriminator's gradients are never cleared, those of the generator's step among them.",
        expected=("T403",),
        source="",
        edits={"gan": line("            d_optimizer.zero_grad()\n", "")},
    ),
    Fault(
        id="both-optimizers-over-generator",
        summary="Both optimizers were built over the generator.",
        expected=("T503",),
        source="",
        edits={
            "gan": line(
                "torch.optim.Adam(discriminator.parameters(),", "torch.optim.Adam(generator.parameters(),"
            )
        },
    ),
    Fault(
        id="generator-step-moves-discriminator",
        summary="The generator's optimizer holds the discriminator too, and makes it give in.",
        expected=("T503",),
        source="",
        edits={
            "gan": line(
                "torch.optim.Adam(generator.parameters(),",
                "torch.optim.Adam([*generator.parameters(), *discriminator.parameters()],",
            )
        },
    ),
    Fault(
        id="discriminator-loss-reaches-generator",
        summary="The made points are not detached, and the discriminator's loss ends up in the generator's gradient.",
        expected=("T403",),
        source="",
        edits={
            "gan": (
                ("discriminator(fake.detach())", "discriminator(fake)"),
                ("d_loss.backward()", "d_loss.backward(retain_graph=True)"),
                ("            g_optimizer.zero_grad()\n", ""),
                (
                    "            d_optimizer.zero_grad()\n",
                    "            d_optimizer.zero_grad()\n            g_optimizer.zero_grad()\n",
                ),
            )
        },
    ),
    Fault(
        id="discriminator-sees-no-real-data",
        summary="The discriminator is shown made points as real ones.",
        expected=("T8", "T9", "T1"),
        source="",
        edits={
            "gan": line(
                "discriminator_loss(discriminator(real),", "discriminator_loss(discriminator(fake.detach()),"
            )
        },
    ),
    Fault(
        id="generator-label-wrong",
        summary="The generator is trained towards the label of made points.",
        expected=("T1", "T3"),
        source="",
        edits={
            "gan": line(
                "return functional.mse_loss(fake_scores, torch.ones_like(fake_scores))",
                "return functional.mse_loss(fake_scores, torch.zeros_like(fake_scores))",
            )
        },
    ),
)
