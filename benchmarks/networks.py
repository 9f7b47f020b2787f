"""The networks that are measured beside the FFN, each small and as people write it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class LeNet(nn.Module):
    """images [B, 1, 28, 28] -> logits [B, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.hidden = nn.Linear(400, 120)
        self.features = nn.Linear(120, 84)
        self.classes = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.relu(self.hidden(x.flatten(1)))
        return self.classes(functional.relu(self.features(x)))


def mlp(width: int = 1024) -> nn.Module:
    """[B, 1024] -> [B, 1024]"""
    return nn.Sequential(
        nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, width), nn.ReLU(),
        nn.Linear(width, width),
    )  # fmt: skip


def _double(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """images [B, 3, H, W] -> logits [B, 2, H, W]; three levels, 16 features in the first"""

    def __init__(self, features: int = 16) -> None:
        super().__init__()
        f = features
        self.down1, self.down2, self.bottom = (
            _double(3, f),
            _double(f, 2 * f),
            _double(2 * f, 4 * f),
        )
        self.up2 = nn.ConvTranspose2d(4 * f, 2 * f, 2, 2)
        self.level2 = _double(4 * f, 2 * f)
        self.up1 = nn.ConvTranspose2d(2 * f, f, 2, 2)
        self.level1 = _double(2 * f, f)
        self.classes = nn.Conv2d(f, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        x = self.bottom(functional.max_pool2d(second, 2))
        x = self.level2(torch.cat([self.up2(x), second], 1))
        x = self.level1(torch.cat([self.up1(x), first], 1))
        return self.classes(x)


def resnet18() -> nn.Module:
    import torchvision

    return torchvision.models.resnet18(num_classes=10)


class Block(nn.Module):
    """A transformer block of GPT-2: [B, T, width] -> the same"""

    def __init__(self, width: int = 256, heads: int = 4, causal: bool = True) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, width = x.shape
        parts = self.qkv(self.norm1(x)).chunk(3, -1)
        q, k, v = (part.view(batch, steps, self.heads, -1).transpose(1, 2) for part in parts)
        found = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.project(found.transpose(1, 2).reshape(batch, steps, width))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    """tokens [B, T] -> logits [B * T, words]; input and output embeddings are one matrix"""

    def __init__(self, layers: int = 4, words: int = 8192, width: int = 256, steps: int = 128):
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.position = nn.Parameter(torch.zeros(steps, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.blocks(self.embedding(tokens) + self.position)
        return functional.linear(self.norm(x), self.embedding.weight).flatten(0, 1)


class ViT(nn.Module):
    """ViT-tiny (192 wide, 12 blocks, 3 heads), patches of 8: images [B, 3, 64, 64] -> [B, 10]"""

    def __init__(self, width: int = 192, layers: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 65, width))
        self.blocks = nn.Sequential(*(Block(width, heads, causal=False) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.classes = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.classes(self.norm(self.blocks(x))[:, 0])


class BiLSTM(nn.Module):
    """sequences [B, T, 64] -> logits [B, 10]"""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 128, bidirectional=True, batch_first=True)
        self.classes = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.lstm(x)[0][:, -1])
