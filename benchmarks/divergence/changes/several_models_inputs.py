"""Changes of data, random numbers and first values, in programs of several models or optimizers."""

from __future__ import annotations

from benchmarks.detection.fault import line
from benchmarks.divergence.change import Truth, change
from harness.baselines.trajectory import Phase

DATA, RNG, INITIALISATION = (Phase.DATA,), (Phase.RNG,), (Phase.INITIALISATION,)
STUDENT = "    student = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))\n"
GENERATOR, CRITIC = "    generator = nn.Sequential(", "    critic = nn.Sequential(\n"
PREDICTOR = "        self.predictor = mlp(16, 64, 16)\n"
MOCO_VIEWS = "picked + 0.3 * torch.randn(32, 24), picked + 0.3 * torch.randn(32, 24)"
TEACHER_LOADED = "    teacher.load_state_dict(torch.load(teacher_path, weights_only=True))\n"
MT_TEACHER = (
    "            with torch.no_grad():\n                wanted = teacher(jitter(unlabelled)).softmax(-1)\n"
)
MT_STUDENT = "            got = student(jitter(unlabelled)).softmax(-1)\n"
UNFROZEN = "            model.backbone.requires_grad_(True)\n"
CONSEQUENCE = "Draws that are added or left out move the generator, which is a consequence."

SEVERAL_DATA_CHANGES = (
    change(
        "fewer-samples-for-one-model",
        "Batches are a quarter smaller; of two models that are trained one after the other, the second's.",
        DATA,
        {
            "clean/distillation": line("make_batch(centers, 32)", "make_batch(centers, 24)"),
            "clean/dqn": line("generator.sample(memory, 32)", "generator.sample(memory, 24)"),
            "clean/wgan_gp": line(
                '"--batch-size", type=int, default=64', '"--batch-size", type=int, default=48'
            ),
        },
    ),
    change(
        "another-view-for-one-model",
        "One of two views is augmented more, or less.",
        DATA,
        {
            "clean/mean_teacher": line(
                "teacher(jitter(unlabelled))", "teacher(unlabelled + 0.1 * torch.randn_like(unlabelled))"
            ),
            "clean/byol": line(
                "[points + 0.4 * torch.randn_like(points) for _ in range(2)]",
                "[points + size * torch.randn_like(points) for size in (0.4, 0.5)]",
            ),
            "clean/moco": line(MOCO_VIEWS, MOCO_VIEWS.replace("4), picked + 0.3", "4), picked + 0.5")),
        },
    ),
    change(
        "inputs-of-another-size",
        "Inputs, or the noise that becomes images, are a fifth smaller.",
        DATA,
        {
            "clean/dcgan": line(
                "net_g(torch.randn(args.batch_size, 16, 1, 1))",
                "net_g(0.8 * torch.randn(args.batch_size, 16, 1, 1))",
            ),
            "clean/two_optimizers": line(
                "model(centers[labels] + torch.randn(48, 16))",
                "model(0.8 * (centers[labels] + torch.randn(48, 16)))",
            ),
        },
    ),
    change(
        "other-data-from-a-later-step",
        "From some step on there is less to choose from: old memories, or a class, are gone.",
        DATA,
        {
            "clean/dqn": line("deque(maxlen=2000)", "deque(maxlen=110)"),
            "clean/gradual_unfreezing": line(
                "labels = torch.randint(8, (48,))", "labels = torch.randint(8 if step < 20 else 7, (48,))"
            ),
        },
    ),
    change(
        "taken-in-order",
        "Samples are taken in the order in which they are stored.",
        DATA,
        {
            "clean/head_only": line(
                "torch.randperm(len(inputs)).split(48)", "torch.arange(len(inputs)).split(48)"
            ),
        },
        reason=CONSEQUENCE,
    ),
    change(
        "sampled-hotter",
        "Sequences to learn from are sampled from the policy at a higher temperature.",
        DATA,
        {"clean/kl_reference": line("policy(tokens)[:, -1].exp()", "policy(tokens)[:, -1].mul(0.8).exp()")},
    ),
    change(
        "fewer-passes-over-a-roll-out",
        "A roll-out is used twice, not three times.",
        DATA,
        {"clean/ppo": line('"--passes", type=int, default=3', '"--passes", type=int, default=2')},
        reason="Later steps see other data than before.",
    ),
)

