"""REINFORCE with a moving baseline in an environment written here: the loss has any sign and need not fall."""

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor, nn


class Corridors:
    """Many agents at once on a line; one step towards the goal pays, any other costs."""

    def __init__(self, num_agents: int) -> None:
        self.place = torch.randint(9, (num_agents,))
        self.goal = torch.randint(9, (num_agents,))

    def observe(self) -> Tensor:
        """Place and goal, one-hot, [N, 18]."""
        return torch.cat([nn.functional.one_hot(x, 9) for x in (self.place, self.goal)], 1).float()

    def act(self, action: Tensor) -> Tensor:
        """Moves left, not at all or right; the reward of each agent."""
        before = (self.place - self.goal).abs()
        self.place = (self.place + action - 1).clamp(0, 8)
        after = (self.place - self.goal).abs()
        return torch.where(after < before, 1.0, -0.2) + (after == 0).float()


def main() -> None:
    """One update per batch of episodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--agents", type=int, default=32)
    parser.add_argument("--entropy", type=float, default=0.01)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    policy = nn.Sequential(nn.Linear(18, 48), nn.Tanh(), nn.Linear(48, 3))
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    baseline, rows = 0.0, []
    for step in range(args.steps):
        world = Corridors(args.agents)
        log_probs, rewards, entropies = [], [], []
        for _ in range(8):
            choice = torch.distributions.Categorical(logits=policy(world.observe()))
            action = choice.sample()
            log_probs.append(choice.log_prob(action))
            entropies.append(choice.entropy())
            rewards.append(world.act(action))
        returns = torch.stack(rewards).flip(0).cumsum(0).flip(0)
        score = torch.stack(rewards).sum(0).mean().item()
        baseline = returns.mean().item() if step == 0 else 0.9 * baseline + 0.1 * returns.mean().item()
        loss = (
            -(torch.stack(log_probs) * (returns - baseline)).mean()
            - args.entropy * torch.stack(entropies).mean()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows.append((step, score, loss.item()))
    print("return", rows[0][1], "->", rows[-1][1])
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("step", "return", "policy_loss"), *rows])
    torch.save(policy.state_dict(), args.out / "policy.pt")


if __name__ == "__main__":
    main()
