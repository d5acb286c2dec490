"""The network: one module per block of the papers."""
