"""The admin's pages of what single tasks do: the to-do list, the ledger, and what people do to them."""
