"""The network, its products in 8-bit integers, and how it answers once it is taught."""
