"""What replicas of a program do together."""

from __future__ import annotations

from batucada.ops.base import Op, define

define(Op("all_reduce", "view", lambda x, of: x, lambda x, of: x))
"""The mean over all replicas of the gradient `of` a parameter, where it lies: a view of it to the
compiler, since the runtime replaces the values in memory before anything reads them through this.
"""
