"""Trained models on disk: a cell's own, and those of AIM's released code."""
