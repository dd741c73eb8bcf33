"""Knowledge distillation: KLDivLoss is given log-probabilities, which is right there, and a frozen teacher."""

import argparse
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional


class DistillationLoss(nn.Module):
    """Part divergence from the teacher at a temperature, part cross-entropy with the labels."""

    def __init__(self, temperature: float, share: float) -> None:
        super().__init__()
        self.temperature = temperature
        self.share = share
        self.divergence = nn.KLDivLoss(reduction="batchmean")

    def forward(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        """One number."""
        soft = self.divergence(
            functional.log_softmax(student / self.temperature, 1),
            functional.softmax(teacher / self.temperature, 1),
        )
        hard = functional.cross_entropy(student, labels)
        loss: Tensor = self.share * self.temperature**2 * soft + (1 - self.share) * hard
        return loss


def make_batch(centers: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Points around the centers, two centers to a class."""
    which = torch.randint(len(centers), (size,))
    return centers[which] + 0.5 * torch.randn(size, centers.shape[1]), which // 2


def train_teacher(centers: Tensor) -> nn.Sequential:
    """A wide net, trained first."""
    teacher = nn.Sequential(nn.Linear(12, 128), nn.ReLU(), nn.Linear(128, 5))
    optimizer = torch.optim.Adam(teacher.parameters(), lr=5e-3)
    for _ in range(30):
        points, labels = make_batch(centers, 64)
        loss = functional.cross_entropy(teacher(points), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return teacher.eval().requires_grad_(False)


def main() -> None:
    """Trains the teacher, then the student from it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--temperature", type=float, default=2.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    centers = torch.randn(10, 12)
    args.out.mkdir(parents=True, exist_ok=True)
    teacher_path = args.out / "teacher.pt"
    torch.save(train_teacher(centers).state_dict(), teacher_path)

    teacher = nn.Sequential(nn.Linear(12, 128), nn.ReLU(), nn.Linear(128, 5))
    teacher.load_state_dict(torch.load(teacher_path, weights_only=True))
    teacher.eval().requires_grad_(False)
    student = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5))
    criterion = DistillationLoss(args.temperature, share=0.7)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
    for step in range(args.steps):
        points, labels = make_batch(centers, 32)
        loss = criterion(student(points), teacher(points), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(step, loss.item())
    torch.save(student.state_dict(), args.out / "student.pt")


if __name__ == "__main__":
    main()
