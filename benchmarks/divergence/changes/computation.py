"""Changes of the forward pass, of the loss and of the gradients."""

from __future__ import annotations

from benchmarks.detection.fault import line
from benchmarks.divergence.change import Truth, change
from harness.baselines.trajectory import Phase

FORWARD, LOSS, GRADIENTS = (Phase.FORWARD,), (Phase.LOSS,), (Phase.GRADIENTS,)
SEEDED = "    torch.manual_seed(args.seed)\n"
AE_AUTOCAST = (
    "                optimizer.zero_grad(set_to_none=True)\n"
    '                with torch.autocast("cpu", dtype=torch.bfloat16):\n'
)
LM_FORWARD = "                logits = model(inputs)\n"
IC_FORWARD = "            logits = model(images)\n            loss = compute_loss(logits, labels)\n"
LM_LOSS = 'logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"'
LI_LOSS = "loss = functional.cross_entropy(self(waves), labels)"
IC_LOSS = "return functional.cross_entropy(logits, labels)"

FORWARD_CHANGES = (
    change(
        "dropout-stronger",
        "Dropout drops more.",
        FORWARD,
        {
            "language_model": line("dropout=0.1)", "dropout=0.15)"),
            "image_classifier": line("dropout=0.2", "dropout=0.3"),
            "lightning_trainer": line("nn.Dropout(0.1)", "nn.Dropout(0.2)"),
        },
    ),
    change(
        "dropout-gone",
        "Dropout is off.",
        FORWARD,
        {
            "language_model": line("dropout=0.1)", "dropout=0.0)"),
            "image_classifier": line("dropout=0.2", "dropout=0.0"),
            "lightning_trainer": line("nn.Dropout(0.1)", "nn.Dropout(0.0)"),
        },
        reason="Draws that are not made move the generator, which is a consequence.",
    ),
    change(
        "dropout-added",
        "A dropout is added.",
        FORWARD,
        {
            "autoencoder": line(
                "hidden = self.encoder(images)",
                "hidden = functional.dropout(self.encoder(images), 0.1, self.training)",
            ),
            "gan": line(
                "            nn.Linear(width, 1),\n",
                "            nn.Dropout(0.1),\n            nn.Linear(width, 1),\n",
            ),
            "hf_trainer": line(
                "        initializer_range=0.05,\n",
                "        initializer_range=0.05,\n        attention_dropout=0.1,\n",
            ),
        },
        reason="Draws that are added move the generator, which is a consequence.",
    ),
    change(
        "another-activation",
        "Another activation function.",
        FORWARD,
        {
            "language_model": line("4 * width), nn.GELU(),", "4 * width), nn.ReLU(),"),
            "image_classifier": line(
                "            nn.BatchNorm2d(width),\n            nn.ReLU(),\n",
                "            nn.BatchNorm2d(width),\n            nn.SiLU(),\n",
            ),
            "autoencoder": line("nn.LayerNorm(width), nn.GELU())", "nn.LayerNorm(width), nn.SiLU())"),
            "gan": line(
                "            nn.BatchNorm1d(width),\n            nn.ReLU(),\n",
                "            nn.BatchNorm1d(width),\n            nn.LeakyReLU(),\n",
            ),
            "hf_trainer": line(
                "        initializer_range=0.05,\n",
                '        initializer_range=0.05,\n        hidden_act="gelu",\n',
            ),
        },
    ),
    change(
        "activation-approximated",
        "GELU is approximated with tanh.",
        FORWARD,
        {
            "language_model": line("4 * width), nn.GELU(),", '4 * width), nn.GELU("tanh"),'),
            "autoencoder": line("nn.LayerNorm(width), nn.GELU())", 'nn.LayerNorm(width), nn.GELU("tanh"))'),
        },
    ),
    change(
        "norm-epsilon",
        "A normalisation has another epsilon.",
        FORWARD,
        {
            "language_model": line(
                "self.norm1 = nn.LayerNorm(width)", "self.norm1 = nn.LayerNorm(width, eps=1e-6)"
            ),
            "image_classifier": line("nn.BatchNorm2d(width),", "nn.BatchNorm2d(width, eps=1e-3),"),
            "autoencoder": line(
                "nn.LayerNorm(width), nn.GELU())", "nn.LayerNorm(width, eps=1e-3), nn.GELU())"
            ),
            "hf_trainer": line(
                "        initializer_range=0.05,\n",
                "        initializer_range=0.05,\n        rms_norm_eps=1e-5,\n",
            ),
            "lightning_trainer": line(
                "            nn.Conv1d(1, width, 7, padding=3),\n            nn.GroupNorm(4, width),\n",
                "            nn.Conv1d(1, width, 7, padding=3),\n            nn.GroupNorm(4, width, eps=1e-3),\n",
            ),
        },
    ),
    change(
        "branch-or-output-scaled",
        "A residual branch, or the output, is halved.",
        FORWARD,
        {
            "language_model": line(
                "x = x + self.dropout(self.attend(self.norm1(x)))",
                "x = x + 0.5 * self.dropout(self.attend(self.norm1(x)))",
            ),
            "image_classifier": line(
                "return self.head(self.dropout(features))", "return 0.5 * self.head(self.dropout(features))"
            ),
            "autoencoder": line("return self.decoder(code), mean", "return 0.5 * self.decoder(code), mean"),
            "lightning_trainer": line(".flatten(1))\n", ".flatten(1)) * 0.5\n"),
        },
    ),
    change(
        "autocast",
        "The forward pass runs in bfloat16, or, where it did, no longer.",
        FORWARD,
        {
            "language_model": line(
                LM_FORWARD,
                '                with torch.autocast("cpu", dtype=torch.bfloat16):\n'
                "                    logits = model(inputs)\n                logits = logits.float()\n",
            ),
            "image_classifier": line(
                IC_FORWARD,
                '            with torch.autocast("cpu", dtype=torch.bfloat16):\n'
                "                logits = model(images)\n"
                "            loss = compute_loss(logits.float(), labels)\n",
            ),
            "autoencoder": line(AE_AUTOCAST, AE_AUTOCAST.replace("bfloat16)", "bfloat16, enabled=False)")),
            "hf_trainer": line("max_grad_norm=1.0", "bf16=True,\n        max_grad_norm=1.0"),
            "lightning_trainer": line(
                "gradient_clip_val=1.0", 'precision="bf16-mixed",\n        gradient_clip_val=1.0'
            ),
        },
    ),
    change(
        "matmul-precision",
        "Matrix products may run in a lower precision.",
        FORWARD,
        {
            program: line(SEEDED, f'{SEEDED}    torch.set_float32_matmul_precision("medium")\n')
            for program in ("language_model", "image_classifier", "autoencoder", "gan")
        },
    ),
    change(
        "same-sum-another-way",
        "The forward pass computes the same in other operations: the last digits differ.",
        FORWARD,
        {
            "language_model": line(
                "mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)",
                "mask = torch.ones(length, length, dtype=torch.bool).tril()\n"
                "        scores = (query @ key.transpose(2, 3)) / query.shape[-1] ** 0.5\n"
                "        mixed = scores.masked_fill(~mask, -math.inf).softmax(-1) @ value",
            ),
            "autoencoder": line("torch.exp(0.5 * log_variance)", "log_variance.float().exp().sqrt()"),
            "lightning_trainer": line(
                "return self.head(self.encoder(waves.unsqueeze(1)).flatten(1))",
                "return functional.linear(self.encoder(waves.unsqueeze(1)).flatten(1).double(), "
                "self.head.weight.double(), self.head.bias.double()).float()",
            ),
        },
    ),
    change(
        "batch-norm-momentum",
        "Batch norm averages its statistics over another time.",
        FORWARD,
        {
            "image_classifier": line("nn.BatchNorm2d(width),", "nn.BatchNorm2d(width, momentum=0.05),"),
            "gan": line("nn.BatchNorm1d(width),", "nn.BatchNorm1d(width, momentum=0.05),"),
        },
        reason="Training does not use the averages; a setting of a module tells of it.",
    ),
)