SEVERAL_RNG_CHANGES = (
    change(
        "draw-before-the-first-model",
        "One random number is drawn before the first of several models is built.",
        RNG,
        {
            "clean/mean_teacher": line(
                "    student = build_student()\n", "    torch.rand(1)\n    student = build_student()\n"
            ),
            "clean/wgan_gp": line(GENERATOR, f"    torch.rand(1)\n{GENERATOR}"),
            "clean/dqn": line("    online = nn.", "    torch.rand(1)\n    online = nn."),
        },
    ),
    change(
        "draw-before-the-second-model",
        "One random number is drawn before the second of several models is built.",
        RNG,
        {
            "clean/distillation": line(STUDENT, f"    torch.rand(1)\n{STUDENT}"),
            "clean/wgan_gp": line(CRITIC, f"    torch.rand(1)\n{CRITIC}"),
            "clean/dcgan": line("    net_d = nn.", "    torch.rand(1)\n    net_d = nn."),
            "clean/byol": line(PREDICTOR, f"        torch.rand(1)\n{PREDICTOR}"),
            "clean/resume": line("    second = Training(", "    torch.rand(1)\n    second = Training("),
        },
        exceptions={
            "clean/resume": Truth((), "Weights and generator of the second are loaded from the first's file.")
        },
    ),
    change(
        "seeded-before-the-second-model",
        "The generator is seeded again between two models.",
        RNG,
        {
            "clean/distillation": line(STUDENT, f"    torch.manual_seed(args.seed)\n{STUDENT}"),
            "clean/wgan_gp": line(CRITIC, f"    torch.manual_seed(args.seed)\n{CRITIC}"),
        },
    ),
    change(
        "draw-from-a-later-step",
        "One random number is drawn in the loop, from some step on.",
        RNG,
        {
            "clean/mean_teacher": line(
                MT_TEACHER, f"            if step >= 20:\n                torch.rand(1)\n{MT_TEACHER}"
            ),
            "clean/wgan_gp": line(
                "        loss_g = -critic(",
                "        if step >= 5:\n            torch.rand(1)\n        loss_g = -critic(",
            ),
            "clean/gradual_unfreezing": line(UNFROZEN, f"{UNFROZEN}            torch.rand(1)\n"),
        },
    ),
    change(
        "draws-change-places",
        "The student sees its view before the teacher, and so draws before it.",
        RNG,
        {"clean/mean_teacher": line(f"{MT_TEACHER}{MT_STUDENT}", f"{MT_STUDENT}{MT_TEACHER}")},
    ),
    change(
        "generator-not-loaded",
        "The second half of the training does not go on with the first's random numbers.",
        RNG,
        {"clean/resume": line('        torch.set_rng_state(state["rng"])\n', "")},
    ),
    change(
        "explores-with-another-seed",
        "The generator that explores and chooses memories is seeded with another number.",
        (Phase.RNG, Phase.DATA),
        {"clean/dqn": line("random.Random(args.seed)", "random.Random(args.seed + 1)")},
        reason="A seed; but of a generator that makes nothing but the data.",
    ),
)

