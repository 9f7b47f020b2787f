"""A small language model: holes among the inputs, two optimizers, clipping, a scaled loss."""

import argparse
import sys

import torch
from torch import nn

import sambaflow.samba.utils as utils
from sambaflow import samba
from sambaflow.samba.utils.argparser import parse_app_args
from sambaflow.samba.utils.pef_utils import get_pefmeta

VOCABULARY, LENGTH, WIDTH = 17, 6, 8


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.dropout = nn.Dropout(0.0)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.criterion = nn.CrossEntropyLoss(reduction="none")

    def forward(self, input_ids, past, mask, input_position_ids, labels):
        x = self.embedding(input_ids) + self.positions(input_position_ids)
        logits = self.head(self.norm(self.dropout(x)))
        return self.criterion(logits.view(-1, VOCABULARY), labels.view(-1)), logits


def add_args(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--ckpt")


def get_inputs(args) -> tuple:
    shape = (args.batch_size, LENGTH)
    ids = samba.randint(VOCABULARY, shape, name="input_ids", batch_dim=0, dtype=torch.int32)
    places = torch.arange(LENGTH).expand(shape).short()
    positions = samba.from_torch_tensor(places, name="input_position_ids", batch_dim=0)
    labels = samba.randint(VOCABULARY, shape, name="labels", batch_dim=0, dtype=torch.int16)
    return ids, None, None, positions, labels


def get_optimizers(model):
    embeddings = [model.embedding.weight, model.positions.weight]
    held = {id(parameter) for parameter in embeddings}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in held]
    return [
        samba.optim.AdamW(embeddings, lr=0.0, max_grad_norm=1.0),
        samba.optim.AdamW(rest, lr=0.0, weight_decay=0.01, max_grad_norm=1.0),
    ]


def main(argv):
    utils.set_seed(3)
    args = parse_app_args(argv, dev_mode=True, common_parser_fn=add_args)
    model = Tokens()
    samba.from_torch_model_(model)
    inputs = get_inputs(args)
    optimizers = get_optimizers(model)
    if args.command == "compile":
        samba.session.compile(
            model, inputs, optimizers, init_output_grads=True, config_dict=vars(args),
            pef_metadata=get_pefmeta(args, model),
        )  # fmt: skip
        return None
    traced = utils.trace_graph(model, inputs, optimizers, init_output_grads=True, pef=args.pef)
    return train(args, model, inputs, optimizers, traced)


def train(args, model, inputs, optimizers, traced):
    ids, _, _, positions, labels = (samba.to_torch(tensor) for tensor in inputs)
    named = samba.from_named_dict(
        {"labels": labels, "input_position_ids": positions, "input_ids": ids}
    )
    scale = torch.ones(args.batch_size * LENGTH) / (args.batch_size * LENGTH)
    traced[0].sn_grad = scale.bfloat16().to(traced[0].dtype)
    losses = []
    for _ in range(args.steps):
        loss, _ = samba.session.run(
            input_tensors=named,
            output_tensors=traced,
            hyperparam_dict={"lr": 0.05, "p": 0.0, "weight_decay": 0.0},
            section_types=["FWD", "BCKWD", "GRADNORM", "OPT"],
        )
        losses.append((samba.to_torch(loss) * scale).sum().item())
    samba.session.to_cpu(model)
    if args.ckpt:
        state = {"model": model.state_dict(), "optimizer": optimizers[0].state_dict()}
        torch.save(state, args.ckpt)
    model.eval()
    host = model(ids.int(), None, None, positions.int(), labels.long())[0].mean().item()
    (after, _) = samba.session.run(named, traced, {"p": 0.0}, ["fwd"])
    return losses, host, samba.to_torch(after).mean().item()


if __name__ == "__main__":
    main(sys.argv[1:])
