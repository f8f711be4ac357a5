"""Outbound mail: the parts that bring what is queued to the next hosts, joined."""
