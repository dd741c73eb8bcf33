"""A small decoder-only transformer: RMS norms before each part, causal attention, GELU, no biases.

Shape suffixes: B sequences, T positions, C width, H heads, D width of a head, M width of the MLP, V vocabulary
size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name the field uses

if TYPE_CHECKING:
    from reference_model.config import ModelConfig


class CausalSelfAttention(nn.Module):
    """Attention of every position to itself and those before it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Mixed positions [B, T, C]."""
        qkv_BTHD = self.qkv(x_BTC).unflatten(-1, (3, self.heads, -1))
        q_BHTD, k_BHTD, v_BHTD = qkv_BTHD.permute(2, 0, 3, 1, 4)
        mixed_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHTD, v_BHTD, is_causal=True)
        projected: Tensor = self.out(mixed_BHTD.transpose(1, 2).flatten(-2))
        return projected


class MLP(nn.Module):
    """Two linear maps with a GELU between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.width, config.mlp_ratio * config.width, bias=False)
        self.down = nn.Linear(config.mlp_ratio * config.width, config.width, bias=False)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Each position on its own, [B, T, C]."""
        hidden_BTM = F.gelu(self.up(x_BTC))
        projected: Tensor = self.down(hidden_BTM)
        return projected


class Block(nn.Module):
    """Attention, then MLP, each added to the residual stream."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attn_norm = nn.RMSNorm(config.width)
        self.attn = CausalSelfAttention(config)
        self.mlp_norm = nn.RMSNorm(config.width)
        self.mlp = MLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """The residual stream [B, T, C] after this block."""
        x_BTC = x_BTC + self.dropout(self.attn(self.attn_norm(x_BTC)))
        updated_BTC: Tensor = x_BTC + self.dropout(self.mlp(self.mlp_norm(x_BTC)))
        return updated_BTC


class Transformer(nn.Module):
    """Logits of the next token at every position.

    Args:
        config: shape of the model.
        vocab_size: number of tokens, V.
        context: longest sequence, the largest T.
        row_length: positions per row. A position is embedded as its row plus its column, and with more than
            one row it also sees the token above the one it predicts, which makes pictures quick to learn.
    """

    def __init__(self, config: ModelConfig, *, vocab_size: int, context: int, row_length: int) -> None:
        super().__init__()
        self.row_length = row_length
        self.no_token_above = vocab_size
        self.token_embedding = nn.Embedding(vocab_size, config.width)
        self.row_embedding = nn.Embedding(-(-context // row_length), config.width)
        self.column_embedding = nn.Embedding(row_length, config.width)
        self.above_embedding = nn.Embedding(vocab_size + 1, config.width) if context > row_length else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.RMSNorm(config.width)
        self.head = nn.Linear(config.width, vocab_size, bias=False)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.5)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.6 * module.in_features**-0.5)
        # Zero logits make the first loss exactly that of a guess among all tokens, log(V).
        nn.init.zeros_(self.head.weight)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits [B, T, V], float; those at position t depend on tokens up to t only."""
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        x_BTC = self.token_embedding(tokens_BT)
        x_BTC = x_BTC + self.row_embedding(positions_T // self.row_length)
        x_BTC = x_BTC + self.column_embedding(positions_T % self.row_length)
        if self.above_embedding is not None:
            x_BTC = x_BTC + self.above_embedding(self._tokens_above(tokens_BT))
        x_BTC = self.dropout(x_BTC)
        for block in self.blocks:
            x_BTC = block(x_BTC)
        logits_BTV: Tensor = self.head(self.final_norm(x_BTC))
        return logits_BTV

    def _tokens_above(self, tokens_BT: Tensor) -> Tensor:
        """For every position, the token one row above the one it predicts; the first row has none."""
        # Position t predicts token t + 1, so the token above is row_length - 1 positions back.
        padded_BT = F.pad(tokens_BT[:, 1:], (self.row_length, 0), value=self.no_token_above)
        return padded_BT[:, : tokens_BT.shape[1]]

    def num_parameters(self) -> int:
        """Number of learned values."""
        return sum(parameter.numel() for parameter in self.parameters())
