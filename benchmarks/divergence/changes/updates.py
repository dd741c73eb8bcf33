"""Changes of the optimizer, of clipping and of the schedule."""

from __future__ import annotations

from benchmarks.detection.fault import line
from benchmarks.divergence.change import Truth, change
from harness.baselines.trajectory import Phase

OPTIMIZER, CLIPPING, SCHEDULE = (Phase.OPTIMIZER,), (Phase.CLIPPING,), (Phase.SCHEDULE,)
LM_ADAMW = "torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))"
AE_ADAM = "torch.optim.Adam(model.parameters(), lr=lr)"
IC_SGD = "torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=weight_decay)"
LI_ADAMW = "torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=0.01)"
GAN_G = "torch.optim.Adam(generator.parameters(), lr=lr, betas=(0.5, 0.99))"
GAN_D = "torch.optim.Adam(discriminator.parameters(), lr=lr, betas=(0.5, 0.99))"
LM_CLIP = "nn.utils.clip_grad_norm_(model.parameters(), args.clip)"
LM_GROUPS = '[{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]'

OPTIMIZER_CHANGES = (
    change(
        "weight-decay-gone",
        "Weight decay is off.",
        OPTIMIZER,
        {
            "language_model": line(
                '"--weight-decay", type=float, default=0.1', '"--weight-decay", type=float, default=0.0'
            ),
            "image_classifier": line("default=5e-4", "default=0.0"),
            "hf_trainer": line("weight_decay=0.01", "weight_decay=0.0"),
            "lightning_trainer": line("weight_decay=0.01", "weight_decay=0.0"),
        },
    ),
    change(
        "weight-decay-doubled",
        "Weight decay is twice as strong.",
        OPTIMIZER,
        {
            "language_model": line(
                '"--weight-decay", type=float, default=0.1', '"--weight-decay", type=float, default=0.2'
            ),
            "image_classifier": line("default=5e-4", "default=1e-3"),
            "hf_trainer": line("weight_decay=0.01", "weight_decay=0.02"),
            "lightning_trainer": line("weight_decay=0.01", "weight_decay=0.02"),
        },
    ),
    change(
        "betas-or-momentum",
        "Adam's betas, or the momentum, are others.",
        OPTIMIZER,
        {
            "language_model": line("betas=(0.9, 0.98)", "betas=(0.9, 0.999)"),
            "image_classifier": line("momentum=0.9", "momentum=0.8"),
            "autoencoder": line(AE_ADAM, "torch.optim.Adam(model.parameters(), lr=lr, betas=(0.8, 0.999))"),
            "gan": line(GAN_G, GAN_G.replace("0.5", "0.9")),
            "hf_trainer": line("weight_decay=0.01", "weight_decay=0.01,\n        adam_beta2=0.98"),
            "lightning_trainer": line("weight_decay=0.01)", "weight_decay=0.01, betas=(0.9, 0.99))"),
        },
    ),
    change(
        "epsilon",
        "Adam's epsilon is a hundred times larger.",
        OPTIMIZER,
        {
            "language_model": line("betas=(0.9, 0.98))", "betas=(0.9, 0.98), eps=1e-6)"),
            "autoencoder": line(AE_ADAM, "torch.optim.Adam(model.parameters(), lr=lr, eps=1e-6)"),
            "hf_trainer": line("weight_decay=0.01", "weight_decay=0.01,\n        adam_epsilon=1e-6"),
            "lightning_trainer": line("weight_decay=0.01)", "weight_decay=0.01, eps=1e-6)"),
        },
    ),
    change(
        "variant-of-the-optimizer",
        "A variant of the optimizer is switched on: AMSGrad, or Nesterov's momentum.",
        OPTIMIZER,
        {
            "language_model": line("betas=(0.9, 0.98))", "betas=(0.9, 0.98), amsgrad=True)"),
            "image_classifier": line("momentum=0.9", "momentum=0.9, nesterov=True"),
            "autoencoder": line(AE_ADAM, "torch.optim.Adam(model.parameters(), lr=lr, amsgrad=True)"),
            "lightning_trainer": line("weight_decay=0.01)", "weight_decay=0.01, amsgrad=True)"),
        },
    ),
    change(
        "adam-and-adamw-swapped",
        "AdamW where Adam was, or the other way round.",
        OPTIMIZER,
        {
            "language_model": line("torch.optim.AdamW(groups", "torch.optim.Adam(groups"),
            "autoencoder": line("torch.optim.Adam(", "torch.optim.AdamW("),
            "gan": line(GAN_G, GAN_G.replace("Adam", "AdamW")),
            "lightning_trainer": line("torch.optim.AdamW(", "torch.optim.Adam("),
        },
    ),
    change(
        "another-optimizer",
        "The optimizer is of another class.",
        OPTIMIZER,
        {
            "language_model": line(LM_ADAMW, "torch.optim.NAdam(groups, lr=lr, betas=(0.9, 0.98))"),
            "image_classifier": line(IC_SGD, IC_SGD.replace("SGD", "RMSprop")),
            "autoencoder": line(AE_ADAM, AE_ADAM.replace("Adam", "NAdam")),
            "gan": line(GAN_D, "torch.optim.RMSprop(discriminator.parameters(), lr=lr)"),
            "hf_trainer": line("weight_decay=0.01", 'weight_decay=0.01,\n        optim="adagrad"'),
        },
    ),
    change(
        "another-implementation",
        "The optimizer's fused implementation computes the last digits differently.",
        OPTIMIZER,
        {
            "language_model": line("betas=(0.9, 0.98))", "betas=(0.9, 0.98), fused=True)"),
            "autoencoder": line(AE_ADAM, "torch.optim.Adam(model.parameters(), lr=lr, fused=True)"),
            "lightning_trainer": line("weight_decay=0.01)", "weight_decay=0.01, fused=True)"),
            "image_classifier": line("momentum=0.9", "momentum=0.9, fused=True"),
        },
    ),
    change(
        "parameters-in-another-order",
        "The optimizer holds the same parameters in another order.",
        OPTIMIZER,
        {
            "language_model": line(LM_GROUPS, f"{LM_GROUPS}[::-1]"),
            "image_classifier": line(
                "torch.optim.SGD(model.parameters(),", "torch.optim.SGD(list(model.parameters())[::-1],"
            ),
            "autoencoder": line(
                "torch.optim.Adam(model.parameters(),", "torch.optim.Adam(list(model.parameters())[::-1],"
            ),
        },
        reason="No number changes, but a state that is loaded would go to other parameters.",
    ),
)

