"""A network on MNIST, trained by any number of processes, with checkpoints that it resumes from.

python data_parallel.py compile --data-parallel -ws 2 -b 32 --pef-name=replica
mpirun -np 2 python data_parallel.py run --data-parallel --reduce-on-rdu -b 32 \
    --pef=out/replica/replica.pef

`run` again continues where the last one was stopped.  The submit_*.sh beside it start it with
srun, mpirun and torchrun.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader, TensorDataset

import batucada
import sambaflow.samba.utils as utils
from sambaflow import samba
from sambaflow.samba.utils.argparser import parse_app_args
from sambaflow.samba.utils.common import common_app_driver
from sambaflow.samba.utils.dataset.mnist import load_mnist
from sambaflow.samba.utils.pef_utils import get_pefmeta
from sambaflow.samba.utils.values import fraction_or_more, positive

SAMPLE = Path(__file__).parent.parent / "data" / "MNIST" / "raw"
NUM_FEATURES, NUM_CLASSES = 784, 10
SEED = 256


class Network(nn.Module):
    """Two layers with dropout between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(NUM_FEATURES, width)
        self.drop = nn.Dropout(0.1)
        self.second = nn.Linear(width, NUM_CLASSES)
        self.criterion = nn.CrossEntropyLoss()

    def forward(
        self, images: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """f32[batch, 784], i64[batch] -> loss f32[], logits f32[batch, 10]"""
        logits = self.second(self.drop(self.first(images).relu()))
        return self.criterion(logits, labels), logits


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--width", type=positive, default=64, help="of the hidden layer")
    parser.add_argument("--lr", type=fraction_or_more, default=0.001, help="learning rate")


def add_run_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-e", "--num-epochs", type=positive, default=2, help="epochs in all")
    parser.add_argument("--data-folder", default="mnist_data", help="MNIST is here, or comes here")
    parser.add_argument(
        "--checkpoint-folder", type=Path, default=Path("checkpoints"),
        help="checkpoints of this training; run continues from the newest",
    )  # fmt: skip
    parser.add_argument("--checkpoint-steps", type=positive, help="steps between two checkpoints")
    parser.add_argument(
        "--checkpoint-seconds", type=float, default=60.0, help="seconds between two, at most"
    )
    parser.add_argument("--keep", type=positive, default=3, help="checkpoints that stay")
    parser.add_argument(
        "--before-limit", type=float, help="seconds before Slurm's time limit to stop at"
    )


def training_data(args: argparse.Namespace) -> TensorDataset:
    """Rank 0 fetches and unpacks it for all."""
    if utils.is_main_process():
        mnist(args, train=True)
    if distributed.is_initialized():
        distributed.barrier()
    return mnist(args, train=True)


def mnist(args: argparse.Namespace, train: bool) -> TensorDataset:
    return load_mnist(args.data_folder, {"num_features": NUM_FEATURES}, train=train, sample=SAMPLE)


def named(images: torch.Tensor, labels: torch.Tensor) -> list[samba.SambaTensor]:
    return [
        samba.from_torch_tensor(images, name="image", batch_dim=0),
        samba.from_torch_tensor(labels, name="label", batch_dim=0),
    ]


def train(args: argparse.Namespace, model: Network, optimizer: torch.optim.Optimizer) -> bool:
    """Train from the newest checkpoint on; False when training had to stop before its end."""
    data = training_data(args)
    sampler = batucada.ResumableSampler(data, seed=SEED)
    own = torch.Generator()  # so that going through the loader draws from no other
    loader = DataLoader(data, args.batch_size, sampler=sampler, drop_last=True, generator=own)
    with batucada.Checkpoints(
        args.checkpoint_folder, samba.session.program, model, [optimizer],
        every_steps=args.checkpoint_steps, every_seconds=args.checkpoint_seconds,
        before_limit_s=args.before_limit, keep=args.keep,
    ) as checkpoints:  # fmt: skip
        progress = checkpoints.resume()
        if progress.step:
            say(f"Resumed after step {progress.step}, in epoch {progress.epoch + 1}")
        while progress.epoch < args.num_epochs:
            sampler.set_epoch(progress.epoch, progress.samples)
            total = torch.zeros(2)
            for images, labels in loader:
                total += torch.tensor([step(args, model, images, labels), 1.0])
                progress = progress.after_batch(args.batch_size * utils.get_world_size())
                if checkpoints.after_step(progress):
                    return False
            report(f"Epoch [{progress.epoch + 1}/{args.num_epochs}]", total)
            progress = progress.next_epoch()
        checkpoints.save(progress)
    return True


def step(
    args: argparse.Namespace, model: Network, images: torch.Tensor, labels: torch.Tensor
) -> float:
    """Returns the loss of this rank's batch."""
    loss, _ = samba.session.run(
        input_tensors=named(images, labels),
        output_tensors=model.output_tensors,
        hyperparam_dict={"lr": args.lr},
        data_parallel=args.data_parallel,
        reduce_on_rdu=args.reduce_on_rdu,
    )
    return samba.to_torch(loss).item()


def report(epoch: str, total: torch.Tensor) -> None:
    """`total` is this rank's sum of losses, and of how many, since the epoch began or went on."""
    if distributed.is_initialized():
        distributed.all_reduce(total)
    losses, batches = total.tolist()
    if batches:
        say(f"{epoch}, Loss: {losses / batches:.4f}")


def evaluate(args: argparse.Namespace, model: Network) -> None:
    """On the host: rank 0 has the weights of all."""
    if not utils.is_main_process():
        return
    samba.session.to_cpu(model)
    model.eval()
    images, labels = mnist(args, train=False).tensors
    with torch.no_grad():
        loss, logits = model(images, labels)
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    say(f"Test Accuracy: {100 * accuracy:.2f} Loss: {loss.item():.4f}")


def say(line: str) -> None:
    if utils.is_main_process():
        print(line, flush=True)


def get_inputs(args: argparse.Namespace) -> tuple[samba.SambaTensor, samba.SambaTensor]:
    """Dummies of the right names, shapes and dtypes."""
    images = samba.randn(args.batch_size, NUM_FEATURES, name="image", batch_dim=0)
    return images, samba.randint(NUM_CLASSES, (args.batch_size,), name="label", batch_dim=0)


def main(argv: list[str]) -> None:
    utils.set_seed(SEED)
    args = parse_app_args(argv, common_parser_fn=add_args, run_parser_fn=add_run_args)
    inputs = get_inputs(args)
    model = Network(args.width)
    samba.from_torch_model_(model)
    optimizer = samba.optim.AdamW(model.parameters(), lr=args.lr)

    if args.command == "compile":
        samba.session.compile(
            model,
            inputs,
            optimizer,
            name="data_parallel",
            app_dir=utils.get_file_dir(__file__),
            config_dict=vars(args),
            pef_metadata=get_pefmeta(args, model),
        )
    elif args.command == "run":
        utils.trace_graph(model, inputs, optimizer, pef=args.pef)
        if train(args, model, optimizer):
            evaluate(args, model)
    else:
        common_app_driver(args, model, inputs, optimizer, name="data_parallel")


if __name__ == "__main__":
    main(sys.argv[1:])
