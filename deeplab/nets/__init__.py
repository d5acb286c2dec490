"""The network: one module for each block of the papers."""
