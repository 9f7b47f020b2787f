"""Records of a program's settings."""
