"""The package, its files for systemd and containers, and what the documentation promises."""
