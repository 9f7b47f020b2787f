"""The operations: one place for each.  Importing this package fills `OPS` and `ATEN`."""

from batucada.ops import activation as activation
from batucada.ops import arithmetic as arithmetic
from batucada.ops import contract as contract
from batucada.ops import create as create
from batucada.ops import elementwise as elementwise
from batucada.ops import embedding as embedding
from batucada.ops import host as host
from batucada.ops import index as index
from batucada.ops import loss as loss
from batucada.ops import margin as margin
from batucada.ops import primitives as primitives
from batucada.ops import random as random
from batucada.ops import reduce as reduce
from batucada.ops import scatter_views as scatter_views
from batucada.ops import view as view
from batucada.ops.base import ATEN as ATEN
from batucada.ops.base import OPS as OPS
from batucada.ops.base import STANDALONE as STANDALONE
from batucada.ops.base import Op as Op
from batucada.ops.base import TypeRuleError as TypeRuleError
from batucada.ops.base import like as like
from batucada.ops.base import make as make
from batucada.ops.base import origin as origin
from batucada.ops.base import with_args as with_args