CLIPPING_CHANGES = (
    change(
        "clipping-gone",
        "Gradients are not clipped any more.",
        CLIPPING,
        {
            "language_model": line(LM_CLIP, "0.0"),
            "autoencoder": line(LM_CLIP, "torch.zeros(())"),
            "hf_trainer": line("max_grad_norm=1.0", "max_grad_norm=0.0"),
            "lightning_trainer": line("        gradient_clip_val=1.0,\n", ""),
        },
    ),
    change(
        "another-clipping-bound",
        "Gradients are clipped at half the norm.",
        CLIPPING,
        {
            "language_model": line('"--clip", type=float, default=1.0', '"--clip", type=float, default=0.5'),
            "autoencoder": line('"--clip", type=float, default=0.1', '"--clip", type=float, default=0.05'),
            "hf_trainer": line("max_grad_norm=1.0", "max_grad_norm=0.5"),
            "lightning_trainer": line("gradient_clip_val=1.0", "gradient_clip_val=0.5"),
        },
    ),
    change(
        "clipped-by-value",
        "Gradients are clipped number by number, not by their norm.",
        CLIPPING,
        {
            "language_model": line(LM_CLIP, "nn.utils.clip_grad_value_(model.parameters(), 0.05) or 0.0"),
            "autoencoder": line(
                LM_CLIP, "nn.utils.clip_grad_value_(model.parameters(), 0.01) or torch.zeros(())"
            ),
            "lightning_trainer": line(
                "gradient_clip_val=1.0", 'gradient_clip_val=0.05,\n        gradient_clip_algorithm="value"'
            ),
        },
    ),
    change(
        "clipping-added",
        "Gradients are clipped where they were not.",
        CLIPPING,
        {
            "image_classifier": line(
                "            loss.backward()\n",
                "            loss.backward()\n            nn.utils.clip_grad_norm_(model.parameters(), 0.5)\n",
            ),
            "gan": line(
                "            g_loss.backward()\n",
                "            g_loss.backward()\n            nn.utils.clip_grad_norm_(generator.parameters(), 0.05)\n",
            ),
        },
    ),
)

