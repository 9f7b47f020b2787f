"""A program as they were written in 2021: single-dash flags, no config_dict, a loss of its own."""

import argparse
import sys

import torch
from torch import nn

import sambaflow.samba.utils as utils
from sambaflow import samba
from sambaflow.samba.utils.argparser import parse_app_args


class Peaks(nn.Module):
    def __init__(self, imgsz: int, fcsz: int) -> None:
        super().__init__()
        self.dense = nn.Sequential(nn.Linear(imgsz, fcsz), nn.LeakyReLU(), nn.Linear(fcsz, 2))
        self.criterion = nn.MSELoss()

    def forward(self, x, y):
        out = self.dense(x)
        return self.criterion(out, y), out


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-lr", type=float, default=0.05)
    parser.add_argument("-mbsize", type=int, default=8)
    parser.add_argument("-maxep", type=int, default=40)
    parser.add_argument("-psz", type=int, default=5)


def add_run_args(parser: argparse.ArgumentParser) -> None:
    pass


def main(argv):
    utils.set_seed(256)
    args = parse_app_args(argv=argv, common_parser_fn=add_args, run_parser_fn=add_run_args)
    model = Peaks(args.psz**2, 16)
    samba.from_torch_(model)
    inputs = (
        samba.randn(args.mbsize, args.psz**2, name="image", batch_dim=0),
        samba.randn(args.mbsize, 2, name="peak", batch_dim=0),
    )
    optimizer = samba.optim.SGD(model.parameters(), lr=args.lr)
    if args.command == "compile":
        samba.session.compile(model, inputs, optimizer, name="peaks")
    elif args.command == "run":
        samba.utils.trace_graph(model, inputs, optimizer, pef=args.pef, mapping=args.mapping)
        return train(args, model)
    return None


def train(args, model):
    x = torch.randn(args.mbsize, args.psz**2)
    y = torch.randn(args.mbsize, 2)
    losses = []
    for _ in range(args.maxep):
        named = samba.from_torch(x, name="image", batch_dim=0), samba.from_torch(y, name="peak")
        loss, out = samba.session.run(input_tensors=named, output_tensors=model.output_tensors)
        losses.append(float(loss.torch().numpy()))
        assert out.torch().shape == (args.mbsize, 2)
    return losses


if __name__ == "__main__":
    main(sys.argv[1:])
