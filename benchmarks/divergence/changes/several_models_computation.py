"""Changes of forward pass, loss and gradients in programs of several models or optimizers."""

from __future__ import annotations

from benchmarks.detection.fault import line
from benchmarks.divergence.change import Truth, change
from harness.baselines.trajectory import Phase

FORWARD, LOSS, GRADIENTS = (Phase.FORWARD,), (Phase.LOSS,), (Phase.GRADIENTS,)
STUDENT = "    student = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))\n"
NO_GRAD = "with torch.no_grad():\n"
NO_GRAD_HALF = 'with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):\n'
PPO_VALUE = "0.5 * (value - reward[picked])"
DCGAN_G = "        loss_g = criterion(net_d(fake), ones)\n"

SEVERAL_FORWARD_CHANGES = (
    change(
        "reference-in-another-mode",
        "Teacher or target is in eval mode and was not, or the reference is no longer.",
        FORWARD,
        {
            "clean/mean_teacher": line("copy.deepcopy(student)", "copy.deepcopy(student).eval()"),
            "clean/byol": line(".requires_grad_(False)\n", ".requires_grad_(False).eval()\n"),
            "clean/dpo": line("copy.deepcopy(policy).eval()", "copy.deepcopy(policy)"),
        },
        exceptions={
            "clean/mean_teacher": Truth(
                FORWARD, "The teacher takes part in the step; draws that are not made are a consequence."
            ),
            "clean/dpo": Truth(
                FORWARD, "It has no layer that minds, so that no number changes; its mode tells of it."
            ),
        },
    ),
    change(
        "discriminator-judges-in-eval-mode",
        "In the generator's step the discriminator is in eval mode.",
        FORWARD,
        {
            "clean/dcgan": line(
                DCGAN_G, f"{DCGAN_G.replace('net_d(', 'net_d.eval()(')}        net_d.train()\n"
            )
        },
    ),
    change(
        "frozen-part-computes-otherwise",
        "The part that is not trained has another activation function.",
        FORWARD,
        {
            "clean/frozen_backbone": line(
                "nn.Conv2d(1, 16, 5),\n            nn.ReLU(),", "nn.Conv2d(1, 16, 5),\n            nn.GELU(),"
            ),
            "clean/head_only": line("nn.Linear(20, 64), nn.GELU(),", "nn.Linear(20, 64), nn.ReLU(),"),
            "clean/distillation": line(
                "nn.ReLU(), nn.Linear(128, 5))\n    teacher.load",
                "nn.GELU(), nn.Linear(128, 5))\n    teacher.load",
            ),
        },
    ),
    change(
        "dropout-of-one-model",
        "One of two models drops more, or has a dropout that it did not have.",
        FORWARD,
        {
            "clean/mean_teacher": line(
                "    optimizer = torch.optim", "    student[2].p = 0.3\n    optimizer = torch.optim"
            ),
            "clean/wgan_gp": line(
                "nn.Linear(8, 64), nn.ReLU(),", "nn.Linear(8, 64), nn.ReLU(), nn.Dropout(0.1),"
            ),
        },
        exceptions={
            "clean/wgan_gp": Truth(
                FORWARD, "Draws that are added move the generator, which is a consequence."
            ),
        },
    ),
    change(
        "reference-in-half-precision",
        "The reference runs in bfloat16.",
        FORWARD,
        {
            "clean/dpo": line(NO_GRAD, NO_GRAD_HALF),
            "clean/kl_reference": line(NO_GRAD, NO_GRAD_HALF),
        },
    ),
    change(
        "slope-of-one-model",
        "An activation of the discriminator has another slope.",
        FORWARD,
        {
            "clean/dcgan": line(
                "nn.BatchNorm2d(32),\n        nn.LeakyReLU(0.2",
                "nn.BatchNorm2d(32),\n        nn.LeakyReLU(0.1",
            )
        },
    ),
    change(
        "temperature-of-the-logits",
        "The model divides its logits by a higher temperature.",
        FORWARD,
        {"clean/moco": line("wrong], 1) / 0.2", "wrong], 1) / 0.25")},
        reason="The model itself does it, before its output.",
    ),
)

