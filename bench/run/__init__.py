"""Executes cells: in worker processes of this machine, resumed, isolated from one another."""