SCHEDULE_CHANGES = (
    change(
        "learning-rate-x3",
        "The learning rate is three times as high.",
        SCHEDULE,
        {
            "language_model": line("default=3e-3", "default=9e-3"),
            "image_classifier": line("default=0.03", "default=0.09"),
            "autoencoder": line("default=3e-3", "default=9e-3"),
            "gan": line("default=2e-3", "default=6e-3"),
            "hf_trainer": line("default=5e-3", "default=1.5e-2"),
            "lightning_trainer": line("default=1e-2", "default=3e-2"),
        },
    ),
    change(
        "warm-up-shorter",
        "The warm-up is shorter.",
        SCHEDULE,
        {
            "language_model": line('"--warmup", type=int, default=8', '"--warmup", type=int, default=6'),
            "autoencoder": line("total_iters=5", "total_iters=4"),
            "hf_trainer": line("warmup_steps=5", "warmup_steps=4"),
            "lightning_trainer": line(
                "total_steps=self.hparams.steps", "total_steps=self.hparams.steps, pct_start=0.2"
            ),
        },
    ),
    change(
        "schedule-off-by-one",
        "The schedule is one step, or one epoch, ahead or behind from some step on.",
        SCHEDULE,
        {
            "language_model": line("progress = (step - warmup) /", "progress = (step - warmup + 1) /"),
            "image_classifier": line("T_max=epochs", "T_max=epochs - 1"),
            "autoencoder": line(
                "                warmup.step()\n",
                "                if step > 1:\n                    warmup.step()\n",
            ),
        },
    ),
    change(
        "schedule-longer",
        "The schedule is set up for twice the length.",
        SCHEDULE,
        {
            "language_model": line(
                "build_schedule(optimizer, args.warmup, args.steps)",
                "build_schedule(optimizer, args.warmup, 2 * args.steps)",
            ),
            "image_classifier": line("T_max=epochs", "T_max=2 * epochs"),
            "lightning_trainer": line("total_steps=self.hparams.steps", "total_steps=2 * self.hparams.steps"),
        },
    ),
    change(
        "another-schedule",
        "The learning rate falls along another curve.",
        SCHEDULE,
        {
            "language_model": line("0.1 + 0.45 *", "0.05 + 0.475 *"),
            "image_classifier": line(
                "torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)",
                "torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)",
            ),
            "hf_trainer": line('lr_scheduler_type="cosine"', 'lr_scheduler_type="linear"'),
            "lightning_trainer": line(
                "total_steps=self.hparams.steps",
                'total_steps=self.hparams.steps, anneal_strategy="linear"',
            ),
        },
    ),
    change(
        "one-groups-rate",
        "One group, or one optimizer, has twice the learning rate.",
        SCHEDULE,
        {
            "language_model": line('"weight_decay": 0.0}', '"weight_decay": 0.0, "lr": 2 * lr}'),
            "gan": line(GAN_D, GAN_D.replace("lr=lr", "lr=2 * lr")),
            "image_classifier": line(
                "torch.optim.SGD(model.parameters(),",
                'torch.optim.SGD([{"params": model.features.parameters()}, '
                '{"params": model.head.parameters(), "lr": 2 * lr}],',
            ),
        },
        exceptions={
            "image_classifier": Truth(
                (Phase.OPTIMIZER, Phase.SCHEDULE), "It splits the optimizer's one group in two as well."
            )
        },
    ),
    change(
        "schedule-moves-once-an-epoch",
        "The schedule advances once an epoch where it advanced every step.",
        SCHEDULE,
        {
            "language_model": line(
                "            schedule.step()\n",
                "            if step % 16 == 0:\n                schedule.step()\n",
            ),
            "autoencoder": line(
                "                warmup.step()\n",
                "                if step % 20 == 0:\n                    warmup.step()\n",
            ),
        },
    ),
)

UPDATE_CHANGES = (*OPTIMIZER_CHANGES, *CLIPPING_CHANGES, *SCHEDULE_CHANGES)
