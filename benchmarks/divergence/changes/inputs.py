"""Changes of the data and of random numbers, and changes that do nothing to a training."""

from __future__ import annotations

from benchmarks.detection.fault import line
from benchmarks.divergence.change import Truth, change
from harness.baselines.trajectory import Phase

DATA, RNG = (Phase.DATA,), (Phase.RNG,)
SEEDED = "    torch.manual_seed(args.seed)\n"
MODELS = {
    "language_model": "    model = LanguageModel()\n",
    "image_classifier": "    model = Classifier()\n",
    "autoencoder": "    model = Autoencoder()\n",
    "gan": "    generator, discriminator = Generator(), Discriminator()\n",
    "hf_trainer": "    model = build_model()\n",
    "lightning_trainer": "    model = WaveClassifier(lr=args.lr, steps=args.steps)\n",
}
LOOPS = {
    "language_model": "    batches = endless(train_loader)\n",
    "image_classifier": "    step = 0\n",
    "autoencoder": "    step = 0\n",
    "gan": "    batches = endless(loader)\n",
}
STEPS = {
    "language_model": "            optimizer.zero_grad()\n",
    "image_classifier": "            optimizer.zero_grad()\n",
    "autoencoder": "                optimizer.zero_grad(set_to_none=True)\n",
    "gan": "            d_optimizer.zero_grad()\n",
}

