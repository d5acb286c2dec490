"""Command lines: flags, errors, exit statuses."""
