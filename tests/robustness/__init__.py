"""Bad input, bad luck and the promises of the interface, through what a user types."""
