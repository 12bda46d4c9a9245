"""Answers token by token: the greedy loop of our own, and which tokens may come next."""