SEVERAL_INITIALISATION_CHANGES = (
    change(
        "reference-is-no-copy",
        "Teacher, target or reference starts with weights of its own, not with a copy.",
        INITIALISATION,
        {
            "clean/mean_teacher": line("teacher = copy.deepcopy(student)", "teacher = build_student()"),
            "clean/byol": line(
                "copy.deepcopy(self.online)", "nn.Sequential(mlp(30, 64, 32), mlp(32, 64, 16))"
            ),
            "clean/kl_reference": line("copy.deepcopy(policy)", "Generator(vocab, 32)"),
            "clean/dqn": line(
                "copy.deepcopy(online)", "nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 2))"
            ),
        },
        reason=CONSEQUENCE,
    ),
    change(
        "second-model-starts-smaller",
        "A layer of the second model starts with halved weights.",
        INITIALISATION,
        {
            "clean/wgan_gp": line(
                "    optimizer_g = torch", "    critic[2].weight.data.mul_(0.5)\n    optimizer_g = torch"
            ),
            "clean/byol": line(PREDICTOR, f"{PREDICTOR}        self.predictor[3].weight.data.mul_(0.5)\n"),
        },
    ),
    change(
        "frozen-weights-differ",
        "The weights of the part that is never trained are others.",
        INITIALISATION,
        {
            "clean/frozen_backbone": line("torch.manual_seed(1234)", "torch.manual_seed(1235)"),
            "clean/head_only": line(
                "    optimizer = torch.optim",
                "    model.backbone[2].weight.data.mul_(1.1)\n    optimizer = torch.optim",
            ),
            "clean/distillation": line(TEACHER_LOADED, ""),
        },
        exceptions={
            "clean/frozen_backbone": Truth(
                INITIALISATION,
                "The seed is of the backbone; the generators of the training are where they were.",
            ),
        },
    ),
    change(
        "head-starts-at-zero",
        "The head starts with weights of zero.",
        INITIALISATION,
        {
            "clean/gradual_unfreezing": line(
                "        self.head = nn.Linear(64, 8)\n",
                "        self.head = nn.Linear(64, 8)\n        nn.init.zeros_(self.head.weight)\n",
            ),
            "clean/frozen_backbone": line(
                "    criterion = nn", "    nn.init.zeros_(model[1].weight)\n    criterion = nn"
            ),
        },
    ),
    change(
        "weights-lost-halfway",
        "The trained weights are not loaded, or the head is reset, in the middle of the training.",
        INITIALISATION,
        {
            "clean/resume": line('        self.model.load_state_dict(state["model"])\n', ""),
            "clean/gradual_unfreezing": line(
                UNFROZEN, f"{UNFROZEN}            model.head.reset_parameters()\n"
            ),
        },
        exceptions={"clean/gradual_unfreezing": Truth(INITIALISATION, CONSEQUENCE)},
    ),
    change(
        "second-model-narrower",
        "A layer of the second model is narrower.",
        INITIALISATION,
        {
            "clean/wgan_gp": line(
                "nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)",
                "nn.Linear(64, 48), nn.LeakyReLU(0.2), nn.Linear(48, 1)",
            ),
            "clean/distillation": line(STUDENT, STUDENT.replace("16", "12")),
        },
        reason="It has other parameters; other draws move the generator, which is a consequence.",
    ),
)

SEVERAL_HARMLESS_CHANGES = (
    change(
        "reference-not-frozen",
        "Teacher or reference is not frozen; no gradient reaches it all the same.",
        (),
        {
            "clean/mean_teacher": line("parameter.requires_grad_(False)", "parameter.requires_grad_(True)"),
            "clean/dpo": line("    reference.requires_grad_(False)\n", ""),
        },
    ),
    change(
        "only-the-head-cleared",
        "Gradients of the head alone are cleared, and nothing else has any.",
        (),
        {"clean/head_only": line("model.zero_grad()", "model.head.zero_grad()")},
    ),
    change(
        "averaged-with-another-weight",
        "The averaged copy follows with another weight; nothing is trained with it.",
        (),
        {
            "clean/swa": line(
                "AveragedModel(model)",
                "AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))",
            )
        },
    ),
)

SEVERAL_INPUT_CHANGES = (
    *SEVERAL_DATA_CHANGES,
    *SEVERAL_RNG_CHANGES,
    *SEVERAL_INITIALISATION_CHANGES,
    *SEVERAL_HARMLESS_CHANGES,
)
