"""float16 autocast with a GradScaler whose first scale is so high that it skips a few steps, as it is meant to."""

import argparse
from pathlib import Path

import torch
from torch import nn


def main() -> None:
    """Trains with scaling, unscaling, clipping, stepping and updating in that order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--init-scale", type=float, default=2.0**19)
    parser.add_argument("--accumulate", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    teacher = nn.Sequential(nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 4)).requires_grad_(False)
    inputs = torch.randn(2048, 16)
    targets = 2 * teacher(inputs)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=args.init_scale)
    micro = 64 // args.accumulate
    for step in range(args.steps):
        total = 0.0
        for _ in range(args.accumulate):
            picked = torch.randint(len(inputs), (micro,))
            with torch.autocast("cpu", dtype=torch.float16):
                predicted = model(inputs[picked])
                loss = criterion(predicted.float(), targets[picked]) / args.accumulate
            scaler.scale(loss).backward()
            total += loss.item()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if step % 20 == 0:
            print(step, total, scaler.get_scale())
    args.out.mkdir(parents=True, exist_ok=True)
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "step": args.steps,
        "rng": torch.get_rng_state(),
    }
    torch.save(state, args.out / "checkpoint.pt")


if __name__ == "__main__":
    main()