DATA_CHANGES = (
    change(
        "another-normalisation",
        "Inputs are scaled or centred differently.",
        DATA,
        {
            "image_classifier": line(
                "        return image, label\n", "        return (image - 0.1) / 0.8, label\n"
            ),
            "autoencoder": line(
                "return torch.exp(-distance / (2 * widths**2)).flatten(1)",
                "return 0.9 * torch.exp(-distance / (2 * widths**2)).flatten(1)",
            ),
            "gan": line("return centres + 0.05 *", "return 0.9 * centres + 0.045 *"),
            "lightning_trainer": line("waves + 0.3 * torch.randn", "0.8 * waves + 0.24 * torch.randn"),
        },
    ),
    change(
        "augmentation-gone",
        "Inputs are not changed at random any more.",
        DATA,
        {
            "image_classifier": line("augment=True", "augment=False"),
            "lightning_trainer": line(
                "TensorDataset(waves + 0.3 * torch.randn(num_waves, LENGTH, generator=generator), labels)",
                "TensorDataset(waves, labels)",
            ),
        },
    ),
    change(
        "another-augmentation",
        "Inputs are changed more at random.",
        DATA,
        {
            "image_classifier": line("(0.8 + 0.4 * torch.rand(()))", "(0.6 + 0.8 * torch.rand(()))"),
            "lightning_trainer": line("waves + 0.3 * torch.randn", "waves + 0.4 * torch.randn"),
            "gan": line("return centres + 0.05 *", "return centres + 0.08 *"),
        },
    ),
    change(
        "another-tokenisation",
        "Words have other numbers.",
        DATA,
        {
            "language_model": line(
                "return torch.tensor(self.sentences[index])",
                "return torch.tensor([w if w < 4 else VOCABULARY + 3 - w for w in self.sentences[index]])",
            ),
            "hf_trainer": line("words.append(6 + number)", "words.append(5 + number)"),
        },
    ),
    change(
        "shorter-sequences",
        "Sequences are cut shorter.",
        DATA,
        {
            "language_model": line(
                "return torch.tensor(self.sentences[index])",
                "return torch.tensor(self.sentences[index][:20])",
            ),
            "hf_trainer": line("self.sequences[index]}", "self.sequences[index][:16]}"),
        },
    ),
    change(
        "another-batch-size",
        "Batches are a quarter smaller.",
        DATA,
        {
            "language_model": line(
                '"--batch-size", type=int, default=16', '"--batch-size", type=int, default=12'
            ),
            "image_classifier": line(
                '"--batch-size", type=int, default=32', '"--batch-size", type=int, default=24'
            ),
            "autoencoder": line(
                '"--batch-size", type=int, default=32', '"--batch-size", type=int, default=24'
            ),
            "gan": line('"--batch-size", type=int, default=64', '"--batch-size", type=int, default=48'),
            "hf_trainer": line('"--batch-size", type=int, default=8', '"--batch-size", type=int, default=6'),
            "lightning_trainer": line(
                '"--batch-size", type=int, default=32', '"--batch-size", type=int, default=24'
            ),
        },
    ),
    change(
        "more-micro-batches",
        "A step takes four micro-batches, not two.",
        DATA,
        {
            "language_model": line(
                '"--accumulate", type=int, default=2', '"--accumulate", type=int, default=4'
            ),
            "hf_trainer": line("gradient_accumulation_steps=2", "gradient_accumulation_steps=4"),
        },
        reason="A step sees other data than before.",
    ),
    change(
        "one-sample-less",
        "The training set has lost a sample.",
        DATA,
        {
            "language_model": line("Sentences(512,", "Sentences(511,"),
            "image_classifier": line(
                "        self.augment = augment\n",
                "        self.augment = augment\n        self.labels = self.labels[:-1]\n",
            ),
            "autoencoder": line(
                "TensorDataset(draw_blobs(640, seed=1000 + args.seed))",
                "TensorDataset(draw_blobs(640, seed=1000 + args.seed)[1:])",
            ),
            "gan": line(
                "points = draw_points(1024, seed=1000 + args.seed)",
                "points = draw_points(1024, seed=1000 + args.seed)[1:]",
            ),
        },
    ),
    change(
        "drawn-with-replacement",
        "Samples are drawn with replacement.",
        DATA,
        {
            "language_model": line(
                "shuffle=True", "sampler=torch.utils.data.RandomSampler(train_set, replacement=True)"
            ),
            "image_classifier": line(
                "shuffle=True", "sampler=torch.utils.data.RandomSampler(train_set, replacement=True)"
            ),
            "autoencoder": line(
                "shuffle=True", "sampler=torch.utils.data.RandomSampler(train_set, replacement=True)"
            ),
        },
    ),
    change(
        "order-from-its-own-generator",
        "The order of the data comes from a generator of its own.",
        (Phase.DATA, Phase.RNG),
        {
            program: line("shuffle=True", "shuffle=True, generator=torch.Generator().manual_seed(args.seed)")
            for program in ("language_model", "image_classifier", "autoencoder", "gan", "lightning_trainer")
        },
        reason="The order is drawn from another stream, and the global one loses these draws.",
    ),
    change(
        "data-drawn-with-another-seed",
        "The training data are drawn with another seed.",
        DATA,
        {program: line("seed=1000 + args.seed", "seed=1001 + args.seed") for program in (*MODELS,)},
        reason="The seed is of the data set; the generators of the training are where they were.",
    ),
    change(
        "labels-renumbered",
        "Classes have other numbers.",
        DATA,
        {
            "image_classifier": line(
                "        return image, label\n", "        return image, (label + 1) % len(CLASSES)\n"
            ),
            "lightning_trainer": line(
                "generator=generator), labels)", "generator=generator), (labels + 1) % NUM_CLASSES)"
            ),
        },
    ),
    change(
        "another-number-of-workers",
        "Another number of workers reads the data, and each draws its own augmentation.",
        (Phase.DATA, Phase.RNG),
        {
            "image_classifier": line('"--workers", type=int, default=2', '"--workers", type=int, default=1'),
            "language_model": line(
                "collate_fn=collate)\n    val_loader", "collate_fn=collate, num_workers=1)\n    val_loader"
            ),
        },
        exceptions={
            "language_model": Truth((), "Its data set draws nothing, so that the same batches come.")
        },
    ),
    change(
        "evaluated-on-other-batches",
        "Evaluation reads its data in batches of half the size.",
        DATA,
        {
            "language_model": line("val_set, batch_size=32", "val_set, batch_size=16"),
            "image_classifier": line("val_set, batch_size=48", "val_set, batch_size=24"),
            "autoencoder": line("val_set, batch_size=64", "val_set, batch_size=32"),
            "hf_trainer": line("per_device_eval_batch_size=32", "per_device_eval_batch_size=16"),
        },
        reason="Training is the same; the batches that evaluation was given are others.",
    ),
)