SEVERAL_LOSS_CHANGES = (
    change(
        "terms-weighted-otherwise",
        "One of several terms weighs more, or less.",
        LOSS,
        {
            "clean/distillation": line("share=0.7", "share=0.5"),
            "clean/ppo": line(PPO_VALUE, PPO_VALUE.replace("0.5", "0.25")),
            "clean/wgan_gp": line("10 * gradient_penalty(", "5 * gradient_penalty("),
            "clean/kl_reference": line('"--kl", type=float, default=0.05', '"--kl", type=float, default=0.2'),
            "clean/mean_teacher": line("min(1.0, step / 20)", "min(1.0, step / 40)"),
        },
    ),
    change(
        "temperature-of-the-loss",
        "The loss compares at another temperature.",
        LOSS,
        {
            "clean/distillation": line(
                '"--temperature", type=float, default=2.0', '"--temperature", type=float, default=3.0'
            ),
            "clean/dpo": line('"--beta", type=float, default=0.3', '"--beta", type=float, default=0.2'),
        },
    ),
    change(
        "ratio-clipped-sooner",
        "The loss clips the ratio of probabilities at half the distance.",
        LOSS,
        {"clean/ppo": line('"--clip", type=float, default=0.2', '"--clip", type=float, default=0.1')},
        reason="No gradient is clipped otherwise: it is the ratio in the loss.",
    ),
    change(
        "targets-made-otherwise",
        "What one model should say is computed with another factor.",
        LOSS,
        {
            "clean/dqn": line("rewards + 0.95 *", "rewards + 0.9 *"),
            "clean/dcgan": line(
                "net_d(real_images(args.batch_size)), ones", "net_d(real_images(args.batch_size)), 0.9 * ones"
            ),
        },
    ),
    change(
        "targets-of-the-second-model",
        "What the generator is trained for is a softer label.",
        LOSS,
        {"clean/dcgan": line(DCGAN_G, DCGAN_G.replace("ones", "0.9 * ones"))},
    ),
    change(
        "action-chosen-by-the-online-net",
        "The online net chooses the action that the target net values (double DQN).",
        LOSS,
        {"clean/dqn": line("choices=(0, 1), default=0", "choices=(0, 1), default=1")},
        reason="The targets of the loss are made otherwise; the call of another net is the means.",
    ),
)

SEVERAL_GRADIENT_CHANGES = (
    change(
        "gradient-stopped",
        "A detach keeps one of several paths from being learned through.",
        GRADIENTS,
        {
            "clean/ppo": line("self.critic(features)", "self.critic(features.detach())"),
            "clean/byol": line("self.online(one)), seen_two", "self.online(one).detach()), seen_two"),
            "clean/kl_reference": line(
                "(log_probs.exp() * (log_probs - base))", "(log_probs.exp().detach() * (log_probs - base))"
            ),
        },
    ),
    change(
        "one-models-gradients-kept",
        "The gradients of one model, or of one optimizer's parameters, are never cleared.",
        GRADIENTS,
        {
            "clean/wgan_gp": line("            optimizer_c.zero_grad()\n", ""),
            "clean/dcgan": line("        net_g.zero_grad()\n", ""),
            "clean/two_optimizers": line("model.zero_grad()", "optimizers[0].zero_grad()"),
            "clean/gradual_unfreezing": line("optimizer.zero_grad()", "model.head.zero_grad()"),
        },
    ),
    change(
        "cleared-between-two-losses",
        "The discriminator's gradients of real images are cleared before those of fakes come.",
        GRADIENTS,
        {
            "clean/dcgan": line(
                "        loss_fake.backward()\n", "        net_d.zero_grad()\n        loss_fake.backward()\n"
            )
        },
    ),
    change(
        "part-of-one-model-frozen",
        "A layer is frozen that should learn, or one learns that should be frozen.",
        GRADIENTS,
        {
            "clean/wgan_gp": line(
                "    optimizer_g = torch", "    critic[0].requires_grad_(False)\n    optimizer_g = torch"
            ),
            "clean/gradual_unfreezing": line(
                "model.backbone.requires_grad_(True)", "model.backbone[2].requires_grad_(True)"
            ),
            "clean/dpo": line(
                "    policy = Policy()\n",
                "    policy = Policy()\n    policy.embed.requires_grad_(False)\n",
            ),
            "clean/frozen_backbone": line("in model[0].parameters():", "in model[0][:2].parameters():"),
        },
        exceptions={
            "clean/frozen_backbone": Truth(
                (Phase.GRADIENTS, Phase.OPTIMIZER), "Its optimizer holds what needs a gradient."
            )
        },
    ),
    change(
        "students-gradient-doubled",
        "A hook doubles the gradient of one layer of the second model.",
        GRADIENTS,
        {
            "clean/distillation": line(
                STUDENT, f"{STUDENT}    student[2].weight.register_hook(lambda grad: 2 * grad)\n"
            ),
        },
    ),
)

SEVERAL_COMPUTATION_CHANGES = (
    *SEVERAL_FORWARD_CHANGES,
    *SEVERAL_LOSS_CHANGES,
    *SEVERAL_GRADIENT_CHANGES,
)
