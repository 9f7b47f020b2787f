"""The program's own arguments."""

import argparse

from sambaflow.samba.utils.values import fraction_or_more, positive


def add_args(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command."""
    parser.add_argument("--lr", type=fraction_or_more, default=0.001, help="learning rate")
    parser.add_argument("--momentum", type=fraction_or_more, default=0.0, help="momentum factor")
    parser.add_argument("--weight-decay", type=fraction_or_more, default=1e-4, help="L2 penalty")
    parser.add_argument("-e", "--num-epochs", type=positive, default=1)
    parser.add_argument("--num-features", type=positive, default=784, help="pixels of an image")
    parser.add_argument("--num-classes", type=positive, default=10)
    parser.add_argument("--ffn-dim-1", type=positive, default=32, help="width of the first layer")
    parser.add_argument("--ffn-dim-2", type=positive, default=32, help="width of the second layer")
    parser.add_argument("--acc-test", action="store_true", help="fail below 91 %% of accuracy")


def add_run_args(parser: argparse.ArgumentParser) -> None:
    """Arguments of `run`."""
    parser.add_argument("--data-folder", default="mnist_data", help="MNIST is here, or comes here")
    parser.add_argument("--checkpoint", help="trained weights: written, or read with --inference")
