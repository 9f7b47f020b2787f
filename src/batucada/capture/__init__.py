"""nn.Module + inputs + optimizers -> one graph of forward, backward and update.  PyTorch does
the tracing.
"""

from batucada.capture.inputs import NamedTensor as NamedTensor
from batucada.capture.inputs import name_inputs as name_inputs
from batucada.capture.inputs import named_leaves as named_leaves
from batucada.capture.model import Captured as Captured
from batucada.capture.model import Examined as Examined
from batucada.capture.model import OutputSpec as OutputSpec
from batucada.capture.model import capture as capture
from batucada.capture.model import examine as examine
from batucada.capture.naming import symbol_name as symbol_name
from batucada.capture.optimizers import OptimizerSpec as OptimizerSpec
from batucada.capture.optimizers import append_optimizers as append_optimizers
from batucada.capture.optimizers import describe_optimizers as describe_optimizers
