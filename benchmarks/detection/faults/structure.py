"""Faults of structure and of copies: leaks between positions and samples, averages that never move (T9)."""

from __future__ import annotations

from benchmarks.detection.fault import Fault, line

STRUCTURE_FAULTS = (
    Fault(
        id="causal-mask-missing",
        summary="Attention sees the words that it should predict.",
        expected=("T901",),
        source="https://github.com/facebookresearch/xformers/issues/103",
        edits={"language_model": line("is_causal=True", "is_causal=False")},
    ),
    Fault(
        id="causal-mask-off-by-one",
        summary="The causal mask lets each position see the one after it.",
        expected=("T901",),
        source="",
        edits={
            "language_model": line(
                "mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)",
                "mask = torch.ones(length, length, dtype=torch.bool).tril(1)\n"
                "        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)",
            )
        },
    ),
    Fault(
        id="heads-and-positions-mixed",
        summary="A reshape without the transpose before it mixes heads and positions.",
        expected=("T901",),
        source="",
        edits={"language_model": line("mixed.transpose(1, 2).reshape(", "mixed.reshape(")},
    ),
    Fault(
        id="attention-over-the-batch",
        summary="Batch and positions change places, so that samples attend to each other.",
        expected=("T902",),
        source="https://github.com/huggingface/transformers/issues/46634",
        edits={
            "language_model": (
                (".permute(2, 0, 3, 1, 4)", ".permute(2, 1, 3, 0, 4)"),
                ("mixed.transpose(1, 2).reshape(", "mixed.permute(2, 0, 1, 3).reshape("),
            )
        },
    ),
    Fault(
        id="normalised-over-the-batch",
        summary="Features are centred with the mean of the batch, in evaluation too.",
        expected=("T902",),
        source="",
        edits={
            "lightning_trainer": line(
                "return self.head(self.encoder(waves.unsqueeze(1)).flatten(1))",
                "features = self.encoder(waves.unsqueeze(1)).flatten(1)\n"
                "        return self.head(features - features.mean(0))",
            ),
            "image_classifier": line(
                "features = self.features(images).flatten(1)",
                "features = self.features(images).flatten(1)\n        features = features - features.mean(0)",
            ),
            "language_model": line(
                "return self.head(self.norm(x))", "return self.head(self.norm(x - x.mean(0)))"
            ),
        },
    ),
    Fault(
        id="output-ignores-input",
        summary="The features are multiplied by zero on their way to the head.",
        expected=("T903",),
        source="",
        edits={
            "autoencoder": line("hidden = self.encoder(images)", "hidden = self.encoder(0 * images)"),
            "image_classifier": line(
                "features = self.features(images).flatten(1)",
                "features = 0 * self.features(images).flatten(1)",
            ),
        },
    ),
    Fault(
        id="positions-missing",
        summary="All positions get the embedding of the first.",
        expected=("T904",),
        source="",
        edits={
            "language_model": line(
                "self.positions(torch.arange(inputs.shape[1]))", "self.positions(torch.zeros_like(inputs[0]))"
            )
        },
    ),
    Fault(
        id="ema-never-updated",
        summary="The averaged copy is never updated.",
        expected=("T911",),
        source="https://github.com/MultimediaTechLab/YOLO/issues/97",
        edits={"language_model": line("            update_ema(ema, model, args.ema_decay)\n", "")},
    ),
    Fault(
        id="ema-decay-one",
        summary="The averaged copy's decay is 1, so that it never moves.",
        expected=("T911",),
        source="",
        edits={
            "language_model": line(
                '"--ema-decay", type=float, default=0.9', '"--ema-decay", type=float, default=1.0'
            )
        },
    ),
    Fault(
        id="ema-decay-inverted",
        summary="Decay and its complement change places, so that the average is the last weights.",
        expected=("T912",),
        source="",
        edits={
            "language_model": line("average.lerp_(parameter, 1 - decay)", "average.lerp_(parameter, decay)"),
        },
    ),
    Fault(
        id="ema-of-a-copy",
        summary="The average follows a copy of the model that is not trained.",
        expected=("T911",),
        source="",
        edits={
            "language_model": (
                ("    batches = endless", "    source = copy.deepcopy(model)\n    batches = endless"),
                ("update_ema(ema, model, args.ema_decay)", "update_ema(ema, source, args.ema_decay)"),
            )
        },
    ),
    Fault(
        id="ema-not-restored",
        summary="The averaged weights are put into the model for evaluation, and training goes on from them.",
        expected=("T9", "T5"),
        source="https://github.com/harubaru/waifu-diffusion/pull/31",
        edits={
            "language_model": line(
                "                row += [evaluate(model, val_loader), evaluate(ema, val_loader)]\n",
                "                row += [evaluate(model, val_loader)]\n"
                "                model.load_state_dict(ema.state_dict())\n"
                "                row += [evaluate(model, val_loader)]\n",
            )
        },
    ),
)
