"""Faults of the data and of the order they come in (T8)."""

from __future__ import annotations

from benchmarks.detection.fault import Fault, line

DATA_FAULTS = (
    Fault(
        id="same-batch-every-step",
        summary="Every step trains on the same batch.",
        expected=("T801",),
        source="",
        edits={
            "lightning_trainer": line(
                "max_steps=args.steps,", "max_steps=args.steps,\n        overfit_batches=1,"
            ),
            "autoencoder": line(
                "shuffle=True, drop_last=True)\n",
                "shuffle=True, drop_last=True)\n    train_loader = [next(iter(train_loader))] * len(train_loader)\n",
            ),
            "gan": line(
                "    batches = endless(loader)\n", "    batches = iter([next(iter(loader))] * args.steps)\n"
            ),
            "language_model": (
                ("import argparse\n", "import argparse\nimport itertools\n"),
                ("batches = endless(train_loader)", "batches = itertools.repeat(next(iter(train_loader)))"),
            ),
            "image_classifier": (
                ("    step = 0\n", "    step = 0\n    first = next(iter(train_loader))\n"),
                (
                    "        for images, labels in train_loader:\n",
                    "        for images, labels in [first] * len(train_loader):\n",
                ),
            ),
        },
    ),
    Fault(
        id="loader-restarted-every-step",
        summary="The loader starts again in every step, and without shuffling gives its first batch for ever.",
        expected=("T801",),
        source="",
        edits={
            "language_model": (
                ("shuffle=True", "shuffle=False"),
                ("next(batches) for _ in range", "next(iter(train_loader)) for _ in range"),
            )
        },
    ),
    Fault(
        id="reseeded-every-step",
        summary="The generator is seeded in every step, so that dropout always drops the same units.",
        expected=("T803",),
        source="",
        edits={
            "gan": line(
                "            noise = torch.randn(len(real), generator.latent)\n",
                "            torch.manual_seed(args.seed)\n"
                "            noise = torch.randn(len(real), generator.latent)\n",
            ),
            "autoencoder": line(
                "                optimizer.zero_grad(set_to_none=True)\n",
                "                torch.manual_seed(args.seed)\n                optimizer.zero_grad(set_to_none=True)\n",
            ),
            "language_model": line(
                "            optimizer.zero_grad()\n",
                "            torch.manual_seed(args.seed)\n            optimizer.zero_grad()\n",
            ),
            "image_classifier": line(
                "            optimizer.zero_grad()\n",
                "            torch.manual_seed(args.seed)\n            optimizer.zero_grad()\n",
            ),
        },
    ),
    Fault(
        id="reseeded-each-epoch",
        summary="The generator is seeded in every epoch, which repeats order and augmentation.",
        expected=("T802", "T803"),
        source="https://github.com/pytorch/pytorch/issues/31771",
        edits={
            "autoencoder": line(
                "            for (images,) in train_loader:\n",
                "            torch.manual_seed(args.seed)\n            for (images,) in train_loader:\n",
            ),
            "image_classifier": line(
                "        model.train()\n", "        model.train()\n        torch.manual_seed(args.seed)\n"
            ),
            "language_model": line(
                "        yield from loader\n", "        torch.manual_seed(0)\n        yield from loader\n"
            ),
        },
    ),
    Fault(
        id="not-shuffled",
        summary="Every epoch reads the data in the same order.",
        expected=("T807", "T802"),
        source="",
        edits={
            "lightning_trainer": line("shuffle=True", "shuffle=False"),
            "autoencoder": line("shuffle=True", "shuffle=False"),
            "gan": line("shuffle=True", "shuffle=False"),
            "language_model": line("shuffle=True", "shuffle=False"),
            "image_classifier": line("shuffle=True", "shuffle=False"),
        },
    ),
    Fault(
        id="tenth-of-the-data",
        summary="A sampler left over from debugging draws from a tenth of the data only.",
        expected=("T804",),
        source="",
        edits={
            "autoencoder": (
                ("batch_size=args.batch_size, shuffle=True,", "batch_size=args.batch_size, sampler=sampler,"),
                (
                    "    train_loader = DataLoader(",
                    "    sampler = torch.utils.data.SubsetRandomSampler(range(64))\n    train_loader = DataLoader(",
                ),
            ),
            "image_classifier": (
                (
                    "train_set, batch_size=args.batch_size, shuffle=True,",
                    "train_set, batch_size=args.batch_size, sampler=sampler,",
                ),
                (
                    "    train_loader = DataLoader(\n",
                    (
                        "    few = [i % 38 for i in range(len(train_set))]\n"
                        "    sampler = torch.utils.data.SubsetRandomSampler(few)\n    train_loader = DataLoader(\n"
                    ),
                ),
            ),
            "language_model": (
                ("batch_size=args.batch_size, shuffle=True,", "batch_size=args.batch_size, sampler=sampler,"),
                (
                    "    train_loader = DataLoader(",
                    "    sampler = torch.utils.data.SubsetRandomSampler(range(51))\n    train_loader = DataLoader(",
                ),
            ),
        },
    ),
    Fault(
        id="epoch-cut-short",
        summary="A break left over from debugging ends every unshuffled epoch after a few batches.",
        expected=("T804",),
        source="",
        edits={
            "lightning_trainer": (
                ("shuffle=True", "shuffle=False"),
                ("max_steps=args.steps,", "max_steps=args.steps,\n        limit_train_batches=3,"),
            ),
            "image_classifier": (
                ("shuffle=True", "shuffle=False"),
                (
                    '            log(args.out / "metrics.jsonl", step=step, epoch=epoch, loss=loss.item(), lr=lr)\n',
                    (
                        '            log(args.out / "metrics.jsonl", step=step, epoch=epoch, loss=loss.item(), lr=lr)\n'
                        "            if step % 3 == 0:\n                break\n"
                    ),
                ),
                ("    for epoch in range(epochs):\n", "    for epoch in range(4 * epochs):\n"),
            ),
        },
    ),
    Fault(
        id="validated-on-training-data",
        summary="Evaluation reads the training data, and can't see overfitting.",
        expected=("T814",),
        source="",
        edits={
            "lightning_trainer": line(
                "draw_waves(128, seed=5000 + args.seed)", "draw_waves(480, seed=1000 + args.seed)"
            ),
            "hf_trainer": line("eval_dataset=val_set", "eval_dataset=train_set"),
            "autoencoder": line("DataLoader(val_set, batch_size=64)", "DataLoader(train_set, batch_size=64)"),
            "image_classifier": line(
                "DataLoader(val_set, batch_size=48)", "DataLoader(train_set, batch_size=48)"
            ),
            "language_model": line(
                "DataLoader(val_set, batch_size=32, collate_fn=collate)",
                "DataLoader(train_set, batch_size=32, collate_fn=collate)",
            ),
        },
    ),
    Fault(
        id="validation-overlaps",
        summary="The held-out sentences are drawn like, and equal, the first ones of the training data.",
        expected=("T814",),
        source="https://github.com/marin-community/marin/pull/2700",
        edits={
            "hf_trainer": line("seed=5000 + args.seed", "seed=1000 + args.seed"),
            "language_model": line("seed=5000 + args.seed", "seed=1000 + args.seed"),
        },
    ),
    Fault(
        id="nan-in-data",
        summary="One image holds numbers that are not numbers.",
        expected=("T811",),
        source="",
        edits={
            "autoencoder": line(
                "    return torch.exp(-distance / (2 * widths**2)).flatten(1)",
                "    images = torch.exp(-distance / (2 * widths**2)).flatten(1)\n"
                "    images[7, 3] = float('nan')\n"
                "    return images",
            ),
            "image_classifier": line(
                "        self.augment = augment\n",
                "        self.augment = augment\n        self.images[7, 0, 3, 3] = float('nan')\n",
            ),
        },
    ),
    Fault(
        id="constant-inputs",
        summary="The inputs are all the same: what was read never reaches the batch.",
        expected=("T812", "T903"),
        source="",
        edits={
            "gan": line(
                "noise = torch.randn(len(real), generator.latent)",
                "noise = torch.zeros(len(real), generator.latent)",
            ),
            "lightning_trainer": line(
                "loss = functional.cross_entropy(self(waves), labels)",
                "loss = functional.cross_entropy(self(0 * waves), labels)",
            ),
            "hf_trainer": line("        input_ids[row, : len(sequence)] = torch.tensor(sequence)\n", ""),
            "language_model": line("        inputs[row, : len(sentence) - 1] = sentence[:-1]\n", ""),
            "image_classifier": line(
                "image, label = self.images[index], self.labels[index]",
                "image, label = torch.zeros_like(self.images[index]), self.labels[index]",
            ),
        },
    ),
    Fault(
        id="constant-labels",
        summary="All labels are the same class.",
        expected=("T815",),
        source="",
        edits={
            "image_classifier": line(
                "        self.augment = augment\n",
                "        self.augment = augment\n        self.labels.zero_()\n",
            )
        },
    ),
    Fault(
        id="labels-shuffled",
        summary="Labels are shuffled against the inputs in every batch.",
        expected=("T8", "T1"),
        source="",
        edits={
            "lightning_trainer": line(
                "loss = functional.cross_entropy(self(waves), labels)",
                "loss = functional.cross_entropy(self(waves), labels.flip(0))",
            ),
            "hf_trainer": line('"labels": labels,', '"labels": labels.flip(0),'),
            "image_classifier": line(
                "            logits = model(images)\n            loss = compute_loss(logits, labels)\n",
                "            logits = model(images)\n            labels = labels[torch.randperm(len(labels))]\n"
                "            loss = compute_loss(logits, labels)\n",
            ),
            "language_model": line(
                "            for inputs, targets in micro_batches:\n",
                "            for inputs, targets in micro_batches:\n                targets = targets.flip(0)\n",
            ),
        },
    ),
    Fault(
        id="workers-share-a-stream",
        summary="Each worker starts every epoch with a copy of the same generator, so that augmentation repeats.",
        expected=("T808",),
        source="https://github.com/pytorch/pytorch/issues/5059",
        edits={
            "image_classifier": (
                (
                    "        self.augment = augment\n",
                    "        self.augment = augment\n        self.generator = torch.Generator().manual_seed(seed)\n",
                ),
                ("torch.randint(-1, 2, (2,))", "torch.randint(-1, 2, (2,), generator=self.generator)"),
                ("torch.rand(())", "torch.rand((), generator=self.generator)"),
            )
        },
    ),
    Fault(
        id="data-set-ignores-index",
        summary="The data set gives the same few samples for every index.",
        expected=("T809", "T801", "T804"),
        source="",
        edits={
            "language_model": line("self.sentences[index]", "self.sentences[index % 8]"),
            "image_classifier": line(
                "image, label = self.images[index], self.labels[index]",
                "image, label = self.images[index % 8], self.labels[index % 8]",
            ),
            "hf_trainer": line("self.sequences[index]", "self.sequences[index % 8]"),
        },
    ),
    Fault(
        id="inputs-not-scaled",
        summary="Inputs are a thousand times larger than the model was made for.",
        expected=("T813",),
        source="",
        edits={
            "image_classifier": (
                (
                    "nn.Conv2d(1, width, 3, padding=1, bias=False),\n            nn.BatchNorm2d(width),\n",
                    "nn.Conv2d(1, width, 3, padding=1, bias=False),\n",
                ),
                ("        return image, label\n", "        return 1000.0 * image, label\n"),
            )
        },
    ),
)
