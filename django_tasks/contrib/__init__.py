"""What makes this package fit into others: each is an app of its own."""
