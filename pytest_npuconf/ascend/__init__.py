"""Facts about the Ascend stack, each proven from its wheels where they show it."""
