"""Graph -> sections and stages: what is started as one unit, and what becomes one loop nest."""

from batucada.mapping.program import Bucket as Bucket
from batucada.mapping.program import Buffer as Buffer
from batucada.mapping.program import Program as Program
from batucada.mapping.program import Root as Root
from batucada.mapping.program import Stage as Stage
from batucada.mapping.program import Sweep as Sweep
from batucada.mapping.sections import map_graph as map_graph
