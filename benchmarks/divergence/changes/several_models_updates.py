"""Changes of clipping, optimizers and schedules in programs of several models or optimizers."""

from __future__ import annotations

from benchmarks.detection.fault import line
from benchmarks.divergence.change import Truth, change
from harness.baselines.trajectory import Phase

OPTIMIZER, CLIPPING, SCHEDULE = (Phase.OPTIMIZER,), (Phase.CLIPPING,), (Phase.SCHEDULE,)
CLIP_VALUE = "nn.utils.clip_grad_value_(model.parameters(), args.clip)"
GRADUAL_GROUP = '{"params": model.backbone.parameters(), "lr": 1e-3}'
RESUMED_OPTIMIZER = '        self.optimizer.load_state_dict(state["optimizer"])\n'
WGAN_G = "torch.optim.Adam(generator.parameters(), lr=1e-3, betas=(0.0, 0.9))"
WGAN_C = "torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.0, 0.9))"
DCGAN_G = "torch.optim.Adam(net_g.parameters(), lr=1e-3, betas=(0.5, 0.999))"
TWO_OTHERS = "torch.optim.AdamW(others, lr=3e-3, weight_decay=0.0)"
TWO_BACKWARD = "            loss.backward()\n            rates"
DISTILLED = (
    "        loss = criterion(student(points), teacher(points), labels)\n        optimizer.zero_grad()\n"
)

SEVERAL_CLIPPING_CHANGES = (
    change(
        "another-bound-of-one-clipping",
        "Gradients are clipped at another norm, or at another value.",
        CLIPPING,
        {
            "clean/clip_by_value": line(
                '"--clip", type=float, default=0.05', '"--clip", type=float, default=0.1'
            ),
            "clean/ppo": line(
                "clip_grad_norm_(model.parameters(), 0.5)", "clip_grad_norm_(model.parameters(), 0.25)"
            ),
            "clean/kl_reference": line(
                "clip_grad_norm_(policy.parameters(), 1.0)", "clip_grad_norm_(policy.parameters(), 0.3)"
            ),
            "clean/dqn": line(
                "clip_grad_value_(online.parameters(), 1.0)", "clip_grad_value_(online.parameters(), 0.02)"
            ),
        },
    ),
    change(
        "clipping-left-out",
        "Gradients are not clipped any more.",
        CLIPPING,
        {
            "clean/clip_by_value": line(f"        {CLIP_VALUE}\n", ""),
            "clean/ppo": line("                nn.utils.clip_grad_norm_(model.parameters(), 0.5)\n", ""),
            "clean/kl_reference": line(
                "            nn.utils.clip_grad_norm_(policy.parameters(), 1.0)\n", ""
            ),
        },
    ),
    change(
        "clipped-by-norm",
        "Gradients are clipped by their norm, not number by number.",
        CLIPPING,
        {"clean/clip_by_value": line(CLIP_VALUE, CLIP_VALUE.replace("_value_", "_norm_"))},
    ),
    change(
        "only-a-part-clipped",
        "Only the gradients of one part of the model are clipped.",
        CLIPPING,
        {
            "clean/clip_by_value": line(CLIP_VALUE, CLIP_VALUE.replace("model.", "model.out.")),
            "clean/ppo": line(
                "clip_grad_norm_(model.parameters()", "clip_grad_norm_(model.actor.parameters()"
            ),
        },
    ),
    change(
        "one-of-two-clipped",
        "The gradients of one of two models, or of one optimizer's parameters, are clipped.",
        CLIPPING,
        {
            "clean/wgan_gp": line(
                "            loss_c.backward()\n",
                "            loss_c.backward()\n            nn.utils.clip_grad_norm_(critic.parameters(), 1.0)\n",
            ),
            "clean/dcgan": line(
                "        loss_fake.backward()\n",
                "        loss_fake.backward()\n        nn.utils.clip_grad_norm_(net_d.parameters(), 0.1)\n",
            ),
            "clean/two_optimizers": line(
                TWO_BACKWARD,
                TWO_BACKWARD.replace("()\n", "()\n            nn.utils.clip_grad_norm_(others, 0.05)\n"),
            ),
            "clean/distillation": line(
                f"{DISTILLED}        loss.backward()\n",
                f"{DISTILLED}        loss.backward()\n"
                "        nn.utils.clip_grad_norm_(student.parameters(), 0.5)\n",
            ),
        },
    ),
    change(
        "the-other-of-two-clipped",
        "The gradients of the model that is trained second are clipped.",
        CLIPPING,
        {
            "clean/wgan_gp": line(
                "        loss_g.backward()\n",
                "        loss_g.backward()\n        nn.utils.clip_grad_norm_(generator.parameters(), 0.01)\n",
            ),
        },
    ),
)

