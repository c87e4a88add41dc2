"""Parts that both stand-ins share: requests and responses, faults, the journal of requests."""
