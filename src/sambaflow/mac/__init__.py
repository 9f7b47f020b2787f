"""Names of the RDU's graph compiler that programs import."""