RNG_CHANGES = (
    change(
        "another-seed",
        "The run is seeded with another number.",
        RNG,
        {
            program: line(SEEDED, "    torch.manual_seed(args.seed + 1)\n")
            for program in ("language_model", "image_classifier", "autoencoder", "gan")
        }
        | {
            "hf_trainer": line("        seed=args.seed,\n", "        seed=args.seed + 1,\n"),
            "lightning_trainer": line("seed_everything(args.seed,", "seed_everything(args.seed + 1,"),
        },
    ),
    change(
        "draw-before-the-model",
        "One random number is drawn before the model is built.",
        RNG,
        {program: line(text, f"    torch.rand(1)\n{text}") for program, text in MODELS.items()},
        exceptions={
            "hf_trainer": Truth(
                (Phase.RNG, Phase.INITIALISATION),
                "The Trainer seeds again when it is built, so that only the first weights tell of the draw.",
            )
        },
    ),
    change(
        "draw-after-the-model",
        "One random number is drawn between the model and the loop.",
        RNG,
        {program: line(text, f"    torch.rand(1)\n{text}") for program, text in LOOPS.items()},
    ),
    change(
        "draw-in-the-loop",
        "One random number is drawn in every step.",
        RNG,
        {
            program: line(text, f"{text}{' ' * (len(text) - len(text.lstrip()))}torch.rand(1)\n")
            for program, text in STEPS.items()
        },
    ),
    change(
        "draw-in-evaluation",
        "Evaluation draws a random number.",
        RNG,
        {
            "language_model": line(
                "    total, count = 0.0, 0\n", "    total, count = 0.0, 0\n    torch.rand(1)\n"
            ),
            "image_classifier": line(
                "    total, right, count = 0.0, 0, 0\n",
                "    total, right, count = 0.0, 0, 0\n    torch.rand(1)\n",
            ),
            "autoencoder": line("    total = 0.0\n", "    total = 0.0\n    torch.rand(1)\n"),
            "gan": line("generator.latent, generator=torch.Generator().manual_seed(0))", "generator.latent)"),
        },
    ),
    change(
        "evaluated-before-training",
        "An evaluation runs before the first step.",
        RNG,
        {
            "language_model": line(
                LOOPS["language_model"], f"    evaluate(model, val_loader)\n{LOOPS['language_model']}"
            ),
            "image_classifier": line(
                LOOPS["image_classifier"], f"    evaluate(model, val_loader)\n{LOOPS['image_classifier']}"
            ),
            "autoencoder": line(
                LOOPS["autoencoder"],
                f"    evaluate(model, val_loader, args.kl_weight)\n{LOOPS['autoencoder']}",
            ),
        },
        reason="Every pass of a DataLoader draws a seed from the global generator.",
    ),
    change(
        "evaluated-more-often",
        "Evaluation runs twice as often.",
        RNG,
        {
            "language_model": line(
                '"--eval-every", type=int, default=15', '"--eval-every", type=int, default=5'
            ),
            "autoencoder": line(
                '"--eval-every", type=int, default=20', '"--eval-every", type=int, default=10'
            ),
        },
        reason="Every pass of a DataLoader draws a seed from the global generator.",
    ),
    change(
        "seeded-again",
        "The generator is seeded a second time, after the model was built.",
        RNG,
        {program: line(text, f"{SEEDED}{text}") for program, text in LOOPS.items()},
    ),
)

HARMLESS_CHANGES = (
    change(
        "summands-swapped",
        "Two summands change places: the same bits.",
        (),
        {
            "language_model": line(
                "x = x + self.dropout(self.attend(self.norm1(x)))",
                "x = self.dropout(self.attend(self.norm1(x))) + x",
            ),
            "autoencoder": line(
                "return reconstruction + kl_weight * divergence",
                "return kl_weight * divergence + reconstruction",
            ),
            "gan": line("return 0.5 * (real + fake)", "return 0.5 * (fake + real)"),
        },
    ),
    change(
        "average-over-another-time",
        "The averaged copy follows more slowly; nothing is trained with it.",
        (),
        {
            "language_model": line(
                '"--ema-decay", type=float, default=0.9', '"--ema-decay", type=float, default=0.99'
            )
        },
    ),
    change(
        "logged-differently",
        "The log has other numbers.",
        (),
        {
            "image_classifier": line("loss=loss.item(), lr=lr", "loss=round(loss.item(), 3), lr=lr"),
            "autoencoder": line('"loss": loss.item()', '"loss": round(loss.item(), 3)'),
            "gan": line('"d_loss": d_loss.item()', '"d_loss": round(d_loss.item(), 3)'),
        },
    ),
)

INPUT_CHANGES = (*DATA_CHANGES, *RNG_CHANGES, *HARMLESS_CHANGES)
