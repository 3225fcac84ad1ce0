"""What every request meets: errors, headers and tokens, operators, rate limits, static files."""
