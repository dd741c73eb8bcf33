"""Faults of the optimizer, its parameters and its settings (T5)."""

from __future__ import annotations

from benchmarks.detection.fault import Fault, line

LM_OPTIMIZER = "    optimizer = build_optimizer(model, args.lr, args.weight_decay)\n"

UPDATE_FAULTS = (
    Fault(
        id="copied-optimizer",
        summary="The optimizer was built over a copy of the model, so that the model itself never changes.",
        expected=("T501", "T502"),
        source="https://github.com/huggingface/accelerate/issues/2665",
        edits={
            "hf_trainer": line(
                "data_collator=collate\n",
                "data_collator=collate,\n"
                "        optimizers=(torch.optim.AdamW(build_model().parameters(), lr=args.lr), None)\n",
            ),
            "language_model": line(
                "optimizer = build_optimizer(model,", "optimizer = build_optimizer(copy.deepcopy(model),"
            ),
            "image_classifier": (
                ("import argparse\n", "import argparse\nimport copy\n"),
                ("optimizer = build_optimizer(model,", "optimizer = build_optimizer(copy.deepcopy(model),"),
            ),
        },
    ),
    Fault(
        id="head-replaced-after-optimizer",
        summary="The head is replaced after the optimizer was built, and never learns.",
        expected=("T501", "T502"),
        source="https://github.com/microsoft/nni/issues/4521",
        edits={
            "autoencoder": line(
                "    optimizer = build_optimizer(model, args.lr)\n",
                "    optimizer = build_optimizer(model, args.lr)\n    model.mean = nn.Linear(96, 6)\n",
            ),
            "language_model": line(
                LM_OPTIMIZER,
                f"{LM_OPTIMIZER}    model.head = nn.Linear(48, VOCABULARY, bias=False)\n",
            ),
            "image_classifier": line(
                LM_OPTIMIZER,
                f"{LM_OPTIMIZER}    model.head = nn.Linear(model.head.in_features, len(CLASSES))\n",
            ),
        },
    ),
    Fault(
        id="norms-left-out",
        summary="Norm layers and biases are in no group of the optimizer.",
        expected=("T501",),
        source="https://github.com/huggingface/pytorch-openai-transformer-lm/pull/6",
        edits={
            "autoencoder": line(
                "torch.optim.Adam(model.parameters(), lr=lr)",
                "torch.optim.Adam([p for p in model.parameters() if p.dim() > 1], lr=lr)",
            ),
            "lightning_trainer": line(
                "torch.optim.AdamW(self.parameters(),",
                "torch.optim.AdamW([p for p in self.parameters() if p.dim() > 1],",
            ),
            "language_model": line(
                "others = [p for p in model.parameters() if p.requires_grad and p.dim() < 2]",
                "others = [p for p in model.parameters() if p.requires_grad and p.dim() < 1]",
            ),
            "image_classifier": line(
                "torch.optim.SGD(model.parameters(),",
                "torch.optim.SGD([p for p in model.parameters() if p.dim() > 1],",
            ),
        },
    ),
    Fault(
        id="backbone-left-out",
        summary="The optimizer was given the head alone, the backbone by mistake left out.",
        expected=("T501",),
        source="",
        edits={
            "lightning_trainer": line(
                "torch.optim.AdamW(self.parameters(),", "torch.optim.AdamW(self.head.parameters(),"
            ),
            "hf_trainer": line(
                "data_collator=collate\n",
                "data_collator=collate,\n"
                "        optimizers=(torch.optim.AdamW(model.lm_head.parameters(), lr=args.lr), None)\n",
            ),
            "image_classifier": line(
                "torch.optim.SGD(model.parameters(),", "torch.optim.SGD(model.head.parameters(),"
            ),
        },
    ),
    Fault(
        id="layer-frozen-by-accident",
        summary="A layer is left without gradients by a line from another experiment.",
        expected=("T507",),
        source="",
        edits={
            "gan": line(
                "    batches = endless(loader)\n",
                "    generator.layers[3].requires_grad_(False)\n    batches = endless(loader)\n",
            ),
            "lightning_trainer": line(
                "NUM_CLASSES)\n\n", "NUM_CLASSES)\n        self.encoder[3].requires_grad_(False)\n\n"
            ),
            "hf_trainer": line(
                "    model = build_model()\n",
                "    model = build_model()\n    model.model.layers[0].requires_grad_(False)\n",
            ),
            "language_model": line(
                "    model = LanguageModel()\n",
                "    model = LanguageModel()\n    model.blocks[0].requires_grad_(False)\n",
            ),
            "image_classifier": line(
                "    model = Classifier()\n",
                "    model = Classifier()\n    model.features[3].requires_grad_(False)\n",
            ),
        },
    ),
    Fault(
        id="frozen-after-first-epoch",
        summary="A layer is frozen early on and never released.",
        expected=("T507",),
        source="",
        edits={
            "language_model": line(
                "            optimizer.zero_grad()\n",
                "            optimizer.zero_grad()\n            if step == 5:\n"
                "                model.blocks[0].requires_grad_(False)\n",
            ),
            "image_classifier": line(
                "        schedule.step()\n",
                "        schedule.step()\n        model.features.requires_grad_(False)\n",
            ),
        },
    ),
    Fault(
        id="pure-bfloat16",
        summary="Weights are bfloat16 and the learning rate small, so that most updates are rounded away.",
        expected=("T512",),
        source="https://github.com/pytorch/ao/pull/1124",
        edits={
            "hf_trainer": (
                ("    model = build_model()\n", "    model = build_model().bfloat16()\n"),
                ("default=5e-3", "default=5e-5"),
            ),
            "autoencoder": (
                ("model = Autoencoder()", "model = Autoencoder().bfloat16()"),
                ("default=3e-3", "default=1e-5"),
            ),
            "language_model": (
                ("    model = LanguageModel()\n", "    model = LanguageModel().bfloat16()\n"),
                ("default=3e-3", "default=5e-5"),
            ),
        },
    ),
    Fault(
        id="learning-rate-zero",
        summary="The learning rate is zero.",
        expected=("T601",),
        source="",
        edits={
            "hf_trainer": line("default=5e-3", "default=0.0"),
            "autoencoder": line("default=3e-3", "default=0.0"),
            "gan": line("default=2e-3", "default=0.0"),
            "language_model": line("default=3e-3", "default=0.0"),
            "image_classifier": line("default=0.03", "default=0.0"),
        },
    ),
    Fault(
        id="learning-rate-tiny",
        summary="The learning rate is a hundred thousand times too small.",
        expected=("T602",),
        source="",
        edits={
            "lightning_trainer": line("default=1e-2", "default=1e-7"),
            "hf_trainer": line("default=5e-3", "default=5e-8"),
            "autoencoder": line("default=3e-3", "default=3e-8"),
            "language_model": line("default=3e-3", "default=3e-8"),
            "image_classifier": line("default=0.03", "default=3e-7"),
        },
    ),
    Fault(
        id="epsilon-too-large",
        summary="Adam's epsilon is 1, which shrinks its steps to almost nothing.",
        expected=("T505",),
        source="",
        edits={"language_model": line("betas=(0.9, 0.98))", "betas=(0.9, 0.98), eps=1.0)")},
    ),
    Fault(
        id="weight-decay-wild",
        summary="Weight decay is so strong that it shrinks the weights faster than they learn.",
        expected=("T505",),
        source="",
        edits={
            "lightning_trainer": line("weight_decay=0.01", "weight_decay=100.0"),
            "hf_trainer": line("weight_decay=0.01", "weight_decay=100.0"),
            "language_model": line(
                '"--weight-decay", type=float, default=0.1', '"--weight-decay", type=float, default=100.0'
            ),
            "image_classifier": line("default=5e-4", "default=5.0"),
        },
    ),
    Fault(
        id="weight-decay-on-norms",
        summary="Norms and biases are decayed like weights.",
        expected=("T506",),
        source="",
        edits={"language_model": line('"weight_decay": 0.0}', '"weight_decay": weight_decay}')},
    ),
    Fault(
        id="optimizer-rebuilt-each-step",
        summary="The optimizer is built anew in every step, and loses its state.",
        expected=("T504",),
        source="",
        edits={
            "language_model": line(
                "            optimizer.zero_grad()\n",
                "            optimizer = build_optimizer(model, optimizer.param_groups[0]['lr'], args.weight_decay)\n"
                "            optimizer.zero_grad()\n",
            )
        },
    ),
    Fault(
        id="optimizer-rebuilt-each-epoch",
        summary="The optimizer is built anew in every epoch, and loses momentum and learning rate.",
        expected=("T504",),
        source="",
        edits={
            "image_classifier": line(
                "        model.train()\n",
                "        model.train()\n        optimizer = build_optimizer(model, args.lr, args.weight_decay)\n",
            )
        },
    ),
    Fault(
        id="weights-reset-each-epoch",
        summary="Every epoch starts again from the first weights.",
        expected=("T106", "T5"),
        source="",
        edits={
            "image_classifier": (
                ("import argparse\n", "import argparse\nimport copy\n"),
                ("    step = 0\n", "    start = copy.deepcopy(model.state_dict())\n    step = 0\n"),
                ("        model.train()\n", "        model.train()\n        model.load_state_dict(start)\n"),
            ),
            "language_model": (
                (
                    "    batches = endless(train_loader)\n",
                    "    batches = endless(train_loader)\n    start = copy.deepcopy(model.state_dict())\n",
                ),
                (
                    "            optimizer.zero_grad()\n",
                    (
                        "            optimizer.zero_grad()\n            if step % 15 == 1:\n"
                        "                model.load_state_dict(start)\n"
                    ),
                ),
            ),
        },
    ),
    Fault(
        id="never-steps",
        summary="optimizer.step() is missing.",
        expected=("T510", "refused"),
        source="",
        edits={
            "language_model": line("            optimizer.step()\n", ""),
            "image_classifier": line("            optimizer.step()\n", ""),
        },
    ),
)
