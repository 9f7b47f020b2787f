"""A feed-forward network with a logistic regression on MNIST: one program for every command.

python sn_boilerplate_main.py compile --pef-name=ffn --output-folder=out
python sn_boilerplate_main.py test --pef=out/ffn/ffn.pef
python sn_boilerplate_main.py run --pef=out/ffn/ffn.pef
python sn_boilerplate_main.py measure-performance --pef=out/ffn/ffn.pef
"""

import sys

from sn_boilerplate_args import add_args, add_run_args
from sn_boilerplate_model import FFNLogReg
from sn_boilerplate_other import evaluate, test, train

import sambaflow.samba.utils as utils
from sambaflow import samba
from sambaflow.samba.utils.argparser import parse_app_args
from sambaflow.samba.utils.common import common_app_driver
from sambaflow.samba.utils.pef_utils import get_pefmeta

NAME = "ffn_mnist_torch"


def main(argv: list[str]) -> None:
    utils.set_seed(256)
    args = parse_app_args(argv=argv, common_parser_fn=add_args, run_parser_fn=add_run_args)

    # Dummies: the compiler needs the names, shapes and dtypes of the inputs, not their values.
    inputs = FFNLogReg.get_fake_inputs(args)
    model = FFNLogReg(args.num_features, args.ffn_dim_1, args.ffn_dim_2, args.num_classes)
    samba.from_torch_(model)

    optimizer = None
    if not args.inference:
        optimizer = samba.optim.SGD(
            model.parameters(),
            lr=args.lr,
            momentum=args.momentum,
            weight_decay=args.weight_decay,
        )

    if args.command == "compile":
        samba.session.compile(
            model,
            inputs,
            optimizer,
            name=NAME,
            app_dir=utils.get_file_dir(__file__),
            config_dict=vars(args),
            pef_metadata=get_pefmeta(args, model),
        )
    elif args.command == "test":
        samba.utils.trace_graph(model, inputs, optimizer, pef=args.pef, mapping=args.mapping)
        test(args, model, inputs, model.output_tensors)
    elif args.command == "run":
        samba.utils.trace_graph(model, inputs, optimizer, pef=args.pef, mapping=args.mapping)
        if args.inference:
            evaluate(args, model)
        else:
            train(args, model)
    else:
        common_app_driver(
            args=args,
            model=model,
            inputs=inputs,
            name=NAME,
            optim=optimizer,
            squeeze_bs_dim=False,
            init_output_grads=False,
            app_dir=utils.get_file_dir(__file__),
        )


if __name__ == "__main__":
    main(sys.argv[1:])
