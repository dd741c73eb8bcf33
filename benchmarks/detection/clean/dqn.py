"""A tiny DQN with replay and a target network that is copied every few steps: the loss may rise as values grow."""

import argparse
import copy
import random
from collections import deque
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

Transition = tuple[list[float], int, float, list[float], float]


class Ball:
    """A ball on a slope that is pushed left or right and pays for being near the middle."""

    def __init__(self, generator: random.Random) -> None:
        self.generator = generator
        self.reset()

    def reset(self) -> list[float]:
        """A random start."""
        self.place, self.speed, self.age = self.generator.uniform(-1, 1), 0.0, 0
        return [self.place, self.speed]

    def act(self, action: int) -> tuple[list[float], float, bool]:
        """Observation, reward, and whether the episode is over."""
        self.speed = 0.9 * self.speed + 0.1 * (2 * action - 1)
        self.place += 0.3 * self.speed
        self.age += 1
        is_over = abs(self.place) > 1.5 or self.age >= 40  # noqa: PLR2004 - the edge and the time limit
        return [self.place, self.speed], 1 - abs(self.place), is_over


def main() -> None:
    """Acts, remembers, and learns from a sample of memories."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--copy-every", type=int, default=10)
    parser.add_argument("--double", type=int, choices=(0, 1), default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    generator = random.Random(args.seed)  # noqa: S311 - no secrets here
    online = nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 2))
    target = copy.deepcopy(online).requires_grad_(False)
    optimizer = torch.optim.Adam(online.parameters(), lr=5e-3)
    memory: deque[Transition] = deque(maxlen=2000)
    ball = Ball(generator)
    seen = ball.reset()
    for step in range(-50, args.steps):
        for _ in range(2):
            with torch.no_grad():
                best = int(online(torch.tensor(seen)).argmax())
            action = generator.randrange(2) if generator.random() < 0.2 or step < 0 else best  # noqa: PLR2004
            following, reward, is_over = ball.act(action)
            memory.append((seen, action, reward, following, float(is_over)))
            seen = ball.reset() if is_over else following
        if step < 0:
            continue
        states, actions, rewards, nexts, ends = map(
            torch.tensor, zip(*generator.sample(memory, 32), strict=True)
        )
        with torch.no_grad():
            chosen = (online if args.double else target)(nexts).argmax(1, keepdim=True)
            wanted = rewards + 0.95 * (1 - ends) * target(nexts).gather(1, chosen).squeeze(1)
        got = online(states).gather(1, actions[:, None]).squeeze(1)
        loss = functional.smooth_l1_loss(got, wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(online.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % args.copy_every == 0:
            target.load_state_dict(online.state_dict())
        if step % 25 == 0:
            print(step, loss.item(), got.mean().item())
    args.out.mkdir(parents=True, exist_ok=True)
    torch.save({"online": online.state_dict(), "target": target.state_dict()}, args.out / "dqn.pt")


if __name__ == "__main__":
    main()
