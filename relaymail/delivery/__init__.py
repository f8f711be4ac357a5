"""What is accepted for elsewhere, on its way to the next host, or back to its sender as a report."""
