"""Speed of a served model at its card's load: rounds, baselines, roofline, what changes while load goes on."""
