"""PPO with a clipped ratio: several passes over the same roll-out on purpose, policy and value in one loss."""

import argparse
import csv
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Categorical


class ActorCritic(nn.Module):
    """Shared features, logits of actions, and a value."""

    def __init__(self, observed: int, actions: int) -> None:
        super().__init__()
        self.shared = nn.Sequential(nn.Linear(observed, 48), nn.Tanh())
        self.actor = nn.Linear(48, actions)
        self.critic = nn.Linear(48, 1)

    def forward(self, observation: Tensor) -> tuple[Categorical, Tensor]:
        """Distribution over actions, and the value."""
        features = self.shared(observation)
        return Categorical(logits=self.actor(features)), self.critic(features).squeeze(-1)


def roll_out(model: ActorCritic, rules: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """One pull each of many bandits with a context: observation, action, log-probability, advantage, reward."""
    observation = torch.randn(size, rules.shape[0])
    with torch.no_grad():
        choice, value = model(observation)
        action = choice.sample()
        reward = ((observation @ rules).argmax(1) == action).float()
        return observation, action, choice.log_prob(action), reward - value, reward


def main() -> None:
    """Collects, then updates in minibatches."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=96)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--clip", type=float, default=0.2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rules = torch.randn(6, 4)
    model = ActorCritic(6, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, eps=1e-5)
    rows = []
    for update in range(args.steps // (4 * args.passes)):
        observation, action, old_log_prob, advantage, reward = roll_out(model, rules, 256)
        rows.append((update, reward.mean().item()))
        scaled = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        for _ in range(args.passes):
            for picked in torch.randperm(256).split(64):
                choice, value = model(observation[picked])
                ratio = (choice.log_prob(action[picked]) - old_log_prob[picked]).exp()
                gain = torch.min(
                    ratio * scaled[picked], ratio.clamp(1 - args.clip, 1 + args.clip) * scaled[picked]
                )
                loss = (
                    -gain.mean()
                    + 0.5 * (value - reward[picked]).pow(2).mean()
                    - 0.01 * choice.entropy().mean()
                )
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
    print("reward", rows[0][1], "->", rows[-1][1])
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "metrics.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("update", "reward"), *rows])
    torch.save(model.state_dict(), args.out / "ppo.pt")


if __name__ == "__main__":
    main()
