"""Faults of the loss: its curve, its numbers, and what the loss function is given (T1, T2, T3)."""

from __future__ import annotations

from benchmarks.detection.fault import Fault, line

LEARNING_FAULTS = (
    Fault(
        id="negated-loss",
        summary="The loss has the wrong sign, so that training makes it worse.",
        expected=("T305",),
        source="",
        edits={
            "autoencoder": line(
                "return reconstruction + kl_weight * divergence",
                "return -reconstruction + kl_weight * divergence",
            ),
            "lightning_trainer": line("        return loss\n", "        return -loss\n"),
            "language_model": line("loss.backward()", "(-loss).backward()"),
            "image_classifier": line(
                "return functional.cross_entropy(logits, labels)",
                "return -functional.cross_entropy(logits, labels)",
            ),
        },
    ),
    Fault(
        id="maximize",
        summary="The optimizer climbs, as maximize was left on from another experiment.",
        expected=("T508",),
        source="",
        edits={
            "autoencoder": line(
                "torch.optim.Adam(model.parameters(), lr=lr)",
                "torch.optim.Adam(model.parameters(), lr=lr, maximize=True)",
            ),
            "lightning_trainer": line("weight_decay=0.01)", "weight_decay=0.01, maximize=True)"),
            "language_model": line("betas=(0.9, 0.98))", "betas=(0.9, 0.98), maximize=True)"),
            "image_classifier": line("momentum=0.9, weight", "momentum=0.9, maximize=True, weight"),
        },
    ),
    Fault(
        id="double-softmax",
        summary="The model's outputs go through softmax before a cross-entropy that does it again.",
        expected=("T301",),
        source="https://github.com/ariecattan/SciCo/issues/2",
        edits={
            "autoencoder": line(
                "_logits(logits.float(), images)", "_logits(logits.float().sigmoid(), images)"
            ),
            "lightning_trainer": line("flatten(1))\n", "flatten(1)).softmax(1)\n"),
            "language_model": line(
                "return self.head(self.norm(x))", "return self.head(self.norm(x)).softmax(-1)"
            ),
            "image_classifier": line(
                "return self.head(self.dropout(features))",
                "return self.head(self.dropout(features)).softmax(1)",
            ),
        },
    ),
    Fault(
        id="log-probabilities-into-cross-entropy",
        summary="Log-probabilities go into cross-entropy, which takes the logarithm again.",
        expected=("T301",),
        source="https://github.com/speedinghzl/Pytorch-Deeplab/issues/2",
        edits={
            "lightning_trainer": line("flatten(1))\n", "flatten(1)).log_softmax(1)\n"),
            "language_model": line(
                "return self.head(self.norm(x))", "return self.head(self.norm(x)).log_softmax(-1)"
            ),
            "image_classifier": line(
                "return self.head(self.dropout(features))",
                "return self.head(self.dropout(features)).log_softmax(1)",
            ),
        },
    ),
    Fault(
        id="probabilities-into-nll",
        summary="Probabilities instead of their logarithms go into nll_loss.",
        expected=("T302",),
        source="",
        edits={
            "image_classifier": line(
                "return functional.cross_entropy(logits, labels)",
                "return functional.nll_loss(logits.softmax(1), labels)",
            ),
        },
    ),
    Fault(
        id="sigmoid-before-cross-entropy",
        summary="A sigmoid squeezes the logits before cross-entropy.",
        expected=("T3",),
        source="",
        edits={
            "image_classifier": line(
                "return self.head(self.dropout(features))",
                "return self.head(self.dropout(features)).sigmoid()",
            ),
        },
    ),
    Fault(
        id="wide-initialisation",
        summary="Weights are initialised twenty times too wide.",
        expected=("T102",),
        source="",
        edits={
            "lightning_trainer": line(
                "NUM_CLASSES)\n\n", "NUM_CLASSES)\n        nn.init.normal_(self.head.weight, std=1.0)\n\n"
            ),
            "hf_trainer": line("initializer_range=0.05", "initializer_range=1.0"),
            "language_model": line(
                "nn.init.normal_(module.weight, std=0.05)", "nn.init.normal_(module.weight)"
            ),
            "image_classifier": line(
                "num_classes)\n", "num_classes)\n        nn.init.normal_(self.head.weight, std=1.0)\n"
            ),
        },
    ),
    Fault(
        id="zero-initialisation",
        summary="All weights start at zero, so that hidden layers get no gradient.",
        expected=("T402", "T407", "T408"),
        source="",
        edits={
            "language_model": line(
                "nn.init.normal_(module.weight, std=0.05)", "nn.init.zeros_(module.weight)"
            ),
        },
    ),
    Fault(
        id="constant-initialisation",
        summary="All weights start at one value, so that all units of a layer stay the same.",
        expected=("T409",),
        source="",
        edits={
            "language_model": line(
                "nn.init.normal_(module.weight, std=0.05)", "nn.init.constant_(module.weight, 0.05)"
            ),
        },
    ),
    Fault(
        id="learning-rate-x100",
        summary="The learning rate is a hundred times too high.",
        expected=("T603", "T513", "T108", "T103"),
        source="",
        edits={
            "lightning_trainer": line("default=1e-2", "default=1.0"),
            "hf_trainer": line("default=5e-3", "default=5e-1"),
            "autoencoder": line("default=3e-3", "default=3e-1"),
            "gan": line("default=2e-3", "default=2e-1"),
            "language_model": line("default=3e-3", "default=3e-1"),
            "image_classifier": line("default=0.03", "default=3.0"),
        },
    ),
    Fault(
        id="loss-spike",
        summary="One batch has a loss a thousand times too large.",
        expected=("T105", "T103"),
        source="",
        edits={
            "image_classifier": line(
                "loss = compute_loss(logits, labels)\n",
                "loss = compute_loss(logits, labels) * (1000.0 if step == 30 else 1.0)\n",
            ),
            "language_model": line("/ num_tokens\n", "/ (num_tokens if step != 40 else 1)\n"),
        },
    ),
    Fault(
        id="nan-backward",
        summary="The square root of zero has no finite gradient.",
        expected=("T202",),
        source="https://github.com/pytorch/pytorch/pull/2775",
        edits={
            "lightning_trainer": line(
                "        return loss\n",
                "        drift = (self.head.weight - self.head.weight.detach()).pow(2).sum().sqrt()\n"
                "        return loss + 0.01 * drift\n",
            ),
            "autoencoder": line(
                "return reconstruction +",
                "drift = (mean - mean.detach()).pow(2).sum().sqrt()\n    return 0.01 * drift + reconstruction +",
            ),
            "image_classifier": line(
                "return functional.cross_entropy(logits, labels)",
                "drift = (logits - logits.detach()).pow(2).sum().sqrt()\n"
                "    return functional.cross_entropy(logits, labels) + 0.01 * drift",
            ),
            "language_model": line(
                "loss = compute_loss(logits, targets) / num_tokens",
                "drift = (logits - logits.detach()).pow(2).sum().sqrt()\n"
                "                loss = compute_loss(logits, targets) / num_tokens + 0.01 * drift",
            ),
        },
    ),
    Fault(
        id="log-of-zero",
        summary="A cross-entropy written by hand takes the logarithm of zero.",
        expected=("T2",),
        source="",
        edits={
            "image_classifier": line(
                "return functional.cross_entropy(logits, labels)",
                "shares = functional.relu(logits) / functional.relu(logits).sum(1, keepdim=True)\n"
                "    return -shares[torch.arange(len(labels)), labels].log().mean()",
            ),
        },
    ),
    Fault(
        id="half-precision-overflow",
        summary="Activations are cast to float16, where they overflow.",
        expected=("T2",),
        source="",
        edits={
            "autoencoder": line(
                "hidden = self.encoder(images)", "hidden = (1e5 * self.encoder(images)).half().float() / 1e5"
            ),
            "language_model": line(
                "return self.head(self.norm(x))",
                "return self.head((self.norm(x) * 1e5).half().float() / 1e5)",
            ),
            "image_classifier": line(
                "features = self.features(images).flatten(1)",
                "features = (self.features(images).flatten(1) * 1e5).half().float() / 1e5",
            ),
        },
    ),
    Fault(
        id="targets-not-shifted",
        summary="The targets are the inputs themselves, not the following tokens.",
        expected=("T312",),
        source="",
        edits={"language_model": line("= sentence[1:]", "= sentence[:-1]")},
    ),
    Fault(
        id="targets-shifted-twice",
        summary="The targets are two tokens ahead, as both the data and the loss shift them.",
        expected=("T312",),
        source="",
        edits={
            "hf_trainer": line(
                "labels[row, : len(sequence)] = torch.tensor(sequence)",
                "labels[row, : len(sequence) - 1] = torch.tensor(sequence[1:])",
            ),
            "language_model": line(
                "targets[row, : len(sentence) - 1] = sentence[1:]",
                "targets[row, : len(sentence) - 2] = sentence[2:]",
            ),
        },
    ),
    Fault(
        id="padding-scored",
        summary="Padding is a target like any word, and predicting it is what is learned.",
        expected=("T313",),
        source="",
        edits={
            "hf_trainer": line(
                "labels = torch.full((len(sequences), length), -100)",
                "labels = torch.full((len(sequences), length), PAD)",
            ),
            "language_model": line(
                "targets = torch.full((len(sentences), length), IGNORED)",
                "targets = torch.full((len(sentences), length), PAD)",
            ),
        },
    ),
    Fault(
        id="all-targets-ignored",
        summary="The mask of the prompt covers the whole answer, so that no target is left.",
        expected=("T311",),
        source="https://github.com/huggingface/trl/issues/6668",
        edits={
            "hf_trainer": line("        labels[row, : len(sequence)] = torch.tensor(sequence)\n", ""),
            "language_model": line(
                "targets[row, : len(sentence) - 1] = sentence[1:]",
                "targets[row, : len(sentence) - 1] = sentence[1:]\n"
                "        targets[row, : len(sentence)] = IGNORED",
            ),
        },
    ),
    Fault(
        id="too-many-classes",
        summary="The head has a thousand classes where the data have six.",
        expected=("T314",),
        source="",
        edits={
            "lightning_trainer": line("LENGTH // 2, NUM_CLASSES)", "LENGTH // 2, 1000)"),
            "hf_trainer": line("vocab_size=VOCABULARY", "vocab_size=5000"),
            "image_classifier": line("model = Classifier()", "model = Classifier(num_classes=1000)"),
        },
    ),
    Fault(
        id="loss-summed-over-batch",
        summary="The loss is summed over the batch, not averaged, with the learning rate of the average.",
        expected=("T318", "T603", "T513", "T108"),
        source="",
        edits={
            "image_classifier": line(
                "return functional.cross_entropy(logits, labels)",
                'return functional.cross_entropy(logits, labels, reduction="sum")',
            )
        },
    ),
    Fault(
        id="exponential-overflow",
        summary="An exponential of an unbounded output overflows.",
        expected=("T2",),
        source="",
        edits={"autoencoder": line("- log_variance.exp())", "- (300 * log_variance).exp())")},
    ),
    Fault(
        id="targets-out-of-range",
        summary="The targets of a binary cross-entropy are pixels from 0 to 255.",
        expected=("T315",),
        source="",
        edits={
            "autoencoder": line("_logits(logits.float(), images)", "_logits(logits.float(), 255 * images)")
        },
    ),
)
