"""A data-parallel program as its users write it: a distributed sampler, and one rank that talks."""

import sys

import torch
from torch import distributed
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

from sambaflow import samba
from sambaflow.samba import utils
from sambaflow.samba.sambaloader import SambaLoader
from sambaflow.samba.utils.argparser import parse_app_args
from sambaflow.samba.utils.common import common_app_driver


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin_layer = torch.nn.Linear(4, 2)
        self.criterion = torch.nn.MSELoss()

    def forward(self, x, y):
        out = self.lin_layer(x)
        return self.criterion(out, y), out


def train(args, model):
    x = torch.arange(64.0).reshape(16, 4) / 64
    data = TensorDataset(x, x[:, :2] * 3)
    sampler = DistributedSampler(data) if distributed.is_initialized() else None
    loader = SambaLoader(DataLoader(data, args.batch_size, sampler=sampler), ["x", "y"])
    for epoch in range(2):
        if sampler is not None:
            sampler.set_epoch(epoch)
        for inputs in loader:
            loss, _ = samba.session.run(
                inputs, model.output_tensors, hyperparam_dict={"lr": 0.1},
                data_parallel=args.data_parallel, reduce_on_rdu=args.reduce_on_rdu,
            )  # fmt: skip
    samba.session.to_cpu(model)
    mean = samba.to_torch(loss).mean()
    if distributed.is_initialized():
        distributed.barrier()
        distributed.all_reduce(mean)
    weight = model.lin_layer.weight.detach().double().sum()
    print(f"{utils.get_rank()}/{utils.get_world_size()} {float(weight):.17f}")
    if utils.is_main_process():
        print(f"loss {float(mean) / utils.get_world_size():.4f}")


def main(argv):
    utils.set_seed(7)
    args = parse_app_args(argv)
    model = Line()
    samba.from_torch_model_(model)
    inputs = (samba.randn(args.batch_size, 4, name="x"), samba.randn(args.batch_size, 2, name="y"))
    optimizer = samba.optim.SGD(model.parameters(), lr=0.1)
    if args.command == "compile":
        samba.session.compile(model, inputs, optimizer, name="line", config_dict=vars(args))
    elif args.command == "run":
        utils.trace_graph(model, inputs, optimizer, pef=args.pef)
        train(args, model)
    else:
        common_app_driver(args, model, inputs, optimizer)


if __name__ == "__main__":
    main(sys.argv[1:])
