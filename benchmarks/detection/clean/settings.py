"""Which clean programs are run, with which arguments and seeds: the rules must stay silent on every one of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CleanRun:
    """One run of one program.

    Attributes:
        program: File name of the program, beside this file.
        seed: Its seed.
        options: Its arguments besides `--seed` and `--out`.
    """

    program: str
    seed: int
    options: tuple[str, ...]

    @property
    def name(self) -> str:
        """Program, options and seed in one word each, unique among all runs."""
        settings = "-".join(option.removeprefix("--") for option in self.options)
        return "-".join(
            part for part in (self.program.removesuffix(".py"), settings, f"s{self.seed}") if part
        )

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line, `--out` left to the caller."""
        return ("--seed", str(self.seed), *self.options)


VARIANTS: dict[str, tuple[str, ...]] = {
    # Parts that are frozen, copied or averaged.
    "frozen_backbone": ("", "--batch-size 64 --steps 40"),
    "head_only": ("", "--features graph"),
    "frozen_batchnorm": ("", "--affine frozen", "--batch-size 32 --steps 40"),
    "lora": ("", "--rank 2", "--accumulate 2"),
    "finetune": ("", "--backbone-lr 3e-4"),
    "distillation": ("", "--temperature 4"),
    "mean_teacher": ("", "--decay 0.9"),
    "byol": ("", "--momentum 0.9 --batch-size 32"),
    "gradual_unfreezing": ("", "--unfreeze-at 0.25"),
    "moco": ("", "--momentum 0.8"),
    "simsiam": ("", "--batch-size 32"),
    "early_stopping": ("", "--patience 4"),
    "dpo": ("", "--beta 0.1", "--batch-size 16 --steps 80"),
    "swa": ("", "--batch-size 32"),
    "ema_export": ("", "--decay 0.8"),
    # Losses.
    "infonce": ("", "--temperature 0.1", "--batch-size 96 --steps 40"),
    "clip_towers": ("", "--batch-size 64"),
    "triplet": ("", "--margin 1.0"),
    "label_smoothing": ("", "--smoothing 0.2", "--batch-size 64 --steps 50"),
    "class_weights": ("", "--batch-size 32"),
    "focal_loss": ("", "--gamma 1"),
    "nll_log_softmax": ("", "--batch-size 64 --steps 50"),
    "bce_sigmoid": ("", "--optimizer adamax"),
    "huber_regression": ("", "--loss mse", "--loss l1"),
    "multilabel": ("", "--batch-size 16 --steps 100"),
    "imbalanced": ("", "--prior 1"),
    "vae": ("", "--beta 0.5"),
    "diffusion": ("", "--batch-size 64"),
    "autoencoder": ("", "--batch-size 16", "--bottleneck 4"),
    "super_resolution": ("", "--width 8"),
    "physics_informed": ("", "--damping 0.1"),
    "multi_task": ("", "--separate 0"),
    "normalizing_flow": ("", "--depth 4"),
    "vq_vae": ("", "--codes 64"),
    "segmentation": ("", "--dice 0.0"),
    "poisson_counts": ("", "--kind gaussian"),
    # Generative adversaries and reinforcement learning.
    "dcgan": ("", "--batch-size 16", "--steps 60"),
    "wgan_gp": ("", "--critic-steps 5 --steps 20"),
    "reinforce": ("", "--agents 16", "--entropy 0.0"),
    "dqn": ("", "--double 1", "--copy-every 25"),
    "ppo": ("", "--passes 2"),
    "kl_reference": ("", "--kl 0.2"),
    "maml": ("", "--second-order 0", "--tasks 4"),
    # Language and sequences.
    "tied_lm": ("", "--depth 1", "--batch-size 32 --steps 40"),
    "masked_lm": ("", "--depth 2", "--dropout 0.0"),
    "seq2seq": ("", "--batch-size 64"),
    "encoder_classifier": ("", "--heads 4", "--batch-size 64"),
    "truncated_bptt": ("", "--batch-size 8 --chunk 24"),
    "labels_shifted_inside": ("", "--batch-size 16"),
    "ctc_speech": ("", "--batch-size 32 --steps 40"),
    "skipgram_adagrad": ("", "--batch-size 256"),
    # Parts without gradients in some steps.
    "auxiliary_head": ("", "--every 5"),
    "mixture_of_experts": ("", "--experts 4", "--batch-size 8 --steps 100"),
    "stochastic_depth": ("", "--depth 8", "--drop 0.2"),
    "sparse_embedding": ("", "--batch-size 64"),
    "gradient_checkpointing": ("", "--depth 3", "--no-checkpointing"),
    # Data.
    "curriculum": ("", "--batch-size 16"),
    "weighted_sampler": ("", "--batch-size 64"),
    "iterable_stream": ("", "--batch-size 16"),
    "full_batch": ("", "--optimizer gd"),
    "loader_workers": ("", "--workers 1", "--workers 0"),
    "bucketed_batches": ("", "--budget 300"),
    "overfit_one_batch": ("", "--batch-size 4"),
    "batch_size_one": ("", "--lr 4e-3"),
    "noisy_tiny_batch": ("", "--batch-size 4", "--tail 2.5"),
    # Steps, accumulation and clipping.
    "lbfgs_closure": ("", "--line-search none"),
    "sam": ("", "--rho 0.1"),
    "sum_accumulation": ("", "--accumulate 2"),
    "token_weighted_accumulation": ("", "--accumulate 2", "--accumulate 1 --batch-size 16"),
    "clip_by_value": ("", "--clip 0.01"),
    "clip_never_binds": ("", "--optimizer sgd", "--optimizer asgd"),
    "lion_optimizer": ("", "--lr 5e-4"),
    "two_optimizers": ("", "--matrix-lr 0.02"),
    "optimizer_in_backward": ("", "--lr 1e-3"),
    "torch_func": ("", "--lr 1e-2"),
    "softmax_regression": ("", "--lr 0.3"),
    "decay_groups": ("", "--implementation foreach", "--implementation loop --depth 1"),
    # Precision and compilation.
    "bf16_autocast": ("", "--precision fp32", "--batch-size 64 --steps 40"),
    "grad_scaler": ("", "--accumulate 2", "--init-scale 65536"),
    "compiled": ("", "--backend eager"),
    # Schedules.
    "lr_finder": ("", "--stop-at 3", "--last-lr 1.0"),
    "one_cycle": ("", "--max-lr 0.05", "--batch-size 16 --steps 80"),
    "warm_restarts": ("", "--restart-after 10 --stretch 2"),
    "reduce_on_plateau": ("", "--patience 2"),
    "step_lr_epochs": ("", "--batch-size 64"),
    "warmup_cosine": ("", "--start zero", "--batch-size 32 --steps 50"),
    "near_floor": ("", "--noise 1.0"),
    # Checkpoints and evaluation.
    "cross_validation": ("", "--folds 4"),
    "mc_dropout": ("", "--dropout 0.2"),
    "best_and_last": ("", "--batch-size 32"),
    "resume": ("", "--batch-size 16"),
}
"""Arguments of each program, by its name; the first are its defaults."""

DEFAULT_SEEDS = (0, 1)
"""Seeds of the defaults; every other variant has one of its own."""


def list_runs() -> tuple[CleanRun, ...]:
    """The defaults of every program with each default seed, and each variant once."""
    runs: list[CleanRun] = []
    for program, variants in VARIANTS.items():
        for position, variant in enumerate(variants):
            seeds = DEFAULT_SEEDS if position == 0 else (len(DEFAULT_SEEDS) + position - 1,)
            runs.extend(CleanRun(f"{program}.py", seed, tuple(variant.split())) for seed in seeds)
    return tuple(runs)


RUNS = list_runs()
