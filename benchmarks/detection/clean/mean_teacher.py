"""Semi-supervised mean teacher: the teacher is an average of the student, run in train mode without gradients."""

import argparse
import copy
import json
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


def build_student() -> nn.Sequential:
    """A classifier with dropout, which makes student and teacher see different noise."""
    return nn.Sequential(
        nn.Linear(16, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)
    )


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, decay: float) -> None:
    """Moves the teacher towards the student."""
    for average, value in zip(teacher.parameters(), student.parameters(), strict=True):
        average.lerp_(value, 1 - decay)


def jitter(inputs: Tensor) -> Tensor:
    """The augmentation."""
    return inputs + 0.2 * torch.randn_like(inputs)


def main() -> None:
    """Trains on few labels and many unlabelled points."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--decay", type=float, default=0.95)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)

    centers = 0.7 * torch.randn(4, 16)
    classes = torch.randint(4, (1000,))
    points = centers[classes] + torch.randn(1000, 16)
    num_labelled = 100

    student = build_student()
    teacher = copy.deepcopy(student)
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    optimizer = torch.optim.Adam(student.parameters(), lr=5e-3)

    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "metrics.jsonl").open("w") as log:
        for step in range(args.steps):
            labelled = torch.randint(num_labelled, (32,))
            unlabelled = points[torch.randint(num_labelled, len(points), (64,))]
            supervised = functional.cross_entropy(student(jitter(points[labelled])), classes[labelled])
            with torch.no_grad():
                wanted = teacher(jitter(unlabelled)).softmax(-1)
            got = student(jitter(unlabelled)).softmax(-1)
            weight = min(1.0, step / 20)
            loss = supervised + weight * functional.mse_loss(got, wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            update_teacher(teacher, student, args.decay)
            log.write(json.dumps({"step": step, "loss": loss.item(), "supervised": supervised.item()}) + "\n")

    state = {
        "student": student.state_dict(),
        "teacher": teacher.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": args.steps,
        "rng": torch.get_rng_state(),
    }
    torch.save(state, args.out / "last.pt")


if __name__ == "__main__":
    main()
