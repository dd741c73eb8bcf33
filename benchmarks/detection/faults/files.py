"""Faults of checkpoints, of logs, and of memory (A1, A2, R1)."""

from __future__ import annotations

from benchmarks.detection.fault import Fault, line

LM_ROW = "            row = [step, step_loss, lr, float(grad_norm), num_tokens]\n"
LM_WRITE = '            writer.writerow(row + [""] * (7 - len(row)))\n'
IC_LOG = 'log(args.out / "metrics.jsonl", step=step, epoch=epoch, loss=loss.item(), lr=lr)\n'
MODEL = '"model": model.state_dict(),\n'
BOTH = ("language_model", "image_classifier")

FILE_FAULTS = (
    Fault(
        id="checkpoint-misses-keys",
        summary="The checkpoint holds a part of the model's weights only.",
        expected=("A102",),
        source="https://github.com/NVIDIA-NeMo/Automodel/issues/2571",
        edits=dict.fromkeys(
            BOTH,
            line(
                MODEL,
                '"model": {key: value for key, value in model.state_dict().items() if "head" not in key},\n',
            ),
        )
        | {
            "gan": line(
                '"generator": generator.state_dict(),',
                '"generator": {k: v for k, v in generator.state_dict().items() if "5" not in k},',
            ),
            "autoencoder": line('"model": model.state_dict(),', '"model": model.decoder.state_dict(),'),
        },
    ),
    Fault(
        id="checkpoint-of-first-weights",
        summary="Every checkpoint holds the weights from before training.",
        expected=("A103",),
        source="",
        edits={
            "language_model": (
                (MODEL, '"model": FIRST,\n'),
                (
                    "    batches = endless",
                    "    FIRST.update(copy.deepcopy(model.state_dict()))\n    batches = endless",
                ),
                ("IGNORED = -100\n", "IGNORED = -100\nFIRST = {}\n"),
            ),
            "image_classifier": (
                ("import argparse\n", "import argparse\nimport copy\n"),
                (MODEL, '"model": FIRST,\n'),
                ("    step = 0\n", "    step = 0\n    FIRST.update(copy.deepcopy(model.state_dict()))\n"),
                ("SIZE = 12\n", "SIZE = 12\nFIRST = {}\n"),
            ),
        },
    ),
    Fault(
        id="checkpoint-of-another-model",
        summary="The checkpoint holds the weights of a model that was built anew.",
        expected=("A104",),
        source="",
        edits={
            "gan": line('"generator": generator.state_dict(),', '"generator": Generator().state_dict(),'),
            "hf_trainer": line(
                "    trainer.save_model(", "    trainer.model = build_model()\n    trainer.save_model("
            ),
            "language_model": line(MODEL, '"model": LanguageModel().state_dict(),\n'),
            "image_classifier": line(MODEL, '"model": Classifier().state_dict(),\n'),
        },
    ),
    Fault(
        id="checkpoint-empty",
        summary="The checkpoint's model is an empty dict.",
        expected=("A102", "A101"),
        source="https://github.com/huggingface/transformers/issues/46628",
        edits=dict.fromkeys(BOTH, line(MODEL, '"model": {},\n'))
        | {"gan": line('"generator": generator.state_dict(),', '"generator": {},')},
    ),
    Fault(
        id="checkpoint-without-optimizer",
        summary="The optimizer's state is not in the checkpoint.",
        expected=("A106",),
        source="https://github.com/EvolvingLMMs-Lab/OneVision-Encoder/pull/65",
        edits=dict.fromkeys(BOTH, line('            "optimizer": optimizer.state_dict(),\n', ""))
        | {
            "gan": line('                        "g_optimizer": g_optimizer.state_dict(),\n', ""),
            "autoencoder": line('                            "optimizer": optimizer.state_dict(),\n', ""),
            "hf_trainer": line("save_total_limit=1,", "save_total_limit=1,\n        save_only_model=True,"),
            "lightning_trainer": line("save_last=True)", "save_last=True, save_weights_only=True)"),
        },
    ),
    Fault(
        id="checkpoint-of-fresh-optimizer",
        summary="The checkpoint holds the state of an optimizer that has never stepped.",
        expected=("A106",),
        source="",
        edits=dict.fromkeys(
            BOTH,
            line(
                '"optimizer": optimizer.state_dict()',
                '"optimizer": build_optimizer(model, 1.0, 0.0).state_dict()',
            ),
        ),
    ),
    Fault(
        id="checkpoint-without-scheduler",
        summary="The schedule's position is not in the checkpoint.",
        expected=("A106",),
        source="",
        edits=dict.fromkeys(BOTH, line('            "scheduler": schedule.state_dict(),\n', "")),
    ),
    Fault(
        id="checkpoint-without-step",
        summary="The checkpoint does not say after which step it was written.",
        expected=("A106",),
        source="",
        edits={
            "language_model": line('            "step": step,\n', ""),
            "image_classifier": line('            "epoch": epoch,\n            "step": step,\n', ""),
        },
    ),
    Fault(
        id="checkpoint-without-generators",
        summary="The state of the random generators is not in the checkpoint.",
        expected=("A106",),
        source="",
        edits=dict.fromkeys(BOTH, line('            "rng": torch.get_rng_state(),\n', "")),
    ),
    Fault(
        id="checkpoint-without-ema",
        summary="The averaged copy is not in the checkpoint.",
        expected=("A111",),
        source="https://github.com/MultimediaTechLab/YOLO/pull/104",
        edits={"language_model": line('            "ema": ema.state_dict(),\n', "")},
    ),
    Fault(
        id="checkpoint-step-stuck",
        summary="Every checkpoint says step 0.",
        expected=("A107",),
        source="",
        edits=dict.fromkeys(BOTH, line('"step": step,', '"step": 0,')),
    ),
    Fault(
        id="checkpoint-pickles-the-model",
        summary="The whole model is pickled, so that it does not load with weights only.",
        expected=("A108",),
        source="",
        edits=dict.fromkeys(BOTH, line(MODEL, '"model": model,\n')),
    ),
    Fault(
        id="checkpoint-truncated",
        summary="The checkpoint is cut off while it is written.",
        expected=("A101",),
        source="",
        edits={
            "language_model": line(
                "        path,\n    )\n",
                "        path,\n    )\n    path.write_bytes(path.read_bytes()[:20000])\n",
            ),
            "image_classifier": line(
                "        path,\n    )\n",
                "        path,\n    )\n    path.write_bytes(path.read_bytes()[:20000])\n",
            ),
        },
    ),
    Fault(
        id="checkpoint-never-written",
        summary="No checkpoint is written at all.",
        expected=("A1",),
        source="",
        edits={
            "lightning_trainer": line(
                'callbacks=[ModelCheckpoint(args.out / "checkpoints", save_last=True)],',
                "enable_checkpointing=False,",
            ),
            "language_model": line(
                '                save(args.out / "checkpoint.pt", model, ema, optimizer, schedule, step)\n',
                "",
            ),
            "image_classifier": line(
                '        save(args.out / "checkpoint.pt", model, optimizer, schedule, epoch, step)\n', ""
            ),
        },
    ),
    Fault(
        id="checkpoint-before-training-only",
        summary="The only checkpoint is written before the first step.",
        expected=("A109",),
        source="",
        edits={
            "language_model": (
                (
                    '                save(args.out / "checkpoint.pt", model, ema, optimizer, schedule, step)\n',
                    "",
                ),
                (
                    "    batches = endless",
                    '    save(args.out / "checkpoint.pt", model, ema, optimizer, schedule, 0)\n    batches = endless',
                ),
            ),
            "image_classifier": (
                ('        save(args.out / "checkpoint.pt", model, optimizer, schedule, epoch, step)\n', ""),
                (
                    "    step = 0\n",
                    '    step = 0\n    save(args.out / "checkpoint.pt", model, optimizer, schedule, 0, step)\n',
                ),
            ),
        },
    ),
    Fault(
        id="logged-last-micro-batch",
        summary="The log holds the last micro-batch's share of the loss, not the step's loss.",
        expected=("A201",),
        source="",
        edits={"language_model": line("step_loss += loss.item()", "step_loss = loss.item()")},
    ),
    Fault(
        id="logged-scaled",
        summary="The logged loss is divided by the number of micro-batches once more.",
        expected=("A201",),
        source="https://github.com/BottleCapAI/NoCap-Test/pull/2",
        edits={
            "hf_trainer": line(
                "file.write(json.dumps(row)",
                'file.write(json.dumps(row | ({"loss": row["loss"] / 2} if "loss" in row else {}))',
            ),
            "lightning_trainer": line(
                'self.log("train_loss", loss)', 'self.log("train_loss", loss / len(waves))'
            ),
            "autoencoder": line('"loss": loss.item()', '"loss": scaler.scale(loss).item()'),
            "language_model": line("row = [step, step_loss,", "row = [step, step_loss / args.accumulate,"),
            "image_classifier": line("loss=loss.item(), lr=lr", "loss=loss.item() / len(images), lr=lr"),
        },
    ),
    Fault(
        id="logged-constant",
        summary="The log repeats the first step's loss.",
        expected=("A201",),
        source="",
        edits={
            "language_model": line(
                LM_ROW,
                f"            shown = step_loss if step == 1 else shown\n{LM_ROW.replace('step_loss', 'shown')}",
            ),
            "image_classifier": line(
                IC_LOG,
                "shown = loss.item() if step == 1 else shown\n            "
                + IC_LOG.replace("loss=loss.item()", "loss=shown"),
            ),
        },
    ),
    Fault(
        id="logged-twice",
        summary="Every row is logged twice, as if by two ranks.",
        expected=("A203",),
        source="",
        edits={
            "autoencoder": line(
                "                writer.writerow(row)\n",
                "                writer.writerow(row)\n                writer.writerow(row)\n",
            ),
            "hf_trainer": line("trainer.state.log_history:", "trainer.state.log_history * 2:"),
            "language_model": line(LM_WRITE, LM_WRITE + LM_WRITE),
            "image_classifier": line(IC_LOG, f"{IC_LOG}            {IC_LOG}"),
        },
    ),
    Fault(
        id="logged-step-stuck",
        summary="The logged step does not advance.",
        expected=("A204",),
        source="",
        edits={
            "autoencoder": line('row = {"step": step,', 'row = {"step": 1,'),
            "language_model": line("row = [step, step_loss,", "row = [1, step_loss,"),
            "image_classifier": line(IC_LOG, IC_LOG.replace("step=step", "step=1")),
        },
    ),
    Fault(
        id="logged-one-row-late",
        summary="The log is one step behind: each row holds the loss of the step before.",
        expected=("A201",),
        source="",
        edits={
            "image_classifier": line(
                IC_LOG,
                "last, shown = (loss.item() if step == 1 else shown), loss.item()\n            "
                + IC_LOG.replace("loss=loss.item()", "loss=last"),
            ),
        },
    ),
    Fault(
        id="logged-learning-rate-wrong",
        summary="The logged learning rate is the configured one, not the one in force.",
        expected=("A202",),
        source="",
        edits={
            "autoencoder": line('"lr": warmup.get_last_lr()[0]', '"lr": args.lr'),
            "language_model": line("lr = schedule.get_last_lr()[0]", "lr = args.lr"),
            "image_classifier": line('lr = optimizer.param_groups[0]["lr"]', "lr = args.lr"),
        },
    ),
    Fault(
        id="log-unreadable",
        summary="A row of the log has a cell too many.",
        expected=("A205",),
        source="",
        edits={
            "language_model": line(
                LM_WRITE, LM_WRITE.replace("(7 - len(row))", "(7 - len(row) + (step == 20))")
            ),
            "image_classifier": line(
                'file.write(json.dumps(values) + "\\n")', 'file.write(json.dumps(values) + ",\\n")'
            ),
        },
    ),
    Fault(
        id="losses-kept-with-graph",
        summary="Losses are kept with their graphs, and memory grows with every step.",
        expected=("R101", "R102"),
        source="https://github.com/huggingface/transformers/issues/6999",
        edits={
            "language_model": (
                (
                    "                loss.backward()\n",
                    "                loss.backward(retain_graph=True)\n                history.append(loss)\n",
                ),
                ("    batches = endless", "    history = []\n    batches = endless"),
            ),
            "image_classifier": (
                (
                    "            loss.backward()\n",
                    "            loss.backward(retain_graph=True)\n            history.append(loss)\n",
                ),
                ("    step = 0\n", "    step = 0\n    history = []\n"),
            ),
        },
    ),
)