LOSS_CHANGES = (
    change(
        "labels-smoothed",
        "Labels are smoothed.",
        LOSS,
        {
            "language_model": line(LM_LOSS, f"{LM_LOSS}, label_smoothing=0.1"),
            "image_classifier": line(IC_LOSS, IC_LOSS.replace("labels)", "labels, label_smoothing=0.1)")),
            "lightning_trainer": line(LI_LOSS, LI_LOSS.replace("labels)", "labels, label_smoothing=0.1)")),
            "hf_trainer": line("max_grad_norm=1.0", "label_smoothing_factor=0.1,\n        max_grad_norm=1.0"),
            "gan": line("torch.ones_like(real_scores)", "0.9 * torch.ones_like(real_scores)"),
        },
    ),
    change(
        "classes-weighted",
        "Some classes count more.",
        LOSS,
        {
            "language_model": line(LM_LOSS, f"{LM_LOSS}, weight=torch.linspace(0.5, 1.5, VOCABULARY)"),
            "image_classifier": line(
                IC_LOSS, IC_LOSS.replace("labels)", "labels, weight=torch.tensor([1.0, 1, 1, 1, 2, 2]))")
            ),
            "lightning_trainer": line(
                LI_LOSS, LI_LOSS.replace("labels)", "labels, weight=torch.tensor([1.0, 1, 1, 2]))")
            ),
        },
    ),
    change(
        "loss-scaled-behind-clipping",
        "The loss is four times as large on its way to the gradient, and clipping hides it.",
        LOSS,
        {
            "language_model": line("loss.backward()", "(4 * loss).backward()"),
            "autoencoder": line("scaler.scale(loss).backward()", "scaler.scale(4 * loss).backward()"),
            "lightning_trainer": line("        return loss\n", "        return 4 * loss\n"),
        },
    ),
    change(
        "another-reduction",
        "The loss is summed where it was averaged.",
        LOSS,
        {
            "autoencoder": line(
                "functional.binary_cross_entropy_with_logits(logits.float(), images)",
                'functional.binary_cross_entropy_with_logits(logits.float(), images, reduction="sum") / len(images)',
            ),
            "gan": line(
                "return functional.mse_loss(fake_scores, torch.ones_like(fake_scores))",
                'return functional.mse_loss(fake_scores, torch.ones_like(fake_scores), reduction="sum")',
            ),
            "lightning_trainer": line(LI_LOSS, LI_LOSS.replace("labels)", 'labels, reduction="sum")')),
        },
    ),
    change(
        "another-term",
        "A term of the loss is added, or weighs more.",
        LOSS,
        {
            "language_model": line("/ num_tokens\n", "/ num_tokens + 1e-4 * logits.square().mean()\n"),
            "image_classifier": line(IC_LOSS, f"{IC_LOSS} + 1e-4 * logits.square().mean()"),
            "autoencoder": line("default=2e-3", "default=4e-3"),
            "gan": line("return 0.5 * (real + fake)", "return real + 0.5 * fake"),
        },
    ),
    change(
        "another-loss",
        "Another loss function.",
        LOSS,
        {
            "image_classifier": line(IC_LOSS, "return functional.multi_margin_loss(logits, labels)"),
            "autoencoder": line(
                "functional.binary_cross_entropy_with_logits(logits.float(), images)",
                "functional.mse_loss(logits.float().sigmoid(), images)",
            ),
            "gan": line(
                "return functional.mse_loss(fake_scores, torch.ones_like(fake_scores))",
                "return functional.smooth_l1_loss(fake_scores, torch.ones_like(fake_scores))",
            ),
        },
    ),
    change(
        "averaged-over-another-number",
        "The loss is divided by another number: all places, or a constant.",
        LOSS,
        {
            "language_model": line("/ num_tokens\n", "/ sum(part.numel() for _, part in micro_batches)\n"),
            "image_classifier": line(
                "loss = compute_loss(logits, labels)\n", "loss = compute_loss(logits, labels) / 2\n"
            ),
        },
    ),
)

