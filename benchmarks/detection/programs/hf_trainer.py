# mypy: ignore-errors
"""Trains a tiny causal language model, randomly initialised, with the Trainer of transformers."""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed

VOCABULARY = 48
PAD = 0
BEGIN = 1


class Sequences(Dataset):
    """Counting sequences with a step of their own each, which the second token tells."""

    def __init__(self, num_sequences, seed):
        generator = random.Random(seed)
        self.sequences = [self.write(generator) for _ in range(num_sequences)]

    def write(self, generator):
        stride = generator.randrange(2, 6)
        number = generator.randrange(VOCABULARY - 6)
        words = [BEGIN, stride]
        for _ in range(generator.randrange(8, 22)):
            words.append(6 + number)
            number = (number + stride) % (VOCABULARY - 6)
        return words

    def __len__(self):
        return len(self.sequences)

    def __getitem__(self, index):
        return {"input_ids": self.sequences[index]}


def collate(samples):
    """Pads on the right; padding is masked, and no target."""
    sequences = [sample["input_ids"] for sample in samples]
    length = max(len(sequence) for sequence in sequences)
    input_ids = torch.full((len(sequences), length), PAD)
    labels = torch.full((len(sequences), length), -100)
    attention_mask = torch.zeros(len(sequences), length, dtype=torch.long)
    for row, sequence in enumerate(sequences):
        input_ids[row, : len(sequence)] = torch.tensor(sequence)
        labels[row, : len(sequence)] = torch.tensor(sequence)
        attention_mask[row, : len(sequence)] = 1
    return {"input_ids": input_ids, "labels": labels, "attention_mask": attention_mask}


def build_model():
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=PAD,
        bos_token_id=BEGIN,
        eos_token_id=None,
        initializer_range=0.05,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config)


def train(args):
    set_seed(args.seed)
    train_set = Sequences(640, seed=1000 + args.seed)
    val_set = Sequences(64, seed=5000 + args.seed)
    model = build_model()
    arguments = TrainingArguments(
        output_dir=str(args.out),
        max_steps=args.steps,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=32,
        gradient_accumulation_steps=2,
        learning_rate=args.lr,
        weight_decay=0.01,
        max_grad_norm=1.0,
        warmup_steps=5,
        lr_scheduler_type="cosine",
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=args.eval_every,
        save_strategy="steps",
        save_steps=args.eval_every,
        save_total_limit=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=args.seed,
        dataloader_num_workers=0,
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=train_set, eval_dataset=val_set, data_collator=collate
    )
    trainer.train()
    with (args.out / "metrics.jsonl").open("w") as file:
        for row in trainer.state.log_history:
            file.write(json.dumps(row) + "\n")
    trainer.save_model(str(args.out / "final"))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("run"))
    parser.add_argument("--steps", type=int, default=55)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--eval-every", type=int, default=20)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
