"""Tools about models and machines."""
