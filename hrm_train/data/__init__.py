"""Bars to one file of tensors: names, labels, accounts, and what is kept aside."""
