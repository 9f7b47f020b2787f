"""The model: two layers with a ReLU between, then a logistic regression."""

import argparse

import torch
from torch import nn

from sambaflow import samba


class FFN(nn.Module):
    """features -> ffn_dim_1 -> ReLU -> ffn_dim_2"""

    def __init__(self, num_features: int, ffn_dim_1: int, ffn_dim_2: int) -> None:
        super().__init__()
        self.gemm1 = nn.Linear(num_features, ffn_dim_1, bias=False)
        self.relu = nn.ReLU()
        self.gemm2 = nn.Linear(ffn_dim_1, ffn_dim_2, bias=False)
        nn.init.xavier_normal_(self.gemm1.weight)
        nn.init.xavier_normal_(self.gemm2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.gemm2(self.relu(self.gemm1(x)))


class LogReg(nn.Module):
    """features -> classes"""

    def __init__(self, num_features: int, num_classes: int) -> None:
        super().__init__()
        self.lin_layer = nn.Linear(num_features, num_classes, bias=False)
        nn.init.xavier_normal_(self.lin_layer.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin_layer(x)


class FFNLogReg(nn.Module):
    """Both, and the loss."""

    def __init__(self, num_features: int, ffn_dim_1: int, ffn_dim_2: int, num_classes: int) -> None:
        super().__init__()
        self.ffn = FFN(num_features, ffn_dim_1, ffn_dim_2)
        self.logreg = LogReg(ffn_dim_2, num_classes)
        self.criterion = nn.CrossEntropyLoss()

    def forward(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """f32[batch, features], i64[batch] -> loss f32[], logits f32[batch, classes]"""
        logits = self.logreg(self.ffn(images))
        return self.criterion(logits, labels), logits

    @staticmethod
    def get_fake_inputs(
        args: argparse.Namespace,
    ) -> tuple[samba.SambaTensor, samba.SambaTensor]:
        """Images and labels of the right shapes, to compile with."""
        images = samba.randn(args.batch_size, args.num_features, name="image", batch_dim=0)
        labels = samba.randint(args.num_classes, (args.batch_size,), name="label", batch_dim=0)
        return images.bfloat16().float(), labels
