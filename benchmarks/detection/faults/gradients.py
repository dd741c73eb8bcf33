"""Faults of gradients: accumulation, clearing, detaching, clipping (T4)."""

from __future__ import annotations

from benchmarks.detection.fault import Fault, line

CLIP = "grad_norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip)\n"
STEP = "optimizer.step()\n"
INDENT = " " * 12

GRADIENT_FAULTS = (
    Fault(
        id="accumulation-not-divided",
        summary="Each micro-batch counts as a whole step, so that gradients are as many times too large.",
        expected=("T411",),
        source="https://github.com/agokrani/distillKitPlus/issues/5",
        edits={"language_model": line("/ num_tokens\n", "/ int((targets != IGNORED).sum())\n")},
    ),
    Fault(
        id="accumulation-not-token-weighted",
        summary="Micro-batches are averaged as if each had the same number of tokens.",
        expected=("T412",),
        source="https://github.com/huggingface/transformers/issues/34191",
        edits={
            "hf_trainer": line(
                "    trainer.train()\n",
                "    trainer.model_accepts_loss_kwargs = False\n    trainer.train()\n",
            ),
            "language_model": line("/ num_tokens\n", "/ int((targets != IGNORED).sum()) / args.accumulate\n"),
        },
    ),
    Fault(
        id="accumulation-divided-twice",
        summary="The loss is divided by the micro-batches although it was already one of the whole step.",
        expected=("T411",),
        source="https://github.com/huggingface/transformers/issues/37766",
        edits={"language_model": line("/ num_tokens\n", "/ num_tokens / args.accumulate\n")},
    ),
    Fault(
        id="cleared-inside-accumulation",
        summary="Gradients are cleared before each micro-batch, so that only the last one counts.",
        expected=("T413",),
        source="",
        edits={
            "language_model": line(
                "logits = model(inputs)\n", "optimizer.zero_grad()\n                logits = model(inputs)\n"
            )
        },
    ),
    Fault(
        id="step-inside-accumulation",
        summary="The optimizer steps after each micro-batch, with gradients that grow towards the last.",
        expected=("T403", "T413"),
        source="",
        edits={
            "language_model": line(
                "step_loss += loss.item()\n", "step_loss += loss.item()\n                optimizer.step()\n"
            )
        },
    ),
    Fault(
        id="gradients-never-cleared",
        summary="zero_grad is missing, so that every step adds to all gradients before it.",
        expected=("T403",),
        source="",
        edits={
            "lightning_trainer": line(
                "    def configure_optimizers(self):\n",
                "    def optimizer_zero_grad(self, epoch, batch_idx, optimizer):\n"
                "        pass\n"
                "\n"
                "    def configure_optimizers(self):\n",
            ),
            "autoencoder": line("                optimizer.zero_grad(set_to_none=True)\n", ""),
            "language_model": line("            optimizer.zero_grad()\n", ""),
            "image_classifier": line("            optimizer.zero_grad()\n", ""),
        },
    ),
    Fault(
        id="gradients-of-head-cleared-only",
        summary="Only the head's gradients are cleared.",
        expected=("T403",),
        source="",
        edits={
            "language_model": line("optimizer.zero_grad()\n", "model.head.zero_grad()\n"),
            "image_classifier": line("optimizer.zero_grad()\n", "model.head.zero_grad()\n"),
        },
    ),
    Fault(
        id="cleared-after-backward",
        summary="Gradients are cleared between backward and the step, so that nothing is learned.",
        expected=("T405", "T402"),
        source="",
        edits={
            "language_model": (
                ("            optimizer.zero_grad()\n", ""),
                (CLIP, f"{CLIP}{INDENT}optimizer.zero_grad(set_to_none=False)\n"),
            ),
            "image_classifier": (
                ("            optimizer.zero_grad()\n", ""),
                ("loss.backward()\n", f"loss.backward()\n{INDENT}optimizer.zero_grad(set_to_none=False)\n"),
            ),
        },
    ),
    Fault(
        id="backward-twice",
        summary="backward runs twice a step, and doubles the gradient.",
        expected=("T414",),
        source="",
        edits={
            "language_model": line(
                "loss.backward()\n", "loss.backward(retain_graph=True)\n                loss.backward()\n"
            ),
            "image_classifier": line(
                "loss.backward()\n", f"loss.backward(retain_graph=True)\n{INDENT}loss.backward()\n"
            ),
        },
    ),
    Fault(
        id="detached-in-the-middle",
        summary="A detach cuts the first layers off from the loss.",
        expected=("T401", "T402", "T501"),
        source="https://github.com/huggingface/transformers/issues/21381",
        edits={
            "lightning_trainer": line(
                "self.encoder(waves.unsqueeze(1)).flatten(1)",
                "self.encoder(waves.unsqueeze(1)).detach().flatten(1)",
            ),
            "autoencoder": line(
                "self.mean(hidden), self.log_variance(hidden)",
                "self.mean(hidden.detach()), self.log_variance(hidden.detach())",
            ),
            "language_model": line("            x = block(x)\n", "            x = block(x.detach())\n"),
            "image_classifier": line(
                "return self.head(self.dropout(features))",
                "return self.head(self.dropout(features.detach()))",
            ),
        },
    ),
    Fault(
        id="backbone-without-gradient",
        summary="The backbone runs under no_grad, and only the head learns.",
        expected=("T401", "T402"),
        source="",
        edits={
            "lightning_trainer": line(
                "        return self.head(self.encoder(waves.unsqueeze(1)).flatten(1))",
                "        with torch.no_grad():\n"
                "            features = self.encoder(waves.unsqueeze(1)).flatten(1)\n"
                "        return self.head(features)",
            ),
            "image_classifier": line(
                "        features = self.features(images).flatten(1)\n",
                "        with torch.no_grad():\n            features = self.features(images).flatten(1)\n",
            ),
            "language_model": line(
                "        for block in self.blocks:\n            x = block(x)\n",
                "        with torch.no_grad():\n            for block in self.blocks:\n                x = block(x)\n",
            ),
        },
    ),
    Fault(
        id="loss-cut-off",
        summary="The loss is made a tensor anew, so that no gradient reaches the model.",
        expected=("T306",),
        source="",
        edits={
            "image_classifier": line(
                "loss.backward()\n",
                f"loss = torch.tensor(loss.item(), requires_grad=True)\n{INDENT}loss.backward()\n",
            ),
        },
    ),
    Fault(
        id="residual-detached",
        summary="A layer's own branch is detached, so that its weights never get a gradient.",
        expected=("T401", "T402"),
        source="",
        edits={
            "language_model": line(
                "x = x + self.dropout(self.attend(self.norm1(x)))",
                "x = x + self.dropout(self.attend(self.norm1(x))).detach()",
            )
        },
    ),
    Fault(
        id="dead-units",
        summary="A bias far below zero keeps a ReLU layer shut, and nothing before it learns.",
        expected=("T408", "T402"),
        source="",
        edits={
            "image_classifier": line(
                "self.dropout = nn.Dropout(dropout)\n",
                "self.dropout = nn.Dropout(dropout)\n        nn.init.constant_(self.features[-2].bias, -8.0)\n",
            )
        },
    ),
    Fault(
        id="clipped-after-step",
        summary="Gradients are clipped after the step that used them.",
        expected=("T422",),
        source="",
        edits={
            "autoencoder": line(
                "                grad_norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip)\n"
                "                scaler.step(optimizer)\n",
                "                scaler.step(optimizer)\n"
                "                grad_norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip)\n",
            ),
            "language_model": line(f"{CLIP}{INDENT}{STEP}", f"{STEP}{INDENT}{CLIP}"),
        },
    ),
    Fault(
        id="clipped-wrong-parameters",
        summary="Only the head's gradients are clipped.",
        expected=("T423",),
        source="",
        edits={
            "autoencoder": line(
                "clip_grad_norm_(model.parameters(), args.clip)",
                "clip_grad_norm_(model.encoder.parameters(), args.clip)",
            ),
            "language_model": line(
                "clip_grad_norm_(model.parameters(), args.clip)",
                "clip_grad_norm_(model.head.parameters(), args.clip)",
            ),
        },
    ),
    Fault(
        id="clipped-copy",
        summary="The gradients of the averaged copy are clipped, which has none.",
        expected=("T423", "T422"),
        source="",
        edits={
            "language_model": line(
                "clip_grad_norm_(model.parameters(), args.clip)",
                "clip_grad_norm_(ema.parameters(), args.clip)",
            )
        },
    ),
    Fault(
        id="clipped-before-backward",
        summary="Gradients are clipped before the last micro-batch has added its own.",
        expected=("T422",),
        source="",
        edits={
            "language_model": (
                (f"            {CLIP}", ""),
                (
                    "logits = model(inputs)\n",
                    (
                        "grad_norm = nn.utils.clip_grad_norm_(model.parameters(), args.clip)\n"
                        "                logits = model(inputs)\n"
                    ),
                ),
            )
        },
    ),
    Fault(
        id="clipped-far-too-low",
        summary="The bound of clipping is a thousand times too low, so that every step is cut to almost nothing.",
        expected=("T425",),
        source="",
        edits={
            "lightning_trainer": line("gradient_clip_val=1.0", "gradient_clip_val=1e-3"),
            "hf_trainer": line("max_grad_norm=1.0", "max_grad_norm=1e-3"),
            "language_model": line('"--clip", type=float, default=1.0', '"--clip", type=float, default=1e-3'),
        },
    ),
    Fault(
        id="gradient-changed-after-clipping",
        summary="Gradients are scaled between clipping and the step.",
        expected=("T424",),
        source="",
        edits={
            "autoencoder": line(
                "                scaler.step(optimizer)\n",
                "                for parameter in model.parameters():\n"
                "                    parameter.grad.mul_(10)\n"
                "                scaler.step(optimizer)\n",
            ),
            "language_model": line(
                CLIP,
                f"{CLIP}{INDENT}for parameter in model.parameters():\n"
                f"{INDENT}    parameter.grad.mul_(args.accumulate)\n",
            ),
        },
    ),
    Fault(
        id="noise-in-gradient",
        summary="Noise larger than the gradient itself is added before the step.",
        expected=("T405",),
        source="",
        edits={
            "image_classifier": line(
                "loss.backward()\n",
                f"loss.backward()\n{INDENT}for parameter in model.parameters():\n"
                f"{INDENT}    parameter.grad.add_(torch.randn_like(parameter))\n",
            )
        },
    ),
)