SEVERAL_OPTIMIZER_CHANGES = (
    change(
        "copy-follows-at-another-rate",
        "The copy that takes part in training is an average over another time.",
        OPTIMIZER,
        {
            "clean/mean_teacher": line(
                '"--decay", type=float, default=0.95', '"--decay", type=float, default=0.9'
            ),
            "clean/byol": line(
                '"--momentum", type=float, default=0.97', '"--momentum", type=float, default=0.9'
            ),
            "clean/moco": line(
                '"--momentum", type=float, default=0.9', '"--momentum", type=float, default=0.99'
            ),
        },
        reason="It is a rule of what is done to parameters after every update.",
    ),
    change(
        "copy-follows-at-other-times",
        "The copy that takes part in training follows more often, or more seldom.",
        OPTIMIZER,
        {
            "clean/dqn": line('"--copy-every", type=int, default=10', '"--copy-every", type=int, default=5'),
            "clean/mean_teacher": line(
                "            update_teacher(teacher, student, args.decay)\n",
                "            if step % 2 == 0:\n                update_teacher(teacher, student, args.decay)\n",
            ),
        },
        reason="It is a rule of what is done to parameters after every update.",
    ),
    change(
        "betas-of-one-optimizer",
        "One of two optimizers has other betas.",
        OPTIMIZER,
        {
            "clean/wgan_gp": line(WGAN_G, WGAN_G.replace("0.0, 0.9", "0.5, 0.9")),
            "clean/two_optimizers": line(TWO_OTHERS, TWO_OTHERS.replace("0.0)", "0.0, betas=(0.8, 0.99))")),
        },
    ),
    change(
        "weight-decay-of-one-group",
        "One of two optimizers, or the group that is added later, has more weight decay.",
        OPTIMIZER,
        {
            "clean/two_optimizers": line(TWO_OTHERS, TWO_OTHERS.replace("0.0)", "0.1)")),
            "clean/gradual_unfreezing": line(
                GRADUAL_GROUP, GRADUAL_GROUP.replace("1e-3", '1e-3, "weight_decay": 0.1')
            ),
        },
    ),
    change(
        "steps-every-other-time",
        "One of two optimizers steps only every other time.",
        OPTIMIZER,
        {
            "clean/two_optimizers": line(
                "                optimizer.step()\n",
                "                if optimizer is optimizers[0] or step % 2 == 0:\n"
                "                    optimizer.step()\n",
            ),
            "clean/dcgan": line(
                "        optimizer_g.step()\n",
                "        if step % 2 == 0:\n            optimizer_g.step()\n",
            ),
        },
    ),
    change(
        "optimizer-holds-others",
        "The optimizer holds more, or less, than it should.",
        OPTIMIZER,
        {
            "clean/byol": line("byol.online.parameters(), *byol.predictor.", "byol.online."),
            "clean/moco": line("model.query.parameters(), lr", "model.parameters(), lr"),
            "clean/head_only": line("model.head.parameters(), lr", "model.parameters(), lr"),
        },
        exceptions={
            program: Truth(OPTIMIZER, "No number changes, as nothing else has a gradient.")
            for program in ("clean/moco", "clean/head_only")
        },
    ),
    change(
        "optimizer-not-loaded",
        "The second half of the training begins with a new optimizer.",
        (Phase.OPTIMIZER, Phase.SCHEDULE),
        {"clean/resume": line(RESUMED_OPTIMIZER, "")},
        reason="State and learning rate are lost in the same step.",
    ),
    change(
        "moments-lost",
        "The second half of the training begins without the optimizer's averages.",
        OPTIMIZER,
        {
            "clean/resume": line(
                RESUMED_OPTIMIZER, f"{RESUMED_OPTIMIZER}        self.optimizer.state.clear()\n"
            )
        },
    ),
    change(
        "one-models-weights-clamped",
        "The critic's weights are clamped after every one of its updates.",
        OPTIMIZER,
        {
            "clean/wgan_gp": line(
                "            optimizer_c.step()\n",
                "            optimizer_c.step()\n"
                "            for weights in critic.parameters():\n"
                "                weights.data.clamp_(-0.1, 0.1)\n",
            ),
        },
    ),
)

SEVERAL_SCHEDULE_CHANGES = (
    change(
        "rate-of-one-optimizer",
        "One of several optimizers, or the group that is added later, has another learning rate.",
        SCHEDULE,
        {
            "clean/wgan_gp": line(WGAN_C, WGAN_C.replace("lr=1e-3", "lr=2e-3")),
            "clean/dcgan": line(DCGAN_G, DCGAN_G.replace("lr=1e-3", "lr=5e-4")),
            "clean/two_optimizers": line(TWO_OTHERS, TWO_OTHERS.replace("3e-3", "6e-3")),
            "clean/distillation": line("student.parameters(), lr=0.1", "student.parameters(), lr=0.05"),
            "clean/gradual_unfreezing": line(GRADUAL_GROUP, GRADUAL_GROUP.replace("1e-3", "2e-3")),
        },
    ),
    change(
        "rate-lower-from-a-later-step",
        "The learning rate is lowered at some step.",
        SCHEDULE,
        {
            "clean/mean_teacher": line(
                "            optimizer.zero_grad()\n",
                "            if step == 30:\n"
                '                optimizer.param_groups[0]["lr"] = 2e-3\n'
                "            optimizer.zero_grad()\n",
            ),
        },
    ),
    change(
        "both-schedules-on-one-optimizer",
        "Both schedules move the first optimizer, and none the second.",
        SCHEDULE,
        {"clean/two_optimizers": line("LambdaLR(opt, lambda", "LambdaLR(optimizers[0], lambda")},
    ),
    change(
        "another-rate-while-averaging",
        "While weights are averaged the learning rate is lower.",
        SCHEDULE,
        {"clean/swa": line("swa_lr=0.03", "swa_lr=0.02")},
    ),
    change(
        "averaging-rate-reached-sooner",
        "The learning rate of the averaging is reached in one epoch, not in two.",
        SCHEDULE,
        {"clean/swa": line("anneal_epochs=2", "anneal_epochs=1")},
    ),
    change(
        "schedule-not-loaded",
        "The second half of the training begins with a new schedule.",
        SCHEDULE,
        {"clean/resume": line('        self.scheduler.load_state_dict(state["scheduler"])\n', "")},
    ),
)

SEVERAL_UPDATE_CHANGES = (
    *SEVERAL_CLIPPING_CHANGES,
    *SEVERAL_OPTIMIZER_CHANGES,
    *SEVERAL_SCHEDULE_CHANGES,
)