GRADIENT_CHANGES = (
    change(
        "one-layers-gradient-doubled",
        "A hook doubles the gradient of one layer.",
        GRADIENTS,
        {
            "language_model": line(
                "    model = LanguageModel()\n",
                "    model = LanguageModel()\n    model.blocks[1].qkv.weight.register_hook(lambda grad: 2 * grad)\n",
            ),
            "image_classifier": line(
                "    model = Classifier()\n",
                "    model = Classifier()\n    model.features[3].weight.register_hook(lambda grad: 2 * grad)\n",
            ),
            "autoencoder": line(
                "    model = Autoencoder()\n",
                "    model = Autoencoder()\n    model.decoder[0].weight.register_hook(lambda grad: 2 * grad)\n",
            ),
            "gan": line(
                "    batches = endless(loader)\n",
                "    generator.layers[3].weight.register_hook(lambda grad: 2 * grad)\n    batches = endless(loader)\n",
            ),
            "hf_trainer": line(
                "    model = build_model()\n",
                "    model = build_model()\n    model.lm_head.weight.register_hook(lambda grad: 2 * grad)\n",
            ),
        },
    ),
    change(
        "branch-detached",
        "A branch is detached, so that what is before it learns less.",
        GRADIENTS,
        {
            "language_model": line(
                "self.positions(torch.arange(inputs.shape[1]))",
                "self.positions(torch.arange(inputs.shape[1])).detach()",
            ),
            "autoencoder": line("self.log_variance(hidden)", "self.log_variance(hidden.detach())"),
        },
    ),
    change(
        "norm-frozen",
        "Scale and shift of a normalisation are not trained any more.",
        GRADIENTS,
        {
            "language_model": line(
                "    model = LanguageModel()\n",
                "    model = LanguageModel()\n    model.norm.requires_grad_(False)\n",
            ),
            "image_classifier": line(
                "    model = Classifier()\n",
                "    model = Classifier()\n    model.features[1].requires_grad_(False)\n",
            ),
            "gan": line(
                "    batches = endless(loader)\n",
                "    generator.layers[1].requires_grad_(False)\n    batches = endless(loader)\n",
            ),
        },
        exceptions={
            "language_model": Truth(
                (Phase.GRADIENTS, Phase.OPTIMIZER), "Its optimizer leaves out what needs no gradient."
            )
        },
    ),
    change(
        "cleared-every-other-step",
        "Gradients are cleared in every other step, and added up in between.",
        GRADIENTS,
        {
            "language_model": line(
                "            optimizer.zero_grad()\n",
                "            if step % 2:\n                optimizer.zero_grad()\n",
            ),
            "image_classifier": line(
                "            optimizer.zero_grad()\n",
                "            if step % 2 == 0:\n                optimizer.zero_grad()\n",
            ),
            "autoencoder": line(
                "                optimizer.zero_grad(set_to_none=True)\n",
                "                if step % 2 == 0:\n                    optimizer.zero_grad(set_to_none=True)\n",
            ),
        },
    ),
)

COMPUTATION_CHANGES = (*FORWARD_CHANGES, *LOSS_CHANGES, *GRADIENT_CHANGES)
