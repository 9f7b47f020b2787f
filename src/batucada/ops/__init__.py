"""The operations: one place for each.  `OPS` and `ATEN` import what is looked up."""

from batucada.ops.base import ATEN as ATEN
from batucada.ops.base import CLOSED as CLOSED
from batucada.ops.base import OPS as OPS
from batucada.ops.base import STANDALONE as STANDALONE
from batucada.ops.base import Op as Op
from batucada.ops.base import TypeRuleError as TypeRuleError
from batucada.ops.base import call_key as call_key
from batucada.ops.base import like as like
from batucada.ops.base import make as make
from batucada.ops.base import origin as origin
from batucada.ops.base import with_args as with_args
