"""Numbers that programs import."""

MAX_BF16_TRUNCATE_NORMAL_REL = 2.0**-7
"""Largest relative error of truncating a normal fp32 number to bf16 (7 bits of fraction)."""
