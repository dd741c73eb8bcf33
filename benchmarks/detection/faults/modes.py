"""Faults of training and evaluation mode (T7)."""

from __future__ import annotations

from benchmarks.detection.fault import Fault, line

MODE_FAULTS = (
    Fault(
        id="left-in-eval",
        summary="After the first evaluation the model trains on in eval mode.",
        expected=("T701",),
        source="https://github.com/ermongroup/ncsn/issues/2",
        edits={
            "autoencoder": line("    model.train()\n", ""),
            "gan": line("    generator.train()\n", ""),
            "language_model": line(
                "    model.train()\n    return total / max(count, 1)", "    return total / max(count, 1)"
            ),
            "image_classifier": (
                ("        model.train()\n", ""),
                ("    step = 0\n", "    step = 0\n    model.train()\n"),
            ),
        },
    ),
    Fault(
        id="never-in-training-mode",
        summary="The model is in eval mode from the start.",
        expected=("T702",),
        source="",
        edits={
            "lightning_trainer": line(
                "        waves, labels = batch\n        loss",
                "        self.eval()\n        waves, labels = batch\n        loss",
            ),
            "language_model": (
                ("    model = LanguageModel()\n", "    model = LanguageModel().eval()\n"),
                ("    model.train()\n    return total / max(count, 1)", "    return total / max(count, 1)"),
            ),
            "image_classifier": line("        model.train()\n", "        model.eval()\n"),
        },
    ),
    Fault(
        id="evaluated-in-training-mode",
        summary="Evaluation runs in training mode, with dropout and batch statistics.",
        expected=("T703",),
        source="https://github.com/ipolharvard/ethos-ares/issues/20",
        edits={
            "lightning_trainer": line(
                "        waves, labels = batch\n        logits",
                "        self.train()\n        waves, labels = batch\n        logits",
            ),
            "autoencoder": line("    model.eval()\n", ""),
            "gan": line("    generator.eval()\n", ""),
            "language_model": line("    model.eval()\n", ""),
            "image_classifier": line("    model.eval()\n", ""),
        },
    ),
    Fault(
        id="evaluated-with-gradient",
        summary="Evaluation records a graph that nobody needs.",
        expected=("T704",),
        source="",
        edits={
            "language_model": line("@torch.no_grad()\ndef evaluate", "def evaluate"),
            "image_classifier": line("    with torch.no_grad():\n", "    if True:\n"),
        },
    ),
    Fault(
        id="dropout-in-eval",
        summary="A functional dropout is not told the mode, and drops in evaluation too.",
        expected=("T707",),
        source="https://github.com/karpathy/nanoGPT/pull/240",
        edits={
            "lightning_trainer": line(
                "self.encoder(waves.unsqueeze(1)).flatten(1)",
                "functional.dropout(self.encoder(waves.unsqueeze(1)), 0.1).flatten(1)",
            ),
            "image_classifier": line(
                "return self.head(self.dropout(features))",
                "return self.head(functional.dropout(features, 0.2))",
            ),
            "language_model": line(
                "return x + self.dropout(self.mlp(self.norm2(x)))",
                "return x + functional.dropout(self.mlp(self.norm2(x)), 0.1)",
            ),
        },
    ),
    Fault(
        id="batch-norm-never-moves",
        summary="Batch norm has momentum 0, so that evaluation uses the statistics it was born with.",
        expected=("T706",),
        source="",
        edits={
            "image_classifier": line("nn.BatchNorm2d(width),", "nn.BatchNorm2d(width, momentum=0.0),"),
        },
    ),
    Fault(
        id="evaluates-the-first-weights",
        summary="Evaluation looks at a copy of the model made at the start.",
        expected=("T705", "A207"),
        source="",
        edits={
            "image_classifier": (
                ("import argparse\n", "import argparse\nimport copy\n"),
                ("    step = 0\n", "    step = 0\n    shown = copy.deepcopy(model)\n"),
                ("evaluate(model, val_loader)", "evaluate(shown, val_loader)"),
            ),
            "language_model": (
                ("    batches = endless", "    shown = copy.deepcopy(model)\n    batches = endless"),
                ("[evaluate(model, val_loader)", "[evaluate(shown, val_loader)"),
            ),
        },
    ),
    Fault(
        id="trains-on-validation",
        summary="Evaluation takes optimizer steps on the held-out data.",
        expected=("T7", "T8"),
        source="",
        edits={
            "image_classifier": (
                ("def evaluate(model, loader):", "def evaluate(model, loader, optimizer):"),
                ("    with torch.no_grad():\n", "    if True:\n"),
                (
                    "            total += compute_loss(logits, labels).item() * len(labels)\n",
                    (
                        "            loss = compute_loss(logits, labels)\n            optimizer.zero_grad()\n"
                        "            loss.backward()\n            optimizer.step()\n"
                        "            total += loss.item() * len(labels)\n"
                    ),
                ),
                ("evaluate(model, val_loader)", "evaluate(model, val_loader, optimizer)"),
            )
        },
    ),
)
