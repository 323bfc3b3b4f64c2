"""Engines: how a model is run. One protocol, same verbs."""
